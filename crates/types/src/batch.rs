//! Jobs and CronJobs as decisions read them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::workload::LabelSelector;

/// A Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: JobSpec,
    /// Observed state.
    pub status: JobStatus,
}
object!(Job, "batch", "v1", "Job", "jobs", true);

/// `spec` of a Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSpec {
    /// Most pods at a time; the API defaults it to 1.
    pub parallelism: Option<i64>,
    /// Successes needed; none: the first ends the work.
    pub completions: Option<i64>,
    /// Seconds after which the Job fails.
    pub active_deadline_seconds: Option<i64>,
    /// Failures after which the Job fails; the API defaults it to 6.
    pub backoff_limit: Option<i64>,
    /// Failures after which an index fails.
    pub backoff_limit_per_index: Option<i64>,
    /// Failed indexes after which the Job fails.
    pub max_failed_indexes: Option<i64>,
    /// `NonIndexed` or `Indexed`.
    pub completion_mode: String,
    /// Whether the Job has no pods for now.
    pub suspend: bool,
    /// Which pods belong to it.
    pub selector: LabelSelector,
    /// Template of the pods, whole.
    pub template: Value,
    /// Seconds after its end when the Job is deleted.
    pub ttl_seconds_after_finished: Option<i64>,
    /// What failures mean.
    pub pod_failure_policy: Option<PodFailurePolicy>,
    /// When enough indexes have succeeded.
    pub success_policy: Option<SuccessPolicy>,
    /// `TerminatingOrFailed` or `Failed`.
    pub pod_replacement_policy: Option<String>,
    /// Who looks after the Job, if it is not us.
    pub managed_by: Option<String>,
}

/// What failures of pods mean: the first rule that matches counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodFailurePolicy {
    /// The rules.
    pub rules: Vec<PodFailureRule>,
}

/// A rule about failures.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFailureRule {
    /// `FailJob`, `FailIndex`, `Ignore` or `Count`.
    pub action: String,
    /// By exit codes.
    pub on_exit_codes: Option<OnExitCodes>,
    /// By conditions of the pod.
    pub on_pod_conditions: Vec<OnPodCondition>,
}

/// Exit codes that a rule is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OnExitCodes {
    /// Only this container; none: any.
    pub container_name: Option<String>,
    /// `In` or `NotIn`.
    pub operator: String,
    /// The codes.
    pub values: Vec<i32>,
}

/// A condition that a rule is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OnPodCondition {
    /// Its name.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its status; the API defaults it to `True`.
    pub status: String,
}

/// When a Job has succeeded early: the first rule that holds counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SuccessPolicy {
    /// The rules.
    pub rules: Vec<SuccessRule>,
}

/// A rule about successes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRule {
    /// Which indexes count, such as `0-2,5`; none: all.
    pub succeeded_indexes: Option<String>,
    /// How many of them; none: all of them.
    pub succeeded_count: Option<i64>,
}

/// `status` of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// `Suspended`, `SuccessCriteriaMet`, `FailureTarget`, `Complete`, `Failed`.
    pub conditions: Vec<JobCondition>,
    /// When work began or went on.
    pub start_time: Option<Timestamp>,
    /// When it succeeded.
    pub completion_time: Option<Timestamp>,
    /// Pods at work.
    pub active: i64,
    /// Successes that are counted for good.
    pub succeeded: i64,
    /// Failures that are counted for good.
    pub failed: i64,
    /// Pods on their way out.
    pub terminating: Option<i64>,
    /// Ready pods.
    pub ready: Option<i64>,
    /// Indexes that succeeded, such as `0-2,5`.
    pub completed_indexes: String,
    /// Indexes that failed for good.
    pub failed_indexes: Option<String>,
    /// Pods that ended and whose finalizer may still be there.
    pub uncounted_terminated_pods: Uncounted,
}

impl JobStatus {
    /// The condition of this type, if it is true.
    pub fn is(&self, type_: &str) -> Option<&JobCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
    }

    /// The condition that ended the Job.
    pub fn finished(&self) -> Option<&JobCondition> {
        self.is("Complete").or_else(|| self.is("Failed"))
    }
}

/// UIDs of pods that ended but are not in the counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uncounted {
    /// Those that succeeded.
    pub succeeded: Vec<String>,
    /// Those that failed.
    pub failed: Vec<String>,
}

/// A condition of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobCondition {
    /// Name.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When it was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A CronJob.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CronJob {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: CronJobSpec,
    /// Observed state.
    pub status: CronJobStatus,
}
object!(CronJob, "batch", "v1", "CronJob", "cronjobs", true);

/// `spec` of a CronJob.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    /// Five fields, or a name such as `@hourly`.
    pub schedule: String,
    /// Time zone by its IANA name; none: UTC.
    pub time_zone: Option<String>,
    /// Seconds after which a missed start is given up.
    pub starting_deadline_seconds: Option<i64>,
    /// `Allow`, `Forbid` or `Replace`.
    pub concurrency_policy: String,
    /// Whether nothing is started for now.
    pub suspend: bool,
    /// Template of the Jobs, whole.
    pub job_template: Value,
    /// Jobs that succeeded and are kept; the API defaults it to 3.
    pub successful_jobs_history_limit: Option<i64>,
    /// Jobs that failed and are kept; the API defaults it to 1.
    pub failed_jobs_history_limit: Option<i64>,
}

/// `status` of a CronJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobStatus {
    /// Jobs that run.
    pub active: Vec<JobReference>,
    /// The time for which a Job was last started.
    pub last_schedule_time: Option<Timestamp>,
    /// When a Job last succeeded.
    pub last_successful_time: Option<Timestamp>,
}

/// A reference to a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobReference {
    /// `batch/v1`.
    pub api_version: String,
    /// `Job`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}
