//! Whether a node takes a pod that was bound to it. The scheduler asks the same and more, but not everybody binds by it, and it may
//! have looked a moment ago.
//!
//! Source of order and words: the kubelet's admission by predicates.

use std::collections::BTreeMap;

use isopod_types::node::Node;
use isopod_types::pod::Pod;
use serde::{Deserialize, Serialize};

use crate::plan::Reason;
use crate::scheduler::affinity::node_allowed;
use crate::scheduler::ports::{self, HostPort, UsedPorts};
use crate::scheduler::resources::{Resources, counted, requested};
use crate::scheduler::taints::{NO_EXECUTE, untolerated};
use crate::sysctls;

/// Reasons that are told as they are; what else is lacking is told as one.
const REASONS: [&str; 8] = [
    "SysctlForbidden",
    "NodeAffinity",
    "NodePorts",
    "TaintToleration",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfephemeral-storage",
    "OutOfpods",
];

/// Why a node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// One word, such as `NodePorts` or `OutOfcpu`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Rejection {
    fn predicate(name: &str, text: &str) -> Self {
        Self { reason: name.into(), message: format!("Predicate {name} failed: {text}") }
    }

    fn lacks(resource: &str, requested: i64, used: i64, capacity: i64) -> Self {
        let amounts = format!("requested: {requested}, used: {used}, capacity: {capacity}");
        Self {
            reason: format!("OutOf{resource}"),
            message: format!("Node didn't have enough resource: {resource}, {amounts}"),
        }
    }

    /// What is told of it as an event.
    pub fn event(&self) -> Reason {
        let known = REASONS.into_iter().find(|reason| *reason == self.reason);
        Reason::warning(known.unwrap_or("OutOfExtendedResources"), self.message.clone())
    }

    /// For a pod on the node of another, that is there for that one only.
    pub fn of_single() -> Self {
        Self::lacks("pods", 1, 1, 1)
    }
}

/// What a pod has of its node while it is there.
#[derive(Clone, Debug, Default)]
pub struct Share {
    requested: Resources,
    ports: Vec<HostPort>,
}

impl Share {
    /// Of this pod.
    pub fn of(pod: &Pod) -> Self {
        Self { requested: requested(&counted(pod)), ports: ports::wanted(&pod.spec) }
    }
}

/// Whether a node takes a pod beside the others that have a share of it.
///
/// # Errors
/// The first reason against it.
pub fn admit<'a>(pod: &Pod, node: &Node, others: impl Iterator<Item = &'a Share>) -> Result<(), Rejection> {
    if let Some(message) = sysctls::refused_shared(pod) {
        return Err(Rejection { reason: "SysctlForbidden".into(), message });
    }
    let (own, mut used, mut taken, mut count) = (Share::of(pod), Resources::default(), UsedPorts::default(), 0);
    for other in others {
        used.add(&other.requested, 1);
        taken.add(&other.ports);
        count += 1;
    }
    room(node, count, &used, &own.requested)?;
    if !node_allowed(&pod.spec, &node.metadata) {
        return Err(Rejection::predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if !taken.are_free(&own.ports) {
        let text = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::predicate("NodePorts", text));
    }
    if untolerated(&node.spec.taints, &pod.spec.tolerations, &[NO_EXECUTE]).is_some() {
        return Err(Rejection::predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    Ok(())
}

/// Whether there is room; resources that the node does not have at all are somebody else's matter.
fn room(node: &Node, count: i64, used: &Resources, wanted: &Resources) -> Result<(), Rejection> {
    let list = &node.status.allocatable;
    let most = list.get("pods").map_or(i64::MAX, |most| i64::try_from(most.units_ceil()).unwrap_or(i64::MAX));
    if count >= most {
        return Err(Rejection::lacks("pods", 1, count, most));
    }
    let all = Resources::of(list);
    let known = wanted.other.iter().filter(|(name, _)| list.contains_key(*name));
    let wanted = Resources { other: known.map(|(name, amount)| (name.clone(), *amount)).collect(), ..wanted.clone() };
    match all.missing(used, &wanted).first() {
        None => Ok(()),
        Some(name) => {
            let of = |amounts: &Resources| amount(amounts, name);
            Err(Rejection::lacks(name, of(&wanted), of(used), of(&all)))
        }
    }
}

/// An amount by name: thousandths of a processor, bytes, or pieces.
fn amount(amounts: &Resources, name: &str) -> i64 {
    let other = |map: &BTreeMap<String, i64>| map.get(name).copied().unwrap_or(0);
    match name {
        "cpu" => amounts.cpu_milli,
        "memory" => amounts.memory_bytes,
        "ephemeral-storage" => amounts.storage_bytes,
        _ => other(&amounts.other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn a_node_takes_what_it_can_have() {
        let asks = |requests: Value| json!({"containers": [{"resources": {"requests": requests}}]});
        let port = |number: u16| json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": number}]}]});
        let with = |mut spec: Value, field: &str, value: Value| {
            spec[field] = value;
            spec
        };
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3", "example.com/gpu": "1"}},
        }))
        .unwrap();
        let others = [asks(json!({"cpu": "1500m", "memory": "1Mi"})), port(80)].map(|spec| Share::of(&pod(spec)));
        let tolerant = |spec: Value| with(spec, "tolerations", json!([{"key": "b", "operator": "Exists"}]));
        let field = |name: &str| {
            let matched = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": matched}}})
        };
        let affinity = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        for (spec, expected) in [
            (tolerant(asks(json!({"cpu": "500m"}))), None),
            (
                tolerant(asks(json!({"cpu": "501m", "memory": "2Gi"}))),
                Some(("OutOfcpu", "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000")),
            ),
            (
                tolerant(asks(json!({"memory": "1Gi"}))),
                Some((
                    "OutOfmemory",
                    "Node didn't have enough resource: memory, requested: 1073741824, used: 1048576, capacity: 1073741824",
                )),
            ),
            (
                tolerant(asks(json!({"example.com/gpu": "2", "example.com/other": "2"}))),
                Some((
                    "OutOfexample.com/gpu",
                    "Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1",
                )),
            ),
            (tolerant(asks(json!({"example.com/other": "2"}))), None),
            (
                json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                Some(("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")),
            ),
            (with(tolerant(port(81)), "nodeSelector", json!({"disk": "ssd"})), None),
            (with(port(80), "nodeSelector", json!({"disk": "hdd"})), Some(("NodeAffinity", affinity))),
            (with(port(81), "affinity", field("m")), Some(("NodeAffinity", affinity))),
            (with(tolerant(port(81)), "affinity", field("n")), None),
            (
                port(80),
                Some((
                    "NodePorts",
                    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
                )),
            ),
            (
                port(81),
                Some((
                    "TaintToleration",
                    "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
                )),
            ),
        ] {
            let found = admit(&pod(spec.clone()), &node, others.iter()).err();
            let found = found.as_ref().map(|why| (why.reason.as_str(), why.message.as_str()));
            assert_eq!(found, expected, "{spec}");
        }
        let full = [Share::default(), Share::default(), Share::default()];
        let found = admit(&pod(json!({})), &node, full.iter()).unwrap_err();
        assert_eq!(found, Rejection::lacks("pods", 1, 3, 3));
        assert_eq!((found.reason.as_str(), found.event().reason), ("OutOfpods", "OutOfpods"));
        assert_eq!(Rejection::lacks("example.com/gpu", 1, 0, 0).event().reason, "OutOfExtendedResources");
    }
}
