//! Cells of Isopod's own kinds.

use serde_json::Value;

use super::age;
use super::cells::{Context, NONE};
use super::rbac::condition;
use crate::walk;

/// Kinds of `isopod.dev`.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    match context.kind.plural.as_str() {
        "clusters" => cluster(context, column),
        "fargateprofiles" => profile(context, column),
        "hosts" => host(context, column),
        "nodegroups" => node_group(context, column),
        _ => usage(context, column),
    }
}

fn cluster(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Region" => context.text_or("spec.region", NONE),
        "Version" => context.text_or("spec.version", NONE),
        "VPC" => context.text_or("spec.vpc.cidr", NONE),
        "Phase" => context.text_or("status.phase", age::UNKNOWN),
        _ => return None,
    })
}

fn profile(context: &Context<'_>, column: &str) -> Option<Value> {
    let joined = |texts: Vec<&str>| if texts.is_empty() { Value::from(NONE) } else { texts.join(",").into() };
    Some(match column {
        "Namespaces" => {
            let selectors = context.items("spec.selectors").iter();
            joined(selectors.map(|selector| walk::text(selector, &["namespace"])).collect())
        }
        "Status" => context.text_or("status.phase", age::UNKNOWN),
        "Capacity" => context.text_or("spec.capacityType", "ON_DEMAND"),
        "Subnets" => joined(context.items("spec.subnets").iter().filter_map(Value::as_str).collect()),
        _ => return None,
    })
}

fn host(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Status" => host_status(context).into(),
        "VMM" => host_vmm(context).into(),
        "CPU" => context.text_or("status.capacity.cpu", NONE),
        "Memory" => context.text_or("status.capacity.memory", NONE),
        "Address" => context.text_or("spec.address", NONE),
        "Kernel-Version" => context.text_or("status.kernelVersion", age::UNKNOWN),
        "VMM-Version" => context.text_or("status.vmm.version", age::UNKNOWN),
        _ => return None,
    })
}

fn node_group(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Instance-Type" => context.text_or("spec.instanceType", NONE),
        "Min" => context.number("spec.minSize").into(),
        "Max" => context.number("spec.maxSize").into(),
        "Desired" => context.number("spec.desiredSize").into(),
        "Nodes" => context.number("status.nodes").into(),
        "Ready" => context.number("status.readyNodes").into(),
        "Status" => context.text_or("status.phase", age::UNKNOWN),
        _ => return None,
    })
}

fn host_status(context: &Context<'_>) -> String {
    let ready = match condition(context, "Ready").map(|condition| walk::text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = context.value("spec.unschedulable") == Some(&Value::Bool(true));
    if cordoned { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

/// `qemu/kvm`; a simulation says that it is one.
fn host_vmm(context: &Context<'_>) -> String {
    let (backend, accelerator) = (context.text("status.vmm.backend"), context.text("status.vmm.accelerator"));
    let simulated = context.value("status.vmm.simulated") == Some(&Value::Bool(true));
    match (simulated, backend, accelerator) {
        (true, ..) => "simulated".into(),
        (false, "", _) => age::UNKNOWN.into(),
        (false, backend, "") => backend.into(),
        (false, backend, accelerator) => format!("{backend}/{accelerator}"),
    }
}

fn usage(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Namespace" => context.text("spec.podNamespace").into(),
        "Pod" => context.text("spec.podName").into(),
        "vCPU" => vcpu(context.number("spec.vcpuMillis")).into(),
        "Memory" => format!("{}Mi", context.number("spec.memoryMib")).into(),
        "Started" => context.since("spec.startTime"),
        "Ended" if context.text("spec.endTime").is_empty() => "running".into(),
        "Ended" => context.since("spec.endTime"),
        "Profile" => context.text_or("spec.profile", NONE),
        "Capacity" => context.text_or("spec.capacityType", "ON_DEMAND"),
        "Node" => context.text_or("spec.node", NONE),
        "Host" => context.text_or("spec.host", NONE),
        _ => return None,
    })
}

/// `0.25` from 250 thousandths.
fn vcpu(millis: i64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
