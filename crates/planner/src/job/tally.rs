//! Counting the ends of pods, each exactly once.
//!
//! A pod carries a finalizer until its end is on record. First its UID goes into `uncountedTerminatedPods` (or its index among the
//! completed ones), then the finalizer goes, and only then does the UID become a number. Whoever stops in between finds
//! all it needs to go on.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::batch::{Job, Uncounted};
use isopod_types::pod::Pod;
use jiff::Timestamp;

use super::indexes::Indexes;
use super::policy::{self, Failure};

/// Finalizer of pods whose end is not on record.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with the index of a pod.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation with the failures of the pod's index before it.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation with those that do not count.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Most ends that are put on record at once.
const UNCOUNTED_MAX: usize = 500;

/// Whether the end of a pod may still have to be put on record.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|finalizer| finalizer == TRACKING_FINALIZER)
}

/// Whether pods on their way out are replaced only once they have ended.
pub(super) fn waits_for_ends(job: &Job) -> bool {
    job.spec.pod_replacement_policy.as_deref() == Some("Failed") || job.spec.pod_failure_policy.is_some()
}

/// On its way out and not there yet. Nobody will say how a pod without a node ended.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.is_deleting() && !pod.is_terminal() && !pod.spec.node_name.is_empty()
}

fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pod.status.phase.as_str() {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.is_deleting() && !(waits_for_ends(job) && is_terminating(pod)),
    }
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.completion_mode == "Indexed"
}

fn number(pod: &Pod, annotation: &str) -> Option<i64> {
    pod.metadata.annotations.get(annotation)?.parse().ok()
}

/// The index of a pod.
pub(super) fn index_of(pod: &Pod) -> Option<i64> {
    number(pod, INDEX)
}

/// Failures of the pod's index before it: those that count, and those that do not.
pub(super) fn attempts(pod: &Pod) -> (i64, i64) {
    (number(pod, FAILURES).unwrap_or(0), number(pod, IGNORED).unwrap_or(0))
}

/// A Job and its pods, counted.
pub(super) struct Tally<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: Vec<&'a Pod>,
    pub(super) now: Timestamp,
    /// Neither ended nor ending.
    pub(super) active: Vec<&'a Pod>,
    /// Numbers, with what has lost its finalizer since.
    pub(super) counted: (i64, i64),
    /// On record, finalizer still there.
    uncounted: Uncounted,
    /// Ends that are not on record.
    new_succeeded: Vec<&'a Pod>,
    pub(super) new_failed: Vec<(&'a Pod, Failure)>,
    pub(super) completed: Indexes,
    pub(super) failed: Indexes,
    /// Failed pods that are kept until their index has a new pod, which continues their numbers.
    pub(super) kept: BTreeMap<i64, &'a Pod>,
}

impl<'a> Tally<'a> {
    pub(super) fn of(job: &'a Job, pods: Vec<&'a Pod>, now: Timestamp) -> Self {
        let tracked: BTreeSet<&str> =
            pods.iter().filter(|pod| is_tracked(pod)).map(|pod| pod.metadata.uid.as_str()).collect();
        let split = |uids: &[String]| -> (Vec<String>, i64) {
            let left: Vec<String> = uids.iter().filter(|uid| tracked.contains(uid.as_str())).cloned().collect();
            let gone = uids.len() - left.len();
            (left, i64::try_from(gone).unwrap_or(i64::MAX))
        };
        let (succeeded, more_succeeded) = split(&job.status.uncounted_terminated_pods.succeeded);
        let (failed, more_failed) = split(&job.status.uncounted_terminated_pods.failed);
        let completions = job.spec.completions.unwrap_or(0);
        let mut tally = Self {
            job,
            now,
            active: pods.iter().copied().filter(|pod| pod.is_active()).collect(),
            pods,
            counted: (job.status.succeeded + more_succeeded, job.status.failed + more_failed),
            uncounted: Uncounted { succeeded, failed },
            new_succeeded: Vec::new(),
            new_failed: Vec::new(),
            completed: Indexes::parse(&job.status.completed_indexes, completions),
            failed: Indexes::parse(job.status.failed_indexes.as_deref().unwrap_or_default(), completions),
            kept: BTreeMap::new(),
        };
        tally.take_ends();
        tally.take_indexes();
        tally
    }

    /// Whether an index is one of the Job's.
    pub(super) fn is_valid(&self, index: Option<i64>) -> bool {
        index.is_some_and(|index| index >= 0 && index < self.job.spec.completions.unwrap_or(0))
    }

