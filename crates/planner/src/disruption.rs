//! PodDisruptionBudgets: how many healthy pods may be evicted now. Evictions themselves are granted by the API server, which spends
//! `disruptionsAllowed` and notes the pod in `disruptedPods`.
//!
//! Source: the documented behaviour of upstream's disruption controller.

use std::collections::BTreeMap;

use isopod_types::disruption::{DisruptionStatus, MetaCondition, PodDisruptionBudget};
use isopod_types::pod::{Pod, PodCondition};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::plan::{Plan, Reason, Target, Write};

const COMPONENT: &str = "controllermanager";
/// Time in which an evicted pod is expected to begin to end.
const DISRUPTION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";
/// Why a kubelet ends pods.
const BY_KUBELET: &str = "TerminationByKubelet";
/// Granted evictions that may be outstanding.
const DISRUPTED_MAX: usize = 2000;

/// How many pods an owner wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// UID of the one who scales: the Deployment of a ReplicaSet.
    pub uid: String,
    /// Wanted pods.
    pub replicas: i64,
}

/// The numbers a budget is made of.
struct Expectation {
    expected: i64,
    desired: i64,
}

/// Decides about one budget, given the pods it selects and, by the UID of their controllers, how many pods those want.
pub fn plan(budget: &PodDisruptionBudget, pods: &[&Pod], scales: &BTreeMap<String, Scale>, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let target = Target::of::<PodDisruptionBudget>(&budget.metadata);
    if budget.metadata.is_deleting() {
        return plan;
    }
    let status = match expectation(budget, pods, scales) {
        Ok(expectation) => {
            let disrupted = disrupted(budget, pods, now, &mut plan);
            grant(budget, pods, &expectation, disrupted, now)
        }
        Err(why) => {
            let text = format!("Failed to calculate the number of expected pods: {why}");
            plan.event(&target, COMPONENT, Reason::warning("CalculateExpectedPodCountFailed", text));
            let mut status = DisruptionStatus { disruptions_allowed: 0, ..budget.status.clone() };
            condition(&mut status, budget.metadata.generation, ("False", "SyncFailed", &why), now);
            status
        }
    };
    if status != budget.status {
        let patch = json!({"status": patch(&budget.status, &status)});
        plan.push(Write::Patch { target, subresource: "status", patch });
    }
    plan
}

/// When a pod's announced disruption is no longer believed; none when nothing is announced, or by the kubelet, which may take its time.
pub fn stale_at(pod: &Pod) -> Option<Timestamp> {
    let announced = pod.status.conditions.iter().find(|one| one.type_ == "DisruptionTarget" && one.status == "True")?;
    if pod.metadata.is_deleting() || pod.is_terminal() || announced.reason == BY_KUBELET {
        return None;
    }
    let since = announced.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH);
    Some(since.saturating_add(DISRUPTION_TIMEOUT).unwrap_or(Timestamp::MAX))
}

/// Takes back that a pod is about to be disrupted, when it has not begun to end in time.
pub fn take_back(pod: &Pod, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    match stale_at(pod) {
        None => {}
        Some(at) if at > now => plan.wake_at(at),
        Some(_) => {
            let mut conditions = pod.status.conditions.clone();
            for one in conditions.iter_mut().filter(|one| one.type_ == "DisruptionTarget") {
                *one = PodCondition {
                    type_: one.type_.clone(),
                    status: "False".into(),
                    last_transition_time: Some(now),
                    ..PodCondition::default()
                };
            }
            let patch = json!({"status": {"conditions": conditions}});
            plan.push(Write::Patch { target: Target::of::<Pod>(&pod.metadata), subresource: "status", patch });
        }
    }
    plan
}

/// What an eviction costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing: the pod does not count as healthy.
    Nothing,
    /// One of the disruptions that are allowed; the pod is noted as disrupted.
    One,
}

/// Why an eviction is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Now; later it may be granted. With the cause.
    Now(String),
    /// For a trouble of the budget.
    Trouble(String),
}

