//! The kubelet of all nodes: says what pods do next. Knows which pods run, whatever the API holds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::random::Random;
use super::world::{is_deleting, owner, text, uid};

/// What a kubelet does about one pod.
#[derive(Debug, PartialEq)]
pub(super) enum Deed {
    /// Starts its containers.
    Start,
    /// Its containers have ended with a code.
    End(i64),
    /// Nothing of it is left.
    Remove,
}

/// The running pods: what, where, and under which name.
#[derive(Debug, Default)]
pub(super) struct Running(pub(super) BTreeMap<String, (String, String)>);

pub(super) fn is_terminal(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |found: &Value| found["type"] == "Ready" && found["status"] == "True";
    !is_deleting(pod) && !is_terminal(pod) && conditions.is_some_and(|all| all.iter().any(ready))
}

/// Whether a pod ends by itself.
fn ends(pod: &Value) -> bool {
    !owner(pod).is_empty() && text(pod, "/spec/restartPolicy") == "Never"
}

/// What is to be done about a pod, if anything.
pub(super) fn deed(pod: &Value, random: &mut Random) -> Option<Deed> {
    if text(pod, "/spec/nodeName").is_empty() {
        return None;
    }
    if is_deleting(pod) {
        let is_removed = pod["metadata"]["deletionGracePeriodSeconds"] == 0;
        return match is_terminal(pod) {
            false => Some(Deed::End(137)),
            true => (!is_removed).then_some(Deed::Remove),
        };
    }
    match text(pod, "/status/phase") {
        "Running" if ends(pod) => Some(Deed::End(if random.chance(250) { 1 } else { 0 })),
        "Succeeded" | "Failed" | "Running" => None,
        _ => Some(Deed::Start),
    }
}

/// The status that tells of a deed.
pub(super) fn status(pod: &Value, deed: &Deed, now: &str) -> Value {
    let (phase, ready, state) = match deed {
        Deed::Start => ("Running", "True", json!({"running": {"startedAt": now}})),
        Deed::End(code) => {
            let phase = if *code == 0 { "Succeeded" } else { "Failed" };
            (phase, "False", json!({"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now}}))
        }
        Deed::Remove => ("Failed", "False", json!({})),
    };
    let condition = |name: &str, status: &str| json!({"type": name, "status": status, "lastTransitionTime": now});
    let conditions = [("PodScheduled", "True"), ("Initialized", "True"), ("ContainersReady", ready), ("Ready", ready)];
    let conditions: Vec<Value> = conditions.iter().map(|(name, status)| condition(name, status)).collect();
    let container =
        json!({"name": "c", "image": "i", "imageID": "i", "ready": ready == "True", "restartCount": 0, "state": state});
    let started = pod["status"]["startTime"].as_str().unwrap_or(now);
    json!({"metadata": {"uid": uid(pod)}, "status": {"phase": phase, "conditions": conditions, "startTime": started, "containerStatuses": [container]}})
}
