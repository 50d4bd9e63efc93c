//! The pods of a Job: how many, of which index, when after a failure, and which of them go.

use std::collections::BTreeMap;

use isopod_types::batch::Job;
use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::policy::Failure;
use super::tally::{
    FAILURES, IGNORED, INDEX, TRACKING_FINALIZER, Tally, attempts, index_of, is_indexed, is_terminating, is_tracked,
    waits_for_ends,
};
use super::{COMPONENT, target};
use crate::plan::{Plan, Reason, Target, Write};
use crate::replicaset::{Around, to_delete};
use crate::template::NewPod;

/// Most pods made at once.
const BURST: i64 = 500;
/// Delay after the first failure; it doubles.
const BACKOFF_FIRST_SECONDS: i64 = 10;
/// Longest delay after failures.
const BACKOFF_MAX_SECONDS: i64 = 600;
/// Variable with the pod's index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

fn length<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

/// Brings the number of pods to what is wanted.
pub(super) fn manage(tally: &Tally<'_>, plan: &mut Plan) {
    let job = tally.job;
    let active = length(&tally.active);
    if job.spec.suspend {
        return remove(tally, active, plan);
    }
    let parallelism = job.spec.parallelism.unwrap_or(1).max(0);
    let wanted = match job.spec.completions {
        // Once one has succeeded, nothing new begins.
        None if tally.successes() > 0 => active,
        None => parallelism,
        Some(completions) => (completions - tally.successes()).clamp(0, parallelism),
    };
    remove(tally, (active - wanted).max(0), plan);
    let ending = if waits_for_ends(job) { tally.terminating() } else { 0 };
    let missing = (wanted - active - ending).min(BURST);
    if missing > 0 {
        create(tally, missing, plan);
    }
}

/// Takes pods away without counting them: those of no or a doubled index, and then the least advanced.
fn remove(tally: &Tally<'_>, at_least: i64, plan: &mut Plan) {
    let (mut gone, left) = doubled(tally);
    let more = usize::try_from(at_least).unwrap_or(0).saturating_sub(gone.len());
    let keep = left.len().saturating_sub(more);
    let around = Around { pods: &[], siblings: &[], refusal: None, now: tally.now };
    gone.extend(to_delete(left, keep, around));
    for pod in gone {
        if is_tracked(pod) {
            release(pod, plan);
        }
        delete(tally.job, pod, plan);
    }
}

/// Active pods that no index needs, and the others.
fn doubled<'a>(tally: &Tally<'a>) -> (Vec<&'a Pod>, Vec<&'a Pod>) {
    if !is_indexed(tally.job) {
        return (Vec::new(), tally.active.clone());
    }
    let mut by_index: BTreeMap<i64, Vec<&Pod>> = BTreeMap::new();
    let mut gone = Vec::new();
    for pod in &tally.active {
        match index_of(pod).filter(|index| tally.is_valid(Some(*index))) {
            Some(index) => by_index.entry(index).or_default().push(pod),
            None => gone.push(*pod),
        }
    }
    let around = Around { pods: &[], siblings: &[], refusal: None, now: tally.now };
    let mut left = Vec::new();
    for pods in by_index.into_values() {
        let surplus = to_delete(pods.clone(), 1, around);
        left.extend(pods.iter().filter(|pod| !surplus.iter().any(|other| other.metadata.uid == pod.metadata.uid)));
        gone.extend(surplus);
    }
    (gone, left)
}

/// Takes the finalizer off a pod.
pub(super) fn release(pod: &Pod, plan: &mut Plan) {
    let left: Vec<&String> = pod.metadata.finalizers.iter().filter(|one| *one != TRACKING_FINALIZER).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    let mut target = Target::of::<Pod>(&pod.metadata);
    // Another writer of the list must not be lost.
    if left.is_empty() {
        target.resource_version.clear();
    }
    plan.push(Write::Patch { target, subresource: "", patch });
}

/// Deletes a pod and says so.
pub(super) fn delete(job: &Job, pod: &Pod, plan: &mut Plan) {
    let pod_target = Target::of::<Pod>(&pod.metadata);
    plan.push(Write::Delete { target: pod_target, propagation: None, grace_period_seconds: None });
    let text = format!("Deleted pod: {}", pod.metadata.name);
    plan.event(&target(job), COMPONENT, Reason::normal("SuccessfulDelete", text));
}

/// When a pod ended, as well as can be known.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = &pod.status;
    let ends = status.container_statuses.iter().filter_map(|one| one.state.terminated.as_ref()?.finished_at);
    let unready = status.conditions.iter().find(|one| one.type_ == "Ready").and_then(|one| one.last_transition_time);
    ends.max().or(unready).or(pod.metadata.deletion_timestamp).or(pod.metadata.creation_timestamp)
}

