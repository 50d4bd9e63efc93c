//! Jobs: pods that work until enough of them have succeeded.
//!
//! Source: the documented behaviour of upstream's Job controller. `tally` counts ends, `policy` says what they mean, `pods` makes and removes
//! pods; here it is decided whether the Job is over, and its status is written.

mod indexes;
mod pods;
mod policy;
mod tally;

use isopod_types::batch::{Job, JobCondition, JobStatus};
use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use self::policy::Failure;
use self::tally::{Tally, is_indexed};
use crate::claims::Claimer;
use crate::plan::{Plan, Reason, Target, Write};

pub use tally::is_tracked;

const COMPONENT: &str = "job-controller";
/// The name by which a Job may say that this controller looks after it.
const OWN_NAME: &str = "kubernetes.io/job-controller";

fn target(job: &Job) -> Target {
    Target::of::<Job>(&job.metadata)
}

/// Why a Job is over.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    is_success: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn failure(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self { is_success: false, reason: reason.into(), message: message.into() })
    }

    fn success(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self { is_success: true, reason: reason.into(), message: message.into() })
    }

    /// The condition that says so while pods are still ending, and the one after.
    fn conditions(&self) -> (&'static str, &'static str) {
        if self.is_success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") }
    }
}

/// Decides about one Job, given pods that it controls or that nobody controls.
pub fn plan(job: &Job, pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if job.spec.managed_by.as_deref().is_some_and(|name| name != OWN_NAME) {
        return plan;
    }
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mine = Claimer::of(job, &job.spec.selector).claim(pods, Pod::is_active, &mut plan);
    if job.status.finished().is_some() {
        mine.into_iter().filter(|pod| is_tracked(pod)).for_each(|pod| pods::release(pod, &mut plan));
        return plan;
    }
    let tally = Tally::of(job, mine, now);
    let verdict = verdict(&tally, &mut plan);
    let (uncounted, released) = tally.record(verdict.is_some());
    let mut status = JobStatus { uncounted_terminated_pods: uncounted, ..counts(&tally) };
    let events = match &verdict {
        Some(verdict) => end(&tally, verdict, released.is_empty(), &mut status),
        None => suspend_or_resume(job, now, &mut status),
    };
    if status != job.status {
        plan.push(Write::Patch { target: target(job), subresource: "status", patch: json!({"status": status}) });
    }
    events.into_iter().for_each(|reason| plan.event(&target(job), COMPONENT, reason));
    released.into_iter().for_each(|pod| pods::release(pod, &mut plan));
    match verdict {
        Some(_) => tally.active.iter().for_each(|pod| pods::delete(job, pod, &mut plan)),
        None if !job.metadata.is_deleting() => pods::manage(&tally, &mut plan),
        None => {}
    }
    plan
}

/// A pod whose Job is gone for good: nobody will count its end.
pub fn abandon(pod: &Pod) -> Plan {
    let mut plan = Plan::nothing();
    if is_tracked(pod) {
        pods::release(pod, &mut plan);
    }
    plan
}

/// When a Job that has ended is to be deleted by its own wish, and the deletion when that is now.
pub fn expire(job: &Job, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let finished = job.status.finished().and_then(|condition| condition.last_transition_time);
    let (Some(at), Some(seconds)) = (finished, job.spec.ttl_seconds_after_finished) else { return plan };
    let due = at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    if job.metadata.is_deleting() {
        return plan;
    }
    if due > now {
        plan.wake_at(due);
        return plan;
    }
    plan.push(Write::Delete { target: target(job), propagation: Some("Background"), grace_period_seconds: None });
    plan
}

/// Whether and why the Job is over.
fn verdict(tally: &Tally<'_>, plan: &mut Plan) -> Option<Verdict> {
    let status = &tally.job.status;
    if let Some(met) = status.is("SuccessCriteriaMet") {
        return Verdict::success(&met.reason, &*met.message);
    }
    if let Some(failed) = status.is("FailureTarget") {
        return Verdict::failure(&failed.reason, &*failed.message);
    }
    by_policy(tally)
        .or_else(|| by_limit(tally))
        .or_else(|| by_deadline(tally, plan))
        .or_else(|| by_index(tally))
        .or_else(|| by_successes(tally))
}

fn by_policy(tally: &Tally<'_>) -> Option<Verdict> {
    tally.new_failed.iter().find_map(|(_, failure)| match failure {
        Failure::FailsJob(why) => Verdict::failure("PodFailurePolicy", &**why),
        _ => None,
    })
}

fn by_limit(tally: &Tally<'_>) -> Option<Verdict> {
    let limit = tally.job.spec.backoff_limit.unwrap_or(6);
    let restarts: i64 = if tally.job.spec.template["spec"]["restartPolicy"] == "OnFailure" {
        let pods = tally.pods.iter().filter(|pod| matches!(pod.status.phase.as_str(), "Running" | "Pending"));
        let of = |pod: &Pod| -> i64 {
            let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
            all.map(|status| status.restart_count).sum()
        };
        pods.copied().map(of).sum()
    } else {
        0
    };
    let too_many = tally.failures() > limit || (restarts > 0 && restarts >= limit);
    if !too_many {
        return None;
    }
    Verdict::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
}

