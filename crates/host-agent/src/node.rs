//! What the agent writes about nodes, hosts and usage, as documents. Pure.

use isopod_planner::fargate::capacity_type;
use isopod_planner::sizing::{FREE_STORAGE_GIB, Need, Tier};
use isopod_types::Quantity;
use isopod_types::names::{FARGATE_PROFILE_LABEL, NODE_RELEASED_ANNOTATION, OWN_API_VERSION};
use isopod_types::own::FargateSettings;
use isopod_types::pod::Pod;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::drivers::HostFacts;
use crate::worker::Worker;

/// The kubelet version that nodes report: the API's.
pub(crate) const KUBELET_VERSION: &str = "v1.36.2-isopod";

/// A node's state as its conditions say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// Its microVM runs.
    Ready,
    /// Its microVM is being made.
    Starting,
    /// Its microVM is gone; only the object is left.
    Released,
}

/// How a worker node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// Its machine answers.
    Ready,
    /// Its machine is being made.
    Starting,
    /// Its machine has ended, or could not be made.
    NotReady,
}

/// The status of a worker node, as a merge patch.
pub(crate) fn worker_status(
    worker: &Worker,
    facts: &HostFacts,
    state: WorkerState,
    message: &str,
    now: Timestamp,
) -> Value {
    let (status, reason) = match state {
        WorkerState::Ready => ("True", "KubeletReady"),
        WorkerState::Starting => ("False", "MachineStarting"),
        WorkerState::NotReady => ("False", "MachineEnded"),
    };
    let allocatable = worker.allocatable();
    let mut capacity = allocatable.clone();
    capacity.insert("cpu".into(), Quantity::from_units(i128::from(worker.instance.vcpu_count)));
    capacity.insert("memory".into(), Quantity::from_units(i128::from(worker.instance.memory_bytes())));
    json!({"status": {
        "capacity": capacity,
        "allocatable": allocatable,
        "addresses": addresses(&worker.address.to_string(), &worker.name),
        "conditions": conditions(status, reason, message, now),
        "nodeInfo": node_info(facts, &worker.identity()),
    }})
}

fn addresses(address: &str, hostname: &str) -> Value {
    json!([
        {"type": "InternalIP", "address": address},
        {"type": "InternalDNS", "address": hostname},
        {"type": "Hostname", "address": hostname},
    ])
}

fn conditions(ready: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": seconds(now), "lastHeartbeatTime": seconds(now),
        })
    };
    json!([
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", ""),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", ""),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", ""),
        condition("Ready", ready, reason, message),
    ])
}

/// By what a machine is known, and this start of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The same as long as the node is.
    pub(crate) system: Uuid,
    /// Another with every start of its machine.
    pub(crate) boot: Uuid,
}

impl Identity {
    /// Of the nth machine of a node that is there for the pod of this UID only.
    pub(crate) fn of_pod(uid: &str, machine: u32) -> Self {
        let system = Uuid::try_parse(uid).unwrap_or_default();
        Self { system, boot: Uuid::from_u128(system.as_u128() ^ u128::from(machine.max(1))) }
    }
}

fn node_info(facts: &HostFacts, identity: &Identity) -> Value {
    json!({
        "architecture": "amd64", "operatingSystem": "linux", "bootID": identity.boot.to_string(),
        "machineID": identity.system.simple().to_string(), "systemUUID": identity.system.to_string(),
        "containerRuntimeVersion": runtime(facts), "kernelVersion": facts.kernel, "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "", "osImage": "Isopod microVM",
    })
}

/// The status of a Fargate node, as a merge patch.
pub(crate) fn node_status(
    tier: Tier,
    address: &str,
    hostname: &str,
    (facts, identity): (&HostFacts, &Identity),
    state: NodeState,
    now: Timestamp,
) -> Value {
    let (status, reason, message) = match state {
        NodeState::Ready => ("True", "KubeletReady", "the microVM answers"),
        NodeState::Starting => ("False", "MicroVMStarting", "the microVM is being made"),
        NodeState::Released => ("False", "MicroVMReleased", "the pod has ended and its microVM is gone"),
    };
    let capacity = json!({
        "cpu": Quantity::from_milli(i128::from(tier.vcpu_millis)),
        "memory": Quantity::from_units(i128::from(tier.memory_bytes())),
        "ephemeral-storage": Quantity::from_units(i128::from(FREE_STORAGE_GIB) << 30),
        "pods": "1",
    });
    json!({"status": {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": addresses(address, hostname),
        "conditions": conditions(status, reason, message, now),
        "nodeInfo": node_info(facts, identity),
    }})
}

