//! The fargate-scheduler: for each pod of a Fargate profile a node of its own, made to measure.
//!
//! A decision fixes everything: size, subnet, address, host. What cannot be placed says why, as an event and as the
//! pod's `PodScheduled` condition.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use isopod_types::names::{
    CAPACITY_PROVISIONED, CAPACITY_TYPE_ANNOTATION, COMPUTE_TYPE, COMPUTE_TYPE_FARGATE, FARGATE_PROFILE_LABEL,
    FARGATE_SCHEDULER, HOST_LABEL, NODE_POD_ANNOTATION, NODE_POD_UID_ANNOTATION,
};
use isopod_types::node::Node;
use isopod_types::own::{ClusterSpec, FargateProfile, Host, Subnet};
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::addresses::{self, Assigned};
use crate::hosts::{self, Size};
use crate::plan::{Plan, Reason, Target, Write};
use crate::refusals::refusals;
use crate::sizing::{MAX_STORAGE_GIB, Tier, need, tier};

/// Reason of the `PodScheduled` condition of a pod that is larger than every tier.
pub const EXCEEDS_MAX_SIZE: &str = "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE";
/// Reason of the `PodScheduled` condition of a pod that asks for what Fargate refuses.
pub const UNSUPPORTED: &str = "POD_UNSUPPORTED_ON_FARGATE";

/// What the scheduler sees of the cluster.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The cluster's settings.
    pub cluster: &'a ClusterSpec,
    /// Its Fargate profiles.
    pub profiles: Vec<&'a FargateProfile>,
    /// Its hosts.
    pub hosts: Vec<&'a Host>,
    /// All its nodes.
    pub nodes: Vec<&'a Node>,
    /// The address given last, per subnet.
    pub cursors: &'a BTreeMap<String, Ipv4Addr>,
}

/// Why a pod is not placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Reason of the `PodScheduled` condition.
    pub reason: &'static str,
    /// A sentence for the user.
    pub message: String,
}

fn unplaced(reason: &'static str, message: impl Into<String>) -> Unplaced {
    Unplaced { reason, message: message.into() }
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Size of the VM.
    pub tier: Tier,
    /// Name of the host.
    pub host: String,
    /// Address of pod and node.
    pub address: Ipv4Addr,
    /// Subnet the address is from.
    pub subnet: String,
    /// Availability zone.
    pub zone: String,
}

/// Name of the node for an address, as EKS forms it.
pub fn node_name(address: Ipv4Addr, region: &str) -> String {
    format!("fargate-{}", host_name(address, region))
}

/// Name of a machine for its address, as EC2 forms it.
pub fn host_name(address: Ipv4Addr, region: &str) -> String {
    let dashed = address.to_string().replace('.', "-");
    let domain = if region == "us-east-1" { "ec2.internal".into() } else { format!("{region}.compute.internal") };
    format!("ip-{dashed}.{domain}")
}

/// The address in a Fargate node's name.
pub fn node_address(name: &str) -> Option<Ipv4Addr> {
    host_address(name.strip_prefix("fargate-")?)
}

/// The address in a machine's name.
pub fn host_address(name: &str) -> Option<Ipv4Addr> {
    let dashed = name.strip_prefix("ip-")?.split('.').next()?;
    dashed.replace('-', ".").parse().ok()
}

/// The size written on a Fargate node.
pub fn node_tier(node: &Node) -> Option<Tier> {
    Tier::parse(node.metadata.annotations.get(CAPACITY_PROVISIONED)?)
}

fn choose_host(tier: Tier, world: &World<'_>) -> Result<String, Unplaced> {
    let wanted = Size { cpu_millis: tier.vcpu_millis.into(), memory_bytes: tier.memory_bytes().into() };
    hosts::choose(&world.hosts, &world.nodes, wanted).map_err(|rooms| {
        let hint = "hint: delete pods, add a host, or raise fargate.cpuOvercommit and fargate.memoryOvercommit";
        unplaced(
            "Unschedulable",
            format!("Fargate capacity is unavailable at this time: no host has room for {tier} ({rooms}; {hint})"),
        )
    })
}

