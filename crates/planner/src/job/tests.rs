//! A Job is played against a small model of a cluster in which pods end as the test says, and whoever carries out a plan may be
//! killed between any two writes.

use std::collections::BTreeMap;

use isopod_types::batch::Job;
use isopod_types::pod::Pod;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tally::TRACKING_FINALIZER;
use super::{abandon, expire, plan};
use crate::plan::{Plan, Write};

struct Model {
    job: Value,
    pods: BTreeMap<String, Value>,
    made: usize,
    second: i64,
    /// UIDs of pods that ended well and badly, as they really did.
    ended: (Vec<String>, Vec<String>),
}

fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in fields {
                merge(&mut into[key], value);
            }
        }
        other => *into = other.clone(),
    }
}

fn parse<K: serde::de::DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

fn is_deleting(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running" && !is_deleting(pod)
}

fn is_tracked(pod: &Value) -> bool {
    pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

impl Model {
    fn new(spec: Value) -> Self {
        let template = json!({"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}});
        let mut job = json!({
            "metadata": {"name": "work", "namespace": "x", "uid": "j"},
            "spec": {"selector": {"matchLabels": {"job": "j"}}, "template": template, "parallelism": 1},
        });
        merge(&mut job["spec"], &spec);
        Self { job, pods: BTreeMap::new(), made: 0, second: 1000, ended: Default::default() }
    }

    fn plan(&self) -> Plan {
        let pods: Vec<Pod> = self.pods.values().map(parse).collect();
        plan(&parse::<Job>(&self.job), &pods.iter().collect::<Vec<_>>(), Timestamp::from_second(self.second).unwrap())
    }

    /// Decides until nothing is left to do; nothing ends meanwhile.
    fn settle(&mut self) {
        for _ in 0..50 {
            let plan = self.plan();
            if plan.writes.is_empty() {
                return;
            }
            plan.writes.iter().for_each(|write| self.apply(write));
        }
        panic!("did not settle: {}", self.job["status"]);
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create { object, .. } => {
                self.made += 1;
                let mut pod = object.clone();
                let prefix = pod["metadata"]["generateName"].as_str().unwrap().to_owned();
                let name = format!("{prefix}{}", self.made);
                pod["metadata"]["name"] = json!(name);
                pod["metadata"]["uid"] = json!(format!("uid{}", self.made));
                pod["spec"]["nodeName"] = json!("n");
                pod["status"] = json!({"phase": "Running"});
                self.pods.insert(name, pod);
            }
            Write::Patch { target, patch, .. } if target.kind == "Job" => merge(&mut self.job, patch),
            Write::Patch { target, patch, .. } => {
                if let Some(pod) = self.pods.get_mut(&target.key.name) {
                    merge(pod, patch);
                }
            }
            Write::Delete { target, .. } => {
                if let Some(pod) = self.pods.get_mut(&target.key.name) {
                    // What is deleted with its finalizer has failed; without it, it does not count.
                    if is_tracked(pod) && is_running(pod) {
                        self.ended.1.push(pod["metadata"]["uid"].as_str().unwrap().to_owned());
                    }
                    pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:20:00Z");
                }
            }
            _ => {}
        }
    }

    /// Ends the pod that comes at this place among those that run.
    fn end(&mut self, place: usize, code: i32) {
        let running = self.pods.values_mut().filter(|pod| is_running(pod));
        let mut running: Vec<&mut Value> = running.collect();
        let count = running.len();
        if count == 0 {
            return;
        }
        let pod = &mut running[place % count];
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let ended = json!({"exitCode": code, "finishedAt": Timestamp::from_second(self.second).unwrap()});
        let statuses = json!([{"name": "c", "state": {"terminated": ended}}]);
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        pod["status"] = json!({"phase": phase, "containerStatuses": statuses});
        if code == 0 { &mut self.ended.0 } else { &mut self.ended.1 }.push(uid);
    }

    /// Pods on their way out end, and those that nothing holds are gone.
    fn clean(&mut self) {
        for pod in self.pods.values_mut().filter(|pod| is_deleting(pod) && pod["status"]["phase"] == "Running") {
            pod["status"]["phase"] = json!("Failed");
        }
        self.pods.retain(|_, pod| !is_deleting(pod) || is_tracked(pod));
    }

    fn run(&mut self, codes: &[i32]) {
        self.settle();
        for code in codes {
            self.end(0, *code);
            self.settle();
            self.second += 1000;
            self.settle();
        }
        self.clean();
        self.settle();
    }

    fn status(&self, field: &str) -> Value {
        self.job["status"][field].clone()
    }

    /// `TYPE:REASON` of the conditions that are true.
    fn conditions(&self) -> Vec<String> {
        let all = self.job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value| format!("{}:{}", one["type"].as_str().unwrap(), one["reason"].as_str().unwrap());
        all.iter().filter(|one| one["status"] == "True").map(text).collect()
    }

    fn active(&self) -> Vec<&String> {
        self.pods.iter().filter(|(_, pod)| is_running(pod)).map(|(name, _)| name).collect()
    }
}

/// Ends pods with these codes one after the other; says what became of the Job: condition, successes, failures.
fn check(spec: Value, codes: &[i32], expected: (&str, i64, i64)) {
    let mut model = Model::new(spec.clone());
    model.run(codes);
    let last = model.conditions().last().cloned().unwrap_or_default();
    let found = (last.as_str(), model.status("succeeded"), model.status("failed"));
    assert_eq!(found, (expected.0, json!(expected.1), json!(expected.2)), "{spec} {codes:?}: {}", model.job["status"]);
    assert!(model.pods.values().all(|pod| pod["metadata"]["finalizers"] == json!([])) || expected.0.is_empty());
}

#[test]
fn jobs_end_as_their_pods_do() {
    let complete = "Complete:CompletionsReached";
    check(json!({"completions": 1}), &[0], (complete, 1, 0));
    check(json!({"completions": 2, "parallelism": 2}), &[0], ("", 1, 0));
    check(json!({"completions": 2, "parallelism": 2}), &[0, 0], (complete, 2, 0));
    check(json!({"completions": 1}), &[1, 1, 0], (complete, 1, 2));
    check(json!({"completions": 1, "backoffLimit": 1}), &[1, 1], ("Failed:BackoffLimitExceeded", 0, 2));
    check(json!({"parallelism": 3}), &[0, 1, 0], (complete, 2, 1));
    check(json!({"completions": 0}), &[], (complete, 0, 0));
    check(json!({"completions": 3, "completionMode": "Indexed", "parallelism": 2}), &[0, 1, 0, 0], (complete, 3, 1));
}

#[test]
fn indexes_have_their_own_limits() {
    let spec = |more: Value| {
        let mut spec =
            json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "backoffLimit": 99});
        merge(&mut spec, &more);
        spec
    };
    // While the first index waits after its failure, the second has its turn.
    check(spec(json!({})), &[1, 1, 0, 1], ("Failed:FailedIndexes", 1, 3));
    check(spec(json!({})), &[1, 0, 0], ("Complete:CompletionsReached", 2, 1));
    check(spec(json!({"maxFailedIndexes": 0})), &[1, 1, 1], ("Failed:MaxFailedIndexesExceeded", 0, 3));
    let fail_index = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [9]}}]});
    check(spec(json!({"podFailurePolicy": fail_index})), &[9, 0], ("Failed:FailedIndexes", 1, 1));
}

