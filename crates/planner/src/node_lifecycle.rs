//! Nodes that have fallen silent, and the taints that conditions put on nodes.
//!
//! Source: the node lifecycle controller of kube-controller-manager. A node lives as long as a lease is renewed: its own,
//! or for a node made for one pod the lease of its host. Silence changes what is said of a node; it ends no pod by itself.

use isopod_types::names::{HOST_LABEL, NODE_POD_UID_ANNOTATION};
use isopod_types::node::{Node, NodeCondition, Taint};
use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::plan::{Plan, Reason, Target, Write};
use crate::scheduler::taints::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, UNSCHEDULABLE};

/// Silence after which a node counts as lost from view.
pub const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// How long a node may take until it says something for the first time.
pub const STARTUP_GRACE: SignedDuration = SignedDuration::from_secs(60);
const COMPONENT: &str = "node-controller";
/// Conditions that a silent node cannot be asked about any more.
const TOLD_BY_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that keep pods away while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// What is known of a node's life.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// When its lease, its host's, or the heartbeat of its `Ready` condition was last seen to change; none when it has neither.
    pub renewed: Option<Timestamp>,
    /// When the node was first seen.
    pub first_seen: Timestamp,
}

impl Signs {
    /// When who gives these signs counts as silent, unless there are new ones.
    pub fn silent_from(self) -> Timestamp {
        let at = self.renewed.map_or(self.first_seen.checked_add(STARTUP_GRACE), |renewed| renewed.checked_add(GRACE));
        at.unwrap_or(Timestamp::MAX)
    }
}

/// Names of the leases that speak for a node, the node's own first.
pub fn lease_names(node: &Node) -> impl Iterator<Item = &str> {
    let host = node.metadata.labels.get(HOST_LABEL).map(String::as_str);
    std::iter::once(node.metadata.name.as_str()).chain(host)
}

fn condition<'a>(node: &'a Node, name: &str) -> Option<&'a NodeCondition> {
    node.status.conditions.iter().find(|condition| condition.type_ == name)
}

fn status<'a>(node: &'a Node, name: &str) -> &'a str {
    condition(node, name).map_or("", |condition| condition.status.as_str())
}

/// Decides about one node.
pub fn plan(node: &Node, pods: &[&Pod], signs: Signs, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if node.metadata.is_deleting() {
        return plan;
    }
    match signs.silent_from() {
        at if at > now => plan.wake_at(at),
        _ if status(node, "Ready") != "Unknown" => return lost(node, now),
        _ => {}
    }
    plan.writes.extend(taint(node, now));
    if is_in_trouble(node) {
        pods.iter().filter_map(|pod| unready(pod, now)).for_each(|writes| plan.writes.extend(writes));
    }
    plan
}

/// Nothing is known of the node any more.
fn lost(node: &Node, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut conditions = node.status.conditions.clone();
    for name in TOLD_BY_NODE {
        let known = conditions.iter().position(|condition| condition.type_ == name);
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = known.and_then(|at| conditions[at].last_heartbeat_time);
        let unknown = NodeCondition {
            type_: name.into(),
            status: "Unknown".into(),
            last_heartbeat_time: heartbeat.or(node.metadata.creation_timestamp),
            last_transition_time: Some(now),
            reason: reason.into(),
            message: message.into(),
        };
        match known {
            Some(at) => conditions[at] = unknown,
            None => conditions.push(unknown),
        }
    }
    let target = Target::of::<Node>(&node.metadata);
    let patch = json!({"status": {"conditions": conditions}});
    plan.push(Write::Patch { target: target.clone(), subresource: "status", patch });
    let text = format!("Node {} status is now: NodeNotReady", node.metadata.name);
    plan.event(&target, COMPONENT, Reason::normal("NodeNotReady", text));
    plan
}

/// Whether a node was made for one pod. That its microVM is being made, or is over, is that pod's own affair.
fn is_made_for_one(node: &Node) -> bool {
    node.metadata.annotations.contains_key(NODE_POD_UID_ANNOTATION)
}

fn is_in_trouble(node: &Node) -> bool {
    match status(node, "Ready") {
        "Unknown" => true,
        "False" => !is_made_for_one(node),
        _ => false,
    }
}

/// The taints that a node's conditions call for; none while nothing is known that decides about a key.
fn wanted(node: &Node) -> Vec<(&'static str, &'static str, bool)> {
    let mut wanted = vec![(UNSCHEDULABLE, NO_SCHEDULE, node.spec.unschedulable)];
    let ready = status(node, "Ready");
    if !ready.is_empty() {
        let not_ready = ready == "False" && !is_made_for_one(node);
        for effect in [NO_SCHEDULE, NO_EXECUTE] {
            wanted.push((NOT_READY, effect, not_ready));
            wanted.push((UNREACHABLE, effect, ready == "Unknown"));
        }
    }
    for (name, key) in PRESSURES {
        if let Some(condition) = condition(node, name) {
            wanted.push((key, NO_SCHEDULE, condition.status == "True"));
        }
    }
    wanted
}

/// Puts on and takes off taints as conditions say.
fn taint(node: &Node, now: Timestamp) -> Option<Write> {
    let mut taints = node.spec.taints.clone();
    for (key, effect, is_wanted) in wanted(node) {
        let is = |taint: &Taint| taint.key == key && taint.effect == effect;
        if !is_wanted {
            taints.retain(|taint| !is(taint));
        } else if !taints.iter().any(is) {
            let time_added = (effect == NO_EXECUTE).then_some(now);
            taints.push(Taint { key: key.into(), effect: effect.into(), time_added, ..Taint::default() });
        }
    }
    if taints == node.spec.taints {
        return None;
    }
    let patch = json!({"spec": {"taints": taints}});
    Some(Write::Patch { target: Target::of::<Node>(&node.metadata), subresource: "", patch })
}

