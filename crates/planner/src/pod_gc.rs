//! Pods that nobody will ever end: those of nodes that are gone, those that were deleted before they had a node, and the
//! oldest of far too many that have ended. Otherwise pods that have ended stay: their output may be wanted.
//!
//! Source: the pod garbage collector of kube-controller-manager.

use isopod_types::node::Node;
use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::plan::{Plan, Target, Write};
use crate::scheduler::disrupted_status;
use crate::scheduler::taints::OUT_OF_SERVICE;

/// A node has to be gone for this long before its pods go: it may be on its way into somebody's view.
pub const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Pods that may have ended and still be there; beyond it the oldest go.
pub const ENDED_MAX: usize = 12_500;

fn force(plan: &mut Plan, pod: &Pod) {
    let mut target = Target::of::<Pod>(&pod.metadata);
    target.resource_version.clear();
    plan.push(Write::Delete { target, propagation: None, grace_period_seconds: Some(0) });
}

/// Says of a pod that it failed, and why.
fn fail(plan: &mut Plan, pod: &Pod, message: &str, now: Timestamp) {
    let mut patch = disrupted_status(pod, "DeletionByPodGC", message, now);
    patch["status"]["phase"] = Value::from("Failed");
    plan.push(Write::Patch { target: Target::of::<Pod>(&pod.metadata), subresource: "status", patch });
}

/// Ends the pods of a node that has been missing since a time.
pub fn of_missing_node<'a>(pods: impl Iterator<Item = &'a Pod>, since: Timestamp, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let due = since.saturating_add(QUARANTINE).unwrap_or(now);
    for pod in pods.filter(|pod| !pod.is_terminal()) {
        if due > now {
            plan.wake_at(due);
            continue;
        }
        fail(&mut plan, pod, "PodGC: node no longer exists", now);
        force(&mut plan, pod);
    }
    plan
}

/// Ends the pods that are ending on a node that somebody declared out of service.
pub fn of_node_out_of_service<'a>(node: &Node, pods: impl Iterator<Item = &'a Pod>, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let is_ready = node.status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    if is_ready || !node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) {
        return plan;
    }
    for pod in pods.filter(|pod| pod.metadata.is_deleting() && !pod.is_terminal()) {
        fail(&mut plan, pod, "PodGC: node is out of service", now);
        force(&mut plan, pod);
    }
    plan
}

/// Ends a pod that was deleted before it had a node.
pub fn of_unscheduled(pod: &Pod) -> Plan {
    let mut plan = Plan::nothing();
    let waits = pod.metadata.deletion_grace_period_seconds.is_some_and(|seconds| seconds > 0);
    if pod.spec.node_name.is_empty() && pod.metadata.is_deleting() && waits {
        force(&mut plan, pod);
    }
    plan
}

/// Ends the oldest of the pods that have ended, when there are more than there may be.
pub fn of_ended<'a>(pods: impl Iterator<Item = &'a Pod>, ended_max: usize) -> Plan {
    let mut plan = Plan::nothing();
    let mut ended: Vec<&Pod> = pods.filter(|pod| pod.is_terminal() && !pod.metadata.is_deleting()).collect();
    let Some(excess) = ended.len().checked_sub(ended_max).filter(|excess| *excess > 0) else { return plan };
    ended.sort_by_key(|pod| (pod.status.reason != "Evicted", pod.metadata.creation_timestamp, &pod.metadata.name));
    ended.into_iter().take(excess).for_each(|pod| force(&mut plan, pod));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, phase: &str, more: Value) -> Pod {
        let mut metadata = json!({"name": name, "namespace": "x", "creationTimestamp": at(name.len() as i64)});
        for (key, value) in more.as_object().unwrap() {
            metadata[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
    }

    fn summary(plan: &Plan) -> Vec<String> {
        let of = |write: &Write| match write {
            Write::Delete { target, grace_period_seconds: Some(0), .. } => format!("end {}", target.key.name),
            Write::Patch { target, patch, .. } => {
                format!("{} {}", patch["status"]["phase"].as_str().unwrap(), target.key.name)
            }
            other => panic!("{other:?}"),
        };
        plan.writes.iter().map(of).collect()
    }

    fn deleting(seconds: i64) -> Value {
        json!({"deletionTimestamp": at(5), "deletionGracePeriodSeconds": seconds})
    }

    #[test]
    fn pods_of_missing_nodes_fail_after_a_while() {
        let pods = [pod("a", "Running", json!({})), pod("b", "Succeeded", json!({}))];
        let early = of_missing_node(pods.iter(), at(0), at(39));
        assert_eq!((early.writes.len(), early.again_at), (0, Some(at(40))));
        assert_eq!(summary(&of_missing_node(pods.iter(), at(0), at(40))), ["Failed a", "end a"]);
    }

    #[test]
    fn a_node_out_of_service_gives_up_what_is_ending() {
        let node = |ready: &str, taint: &str| -> Node {
            serde_json::from_value(json!({"spec": {"taints": [{"key": taint, "effect": "NoExecute"}]}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})).unwrap()
        };
        let pods = [pod("a", "Running", deleting(30)), pod("b", "Running", json!({}))];
        for (ready, taint, expected) in [
            ("Unknown", OUT_OF_SERVICE, vec!["Failed a", "end a"]),
            ("True", OUT_OF_SERVICE, vec![]),
            ("Unknown", "other", vec![]),
        ] {
            let found = of_node_out_of_service(&node(ready, taint), pods.iter(), at(9));
            assert_eq!(summary(&found), expected, "{ready} {taint}");
        }
    }

    #[test]
    fn deleted_pods_without_a_node_go_at_once() {
        assert_eq!(summary(&of_unscheduled(&pod("a", "Pending", deleting(30)))), ["end a"]);
        assert!(of_unscheduled(&pod("a", "Pending", deleting(0))).writes.is_empty());
        assert!(of_unscheduled(&pod("a", "Pending", json!({}))).writes.is_empty());
    }

    #[test]
    fn only_the_oldest_beyond_the_limit_go() {
        let mut evicted = pod("evicted", "Failed", json!({}));
        evicted.status.reason = "Evicted".into();
        let pods = [
            pod("ccc", "Failed", json!({})),
            pod("a", "Succeeded", json!({})),
            pod("r", "Running", json!({})),
            pod("bb", "Failed", json!({})),
            evicted,
        ];
        assert_eq!(summary(&of_ended(pods.iter(), 2)), ["end evicted", "end a"]);
        assert!(of_ended(pods.iter(), 4).writes.is_empty());
    }
}
