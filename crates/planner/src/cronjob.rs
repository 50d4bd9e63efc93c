//! CronJobs: Jobs at their times.
//!
//! Source: the documented behaviour of upstream's CronJob controller. A Job's name holds the minute it was for, so no
//! time is served twice however often a plan is cut short.

use isopod_types::batch::{CronJob, CronJobStatus, Job, JobReference};
use isopod_types::{Key, Object, OwnerReference};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cron::{Schedule, time_zone};
use crate::plan::{Plan, Reason, Target, Write};

const COMPONENT: &str = "cronjob-controller";
/// Annotation with the time a Job was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed starts that are worth a warning.
const MISSED_MANY: i64 = 100;
/// Starts that are walked through, one by one, to find the last that was missed.
const WALK_MAX: usize = 10_000;

fn target(cron: &CronJob) -> Target {
    Target::of::<CronJob>(&cron.metadata)
}

/// Decides about one CronJob, given the Jobs it controls.
pub fn plan(cron: &CronJob, jobs: &[&Job], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    clean_up(cron, jobs, &mut plan);
    let mut status = observe(cron, jobs, &mut plan);
    if !cron.metadata.is_deleting() && !cron.spec.suspend {
        match timetable(cron) {
            Ok((schedule, zone)) => start(cron, jobs, &Clock { schedule, zone, now }, &mut status, &mut plan),
            Err(reason) => plan.event(&target(cron), COMPONENT, reason),
        }
    }
    if status != cron.status {
        plan.push(Write::Patch { target: target(cron), subresource: "status", patch: json!({"status": status}) });
    }
    plan
}

/// The schedule and the zone it is in.
fn timetable(cron: &CronJob) -> Result<(Schedule, TimeZone), Reason> {
    let text = &cron.spec.schedule;
    let schedule = Schedule::parse(text)
        .map_err(|error| Reason::warning("UnparseableSchedule", format!("unparseable schedule: {text:?} : {error}")))?;
    let zone = match &cron.spec.time_zone {
        None => TimeZone::UTC,
        Some(name) => time_zone(name).ok_or_else(|| {
            Reason::warning("UnknownTimeZone", format!("invalid timeZone: {name:?} : unknown time zone {name}"))
        })?,
    };
    Ok((schedule, zone))
}

/// What is made for a time, as opposed to by a user from the template.
fn scheduled_for(job: &Job) -> Option<Timestamp> {
    job.metadata.annotations.get(SCHEDULED)?.parse().ok()
}

/// The status as the Jobs show it.
fn observe(cron: &CronJob, jobs: &[&Job], plan: &mut Plan) -> CronJobStatus {
    let replaces = cron.spec.concurrency_policy == "Replace";
    let is_running = |job: &&&Job| job.status.finished().is_none() && !(replaces && job.metadata.is_deleting());
    let running = jobs.iter().filter(is_running).filter(|job| scheduled_for(job).is_some());
    let active: Vec<JobReference> = running.map(|job| reference(job)).collect();
    for before in cron.status.active.iter().filter(|before| !active.iter().any(|one| one.uid == before.uid)) {
        let job = jobs.iter().find(|job| job.metadata.uid == before.uid);
        let reason = match job.and_then(|job| job.status.finished()) {
            Some(end) => {
                let text = format!("Saw completed job: {}, condition: {}", before.name, end.type_);
                Reason::normal("SawCompletedJob", text)
            }
            None if replaces => continue,
            None => Reason::normal("MissingJob", format!("Active job went missing: {}", before.name)),
        };
        plan.event(&target(cron), COMPONENT, reason);
    }
    let done = jobs.iter().filter(|job| job.status.is("Complete").is_some());
    let last_success = done.filter_map(|job| job.status.completion_time).max();
    let last_start = jobs.iter().filter_map(|job| scheduled_for(job)).max();
    CronJobStatus {
        active,
        last_schedule_time: cron.status.last_schedule_time.max(last_start),
        last_successful_time: cron.status.last_successful_time.max(last_success),
    }
}

fn reference(job: &Job) -> JobReference {
    JobReference {
        api_version: Job::api_version(),
        kind: Job::KIND.into(),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: String::new(),
    }
}

/// Deletes the oldest ended Jobs beyond what is kept.
fn clean_up(cron: &CronJob, jobs: &[&Job], plan: &mut Plan) {
    for (condition, limit, default) in
        [("Complete", cron.spec.successful_jobs_history_limit, 3), ("Failed", cron.spec.failed_jobs_history_limit, 1)]
    {
        let ended = jobs.iter().filter(|job| job.status.is(condition).is_some() && !job.metadata.is_deleting());
        let mut ended: Vec<&&Job> = ended.collect();
        ended.sort_by_key(|job| (job.status.start_time.or(job.metadata.creation_timestamp), &job.metadata.name));
        let kept = usize::try_from(limit.unwrap_or(default)).unwrap_or(0);
        let surplus = ended.len().saturating_sub(kept);
        ended.into_iter().take(surplus).for_each(|job| delete(cron, job, plan));
    }
}