/// A pod of a node in trouble does not count as ready.
fn unready(pod: &Pod, now: Timestamp) -> Option<[Write; 2]> {
    let at = pod.status.conditions.iter().position(|one| one.type_ == "Ready" && one.status == "True")?;
    let mut conditions = pod.status.conditions.clone();
    (conditions[at].status, conditions[at].last_transition_time) = ("False".into(), Some(now));
    let target = Target::of::<Pod>(&pod.metadata);
    let event = Write::Event {
        target: target.clone(),
        component: COMPONENT,
        reason: Reason::warning("NodeNotReady", "Node is not ready"),
    };
    let patch = json!({"status": {"conditions": conditions}});
    Some([Write::Patch { target, subresource: "status", patch }, event])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(ready: &str, taints: Value, more: Value) -> Node {
        let conditions = if ready.is_empty() {
            json!([])
        } else {
            json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}])
        };
        let mut node =
            json!({"metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions": conditions}});
        for (key, value) in more.as_object().unwrap() {
            for (field, value) in value.as_object().unwrap() {
                node[key][field] = value.clone();
            }
        }
        serde_json::from_value(node).unwrap()
    }

    fn taints(plan: &Plan) -> Option<Vec<String>> {
        plan.writes.iter().find_map(|write| match write {
            Write::Patch { patch, .. } => patch["spec"]["taints"].as_array().map(|all| {
                let text =
                    |taint: &Value| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
                all.iter().map(text).map(|text| text.replace("node.kubernetes.io/", "")).collect()
            }),
            _ => None,
        })
    }

    #[test]
    fn silence_makes_a_node_unknown_and_nothing_else() {
        let seen = |renewed: Option<i64>| Signs { renewed: renewed.map(at), first_seen: at(0) };
        for (ready, renewed, now, is_lost, again_at) in [
            ("True", Some(100), 149, false, Some(150)),
            ("True", Some(100), 150, true, None),
            ("False", Some(100), 150, true, None),
            ("Unknown", Some(100), 150, false, None),
            ("True", None, 59, false, Some(60)),
            ("True", None, 60, true, None),
            ("", None, 59, false, Some(60)),
            ("", None, 60, true, None),
        ] {
            let found = plan(&node(ready, json!([]), json!({})), &[], seen(renewed), at(now));
            let unknown = found.writes.iter().any(|write| match write {
                Write::Patch { patch, .. } => patch["status"]["conditions"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["status"] == "Unknown")),
                _ => false,
            });
            assert_eq!((unknown, found.again_at), (is_lost, again_at.map(at)), "{ready} {renewed:?} {now}");
            assert!(!found.writes.iter().any(|write| matches!(write, Write::Delete { .. })));
        }
    }

    #[test]
    fn conditions_put_taints_on_and_take_them_off() {
        let signs = Signs { renewed: Some(at(0)), first_seen: at(0) };
        let own = json!({"key": "mine", "value": "v", "effect": "NoSchedule"});
        let not_ready = |effect: &str| json!({"key": NOT_READY, "effect": effect});
        let fargate = json!({"metadata": {"annotations": {NODE_POD_UID_ANNOTATION: "u"}}});
        for (node, expected) in [
            (node("True", json!([own]), json!({})), None),
            (
                node("False", json!([own]), json!({})),
                Some(vec!["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]),
            ),
            (
                node("Unknown", json!([not_ready("NoSchedule")]), json!({})),
                Some(vec!["unreachable:NoSchedule", "unreachable:NoExecute"]),
            ),
            (
                node("True", json!([own, not_ready("NoSchedule"), not_ready("NoExecute")]), json!({})),
                Some(vec!["mine:NoSchedule"]),
            ),
            (node("", json!([not_ready("NoSchedule")]), json!({})), None),
            (node("True", json!([]), json!({"spec": {"unschedulable": true}})), Some(vec!["unschedulable:NoSchedule"])),
            (
                node(
                    "True",
                    json!([]),
                    json!({"status": {"conditions": [{"type": "DiskPressure", "status": "True"}]}}),
                ),
                Some(vec!["disk-pressure:NoSchedule"]),
            ),
            (node("False", json!([]), fargate.clone()), None),
            (node("Unknown", json!([]), fargate), Some(vec!["unreachable:NoSchedule", "unreachable:NoExecute"])),
        ] {
            let found = taints(&plan(&node, &[], signs, at(10)));
            assert_eq!(found, expected.map(|all| all.into_iter().map(str::to_owned).collect()), "{node:?}");
        }
    }

    #[test]
    fn pods_of_a_node_in_trouble_are_not_ready() {
        let signs = Signs { renewed: Some(at(0)), first_seen: at(0) };
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        )
        .unwrap();
        for (ready, expected) in [("True", 0), ("False", 1), ("Unknown", 1)] {
            let found = plan(&node(ready, json!([]), json!({})), &[&pod], signs, at(10));
            let of_pod = found
                .writes
                .iter()
                .filter(|write| matches!(write, Write::Patch { target, .. } if target.kind == "Pod"));
            assert_eq!(of_pod.count(), expected, "{ready}");
        }
    }

    #[test]
    fn leases_that_speak_for_a_node() {
        let node = node("True", json!([]), json!({"metadata": {"labels": {HOST_LABEL: "h"}, "name": "n"}}));
        assert_eq!(lease_names(&node).collect::<Vec<_>>(), ["n", "h"]);
    }
}