/// Whether a budget grants the eviction of a pod, and what that costs.
///
/// # Errors
/// Why not.
pub fn evict(budget: &PodDisruptionBudget, pod_is_ready: bool) -> Result<Cost, Refusal> {
    let (name, status) = (&budget.metadata.name, &budget.status);
    if !pod_is_ready {
        let always = budget.spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
        if always || (status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy) {
            return Ok(Cost::Nothing);
        }
    }
    if status.observed_generation < budget.metadata.generation {
        return Err(Refusal::Now(format!("The disruption budget {name} is still being processed by the server.")));
    }
    if status.disruptions_allowed < 0 {
        return Err(Refusal::Trouble("pdb disruptions allowed is negative".into()));
    }
    if status.disrupted_pods.len() > DISRUPTED_MAX {
        let text = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Refusal::Trouble(text.into()));
    }
    if status.disruptions_allowed == 0 {
        let (desired, current) = (status.desired_healthy, status.current_healthy);
        let text = format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently");
        return Err(Refusal::Now(text));
    }
    Ok(Cost::One)
}

/// The status as a merge patch: what is no longer disrupted must be named to go.
fn patch(before: &DisruptionStatus, after: &DisruptionStatus) -> Value {
    let mut patch = json!(after);
    for name in before.disrupted_pods.keys().filter(|name| !after.disrupted_pods.contains_key(*name)) {
        patch["disruptedPods"][name] = Value::Null;
    }
    patch
}

fn count<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

fn expectation(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    scales: &BTreeMap<String, Scale>,
) -> Result<Expectation, String> {
    use isopod_types::workload::IntOrPercent::{Int, Percent};
    match (&budget.spec.max_unavailable, &budget.spec.min_available) {
        (Some(most), _) => {
            let expected = wanted(pods, scales)?;
            Ok(Expectation { expected, desired: (expected - most.of(expected, true)).max(0) })
        }
        (None, Some(Int(least))) => Ok(Expectation { expected: count(pods), desired: *least }),
        (None, Some(least @ Percent(_))) => {
            let expected = wanted(pods, scales)?;
            Ok(Expectation { expected, desired: least.of(expected, true) })
        }
        (None, None) => Ok(Expectation { expected: count(pods), desired: 0 }),
    }
}

/// How many pods the owners of these pods want in all. Pods without an owner are nobody's wish.
fn wanted(pods: &[&Pod], scales: &BTreeMap<String, Scale>) -> Result<i64, String> {
    let mut by_owner: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = pod.metadata.controller() else { continue };
        let scale = scales.get(&owner.uid).ok_or_else(|| {
            format!("found no controllers for pod {:?}: {} {} has no scale", pod.metadata.name, owner.kind, owner.name)
        })?;
        by_owner.insert(&scale.uid, scale.replicas);
    }
    Ok(by_owner.values().sum())
}

/// Pods whose eviction was granted and which have not begun to end; those that never do are forgotten.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Timestamp> {
    let mut left = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.metadata.is_deleting()) {
        let Some(granted) = budget.status.disrupted_pods.get(&pod.metadata.name) else { continue };
        let due = granted.saturating_add(DISRUPTION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if due > now {
            left.insert(pod.metadata.name.clone(), *granted);
            plan.wake_at(due);
            continue;
        }
        let key = budget.metadata.key();
        let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
        plan.event(&Target::of::<Pod>(&pod.metadata), COMPONENT, Reason::warning("NotDeleted", text));
    }
    left
}

fn grant(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    expectation: &Expectation,
    disrupted_pods: BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> DisruptionStatus {
    let is_healthy = |pod: &&&Pod| {
        !pod.metadata.is_deleting() && pod.ready_since().is_some() && !disrupted_pods.contains_key(&pod.metadata.name)
    };
    let healthy = i64::try_from(pods.iter().filter(is_healthy).count()).unwrap_or(i64::MAX);
    let spare = if expectation.expected > 0 { (healthy - expectation.desired).max(0) } else { 0 };
    let mut status = DisruptionStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods,
        disruptions_allowed: spare,
        current_healthy: healthy,
        desired_healthy: expectation.desired,
        expected_pods: expectation.expected,
        conditions: budget.status.conditions.clone(),
    };
    let words = if spare > 0 { ("True", "SufficientPods", "") } else { ("False", "InsufficientPods", "") };
    condition(&mut status, budget.metadata.generation, words, now);
    status
}

