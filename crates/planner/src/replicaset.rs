//! ReplicaSets: keep the wanted number of pods of a template.
//!
//! Source: behaviour of upstream's ReplicaSet controller (ranking of pods to delete, conditions, events), restated over
//! the cache that holds every write of ours, so no expectations are needed.

use isopod_types::pod::Pod;
use isopod_types::workload::{ReplicaSet, ReplicaSetStatus};
use isopod_types::{Key, Object, OwnerReference};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::plan::{Plan, Reason, Target, Write};

/// The most pods created or deleted in one decision.
const BURST: usize = 500;
const COMPONENT: &str = "replicaset-controller";

/// Pods that belong to the set: those it controls, plus matching orphans it may adopt.
fn owned<'a>(set: &ReplicaSet, pods: &[&'a Pod]) -> Vec<&'a Pod> {
    pods.iter().copied().filter(|pod| pod.metadata.is_controlled_by(&set.metadata.uid)).collect()
}

/// Matching pods that nobody controls.
fn orphans<'a>(set: &ReplicaSet, pods: &[&'a Pod]) -> Vec<&'a Pod> {
    let free = |pod: &&&Pod| pod.metadata.controller().is_none() && pod.is_active();
    pods.iter().filter(free).copied().filter(|pod| set.spec.selector.matches(&pod.metadata.labels)).collect()
}

/// Decides about one set, given the pods of its namespace.
pub fn plan(set: &ReplicaSet, pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mine = owned(set, pods);
    if !set.metadata.is_deleting() {
        adopt_and_release(set, pods, &mine, &mut plan);
        scale(set, &mine, now, &mut plan);
    }
    write_status(set, &mine, now, &mut plan);
    plan
}

fn adopt_and_release(set: &ReplicaSet, pods: &[&Pod], mine: &[&Pod], plan: &mut Plan) {
    for pod in orphans(set, pods) {
        let owner = OwnerReference::controller(&ReplicaSet::api_version(), ReplicaSet::KIND, &set.metadata);
        let mut owners = pod.metadata.owner_references.clone();
        owners.push(owner);
        patch_owners(pod, &json!(owners), plan);
    }
    for pod in mine.iter().filter(|pod| !set.spec.selector.matches(&pod.metadata.labels)) {
        let owners: Vec<_> = pod.metadata.owner_references.iter().filter(|o| o.uid != set.metadata.uid).collect();
        patch_owners(pod, &json!(owners), plan);
    }
}

fn patch_owners(pod: &Pod, owners: &Value, plan: &mut Plan) {
    let patch = json!({"metadata": {"ownerReferences": owners}});
    plan.push(Write::Patch { target: Target::of::<Pod>(&pod.metadata), subresource: "", patch });
}

fn scale(set: &ReplicaSet, mine: &[&Pod], now: Timestamp, plan: &mut Plan) {
    let active: Vec<&Pod> =
        mine.iter().copied().filter(|p| p.is_active() && set.spec.selector.matches(&p.metadata.labels)).collect();
    let wanted = usize::try_from(set.spec.replicas).unwrap_or(0);
    for _ in active.len()..wanted.min(active.len() + BURST) {
        plan.push(Write::Create { target: pod_target(set), object: new_pod(set), tolerate_existing: false });
    }
    for pod in to_delete(active, wanted, now) {
        let target = Target::of::<Pod>(&pod.metadata);
        let text = format!("Deleted pod: {}", pod.metadata.name);
        plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
        plan.event(&Target::of::<ReplicaSet>(&set.metadata), COMPONENT, Reason::normal("SuccessfulDelete", text));
    }
}

fn pod_target(set: &ReplicaSet) -> Target {
    Target::named::<Pod>(Key::new(&*set.metadata.namespace, ""))
}