fn by_deadline(tally: &Tally<'_>, plan: &mut Plan) -> Option<Verdict> {
    let spec = &tally.job.spec;
    let start = tally.job.status.start_time.filter(|_| !spec.suspend)?;
    let at = start.saturating_add(SignedDuration::from_secs(spec.active_deadline_seconds?)).unwrap_or(Timestamp::MAX);
    if at > tally.now {
        plan.wake_at(at);
        return None;
    }
    Verdict::failure("DeadlineExceeded", "Job was active longer than specified deadline")
}

fn by_index(tally: &Tally<'_>) -> Option<Verdict> {
    let spec = &tally.job.spec;
    if !is_indexed(tally.job) {
        return None;
    }
    let completions = spec.completions.unwrap_or(0);
    if spec.max_failed_indexes.is_some_and(|most| tally.failed.len() > most) {
        let text = "Job has exceeded the specified maximal number of failed indexes";
        return Verdict::failure("MaxFailedIndexesExceeded", text);
    }
    if tally.failed.len() > 0 && tally.failed.len() + tally.completed.len() >= completions {
        return Verdict::failure("FailedIndexes", "Job has failed indexes");
    }
    Verdict::success("SuccessPolicy", policy::success(tally.job, &tally.completed, completions)?)
}

fn by_successes(tally: &Tally<'_>) -> Option<Verdict> {
    let is_enough = match tally.job.spec.completions {
        Some(completions) => tally.successes() >= completions,
        None => tally.successes() > 0 && tally.active.is_empty(),
    };
    if !is_enough {
        return None;
    }
    Verdict::success("CompletionsReached", "Reached expected number of succeeded pods")
}

/// The status as far as it is numbers.
fn counts(tally: &Tally<'_>) -> JobStatus {
    let job = tally.job;
    let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let indexed = is_indexed(job);
    let start = job.status.start_time.or_else(|| (!job.spec.suspend).then_some(tally.now));
    JobStatus {
        conditions: job.status.conditions.clone(),
        start_time: start,
        completion_time: job.status.completion_time,
        active: length(tally.active.len()),
        succeeded: if indexed { tally.completed.len() } else { tally.counted.0 },
        failed: tally.counted.1,
        terminating: Some(tally.terminating()),
        ready: Some(length(tally.active.iter().filter(|pod| pod.ready_since().is_some()).count())),
        completed_indexes: if indexed { tally.completed.to_string() } else { String::new() },
        failed_indexes: job.spec.backoff_limit_per_index.map(|_| tally.failed.to_string()),
        uncounted_terminated_pods: job.status.uncounted_terminated_pods.clone(),
    }
}

/// Puts a condition into the list; returns whether its status is new.
fn set(
    conditions: &mut Vec<JobCondition>,
    type_: &str,
    status: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let found = conditions.iter_mut().find(|condition| condition.type_ == type_);
    if found.as_ref().is_some_and(|condition| condition.status == status) {
        return false;
    }
    let new = JobCondition {
        type_: type_.into(),
        status: status.into(),
        last_probe_time: Some(now),
        last_transition_time: Some(now),
        reason: reason.into(),
        message: message.into(),
    };
    match found {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    true
}

/// Says that the Job is over: first why, and when its pods have ended and are counted, for good.
fn end(tally: &Tally<'_>, verdict: &Verdict, all_counted: bool, status: &mut JobStatus) -> Vec<Reason> {
    let (interim, last) = verdict.conditions();
    let words = (verdict.reason.as_str(), verdict.message.as_str());
    set(&mut status.conditions, interim, "True", words, tally.now);
    let uncounted = &status.uncounted_terminated_pods;
    let is_quiet = tally.active.is_empty() && tally.terminating() == 0;
    if !is_quiet || !all_counted || !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty() {
        return Vec::new();
    }
    set(&mut status.conditions, last, "True", words, tally.now);
    if verdict.is_success {
        status.completion_time = Some(tally.now);
        return vec![Reason::normal("Completed", "Job completed")];
    }
    vec![Reason::warning(failure_word(&verdict.reason), &*verdict.message)]
}

/// Reasons of events are fixed words.
fn failure_word(reason: &str) -> &'static str {
    let all =
        ["PodFailurePolicy", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes", "BackoffLimitExceeded"];
    all.into_iter().find(|word| *word == reason).unwrap_or("Failed")
}

fn suspend_or_resume(job: &Job, now: Timestamp, status: &mut JobStatus) -> Vec<Reason> {
    const SUSPENDED: &str = "Suspended";
    if job.spec.suspend {
        if !set(&mut status.conditions, SUSPENDED, "True", ("JobSuspended", "Job suspended"), now) {
            return Vec::new();
        }
        status.start_time = None;
        return vec![Reason::normal("Suspended", "Job suspended")];
    }
    let was = status.is(SUSPENDED).is_some();
    if !was || !set(&mut status.conditions, SUSPENDED, "False", ("JobResumed", "Job resumed"), now) {
        return Vec::new();
    }
    status.start_time = Some(now);
    vec![Reason::normal("Resumed", "Job resumed")]
}

#[cfg(test)]
mod tests;