/// How containers are run, said openly: a simulation says so.
fn runtime(facts: &HostFacts) -> String {
    let kind = if facts.simulated { "simulated" } else { facts.accelerator.as_str() };
    format!("isopod-{}-{kind}://{}", facts.backend, facts.version)
}

fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Says on a node that its microVM is gone and its room is free.
pub(crate) fn released() -> Value {
    json!({"metadata": {"annotations": {NODE_RELEASED_ANNOTATION: "true"}}})
}

/// The host object.
pub(crate) fn host(name: &str, address: &str) -> Value {
    let spec = json!({"address": address, "unschedulable": false});
    json!({"apiVersion": OWN_API_VERSION, "kind": "Host", "metadata": {"name": name}, "spec": spec})
}

/// The host's status, as a merge patch; `settings` say how much more than it has may be promised.
pub(crate) fn host_status(facts: &HostFacts, settings: &FargateSettings) -> Value {
    let (cpu, memory) = (i128::from(facts.cpu_count), i128::from(facts.memory_bytes));
    let resources =
        |cpu: i128, memory: i128| json!({"cpu": Quantity::from_units(cpu), "memory": Quantity::from_units(memory)});
    let overcommitted =
        resources(cpu * i128::from(settings.cpu_overcommit), memory * i128::from(settings.memory_overcommit));
    let HostFacts { backend, accelerator, version, simulated, .. } = facts;
    json!({"status": {
        "capacity": resources(cpu, memory),
        "allocatable": overcommitted,
        "vmm": {"backend": backend, "accelerator": accelerator, "version": version, "simulated": simulated},
        "kernelVersion": facts.kernel,
    }})
}

/// Name of the usage record of a pod's nth microVM, the first being 1.
pub(crate) fn usage_name(uid: &str, machine: u32) -> String {
    if machine <= 1 { uid.to_owned() } else { format!("{uid}-{machine}") }
}

/// An open usage record.
pub(crate) fn usage_record(pod: &Pod, tier: Tier, need: Need, host: &str, machine: u32, now: Timestamp) -> Value {
    let meta = &pod.metadata;
    json!({
        "apiVersion": OWN_API_VERSION, "kind": "UsageRecord",
        "metadata": {"name": usage_name(&meta.uid, machine)},
        "spec": {
            "podUid": meta.uid, "podNamespace": meta.namespace, "podName": meta.name, "podLabels": meta.labels,
            "profile": meta.labels.get(FARGATE_PROFILE_LABEL), "node": pod.spec.node_name, "host": host,
            "vcpuMillis": tier.vcpu_millis, "memoryMib": tier.memory_mib, "ephemeralStorageGib": need.extra_storage_gib(),
            "capacityType": capacity_type(pod), "startTime": now,
        },
    })
}

/// Closes a usage record, as a merge patch.
pub(crate) fn usage_end(now: Timestamp) -> Value {
    json!({"spec": {"endTime": now}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reports_what_the_pod_pays_for() {
        let tier = Tier { vcpu_millis: 250, memory_mib: 512 };
        let facts = HostFacts {
            backend: "qemu".into(),
            accelerator: "tcg".into(),
            version: "7.2".into(),
            ..Default::default()
        };
        let uid = "5f0c7f3e-3a2b-4a53-9d5b-0d1c3f1f9a10";
        let about = (&facts, &Identity::of_pod(uid, 2));
        let status = node_status(tier, "10.0.0.4", "ip-10-0-0-4", about, NodeState::Ready, Timestamp::UNIX_EPOCH);
        assert_eq!(status["status"]["capacity"]["cpu"], "250m");
        assert_eq!(status["status"]["capacity"]["memory"], "512Mi");
        assert_eq!(status["status"]["capacity"]["pods"], "1");
        assert_eq!(status["status"]["nodeInfo"]["containerRuntimeVersion"], "isopod-qemu-tcg://7.2");
        let info = &status["status"]["nodeInfo"];
        assert_eq!((&info["systemUUID"], &info["machineID"]), (&json!(uid), &json!(uid.replace('-', ""))));
        assert_eq!(info["bootID"], "5f0c7f3e-3a2b-4a53-9d5b-0d1c3f1f9a12");
    }

    #[test]
    fn a_simulated_host_says_so() {
        let facts = HostFacts { simulated: true, backend: "simulated".into(), ..Default::default() };
        assert_eq!(runtime(&facts), "isopod-simulated-simulated://");
    }

    #[test]
    fn records_have_a_name_per_machine() {
        assert_eq!((usage_name("u", 1).as_str(), usage_name("u", 2).as_str()), ("u", "u-2"));
    }
}