/// A pod from the template.
fn new_pod(set: &ReplicaSet) -> Value {
    let template = &set.spec.template;
    let owner = OwnerReference::controller(&ReplicaSet::api_version(), ReplicaSet::KIND, &set.metadata);
    let mut metadata = json!({
        "generateName": format!("{}-", set.metadata.name),
        "namespace": set.metadata.namespace,
        "ownerReferences": [owner],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// The pods to delete, worst first: without a node, pending, not ready, cheap, young.
fn to_delete(mut active: Vec<&Pod>, wanted: usize, now: Timestamp) -> Vec<&Pod> {
    let surplus = active.len().saturating_sub(wanted).min(BURST);
    let rank = |pod: &&Pod| {
        let phase = ["Pending", "Unknown", "Running"].iter().position(|phase| *phase == pod.status.phase).unwrap_or(0);
        let cost = pod.metadata.annotations.get("controller.kubernetes.io/pod-deletion-cost");
        let cost: i64 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
        let restarts: i64 = pod.status.container_statuses.iter().map(|status| status.restart_count).sum();
        let ready_for = pod.ready_since().map_or(0, |since| now.duration_since(since).as_secs());
        let age = pod.metadata.creation_timestamp.map_or(0, |made| now.duration_since(made).as_secs());
        let ready = pod.ready_since().is_some();
        (!pod.spec.node_name.is_empty(), phase, ready, cost, ready_for, std::cmp::Reverse(restarts), age)
    };
    active.sort_by_key(rank);
    active.truncate(surplus);
    active
}

/// Whether a pod has been ready for long enough, or when it will have been.
pub fn availability(pod: &Pod, min_ready_seconds: i64, now: Timestamp) -> Result<(), Option<Timestamp>> {
    let since = pod.ready_since().ok_or(None)?;
    let at = since.saturating_add(SignedDuration::from_secs(min_ready_seconds)).unwrap_or(now);
    if at <= now { Ok(()) } else { Err(Some(at)) }
}

fn count(pods: &[&Pod], which: impl Fn(&Pod) -> bool) -> i64 {
    i64::try_from(pods.iter().filter(|pod| which(pod)).count()).unwrap_or(i64::MAX)
}

fn has_template_labels(set: &ReplicaSet, pod: &Pod) -> bool {
    let labels = set.spec.template["metadata"]["labels"].as_object().into_iter().flatten();
    labels.into_iter().all(|(key, value)| pod.metadata.labels.get(key).map(String::as_str) == value.as_str())
}

fn write_status(set: &ReplicaSet, mine: &[&Pod], now: Timestamp, plan: &mut Plan) {
    let active: Vec<&Pod> = mine.iter().copied().filter(|pod| pod.is_active()).collect();
    let status = ReplicaSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&active, |_| true),
        fully_labeled_replicas: count(&active, |pod| has_template_labels(set, pod)),
        ready_replicas: count(&active, |pod| pod.ready_since().is_some()),
        available_replicas: count(&active, |pod| availability(pod, set.spec.min_ready_seconds, now).is_ok()),
    };
    let later =
        active.iter().filter_map(|pod| availability(pod, set.spec.min_ready_seconds, now).err().flatten()).min();
    if let Some(at) = later {
        plan.wake_at(at);
    }
    if status != set.status {
        let target = Target { resource_version: String::new(), ..Target::of::<ReplicaSet>(&set.metadata) };
        plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": status}) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64) -> ReplicaSet {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}});
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "default", "uid": "rs", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template},
        }))
        .unwrap()
    }

    /// `name state...`: `pending`, `ready`, `failed`, `deleting`, `orphan`, `stranger`.
    fn pod(text: &str) -> Pod {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let has = |word: &str| words.contains(&word);
        let phase = if has("pending") {
            "Pending"
        } else if has("failed") {
            "Failed"
        } else {
            "Running"
        };
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": true}]);
        let conditions = if has("ready") {
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}])
        } else {
            json!([])
        };
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": name,
                "labels": {"app": if has("stranger") { "b" } else { "a" }},
                "ownerReferences": if has("orphan") { json!([]) } else { owner },
                "deletionTimestamp": has("deleting").then_some("1970-01-01T00:00:00Z"),
            },
            "spec": {"nodeName": if has("pending") { "" } else { "n" }},
            "status": {"phase": phase, "conditions": conditions},
        }))
        .unwrap()
    }

    fn check(replicas: i64, pods: &[&str], expected: &[&str]) {
        let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
        let plan = plan(&set(replicas), &pods.iter().collect::<Vec<_>>(), Timestamp::from_second(100).unwrap());
        let found: Vec<String> = plan
            .writes
            .iter()
            .filter_map(|write| match write {
                Write::Create { .. } => Some("create".into()),
                Write::Delete { target, .. } => Some(format!("delete {}", target.key.name)),
                Write::Patch { target, subresource: "", .. } => Some(format!("patch {}", target.key.name)),
                Write::Patch { patch, .. } => Some(format!("status {}", patch["status"]["replicas"])),
                _ => None,
            })
            .collect();
        assert_eq!(found, expected, "{replicas} {pods:?}");
    }

    #[test]
    fn the_number_of_pods_is_kept() {
        check(2, &[], &["create", "create", "status 0"]);
        check(2, &["a ready"], &["create", "status 1"]);
        check(1, &["a failed", "b deleting"], &["create", "status 0"]);
        check(1, &["a ready", "b pending"], &["delete b", "status 2"]);
        check(1, &["a ready", "b"], &["delete b", "status 2"]);
        check(0, &["a ready"], &["delete a", "status 1"]);
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        check(1, &["a orphan ready"], &["patch a", "create", "status 0"]);
        check(0, &["a stranger"], &["patch a", "status 1"]);
    }

    #[test]
    fn new_pods_carry_the_template_and_their_owner() {
        let pod = new_pod(&set(1));
        assert_eq!(pod["metadata"]["generateName"], "web-1-");
        assert_eq!(pod["metadata"]["labels"]["app"], "a");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
    }

    #[test]
    fn a_pod_counts_as_available_after_its_time() {
        let pod = pod("a ready");
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(availability(&pod, 10, at(10)), Ok(()));
        assert_eq!(availability(&pod, 10, at(9)), Err(Some(at(10))));
    }
}