fn condition(
    status: &mut DisruptionStatus,
    generation: i64,
    (is, reason, message): (&str, &str, &str),
    now: Timestamp,
) {
    let before = status.conditions.iter().find(|one| one.type_ == CONDITION);
    let same = before.is_some_and(|before| before.status == is);
    let since = before.filter(|_| same).and_then(|before| before.last_transition_time).unwrap_or(now);
    let new = MetaCondition {
        type_: CONDITION.into(),
        status: is.into(),
        observed_generation: generation,
        last_transition_time: Some(since),
        reason: reason.into(),
        message: message.into(),
    };
    status.conditions.retain(|one| one.type_ != CONDITION);
    status.conditions.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name ready|not <owner [deleting]`.
    fn pod(text: &str) -> Pod {
        let words: Vec<&str> = text.split_whitespace().collect();
        let owner = words.iter().find_map(|word| word.strip_prefix('<'));
        let owners = owner.map(|uid| json!([{"kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true}]));
        let ready = if words[1] == "ready" { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {
                "name": words[0], "namespace": "x", "ownerReferences": owners.unwrap_or(json!([])),
                "deletionTimestamp": words.contains(&"deleting").then_some("1970-01-01T00:00:00Z"),
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let metadata = json!({"name": "b", "namespace": "x", "uid": "b", "generation": 3});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn decide(budget: &PodDisruptionBudget, pods: &[&str], second: i64) -> Plan {
        let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
        let scale = |uid: &str, replicas| (uid.to_owned(), Scale { uid: "d".into(), replicas });
        let scales =
            BTreeMap::from([scale("a", 4), scale("old", 4), ("s".into(), Scale { uid: "s".into(), replicas: 3 })]);
        plan(budget, &pods.iter().collect::<Vec<_>>(), &scales, Timestamp::from_second(second).unwrap())
    }

    /// Allowed, healthy, desired, expected.
    fn check(spec: Value, pods: &[&str], expected: [i64; 4]) {
        let plan = decide(&budget(spec.clone(), json!({})), pods, 1000);
        let Some(Write::Patch { patch, .. }) = plan.writes.last() else { panic!("{plan:?}") };
        let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        assert_eq!(fields.map(|field| patch["status"][field].as_i64().unwrap()), expected, "{spec} {pods:?}");
        let (status, reason) = if expected[0] > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        let condition = &patch["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!(status), &json!(reason)));
    }

    #[test]
    fn budgets_allow_what_is_spare() {
        let four = ["p ready <a", "q ready <a", "r ready <a", "s ready <a"];
        check(json!({"minAvailable": 3}), &four, [1, 4, 3, 4]);
        check(json!({"minAvailable": 3}), &four[..2], [0, 2, 3, 2]);
        check(json!({"minAvailable": "50%"}), &four, [2, 4, 2, 4]);
        check(json!({"minAvailable": "51%"}), &four, [1, 4, 3, 4]);
        check(json!({"maxUnavailable": 1}), &four, [1, 4, 3, 4]);
        check(json!({"maxUnavailable": 1}), &four[..3], [0, 3, 3, 4]);
        check(json!({"maxUnavailable": "25%"}), &["p ready <a", "q not <a", "r ready <a", "s ready <a"], [0, 3, 3, 4]);
        check(
            json!({"maxUnavailable": 1}),
            &["p ready <a", "q ready <a", "r ready <a deleting", "s ready <a"],
            [0, 3, 3, 4],
        );
        // Two sets of one Deployment want its pods once.
        check(json!({"maxUnavailable": 2}), &["p ready <a", "q ready <old", "r ready <s"], [0, 3, 5, 7]);
        check(json!({"maxUnavailable": 2}), &["alone ready"], [0, 1, 0, 0]);
        check(json!({"minAvailable": 0}), &[], [0, 0, 0, 0]);
    }

    #[test]
    fn pods_that_nobody_scales_allow_nothing() {
        let plan =
            decide(&budget(json!({"maxUnavailable": 1}), json!({"disruptionsAllowed": 5})), &["p ready <job"], 0);
        let Some(Write::Patch { patch, .. }) = plan.writes.last() else { panic!("{plan:?}") };
        assert_eq!(patch["status"]["disruptionsAllowed"], 0);
        assert_eq!(patch["status"]["conditions"][0]["reason"], "SyncFailed");
    }

    #[test]
    fn announced_disruptions_are_taken_back_when_they_do_not_happen() {
        let announced = |more: Value| {
            let mut pod = json!({
                "metadata": {"name": "p", "namespace": "x"},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "m",
                     "lastTransitionTime": "1970-01-01T00:01:40Z"},
                ]},
            });
            for (path, value) in more.as_object().unwrap() {
                *pod.pointer_mut(path).unwrap() = value.clone();
            }
            pod
        };
        let with_end = || {
            let mut pod = announced(json!({}));
            pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:50Z");
            pod
        };
        let condition = "/status/conditions/1";
        for (pod, second, again, taken_back) in [
            (announced(json!({})), 219, Some(220), false),
            (announced(json!({})), 220, None, true),
            (announced(json!({(format!("{condition}/status")): "False"})), 220, None, false),
            (announced(json!({(format!("{condition}/reason")): "TerminationByKubelet"})), 220, None, false),
            (announced(json!({"/status/phase": "Failed"})), 220, None, false),
            (with_end(), 220, None, false),
        ] {
            let found: Pod = serde_json::from_value(pod.clone()).unwrap();
            let plan = take_back(&found, Timestamp::from_second(second).unwrap());
            assert_eq!(plan.again_at.map(Timestamp::as_second), again, "{pod}");
            let patched = plan.writes.iter().find_map(|write| match write {
                Write::Patch { patch, .. } => Some(patch["status"]["conditions"][1].clone()),
                _ => None,
            });
            assert_eq!(patched.is_some(), taken_back, "{pod}");
            if let Some(condition) = patched {
                assert_eq!((&condition["type"], &condition["status"]), (&json!("DisruptionTarget"), &json!("False")));
                assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:03:40Z");
            }
        }
    }

    #[test]
    fn granted_evictions_count_until_they_happen_or_time_out() {
        let status = json!({"disruptedPods": {"p": "1970-01-01T00:01:40Z", "gone": "1970-01-01T00:01:40Z"}});
        let budget = budget(json!({"minAvailable": 1}), status);
        let pods = ["p ready <a", "q ready <a"];
        for (second, healthy, left, again) in
            [(100, 1, json!("1970-01-01T00:01:40Z"), Some(220)), (220, 2, Value::Null, None)]
        {
            let plan = decide(&budget, &pods, second);
            let Some(Write::Patch { patch, .. }) = plan.writes.last() else { panic!("{plan:?}") };
            assert_eq!(patch["status"]["currentHealthy"], healthy, "{second}");
            assert_eq!(
                (&patch["status"]["disruptedPods"]["p"], &patch["status"]["disruptedPods"]["gone"]),
                (&left, &Value::Null)
            );
            assert_eq!(plan.again_at.map(|at| at.as_second()), again);
        }
    }

    #[test]
    fn evictions_are_granted_spent_or_refused() {
        let full = json!({"observedGeneration": 3, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2});
        let none = json!({"observedGeneration": 3, "currentHealthy": 2, "desiredHealthy": 2});
        let ill = json!({"observedGeneration": 3, "currentHealthy": 1, "desiredHealthy": 2});
        let now = |text: &str| Err(Refusal::Now(text.into()));
        let needs = "The disruption budget b needs 2 healthy pods and has 2 currently";
        for (spec, status, ready, expected) in [
            (json!({}), full.clone(), true, Ok(Cost::One)),
            (json!({}), none.clone(), true, now(needs)),
            (json!({}), none.clone(), false, Ok(Cost::Nothing)),
            (json!({}), ill.clone(), false, now("The disruption budget b needs 2 healthy pods and has 1 currently")),
            (json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}), ill, false, Ok(Cost::Nothing)),
            (json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}), none, true, now(needs)),
            (
                json!({}),
                json!({"disruptionsAllowed": 1}),
                true,
                now("The disruption budget b is still being processed by the server."),
            ),
            (
                json!({}),
                json!({"observedGeneration": 3, "disruptionsAllowed": -1}),
                true,
                Err(Refusal::Trouble("pdb disruptions allowed is negative".into())),
            ),
        ] {
            assert_eq!(evict(&budget(spec.clone(), status.clone()), ready), expected, "{spec} {status} {ready}");
        }
    }
}