fn profile_subnets<'a>(pod: &Pod, world: &'a World<'_>) -> Result<Vec<&'a Subnet>, Unplaced> {
    let name = pod.metadata.labels.get(FARGATE_PROFILE_LABEL).map_or("", String::as_str);
    let profile = world.profiles.iter().find(|profile| profile.metadata.name == name).ok_or_else(|| {
        unplaced(
            "Unschedulable",
            format!("Misconfigured Fargate Profile: fargate profile {name} does not exist any more; delete the pod"),
        )
    })?;
    let wanted = &profile.spec.subnets;
    let subnets = world.cluster.vpc.subnets.iter().filter(|subnet| wanted.is_empty() || wanted.contains(&subnet.id));
    Ok(subnets.collect())
}

/// Labels of the node that would be made; the pod's selector is held against them.
fn node_labels(placement: &Placement, region: &str) -> BTreeMap<String, String> {
    let labels = [
        (COMPUTE_TYPE, COMPUTE_TYPE_FARGATE.to_owned()),
        (HOST_LABEL, placement.host.clone()),
        ("kubernetes.io/arch", "amd64".to_owned()),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/hostname", host_name(placement.address, region)),
        ("topology.kubernetes.io/region", region.to_owned()),
        ("topology.kubernetes.io/zone", placement.zone.clone()),
    ];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn check_selector(pod: &Pod, labels: &BTreeMap<String, String>) -> Result<(), Unplaced> {
    match pod.spec.node_selector.iter().find(|(key, value)| labels.get(*key) != Some(value)) {
        None => Ok(()),
        Some((key, value)) => Err(unplaced(
            "Unschedulable",
            format!(
                "the pod's node selector wants {key}={value}, which no Fargate node has; remove it or use a node group"
            ),
        )),
    }
}

fn size(pod: &Pod, world: &World<'_>) -> Result<Tier, Unplaced> {
    let need = need(&pod.spec, world.cluster.fargate.memory_overhead);
    if need.storage_bytes > i128::from(MAX_STORAGE_GIB) << 30 {
        return Err(unplaced(
            EXCEEDS_MAX_SIZE,
            format!("the pod asks for more than {MAX_STORAGE_GIB} GiB of ephemeral storage"),
        ));
    }
    tier(need).ok_or_else(|| {
        unplaced(
            EXCEEDS_MAX_SIZE,
            "Your pod's cpu/memory requirements exceed the max Fargate configuration (16 vCPU, 120 GB)",
        )
    })
}

/// Where the pod goes, or why nowhere.
pub fn place(pod: &Pod, world: &World<'_>) -> Result<Placement, Unplaced> {
    let reasons = refusals(pod);
    if !reasons.is_empty() {
        return Err(unplaced(UNSUPPORTED, format!("Pod not supported on Fargate: {}", reasons.join(", "))));
    }
    let tier = size(pod, world)?;
    let host = choose_host(tier, world)?;
    let subnets = profile_subnets(pod, world)?;
    let used: BTreeSet<Ipv4Addr> = world.nodes.iter().filter_map(|node| node_address(&node.metadata.name)).collect();
    let assigned = addresses::assign(&subnets, &used, world.cursors).ok_or_else(|| {
        let names: Vec<&str> = subnets.iter().map(|subnet| subnet.id.as_str()).collect();
        unplaced(
            "Unschedulable",
            format!(
                "no free address in subnets {} of the pod's profile; delete pods or add a subnet",
                names.join(", ")
            ),
        )
    })?;
    let Assigned { subnet, address } = assigned;
    let placement = Placement { tier, host, address, subnet: subnet.id.clone(), zone: subnet.zone.clone() };
    check_selector(pod, &node_labels(&placement, &world.cluster.region))?;
    Ok(placement)
}

/// The node object for a placed pod.
fn node_object(pod: &Pod, placement: &Placement, region: &str) -> Value {
    let name = node_name(placement.address, region);
    let tier = placement.tier;
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": node_labels(placement, region),
            "annotations": {
                CAPACITY_PROVISIONED: tier.to_string(),
                NODE_POD_ANNOTATION: pod.key().to_string(),
                NODE_POD_UID_ANNOTATION: pod.metadata.uid,
            },
        },
        "spec": {
            "providerID": format!("isopod:///{}/{name}", placement.zone),
            "taints": [{"key": COMPUTE_TYPE, "value": COMPUTE_TYPE_FARGATE, "effect": "NoSchedule"}],
        },
    })
}