/// When the next pod may begin after failures: none for at once.
fn not_before(failures: i64, last: Option<Timestamp>) -> Option<Timestamp> {
    let doublings = u32::try_from(failures - 1).ok()?.min(6);
    let seconds = (BACKOFF_FIRST_SECONDS << doublings).min(BACKOFF_MAX_SECONDS);
    last?.saturating_add(SignedDuration::from_secs(seconds)).ok()
}

/// When the next pod of a Job may begin: failures since the last success delay it.
fn backoff(tally: &Tally<'_>) -> Option<Timestamp> {
    let ends = |phase: &'static str| tally.pods.iter().filter(move |pod| pod.status.phase == phase);
    let success = ends("Succeeded").filter_map(|pod| ended_at(pod)).max();
    let failed: Vec<Timestamp> =
        ends("Failed").filter_map(|pod| ended_at(pod)).filter(|at| Some(*at) > success).collect();
    not_before(length(&failed), failed.into_iter().max())
}

/// Whether the time has come; otherwise asks to be called when it has.
fn is_due(at: Option<Timestamp>, now: Timestamp, plan: &mut Plan) -> bool {
    match at.filter(|at| *at > now) {
        Some(at) => {
            plan.wake_at(at);
            false
        }
        None => true,
    }
}

fn create(tally: &Tally<'_>, missing: i64, plan: &mut Plan) {
    let per_index = tally.job.spec.backoff_limit_per_index.is_some();
    if !per_index && !is_due(backoff(tally), tally.now, plan) {
        return;
    }
    if !is_indexed(tally.job) {
        (0..missing).for_each(|_| plan.push(new_pod(tally.job).write()));
        return;
    }
    let mut left = missing;
    for index in free_indexes(tally) {
        if left == 0 {
            return;
        }
        let before = tally.kept.get(&index).copied();
        let failures = before.map_or(0, |pod| attempts(pod).0 + attempts(pod).1 + 1);
        let at = if per_index { not_before(failures, before.and_then(ended_at)) } else { None };
        if is_due(at, tally.now, plan) {
            plan.push(indexed_pod(tally, index, before).write());
            left -= 1;
        }
    }
}

/// Indexes that have neither ended nor a pod, lowest first.
fn free_indexes(tally: &Tally<'_>) -> Vec<i64> {
    let mut taken = tally.completed.clone();
    let waits = waits_for_ends(tally.job);
    let busy = tally.pods.iter().filter(|pod| pod.is_active() || (waits && is_terminating(pod)));
    busy.filter_map(|pod| index_of(pod)).for_each(|index| taken.insert(index));
    let completions = tally.job.spec.completions.unwrap_or(0);
    let free = taken.missing(completions).filter(|index| !tally.failed.contains(*index));
    // More than can be made are looked at only where some have to wait.
    let bound = if tally.job.spec.backoff_limit_per_index.is_some() { usize::MAX } else { BURST as usize };
    free.take(bound).collect()
}

fn new_pod(job: &Job) -> NewPod {
    let mut pod = NewPod::of(job, &job.spec.template).generated(&format!("{}-", job.metadata.name));
    let mut finalizers = pod.object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(TRACKING_FINALIZER));
    pod.object["metadata"]["finalizers"] = Value::Array(finalizers);
    pod
}

fn indexed_pod(tally: &Tally<'_>, index: i64, before: Option<&Pod>) -> NewPod {
    let name = format!("{}-{index}", tally.job.metadata.name);
    let mut pod = new_pod(tally.job)
        .generated(&format!("{name}-"))
        .label(INDEX, index.to_string())
        .annotation(INDEX, index.to_string());
    if tally.job.spec.backoff_limit_per_index.is_some() {
        let (mut failures, mut ignored) = before.map_or((0, 0), attempts);
        let is_ignored = |pod: &Pod| {
            tally.new_failed.iter().any(|(one, why)| one.metadata.uid == pod.metadata.uid && *why == Failure::Ignored)
        };
        match before {
            Some(pod) if is_ignored(pod) => ignored += 1,
            Some(_) => failures += 1,
            None => {}
        }
        pod = pod.annotation(FAILURES, failures.to_string());
        if ignored > 0 {
            pod = pod.annotation(IGNORED, ignored.to_string());
        }
    }
    pod.object["spec"]["hostname"] = json!(name);
    for kind in ["initContainers", "containers"] {
        let containers = pod.object["spec"].get_mut(kind).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(tell_index);
    }
    pod
}

/// Gives a container the variable with its index unless it has one of its own.
fn tell_index(container: &mut Value) {
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    if variables.iter().any(|variable| variable["name"] == INDEX_VARIABLE) {
        return;
    }
    let field = json!({"fieldPath": format!("metadata.labels['{INDEX}']")});
    variables.push(json!({"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": field}}));
    container["env"] = Value::Array(variables);
}
