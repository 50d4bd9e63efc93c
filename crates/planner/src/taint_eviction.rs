//! Pods that have to leave a node because of its `NoExecute` taints, at once or when their patience ends.
//!
//! Source: the taint eviction controller of kube-controller-manager. Pods that have ended stay: nothing of them runs, and
//! their output may be wanted.

use isopod_types::node::Taint;
use isopod_types::pod::Pod;
use jiff::Timestamp;

use crate::plan::{Plan, Reason, Target, Write};
use crate::scheduler::disrupted_status;
use crate::scheduler::taints::{Stay, stay};

const COMPONENT: &str = "taint-eviction-controller";

/// When a pod came to its node.
fn arrived(pod: &Pod) -> Timestamp {
    let scheduled = pod.status.conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let at = scheduled.and_then(|condition| condition.last_transition_time).or(pod.metadata.creation_timestamp);
    at.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Ends the pods of a node that have to leave now; asks to be called again when the next has to. Every `NoExecute` taint
/// says when it was put on.
pub fn plan<'a>(taints: &[Taint], pods: impl Iterator<Item = &'a Pod>, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    for pod in pods.filter(|pod| pod.is_active()) {
        match stay(taints, &pod.spec.tolerations, arrived(pod)) {
            Stay::Forever => {}
            Stay::Until(at) if at > now => plan.wake_at(at),
            Stay::Until(_) | Stay::Not => evict(&mut plan, pod, now),
        }
    }
    plan
}

fn evict(plan: &mut Plan, pod: &Pod, now: Timestamp) {
    let mut target = Target::of::<Pod>(&pod.metadata);
    let text = format!("Marking for deletion Pod {}", pod.metadata.key());
    plan.event(&target, COMPONENT, Reason::normal("TaintManagerEviction", text));
    let message = "Taint manager: deleting due to NoExecute taint";
    let patch = disrupted_status(pod, "DeletionByTaintManager", message, now);
    plan.push(Write::Patch { target: target.clone(), subresource: "status", patch });
    target.resource_version.clear();
    plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, patience: Value, more: Value) -> Pod {
        let toleration =
            json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": patience});
        let tolerations = if patience == json!(false) { json!([]) } else { json!([toleration]) };
        let mut status =
            json!({"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(100)}]});
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"tolerations": tolerations}, "status": status})).unwrap()
    }

    fn taint(added: i64) -> Taint {
        Taint { key: "k".into(), effect: "NoExecute".into(), time_added: Some(at(added)), ..Taint::default() }
    }

    fn evicted(plan: &Plan) -> Vec<&str> {
        let of = |write: &'_ Write| match write {
            Write::Delete { target, .. } => Some(target.key.name.clone()),
            _ => None,
        };
        let names: Vec<String> = plan.writes.iter().filter_map(of).collect();
        ["impatient", "patient", "late", "always", "ended"]
            .into_iter()
            .filter(|name| names.contains(&(*name).to_owned()))
            .collect()
    }

    #[test]
    fn pods_leave_when_their_patience_ends() {
        let late = json!({"conditions": [{"type": "PodScheduled", "lastTransitionTime": at(1040)}]});
        let pods = [
            pod("impatient", json!(false), json!({})),
            pod("patient", json!(60), json!({})),
            pod("late", json!(60), late),
            pod("always", json!(null), json!({})),
            pod("ended", json!(false), json!({"phase": "Succeeded"})),
        ];
        for (now, expected, again_at) in [
            (1000, vec!["impatient"], Some(at(1060))),
            (1060, vec!["impatient", "patient"], Some(at(1100))),
            (1100, vec!["impatient", "patient", "late"], None),
        ] {
            let plan = plan(&[taint(1000)], pods.iter(), at(now));
            assert_eq!((evicted(&plan), plan.again_at), (expected, again_at), "{now}");
        }
        assert_eq!(plan(&[], pods.iter(), at(2000)), Plan::nothing(), "a taint that went drives nobody away");
        let found = plan(&[taint(1000)], pods[..1].iter(), at(1000));
        let Some(Write::Patch { patch, .. }) = found.writes.iter().find(|write| matches!(write, Write::Patch { .. }))
        else {
            panic!("{found:?}")
        };
        assert_eq!(patch["status"]["conditions"][1]["reason"], "DeletionByTaintManager");
    }

    proptest! {
        /// No pod leaves before its patience ends, and none stays after.
        #[test]
        fn patience_is_kept_to_the_second(seconds in 0..100i64, added in 1000..1100i64, now in 1000..1300i64) {
            let pods = [pod("patient", json!(seconds), json!({}))];
            let plan = plan(&[taint(added)], pods.iter(), at(now));
            prop_assert_eq!(evicted(&plan).len() == 1, seconds == 0 || now >= added + seconds);
        }
    }
}