/// Writes that place a pod: its node, then the binding.
fn placing(pod: &Pod, placement: &Placement, region: &str) -> Plan {
    let name = node_name(placement.address, region);
    let target = Target::of::<Pod>(&pod.metadata);
    let mut plan = Plan::nothing();
    plan.push(Write::Create {
        target: Target::named::<Node>(Key::cluster(&*name)),
        object: node_object(pod, placement, region),
        tolerate_existing: false,
    });
    plan.writes.extend(binding(pod, &name, placement.tier).writes);
    plan.event(
        &target,
        FARGATE_SCHEDULER,
        Reason::normal("Scheduled", format!("Successfully assigned {} to {name}", pod.key())),
    );
    plan
}

fn binding(pod: &Pod, node: &str, tier: Tier) -> Plan {
    let annotations = vec![(CAPACITY_PROVISIONED.to_owned(), tier.to_string())];
    let bind = Write::Bind { target: Target::of::<Pod>(&pod.metadata), node: node.into(), annotations };
    Plan { writes: vec![bind], again_at: None }
}

/// The `PodScheduled=False` condition as a status patch.
pub(crate) fn unscheduled_status(pod: &Pod, why: &Unplaced, now: Timestamp) -> Option<Value> {
    let mut conditions = pod.status.conditions.clone();
    let found = conditions.iter().position(|condition| condition.type_ == "PodScheduled");
    if found.is_some_and(|i| conditions[i].reason == why.reason && conditions[i].message == why.message) {
        return None;
    }
    let since = found.filter(|i| conditions[*i].status == "False").and_then(|i| conditions[i].last_transition_time);
    let condition = isopod_types::pod::PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        last_transition_time: Some(since.unwrap_or(now)),
        reason: why.reason.into(),
        message: why.message.clone(),
        observed_generation: Some(pod.metadata.generation),
    };
    match found {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
    Some(json!({"status": {"conditions": conditions}}))
}

/// Tells the user why a pod is not placed; says nothing when it has been said.
pub fn unplaced_plan(pod: &Pod, why: &Unplaced, component: &'static str, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let target = Target::of::<Pod>(&pod.metadata);
    if let Some(patch) = unscheduled_status(pod, why, now) {
        plan.event(&target, component, Reason::warning("FailedScheduling", why.message.clone()));
        plan.push(Write::Patch { target, subresource: "status", patch });
    }
    plan
}

/// Whether this scheduler has to do with the pod now.
pub fn is_waiting(pod: &Pod) -> bool {
    pod.spec.scheduler_name == FARGATE_SCHEDULER
        && pod.spec.node_name.is_empty()
        && pod.spec.scheduling_gates.is_empty()
        && pod.is_active()
}

/// Decides about one waiting pod.
pub fn schedule(pod: &Pod, world: &World<'_>, now: Timestamp) -> (Plan, Option<Placement>) {
    let made = world
        .nodes
        .iter()
        .find(|node| node.metadata.annotations.get(NODE_POD_UID_ANNOTATION) == Some(&pod.metadata.uid));
    if let Some((node, tier)) = made.and_then(|node| Some((node, node_tier(node)?))) {
        return (binding(pod, &node.metadata.name, tier), None);
    }
    match place(pod, world) {
        Ok(placement) => (placing(pod, &placement, &world.cluster.region), Some(placement)),
        Err(why) => (unplaced_plan(pod, &why, FARGATE_SCHEDULER, now), None),
    }
}