#[test]
fn rules_about_failures_and_successes() {
    let rules = |action: &str| json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [9]}}]});
    check(json!({"completions": 1, "podFailurePolicy": rules("FailJob")}), &[9], ("Failed:PodFailurePolicy", 0, 1));
    let ignore = json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": rules("Ignore")});
    check(ignore, &[9, 9, 0], ("Complete:CompletionsReached", 1, 0));
    let success = json!({"rules": [{"succeededCount": 1}]});
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": success});
    check(spec, &[0], ("Complete:SuccessPolicy", 1, 2));
}

#[test]
fn pods_know_their_index() {
    let mut model = Model::new(json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed"}));
    model.settle();
    let pod = &model.pods["work-1-2"];
    for (path, expected) in [
        ("/metadata/annotations/batch.kubernetes.io~1job-completion-index", "1"),
        ("/metadata/labels/batch.kubernetes.io~1job-completion-index", "1"),
        ("/metadata/finalizers/0", TRACKING_FINALIZER),
        ("/spec/hostname", "work-1"),
        ("/spec/containers/0/env/0/name", "JOB_COMPLETION_INDEX"),
    ] {
        assert_eq!(pod.pointer(path).unwrap(), expected);
    }
    model.end(1, 0);
    model.settle();
    assert_eq!(model.status("completedIndexes"), "1");
    model.end(0, 0);
    model.settle();
    assert_eq!(model.status("completedIndexes"), "0,1");
}

#[test]
fn a_failure_delays_the_next_pod() {
    let mut model = Model::new(json!({"completions": 1}));
    model.settle();
    for delay in [10, 20, 40] {
        model.end(0, 1);
        model.settle();
        assert!(model.active().is_empty());
        let due = Timestamp::from_second(model.second + delay).unwrap();
        assert_eq!(model.plan().again_at, Some(due));
        model.second += delay;
        model.settle();
        assert_eq!(model.active().len(), 1, "{delay}");
    }
}

#[test]
fn a_suspended_job_has_no_pods_and_loses_no_count() {
    let mut model = Model::new(json!({"completions": 4, "parallelism": 2, "backoffLimit": 0, "suspend": true}));
    model.settle();
    assert_eq!((model.active().len(), model.conditions()), (0, vec!["Suspended:JobSuspended".to_owned()]));
    assert!(model.status("startTime").is_null());
    model.job["spec"]["suspend"] = json!(false);
    model.run(&[0]);
    assert_eq!((model.active().len(), model.status("succeeded")), (2, json!(1)));
    model.job["spec"]["suspend"] = json!(true);
    model.run(&[]);
    assert_eq!((model.active().len(), model.status("succeeded"), model.status("failed")), (0, json!(1), json!(0)));
    assert!(model.status("startTime").is_null());
}

#[test]
fn deadlines_end_jobs_after_their_pods_have_ended() {
    let mut model = Model::new(json!({"completions": 2, "activeDeadlineSeconds": 60}));
    model.settle();
    model.second += 59;
    assert_eq!(model.plan().again_at, Timestamp::from_second(model.second + 1).ok());
    model.second += 1;
    model.job["spec"]["podReplacementPolicy"] = json!("Failed");
    model.settle();
    assert_eq!(model.conditions(), ["FailureTarget:DeadlineExceeded"], "its pod has not ended");
    assert_eq!(model.status("terminating"), 1);
    model.clean();
    model.settle();
    assert_eq!(model.conditions(), ["FailureTarget:DeadlineExceeded", "Failed:DeadlineExceeded"]);
}

#[test]
fn replacements_wait_for_the_end_when_asked_to() {
    for (policy, expected) in [("TerminatingOrFailed", 1), ("Failed", 0)] {
        let mut model = Model::new(json!({"completions": 1, "podReplacementPolicy": policy}));
        model.settle();
        model.pods.values_mut().for_each(|pod| pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z"));
        model.settle();
        assert_eq!(model.active().len(), expected, "{policy}");
        model.clean();
        model.settle();
        model.second += 1000;
        model.settle();
        assert_eq!((model.active().len(), model.status("failed")), (1, json!(1)), "{policy}");
    }
}

#[test]
fn others_jobs_and_lost_pods() {
    let mut model = Model::new(json!({"managedBy": "example.com/other"}));
    assert_eq!(model.plan(), Plan::nothing());
    model.job["spec"]["managedBy"] = json!("kubernetes.io/job-controller");
    model.settle();
    let pod: Pod = parse(model.pods.values().next().unwrap());
    assert!(
        matches!(&abandon(&pod).writes[..], [Write::Patch { patch, .. }] if patch["metadata"]["finalizers"] == json!([]))
    );
    model.job["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    model.settle();
    assert!(model.pods.values().all(|pod| pod["metadata"]["finalizers"] == json!([])));
}

#[test]
fn a_finished_job_goes_after_its_time() {
    let mut model = Model::new(json!({"completions": 1, "ttlSecondsAfterFinished": 30}));
    model.run(&[0]);
    let job: Job = parse(&model.job);
    let end = job.status.completion_time.unwrap().as_second();
    let at = |second| Timestamp::from_second(second).unwrap();
    assert_eq!(expire(&job, at(end + 29)).again_at, Some(at(end + 30)));
    let writes = expire(&job, at(end + 30)).writes;
    assert!(matches!(&writes[..], [Write::Delete { propagation: Some("Background"), .. }]), "{writes:?}");
}

proptest! {
    /// Pods end in any order, plans are cut short anywhere, ended pods are removed by others: in the end every pod that ended
    /// while it was the Job's is counted once.
    #[test]
    fn no_pod_is_counted_twice_or_lost(
        indexed: bool, completions in 1..6i64, parallelism in 1..4i64, steps in prop::collection::vec((0..8usize, 0..5usize, 0..3i32, any::<bool>()), 0..40),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut model = Model::new(json!({"completions": completions, "parallelism": parallelism, "completionMode": mode, "backoffLimit": 5}));
        for (cut, place, code, clean) in steps {
            let plan = model.plan();
            plan.writes.iter().take(cut).for_each(|write| model.apply(write));
            model.second += 300;
            if clean {
                model.pods.values_mut().filter(|pod| pod["status"]["phase"] != "Running").for_each(|pod| {
                    pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
                });
                model.clean();
            }
            prop_assert!(model.active().len() <= usize::try_from(parallelism).unwrap(), "{:?}", model.active());
            model.end(place, code.min(1));
        }
        for _ in 0..20 {
            model.settle();
            model.second += 1000;
            model.settle();
            model.end(0, 0);
            model.clean();
        }
        prop_assert!(!model.status("completionTime").is_null() || model.conditions().iter().any(|one| one.starts_with("Failed:")));
        prop_assert_eq!(model.status("failed"), json!(model.ended.1.len()));
        prop_assert_eq!(model.status("succeeded"), json!(model.ended.0.len()));
    }
}
