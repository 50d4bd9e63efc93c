//! ReplicaSets and ReplicationControllers: keep the wanted number of pods of a template.
//!
//! Source: behaviour of upstream's ReplicaSet controller (ranking of pods to delete, conditions, events), restated over
//! the cache that holds every write of ours, so no expectations are needed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use isopod_types::Object;
use isopod_types::pod::Pod;
use isopod_types::workload::{Condition, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, ReplicationController};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::claims::Claimer;
use crate::plan::{Plan, Reason, Target, Write};
use crate::template::NewPod;

/// The most pods created or deleted in one decision.
const BURST: usize = 500;
/// Annotation by which a pod says how dear its deletion is.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What keeps a number of pods.
pub trait Keeper: Object {
    /// Who speaks in events.
    const COMPONENT: &'static str;
    /// Whether its status counts pods on their way out.
    const COUNTS_TERMINATING: bool;
    /// Desired state.
    fn spec(&self) -> &ReplicaSetSpec;
    /// Observed state.
    fn status(&self) -> &ReplicaSetStatus;
}

impl Keeper for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;
    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Keeper for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;
    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

/// What is known beside the set.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Pods that the set controls or that nobody controls.
    pub pods: &'a [&'a Pod],
    /// Pods of all sets of the same owner: where several share a node, one of them goes first.
    pub siblings: &'a [&'a Pod],
    /// The words with which the API last refused a pod of the set.
    pub refusal: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
}

/// Decides about one set.
pub fn plan<K: Keeper>(set: &K, around: Around<'_>) -> Plan {
    let mut plan = Plan::nothing();
    let mine = Claimer::of(set, &set.spec().selector).claim(around.pods, Pod::is_active, &mut plan);
    let (active, others): (Vec<&Pod>, Vec<&Pod>) = mine.into_iter().partition(|pod| pod.is_active());
    let wanted =
        if set.meta().is_deleting() { active.len() } else { usize::try_from(set.spec().replicas).unwrap_or(0) };
    let refusal = around.refusal.filter(|_| active.len() < wanted);
    write_status(set, &active, &others, refusal, around.now, &mut plan);
    let prefix = format!("{}-", set.meta().name);
    for _ in active.len()..wanted.min(active.len() + BURST) {
        plan.push(NewPod::of(set, &set.spec().template).generated(&prefix).write());
    }
    for pod in to_delete(active, wanted, around) {
        let target = Target::of::<Pod>(&pod.metadata);
        let text = format!("Deleted pod: {}", pod.metadata.name);
        plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
        plan.event(&Target::of::<K>(set.meta()), K::COMPONENT, Reason::normal("SuccessfulDelete", text));
    }
    plan
}

/// Times count by their order of magnitude, so that pods of about the same age take turns.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let seconds = since.map_or(0, |since| now.duration_since(since).as_secs());
    u64::try_from(seconds).map_or(0, |seconds| u64::BITS - seconds.leading_zeros())
}