/// What kind of capacity a pod is billed as.
pub fn capacity_type(pod: &Pod) -> &str {
    match pod.metadata.annotations.get(CAPACITY_TYPE_ANNOTATION).map(String::as_str) {
        Some("FARGATE_SPOT") => "FARGATE_SPOT",
        _ => "ON_DEMAND",
    }
}

/// What becomes of a Fargate node: it goes when its pod object is gone and its microVM too.
///
/// `pod` is the pod the node was made for, if that incarnation still exists; `host_exists` is whether its host does.
pub fn node_fate(node: &Node, pod: Option<&Pod>, host_exists: bool) -> Plan {
    let Some(uid) = node.metadata.annotations.get(NODE_POD_UID_ANNOTATION) else { return Plan::nothing() };
    let wanted = pod.is_some_and(|pod| pod.metadata.uid == *uid);
    let released = !hosts::holds_room(node) || !host_exists;
    if wanted || !released || node.metadata.is_deleting() {
        return Plan::nothing();
    }
    let target = Target::of::<Node>(&node.metadata);
    Plan {
        writes: vec![Write::Delete { target, propagation: Some("Background"), grace_period_seconds: None }],
        again_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::names::NODE_RELEASED_ANNOTATION;

    fn cluster() -> ClusterSpec {
        serde_json::from_value(json!({
            "region": "eu-west-1",
            "vpc": {"cidr": "192.168.0.0/16", "subnets": [{"id": "subnet-a", "cidr": "192.168.96.0/29", "zone": "eu-west-1a"}]},
        }))
        .unwrap()
    }

    fn host(cpu: &str, memory: &str) -> Host {
        serde_json::from_value(
            json!({"metadata": {"name": "h1"}, "status": {"allocatable": {"cpu": cpu, "memory": memory}}}),
        )
        .unwrap()
    }

    fn profile() -> FargateProfile {
        serde_json::from_value(json!({"metadata": {"name": "fp"}, "spec": {"selectors": [{"namespace": "default"}]}}))
            .unwrap()
    }

    fn pod(uid: &str, spec: Value) -> Pod {
        let mut spec = spec;
        spec["schedulerName"] = json!(FARGATE_SCHEDULER);
        let labels = json!({FARGATE_PROFILE_LABEL: "fp"});
        let metadata = json!({"name": uid, "namespace": "default", "uid": uid, "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn node(name: &str, uid: &str, tier: &str) -> Node {
        let annotations = json!({CAPACITY_PROVISIONED: tier, NODE_POD_UID_ANNOTATION: uid});
        serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {HOST_LABEL: "h1"}, "annotations": annotations}}),
        )
        .unwrap()
    }

    fn run(pod: &Pod, nodes: &[Node], host: &Host) -> (Plan, Option<Placement>) {
        let (cluster, profile) = (cluster(), profile());
        let world = World {
            cluster: &cluster,
            profiles: vec![&profile],
            hosts: vec![host],
            nodes: nodes.iter().collect(),
            cursors: &BTreeMap::new(),
        };
        schedule(pod, &world, Timestamp::UNIX_EPOCH)
    }

    fn check_refused(spec: Value, host: &Host, nodes: &[Node], reason: &str, text: &str) {
        let (plan, placement) = run(&pod("u", spec), nodes, host);
        assert!(placement.is_none());
        let Some(Write::Patch { patch, .. }) = plan.writes.get(1) else { panic!("{plan:?}") };
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(condition["reason"], reason);
        assert!(condition["message"].as_str().unwrap().contains(text), "{condition}");
    }

    #[test]
    fn a_pod_gets_a_node_and_a_binding() {
        let (plan, placement) = run(&pod("u", json!({"containers": [{"name": "c"}]})), &[], &host("32", "64Gi"));
        assert_eq!(placement.unwrap().address.to_string(), "192.168.96.4");
        let Write::Create { object, .. } = &plan.writes[0] else { panic!() };
        assert_eq!(object["metadata"]["name"], "fargate-ip-192-168-96-4.eu-west-1.compute.internal");
        assert_eq!(object["spec"]["taints"][0]["key"], COMPUTE_TYPE);
        let Write::Bind { annotations, .. } = &plan.writes[1] else { panic!() };
        assert_eq!(annotations[0].1, "0.25vCPU 0.5GB");
    }

    #[test]
    fn after_a_crash_between_the_two_writes_only_the_binding_is_made() {
        let made = node("fargate-ip-192-168-96-5.eu-west-1.compute.internal", "u", "0.25vCPU 0.5GB");
        let (plan, placement) = run(&pod("u", json!({})), &[made], &host("32", "64Gi"));
        assert!(placement.is_none());
        assert!(matches!(&plan.writes[..], [Write::Bind { .. }]));
    }

    #[test]
    fn what_cannot_be_placed_says_why() {
        let big = host("64", "256Gi");
        check_refused(json!({"hostNetwork": true}), &big, &[], UNSUPPORTED, "fields not supported: HostNetwork");
        let large = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "17"}}}]});
        check_refused(large, &big, &[], EXCEEDS_MAX_SIZE, "exceed the max Fargate configuration");
        check_refused(json!({"nodeSelector": {"disk": "ssd"}}), &big, &[], "Unschedulable", "disk=ssd");
        check_refused(json!({}), &host("100m", "64Gi"), &[], "Unschedulable", "no host has room for 0.25vCPU 0.5GB");
        let full = [node("fargate-ip-10-0-0-1.x", "v", "0.25vCPU 0.5GB")];
        check_refused(json!({}), &host("1", "1000Mi"), &full, "Unschedulable", "488 MiB left");
        let nodes: Vec<Node> =
            (4..7).map(|i| node(&format!("fargate-ip-192-168-96-{i}.x"), "v", "0.25vCPU 0.5GB")).collect();
        check_refused(json!({}), &big, &nodes, "Unschedulable", "no free address in subnets subnet-a");
    }

    #[test]
    fn the_same_reason_is_said_once() {
        let mut pod = pod("u", json!({"hostNetwork": true}));
        let (plan, _) = run(&pod, &[], &host("1", "1Gi"));
        let Some(Write::Patch { patch, .. }) = plan.writes.get(1) else { panic!() };
        pod.status = serde_json::from_value(patch["status"].clone()).unwrap();
        assert_eq!(run(&pod, &[], &host("1", "1Gi")).0, Plan::nothing());
    }

    #[test]
    fn nodes_go_with_their_pods_and_microvms() {
        let mut node = node("fargate-ip-1-2-3-4.x", "u", "0.25vCPU 0.5GB");
        let pod = pod("u", json!({}));
        for (released, pod, host_exists, goes) in [
            (false, Some(&pod), true, false),
            (false, None, true, false),
            (false, None, false, true),
            (true, Some(&pod), true, false),
            (true, None, true, true),
        ] {
            node.metadata.annotations.remove(NODE_RELEASED_ANNOTATION);
            if released {
                node.metadata.annotations.insert(NODE_RELEASED_ANNOTATION.into(), "true".into());
            }
            assert_eq!(!node_fate(&node, pod, host_exists).writes.is_empty(), goes, "{released} {host_exists}");
        }
    }

    #[test]
    fn node_names_carry_the_address() {
        let address: Ipv4Addr = "192.168.7.9".parse().unwrap();
        assert_eq!(node_name(address, "us-east-1"), "fargate-ip-192-168-7-9.ec2.internal");
        assert_eq!(node_address(&node_name(address, "eu-west-1")), Some(address));
        assert_eq!(node_address("ip-192-168-7-9.x"), None);
    }
}