fn delete(cron: &CronJob, job: &Job, plan: &mut Plan) {
    let job_target = Target { resource_version: String::new(), ..Target::of::<Job>(&job.metadata) };
    plan.push(Write::Delete { target: job_target, propagation: Some("Background"), grace_period_seconds: None });
    let text = format!("Deleted job {}", job.metadata.name);
    plan.event(&target(cron), COMPONENT, Reason::normal("SuccessfulDelete", text));
}

/// A timetable and the time.
struct Clock {
    schedule: Schedule,
    zone: TimeZone,
    now: Timestamp,
}

impl Clock {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.after(after, &self.zone)
    }

    /// The last start that is due since a time, and about how many there were.
    fn last_due(&self, since: Timestamp) -> Option<(Timestamp, i64)> {
        let first = self.next(since).filter(|first| *first <= self.now)?;
        let Some(second) = self.next(first).filter(|second| *second <= self.now) else { return Some((first, 1)) };
        let between = second.duration_since(first).as_secs().max(1);
        let missed = self.now.duration_since(first).as_secs() / between + 1;
        // Regular schedules are walked from shortly before now, others from the beginning.
        let near = first.saturating_add(SignedDuration::from_secs((missed - 2) * between)).unwrap_or(first);
        let last = self.walk(near).or_else(|| self.walk(first)).unwrap_or(first);
        Some((last, missed))
    }

    fn walk(&self, from: Timestamp) -> Option<Timestamp> {
        let starts = std::iter::successors(self.next(from), |at| self.next(*at));
        starts.take(WALK_MAX).take_while(|at| *at <= self.now).last()
    }
}

/// Starts the Job that is due, if one is and may be.
fn start(cron: &CronJob, jobs: &[&Job], clock: &Clock, status: &mut CronJobStatus, plan: &mut Plan) {
    let made = cron.metadata.creation_timestamp.unwrap_or(clock.now);
    let mut since = status.last_schedule_time.unwrap_or(made);
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if let Some(earliest) = deadline.and_then(|patience| clock.now.checked_sub(patience).ok()) {
        since = since.max(earliest);
    }
    if let Some(at) = clock.next(clock.now) {
        plan.wake_at(at);
    }
    let Some((due, missed)) = clock.last_due(since) else { return };
    if missed > MISSED_MANY {
        let text = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        plan.event(&target(cron), COMPONENT, Reason::warning("TooManyMissedTimes", text));
    }
    let name = format!("{}-{}", cron.metadata.name, due.as_second().div_euclid(60));
    if jobs.iter().any(|job| job.metadata.name == name) {
        status.last_schedule_time = status.last_schedule_time.max(Some(due));
        return;
    }
    match cron.spec.concurrency_policy.as_str() {
        "Forbid" if !status.active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.event(&target(cron), COMPONENT, Reason::normal("JobAlreadyActive", text));
        }
        "Replace" => {
            let is_active = |job: &&&Job| status.active.iter().any(|one| one.uid == job.metadata.uid);
            jobs.iter().filter(is_active).for_each(|job| delete(cron, job, plan));
            status.active.clear();
        }
        _ => {}
    }
    let object = new_job(cron, &name, due, &clock.zone);
    let job_target = Target::named::<Job>(Key::new(&*cron.metadata.namespace, name));
    plan.push(Write::Create { target: job_target, object, tolerate_existing: true });
    status.last_schedule_time = Some(due);
}