/// The pods to delete, worst first: without a node, pending, not ready, cheap, with siblings beside them, young.
pub(crate) fn to_delete<'a>(mut active: Vec<&'a Pod>, wanted: usize, around: Around<'_>) -> Vec<&'a Pod> {
    let surplus = active.len().saturating_sub(wanted).min(BURST);
    if surplus == 0 {
        return Vec::new();
    }
    let mut beside: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in around.siblings.iter().filter(|pod| pod.is_active()) {
        *beside.entry(&pod.spec.node_name).or_default() += 1;
    }
    let rank = |pod: &&Pod| {
        let phase = ["Pending", "Unknown", "Running"].iter().position(|phase| *phase == pod.status.phase).unwrap_or(0);
        let cost = pod.metadata.annotations.get(DELETION_COST).and_then(|cost| cost.parse::<i64>().ok()).unwrap_or(0);
        let restarts: i64 = pod.status.container_statuses.iter().map(|status| status.restart_count).sum();
        let ready = pod.ready_since();
        let state = (!pod.spec.node_name.is_empty(), phase, ready.is_some(), cost);
        let together = Reverse(beside.get(&*pod.spec.node_name).copied().unwrap_or(0));
        let age = magnitude(pod.metadata.creation_timestamp, around.now);
        (state, together, magnitude(ready, around.now), Reverse(restarts), age, pod.metadata.uid.clone())
    };
    active.sort_by_cached_key(rank);
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

fn has_template_labels(spec: &ReplicaSetSpec, pod: &Pod) -> bool {
    let labels = spec.template["metadata"]["labels"].as_object().into_iter().flatten();
    labels.into_iter().all(|(key, value)| pod.metadata.labels.get(key).map(String::as_str) == value.as_str())
}

/// The conditions, with the reason why pods cannot be made.
fn conditions(before: &[Condition], refusal: Option<&str>, now: Timestamp) -> Vec<Condition> {
    const FAILURE: &str = "ReplicaFailure";
    let mut conditions: Vec<Condition> = before.to_vec();
    let Some(words) = refusal else {
        conditions.retain(|condition| condition.type_ != FAILURE);
        return conditions;
    };
    if !conditions.iter().any(|condition| condition.type_ == FAILURE) {
        conditions.push(Condition {
            type_: FAILURE.into(),
            status: "True".into(),
            last_transition_time: Some(now),
            reason: "FailedCreate".into(),
            message: words.into(),
            last_update_time: None,
        });
    }
    conditions
}

fn write_status<K: Keeper>(
    set: &K,
    active: &[&Pod],
    others: &[&Pod],
    refusal: Option<&str>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let spec = set.spec();
    let status = ReplicaSetStatus {
        observed_generation: set.meta().generation,
        replicas: count(active, |_| true),
        fully_labeled_replicas: count(active, |pod| has_template_labels(spec, pod)),
        ready_replicas: count(active, |pod| pod.ready_since().is_some()),
        available_replicas: count(active, |pod| availability(pod, spec.min_ready_seconds, now).is_ok()),
        terminating_replicas: K::COUNTS_TERMINATING.then(|| count(others, |pod| !pod.is_terminal())),
        conditions: conditions(&set.status().conditions, refusal, now),
    };
    let later = active.iter().filter_map(|pod| availability(pod, spec.min_ready_seconds, now).err().flatten()).min();
    if let Some(at) = later {
        plan.wake_at(at);
    }
    if status != *set.status() {
        let target = Target { resource_version: String::new(), ..Target::of::<K>(set.meta()) };
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

    fn around<'a>(pods: &'a [&'a Pod], refusal: Option<&'a str>) -> Around<'a> {
        Around { pods, siblings: pods, refusal, now: Timestamp::from_second(100).unwrap() }
    }

    fn summary(plan: &Plan) -> Vec<String> {
        let text = |write: &Write| match write {
            Write::Create { .. } => Some("create".into()),
            Write::Delete { target, .. } => Some(format!("delete {}", target.key.name)),
            Write::Patch { target, subresource: "", .. } => Some(format!("patch {}", target.key.name)),
            Write::Patch { patch, .. } => Some(format!("status {}", patch["status"]["replicas"])),
            _ => None,
        };
        plan.writes.iter().filter_map(text).collect()
    }

    fn check(replicas: i64, pods: &[&str], expected: &[&str]) {
        let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        assert_eq!(summary(&plan(&set(replicas), around(&pods, None))), expected, "{replicas} {pods:?}");
    }

    #[test]
    fn the_number_of_pods_is_kept() {
        check(2, &[], &["status 0", "create", "create"]);
        check(2, &["a ready"], &["status 1", "create"]);
        check(1, &["a failed", "b deleting"], &["status 0", "create"]);
        check(1, &["a ready", "b pending"], &["status 2", "delete b"]);
        check(1, &["a ready", "b"], &["status 2", "delete b"]);
        check(0, &["a ready"], &["status 1", "delete a"]);
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        check(1, &["a orphan ready"], &["patch a", "status 1"]);
        check(0, &["a stranger"], &["patch a", "status 0"]);
    }

    /// Of two pods the first goes.
    #[test]
    fn the_worst_pod_goes_first() {
        let base = || pod("a ready");
        let altered = |name: &str, alter: &dyn Fn(&mut Pod)| {
            let mut pod = base();
            (pod.metadata.name, pod.metadata.uid) = (name.into(), name.into());
            alter(&mut pod);
            pod
        };
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        type Alter<'a> = &'a dyn Fn(&mut Pod);
        let cases: &[(&str, Alter, Alter)] = &[
            ("without a node", &|pod| pod.spec.node_name.clear(), &|_| {}),
            ("pending", &|pod| pod.status.phase = "Pending".into(), &|_| {}),
            ("not ready", &|pod| pod.status.conditions.clear(), &|_| {}),
            ("cheap", &|_| {}, &|pod| drop(pod.metadata.annotations.insert(DELETION_COST.into(), "5".into()))),
            ("beside a sibling", &|_| {}, &|pod| pod.spec.node_name = "alone".into()),
            ("ready for less time", &|pod| pod.status.conditions[0].last_transition_time = at(99), &|_| {}),
            ("younger", &|pod| pod.metadata.creation_timestamp = at(99), &|pod| {
                pod.metadata.creation_timestamp = at(1)
            }),
        ];
        for (what, worse, better) in cases {
            let (worse, better, third) = (altered("z", worse), altered("b", better), altered("t", &|_| {}));
            let siblings = [&worse, &better, &third];
            let around = Around { siblings: &siblings, ..around(&[], None) };
            let found = to_delete(vec![&better, &worse], 1, around);
            assert_eq!(found[0].metadata.name, "z", "{what}");
        }
    }

    #[test]
    fn a_refusal_is_a_condition_until_it_is_over() {
        let failing = plan(&set(1), around(&[], Some("exceeded quota")));
        let Write::Patch { patch, .. } = &failing.writes[0] else { panic!("{failing:?}") };
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["reason"], &condition["message"]),
            (&json!("ReplicaFailure"), &json!("FailedCreate"), &json!("exceeded quota"))
        );
        let mut after = set(0);
        after.status.conditions = serde_json::from_value(patch["status"]["conditions"].clone()).unwrap();
        let Write::Patch { patch, .. } = &plan(&after, around(&[], Some("exceeded quota"))).writes[0] else { panic!() };
        assert_eq!(patch["status"]["conditions"], json!([]));
    }

    #[test]
    fn new_pods_carry_the_template_and_their_owner() {
        let plan = plan(&set(1), around(&[], None));
        let Some(Write::Create { object: pod, .. }) = plan.writes.last() else { panic!("{plan:?}") };
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