    fn take_ends(&mut self) {
        let indexed = is_indexed(self.job);
        let on_record: BTreeSet<&str> =
            self.uncounted.succeeded.iter().chain(&self.uncounted.failed).map(String::as_str).collect();
        let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
        for pod in self.pods.iter().copied().filter(|pod| is_tracked(pod)) {
            let counts = !indexed || self.is_valid(index_of(pod));
            if on_record.contains(pod.metadata.uid.as_str()) || !counts {
                continue;
            }
            if pod.status.phase == "Succeeded" {
                succeeded.push(pod);
            } else if is_failed(self.job, pod) {
                failed.push((pod, policy::of(self.job, pod)));
            }
        }
        (self.new_succeeded, self.new_failed) = (succeeded, failed);
    }

    fn take_indexes(&mut self) {
        if !is_indexed(self.job) {
            return;
        }
        self.new_succeeded.iter().filter_map(|pod| index_of(pod)).for_each(|index| self.completed.insert(index));
        let Some(limit) = self.job.spec.backoff_limit_per_index else { return };
        for (pod, failure) in &self.new_failed {
            let Some(index) = index_of(pod).filter(|index| !self.completed.contains(*index)) else { continue };
            let is_last = *failure == Failure::FailsIndex || (*failure != Failure::Ignored && attempts(pod).0 >= limit);
            if is_last {
                self.failed.insert(index);
            }
        }
        self.keep_last_failures();
    }

    fn keep_last_failures(&mut self) {
        let sum = |pod: &Pod| attempts(pod).0 + attempts(pod).1;
        for (pod, _) in &self.new_failed {
            let Some(index) = index_of(pod) else { continue };
            let is_over = self.completed.contains(index) || self.failed.contains(index);
            let newer = |other: &&Pod| index_of(other) == Some(index) && sum(other) > sum(pod);
            if !is_over && !self.pods.iter().any(newer) {
                self.kept.insert(index, pod);
            }
        }
    }

    /// Successes: indexes of an indexed Job, pods of another.
    pub(super) fn successes(&self) -> i64 {
        if is_indexed(self.job) {
            return self.completed.len();
        }
        let pods = self.uncounted.succeeded.len() + self.new_succeeded.len();
        self.counted.0 + i64::try_from(pods).unwrap_or(i64::MAX)
    }

    /// Failures that count.
    pub(super) fn failures(&self) -> i64 {
        let new = self.new_failed.iter().filter(|(_, failure)| *failure != Failure::Ignored).count();
        self.counted.1 + i64::try_from(self.uncounted.failed.len() + new).unwrap_or(i64::MAX)
    }

    /// Pods on their way out.
    pub(super) fn terminating(&self) -> i64 {
        i64::try_from(self.pods.iter().filter(|pod| is_terminating(pod)).count()).unwrap_or(i64::MAX)
    }

    /// What is to be on record now, and the pods whose finalizer may go once it is.
    pub(super) fn record(&self, is_over: bool) -> (Uncounted, Vec<&'a Pod>) {
        let mut uncounted = self.uncounted.clone();
        let on_record: BTreeSet<&str> =
            self.uncounted.succeeded.iter().chain(&self.uncounted.failed).map(String::as_str).collect();
        let mut released: Vec<&Pod> =
            self.pods.iter().copied().filter(|pod| on_record.contains(pod.metadata.uid.as_str())).collect();
        for pod in self.new_succeeded.iter().take(UNCOUNTED_MAX) {
            if !is_indexed(self.job) {
                uncounted.succeeded.push(pod.metadata.uid.clone());
            }
            released.push(pod);
        }
        let is_kept = |pod: &Pod| {
            let kept = index_of(pod).and_then(|index| self.kept.get(&index));
            kept.is_some_and(|kept| kept.metadata.uid == pod.metadata.uid)
        };
        let room = UNCOUNTED_MAX.saturating_sub(self.new_succeeded.len());
        for (pod, failure) in self.new_failed.iter().filter(|(pod, _)| is_over || !is_kept(pod)).take(room) {
            if *failure != Failure::Ignored {
                uncounted.failed.push(pod.metadata.uid.clone());
            }
            released.push(pod);
        }
        released.extend(self.of_no_account());
        (uncounted, released)
    }

    /// Tracked pods whose end counts nowhere: of an index the Job has not, or of a Job that is being deleted.
    fn of_no_account(&self) -> impl Iterator<Item = &'a Pod> {
        let leaving = self.job.metadata.is_deleting();
        let counts_nowhere = move |pod: &&Pod| {
            let ended = pod.is_terminal() || is_failed(self.job, pod);
            let stranger = is_indexed(self.job) && !self.is_valid(index_of(pod));
            if ended { stranger } else { leaving }
        };
        self.pods.iter().copied().filter(|pod| is_tracked(pod)).filter(counts_nowhere)
    }
}