fn new_job(cron: &CronJob, name: &str, due: Timestamp, zone: &TimeZone) -> Value {
    let template = &cron.spec.job_template;
    let mut metadata = json!({"name": name, "namespace": cron.metadata.namespace});
    for field in ["labels", "annotations"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    metadata["annotations"][SCHEDULED] = json!(due.display_with_offset(zone.to_offset(due)).to_string());
    let owner = OwnerReference::controller(&CronJob::api_version(), CronJob::KIND, &cron.metadata);
    metadata["ownerReferences"] = json!([owner]);
    json!({"apiVersion": Job::api_version(), "kind": Job::KIND, "metadata": metadata, "spec": template["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    /// `name for HH:MM [complete|failed]`.
    fn job(text: &str) -> Job {
        let words: Vec<&str> = text.split_whitespace().collect();
        let end = match words.get(3) {
            Some(&"complete") => json!([{"type": "Complete", "status": "True"}]),
            Some(&"failed") => json!([{"type": "Failed", "status": "True"}]),
            _ => json!([]),
        };
        let scheduled = format!("2026-01-01T{}:00+00:00", words[2]);
        serde_json::from_value(json!({
            "metadata": {"name": words[0], "uid": words[0], "namespace": "x", "annotations": {SCHEDULED: scheduled}},
            "status": {"conditions": end, "startTime": format!("2026-01-01T{}:00Z", words[2]), "completionTime": "2026-01-01T00:00:30Z"},
        }))
        .unwrap()
    }

    fn cron(spec: Value, status: Value) -> CronJob {
        let mut whole =
            json!({"schedule": "*/10 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({
            "metadata": {"name": "c", "uid": "c", "namespace": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": whole, "status": status,
        }))
        .unwrap()
    }

    /// Creations, deletions and warnings of a plan.
    fn summary(plan: &Plan) -> Vec<String> {
        let text = |write: &Write| match write {
            Write::Create { target, .. } => Some(format!("create {}", target.key.name)),
            Write::Delete { target, .. } => Some(format!("delete {}", target.key.name)),
            Write::Event { reason, .. } => Some(reason.reason.to_owned()),
            Write::Patch { .. } => None,
            other => Some(format!("{other:?}")),
        };
        plan.writes.iter().filter_map(text).collect()
    }

    fn check(spec: Value, last: Option<&str>, jobs: &[&str], now: &str, expected: &[&str]) {
        let jobs: Vec<Job> = jobs.iter().map(|text| job(text)).collect();
        let active: Vec<JobReference> =
            jobs.iter().filter(|job| job.status.finished().is_none()).map(reference).collect();
        let cron = cron(spec.clone(), json!({"lastScheduleTime": last.map(at), "active": active}));
        let plan = plan(&cron, &jobs.iter().collect::<Vec<_>>(), at(now));
        assert_eq!(summary(&plan), expected, "{spec} {last:?} {now}");
    }

    const MINUTE: i64 = 1_767_225_600 / 60;

    #[test]
    fn jobs_start_when_they_are_due() {
        let made = |minutes: i64| format!("create c-{}", MINUTE + minutes);
        check(json!({}), None, &[], "00:09:59", &[]);
        check(json!({}), None, &[], "00:10:00", &[&made(10)]);
        check(json!({}), Some("00:10:00"), &[], "00:19:00", &[]);
        check(json!({}), Some("00:10:00"), &[], "00:45:00", &[&made(40)]);
        check(json!({"suspend": true}), None, &[], "00:10:00", &[]);
        check(json!({"startingDeadlineSeconds": 60}), None, &[], "00:15:00", &[]);
        check(json!({"startingDeadlineSeconds": 60}), None, &[], "00:10:30", &[&made(10)]);
        check(json!({"schedule": "* * * * *"}), None, &[], "03:00:00", &["TooManyMissedTimes", &made(180)]);
        let existing = format!("c-{} for 00:10", MINUTE + 10);
        check(json!({}), None, &[&existing], "00:11:00", &[]);
        check(json!({"timeZone": "Nowhere"}), None, &[], "00:10:00", &["UnknownTimeZone"]);
        check(json!({"schedule": "x"}), None, &[], "00:10:00", &["UnparseableSchedule"]);
    }

    #[test]
    fn concurrency_follows_the_policy() {
        let made = format!("create c-{}", MINUTE + 20);
        for (policy, expected) in [
            ("Allow", vec![made.as_str()]),
            ("Forbid", vec!["JobAlreadyActive"]),
            ("Replace", vec!["delete a", "SuccessfulDelete", made.as_str()]),
        ] {
            let spec = json!({"concurrencyPolicy": policy});
            check(spec, Some("00:10:00"), &["a for 00:10"], "00:20:00", &expected);
        }
    }

    #[test]
    fn old_jobs_go() {
        let jobs = [
            "d for 00:04 complete",
            "a for 00:01 complete",
            "b for 00:02 complete",
            "c for 00:03 complete",
            "e for 00:05 failed",
            "f for 00:06 failed",
        ];
        check(
            json!({}),
            Some("00:06:00"),
            &jobs,
            "00:07:00",
            &["delete a", "SuccessfulDelete", "delete e", "SuccessfulDelete"],
        );
        let none = json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 2});
        check(none, Some("00:06:00"), &jobs[..1], "00:07:00", &["delete d", "SuccessfulDelete"]);
    }

    #[test]
    fn the_status_follows_the_jobs() {
        let (running, done) = (job("a for 00:10"), job("b for 00:00 complete"));
        let before = json!({"active": [reference(&done)]});
        let plan = plan(&cron(json!({}), before), &[&running, &done], at("00:11:00"));
        assert_eq!(summary(&plan), ["SawCompletedJob"]);
        let Some(Write::Patch { patch, .. }) = plan.writes.last() else { panic!("{plan:?}") };
        assert_eq!(patch["status"]["active"][0]["name"], "a");
        assert_eq!(patch["status"]["lastScheduleTime"], "2026-01-01T00:10:00Z");
        assert_eq!(patch["status"]["lastSuccessfulTime"], "2026-01-01T00:00:30Z");
        assert_eq!(plan.again_at, Some(at("00:20:00")));
    }

    #[test]
    fn jobs_are_made_from_the_template() {
        let berlin = cron(json!({"timeZone": "Europe/Berlin"}), json!({}));
        let plan = plan(&berlin, &[], at("00:10:00"));
        let Some(Write::Create { object, .. }) = plan.writes.first() else { panic!("{plan:?}") };
        assert_eq!(object["metadata"]["annotations"][SCHEDULED], "2026-01-01T01:10:00+01:00");
        assert_eq!((&object["metadata"]["labels"]["a"], &object["spec"]["x"]), (&json!("b"), &json!(1)));
        assert_eq!(object["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    }
}
