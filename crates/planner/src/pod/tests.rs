//! Pods are played against a microVM that does at once what it is asked; the script says how containers end.

use std::collections::BTreeMap;

use isopod_types::pod::Pod;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::{Addresses, render};
use super::{Action, Fact, Observed, ProbeKind, Signal, Thresholds, decide};

struct Play {
    pod: Pod,
    observed: Observed,
    now: i64,
    log: Vec<String>,
    /// Images that cannot be pulled.
    missing: bool,
    /// What probes find; those without an answer are never done.
    answers: BTreeMap<ProbeKind, bool>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Play {
    fn new(spec: Value) -> Self {
        let metadata = json!({"name": "p", "namespace": "default", "uid": "u"});
        let pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let observed = Observed { seen_at: Some(at(0)), ..Observed::default() };
        Self { pod, observed, now: 0, log: Vec::new(), missing: false, answers: BTreeMap::new() }
    }

    fn one(policy: &str) -> Self {
        Self::new(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}))
    }

    /// Decides and does until nothing is left to do now.
    fn run(&mut self) -> &mut Self {
        for _ in 0..50 {
            let decision = decide(&self.pod, &self.observed, at(self.now));
            if decision.actions.is_empty() {
                return self;
            }
            for action in decision.actions {
                self.observed.begin(&action);
                if let Some(fact) = self.perform(&action) {
                    self.observed.apply(fact, at(self.now));
                }
            }
            if self.log.last().is_some_and(|last| last == "delete") {
                return self;
            }
        }
        panic!("does not come to rest: {:?}", self.log);
    }

    fn perform(&mut self, action: &Action) -> Option<Fact> {
        let (text, fact) = match action {
            Action::StartMachine => ("machine".into(), Some(Fact::MachineUp { start_path: "booted".into() })),
            Action::DestroyMachine => ("destroy".into(), Some(Fact::MachineEnded { cause: "asked".into() })),
            Action::PullImage { image } if self.missing => {
                let (reason, message) = ("ErrImagePull".into(), "not found".into());
                ("pull".into(), Some(Fact::ImageFailed { image: image.clone(), reason, message }))
            }
            Action::PullImage { image } => {
                ("pull".into(), Some(Fact::ImageReady { image: image.clone(), id: "sha256:1".into() }))
            }
            Action::Configure => ("configure".into(), Some(Fact::SetUp)),
            Action::StartContainer { container, attempt, .. } => {
                let started = Fact::Started { container: container.clone(), started_at: at(self.now) };
                (format!("start {container} {attempt}"), Some(started))
            }
            Action::Signal { container, signal: Signal::Stop, .. } => (format!("stop {container}"), None),
            Action::Signal { container, signal: Signal::Kill, .. } => (format!("kill {container}"), None),
            Action::Probe { container, attempt, kind, .. } => {
                let &good = self.answers.get(kind)?;
                let thresholds = self.thresholds(container, *kind);
                let probed =
                    Fact::Probed { container: container.clone(), attempt: *attempt, kind: *kind, good, thresholds };
                (format!("{} {container}", kind.as_str()), Some(probed))
            }
            Action::Resize { container, attempt, resources } => {
                let (name, resources) = (container.clone(), resources.clone());
                (format!("resize {name}"), Some(Fact::Resized { container: name, attempt: *attempt, resources }))
            }
            Action::DeleteObject => ("delete".into(), None),
        };
        self.log.push(text);
        fact
    }

    fn thresholds(&self, container: &str, kind: ProbeKind) -> Thresholds {
        let container = self.pod.spec.all_containers().find(|other| other.name == container).unwrap();
        Thresholds::of(kind.of(container).unwrap())
    }

    fn finds(&mut self, kind: ProbeKind, good: bool) -> &mut Self {
        self.answers.insert(kind, good);
        self
    }

    fn exits(&mut self, container: &str, code: i32) -> &mut Self {
        let (container, message, finished_at) = (container.into(), String::new(), at(self.now));
        self.observed.apply(
            Fact::Exited { container, code, signal: None, oom_killed: false, message, finished_at },
            at(self.now),
        );
        self.run()
    }

    fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds;
        self.run()
    }

    fn delete(&mut self, grace: i64) -> &mut Self {
        self.pod.metadata.deletion_timestamp = Some(at(self.now + grace));
        self.run()
    }

    fn did(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.log, expected);
        self.log.clear();
        self
    }

    fn status(&mut self) -> Value {
        let addresses = Addresses { pod: "10.0.0.4".into(), host: "10.0.0.4".into() };
        render(&self.pod, &self.observed, &addresses, at(self.now))["status"].clone()
    }

    fn shows(&mut self, phase: &str, path: &str, expected: Value) -> &mut Self {
        let status = self.status();
        assert_eq!(status["phase"], phase, "{status}");
        assert_eq!(status.pointer(path).unwrap_or(&Value::Null), &expected, "{status}");
        self
    }
}

const STATE: &str = "/containerStatuses/0/state";

#[test]
fn a_pod_comes_up_in_order() {
    let mut play = Play::one("Always");
    play.shows("Pending", &format!("{STATE}/waiting/reason"), json!("ContainerCreating"));
    play.run().did(&["pull", "machine", "configure", "start c 0"]);
    play.shows("Running", &format!("{STATE}/running/startedAt"), json!("1970-01-01T00:00:00Z"));
    play.shows("Running", "/podIP", json!("10.0.0.4"));
    play.shows("Running", "/conditions/2/status", json!("True"));
}

#[test]
fn a_container_that_is_being_started_does_not_run_yet() {
    let mut play = Play::one("Always");
    play.run();
    play.observed.containers.get_mut("c").unwrap().run = super::Run::Starting;
    play.shows("Pending", &format!("{STATE}/waiting/reason"), json!("ContainerCreating"));
}

#[test]
fn restarts_back_off() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    play.exits("c", 1).did(&["start c 1"]);
    play.exits("c", 1).did(&[]);
    play.shows("Running", &format!("{STATE}/waiting/reason"), json!("CrashLoopBackOff"));
    play.shows("Running", "/containerStatuses/0/lastState/terminated/exitCode", json!(1));
    play.wait(9).did(&[]).wait(1).did(&["start c 2"]);
    play.exits("c", 1).wait(19).did(&[]).wait(1).did(&["start c 3"]);
    play.shows("Running", "/containerStatuses/0/restartCount", json!(3));
    play.wait(600).exits("c", 1).did(&["start c 4"]);
}

#[test]
fn a_finished_pod_gives_its_machine_back() {
    for (policy, code, phase, reason) in [
        ("Never", 0, "Succeeded", "Completed"),
        ("Never", 3, "Failed", "Error"),
        ("OnFailure", 0, "Succeeded", "Completed"),
    ] {
        let mut play = Play::one(policy);
        play.run().log.clear();
        play.exits("c", code).did(&["destroy"]);
        play.shows(phase, &format!("{STATE}/terminated/reason"), json!(reason));
        play.shows(phase, &format!("{STATE}/terminated/exitCode"), json!(code));
        play.pod.status.phase = phase.into();
        play.wait(1000).did(&[]).delete(0).did(&["delete"]);
    }
}

#[test]
fn deletion_asks_then_kills() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    play.delete(30).did(&["stop c"]).wait(29).did(&[]).wait(1).did(&["kill c"]);
    play.exits("c", 137).did(&["destroy", "delete"]);
}

#[test]
fn a_container_that_ends_on_request_is_not_started_again() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    play.delete(30).exits("c", 0).did(&["stop c", "destroy", "delete"]);
    play.shows("Succeeded", &format!("{STATE}/terminated/exitCode"), json!(0));
}

#[test]
fn a_pod_deleted_before_it_has_a_machine_just_goes() {
    let mut play = Play::one("Always");
    play.delete(30).did(&["delete"]);
}

#[test]
fn a_machine_that_dies_is_replaced_as_the_policy_says() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    play.observed.apply(Fact::MachineEnded { cause: "killed".into() }, at(5));
    play.shows("Running", "/containerStatuses/0/lastState/terminated/reason", json!("ContainerStatusUnknown"));
    play.wait(5).did(&["machine", "configure", "start c 1"]);
    let mut play = Play::one("Never");
    play.run().log.clear();
    play.observed.apply(Fact::MachineEnded { cause: "killed".into() }, at(5));
    play.run().did(&[]);
    play.shows("Failed", &format!("{STATE}/terminated/exitCode"), json!(137));
}

#[test]
fn images_that_cannot_be_had_are_tried_again_later() {
    let mut play = Play::one("Always");
    play.missing = true;
    play.run().did(&["pull", "machine", "configure"]);
    play.shows("Pending", &format!("{STATE}/waiting/reason"), json!("ErrImagePull"));
    play.wait(2).shows("Pending", &format!("{STATE}/waiting/reason"), json!("ImagePullBackOff"));
    play.missing = false;
    play.wait(7).did(&[]).wait(1).did(&["pull", "start c 0"]);
}

#[test]
fn init_containers_run_first_and_one_by_one() {
    let mut play = Play::new(json!({
        "restartPolicy": "Always",
        "initContainers": [{"name": "a", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}, {"name": "b", "image": "i"}],
        "containers": [{"name": "c", "image": "i"}],
    }));
    play.run().did(&["pull", "machine", "configure", "start a 0"]);
    play.shows("Pending", &format!("{STATE}/waiting/reason"), json!("PodInitializing"));
    play.shows("Pending", "/initContainerStatuses/2/state/waiting/reason", json!("PodInitializing"));
    play.exits("a", 1).did(&["start a 1"]);
    play.exits("a", 0).did(&["start s 0", "start b 0"]);
    play.exits("b", 0).did(&["start c 0"]);
    play.exits("s", 1).did(&["start s 1"]);
    play.delete(30).did(&["stop c"]).exits("c", 0).did(&["stop s"]).exits("s", 0).did(&["destroy", "delete"]);
}

#[test]
fn a_failed_init_container_fails_the_pod_that_never_restarts() {
    let mut play = Play::new(json!({
        "restartPolicy": "Never", "initContainers": [{"name": "a", "image": "i"}], "containers": [{"name": "c", "image": "i"}],
    }));
    play.run().log.clear();
    play.exits("a", 2).did(&["destroy"]);
    play.shows("Failed", "/initContainerStatuses/0/state/terminated/exitCode", json!(2));
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let mut play = Play::one("Always");
    play.pod.spec.active_deadline_seconds = Some(60);
    play.run().log.clear();
    play.wait(59).did(&[]).wait(1).did(&["stop c"]);
    play.exits("c", 143).did(&["destroy"]);
    play.shows("Failed", "/reason", json!("DeadlineExceeded"));
}

#[test]
fn a_command_that_does_not_exist_is_an_end_with_a_reason() {
    let mut play = Play::one("Never");
    play.run();
    play.observed.containers.get_mut("c").unwrap().run = super::Run::Starting;
    play.observed.apply(
        Fact::StartFailed { container: "c".into(), code: 127, message: "executable file not found".into() },
        at(1),
    );
    play.run().shows("Failed", &format!("{STATE}/terminated/reason"), json!("StartError"));
}

#[test]
fn what_is_known_survives_on_disk() {
    let mut play = Play::one("Always");
    play.run();
    let text = serde_json::to_string(&play.observed).unwrap();
    assert_eq!(serde_json::from_str::<Observed>(&text).unwrap(), play.observed);
}

#[test]
fn a_machine_that_cannot_start_is_tried_again_later() {
    let mut play = Play::one("Always");
    play.observed.begin(&Action::StartMachine);
    play.observed.apply(Fact::MachineFailed { message: "no memory".into() }, at(0));
    let decision = decide(&play.pod, &play.observed, at(1));
    assert!(!decision.actions.contains(&Action::StartMachine));
    assert!(decide(&play.pod, &play.observed, at(10)).actions.contains(&Action::StartMachine));
    assert!(play.status()["message"].as_str().unwrap().contains("no memory"));
}

/// A pod with one container that has these probes.
fn probed(probes: Value) -> Play {
    let mut container = json!({"name": "c", "image": "i"});
    container.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
    Play::new(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "containers": [container]}))
}

const READY: &str = "/containerStatuses/0/ready";
const STARTED: &str = "/containerStatuses/0/started";

#[test]
fn a_pod_is_ready_while_its_readiness_probe_passes() {
    let mut play =
        probed(json!({"readinessProbe": {"periodSeconds": 5, "initialDelaySeconds": 3, "failureThreshold": 2}}));
    play.finds(ProbeKind::Readiness, true).run().did(&["pull", "machine", "configure", "start c 0"]);
    play.shows("Running", READY, json!(false)).shows("Running", STARTED, json!(true));
    play.wait(2).did(&[]).wait(1).did(&["readiness c"]).shows("Running", READY, json!(true));
    play.finds(ProbeKind::Readiness, false).wait(5).did(&["readiness c"]).shows("Running", READY, json!(true));
    play.wait(4).did(&[]).wait(1).did(&["readiness c"]).shows("Running", READY, json!(false));
    play.shows("Running", "/conditions/2/status", json!("False"));
    play.finds(ProbeKind::Readiness, true).wait(5).did(&["readiness c"]).shows("Running", READY, json!(true));
}

#[test]
fn a_pod_is_ready_when_its_gates_say_so_too() {
    let mut play = Play::new(json!({
        "restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}],
        "readinessGates": [{"conditionType": "example.com/a"}, {"conditionType": "example.com/b"}],
    }));
    play.run();
    let ready = |play: &mut Play| {
        let status = play.status();
        let conditions = status["conditions"].as_array().cloned().unwrap();
        assert_eq!(conditions.len(), 5, "conditions of others are theirs");
        assert_eq!((&conditions[2]["type"], &conditions[3]["status"]), (&json!("Ready"), &json!("True")));
        assert!(conditions.iter().all(|one| one["observedGeneration"] == 7), "{conditions:?}");
        (conditions[2]["status"].clone(), conditions[2]["reason"].clone(), conditions[2]["message"].clone())
    };
    let missing =
        |gate: &str| format!("corresponding condition of pod readiness gate \"example.com/{gate}\" does not exist.");
    for (conditions, status, message) in [
        (json!([]), "False", json!(format!("{}, {}", missing("a"), missing("b")))),
        (
            json!([{"type": "example.com/a", "status": "True"}, {"type": "example.com/b", "status": "False"}]),
            "False",
            json!("the status of pod readiness gate \"example.com/b\" is not \"True\", but False"),
        ),
        (
            json!([{"type": "example.com/a", "status": "True"}, {"type": "example.com/b", "status": "True"}]),
            "True",
            json!(null),
        ),
    ] {
        play.pod.metadata.generation = 7;
        play.pod.status.conditions = serde_json::from_value(conditions).unwrap();
        let reason = if status == "True" { json!(null) } else { json!("ReadinessGatesNotReady") };
        assert_eq!(ready(&mut play), (json!(status), reason, message));
    }
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_ended_and_started_again() {
    let mut play = probed(json!({"livenessProbe": {"periodSeconds": 10, "terminationGracePeriodSeconds": 4}}));
    play.finds(ProbeKind::Liveness, false).run().did(&["pull", "machine", "configure", "start c 0", "liveness c"]);
    play.wait(10).did(&["liveness c"]).wait(10).did(&["liveness c", "stop c"]);
    play.wait(3).did(&[]).wait(1).did(&["kill c"]);
    play.finds(ProbeKind::Liveness, true).exits("c", 137).did(&["start c 1", "liveness c"]);
    play.wait(10).did(&["liveness c"]).shows("Running", "/containerStatuses/0/restartCount", json!(1));
}

#[test]
fn other_probes_wait_for_the_startup_probe() {
    let mut play = probed(json!({
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 2}, "livenessProbe": {}, "readinessProbe": {},
    }));
    play.finds(ProbeKind::Liveness, true).finds(ProbeKind::Readiness, true).finds(ProbeKind::Startup, false).run();
    play.did(&["pull", "machine", "configure", "start c 0", "startup c"]).shows("Running", STARTED, json!(false));
    play.finds(ProbeKind::Startup, true).wait(1).did(&["startup c", "liveness c", "readiness c"]);
    play.shows("Running", READY, json!(true)).wait(10).did(&["liveness c", "readiness c"]);
    let mut play = probed(json!({"startupProbe": {"periodSeconds": 1, "failureThreshold": 2}}));
    play.finds(ProbeKind::Startup, false).run().wait(1);
    assert_eq!(play.log.last().unwrap(), "stop c");
}

#[test]
fn one_check_is_under_way_at_a_time_and_old_answers_do_not_count() {
    let mut play = probed(json!({"livenessProbe": {"periodSeconds": 1, "failureThreshold": 1}}));
    let asks = |play: &Play| decide(&play.pod, &play.observed, at(play.now)).actions;
    play.finds(ProbeKind::Liveness, true).run();
    play.now += 1;
    let [probe] = asks(&play).try_into().unwrap();
    play.observed.begin(&probe);
    play.now += 5;
    assert_eq!(asks(&play), []);
    let thresholds = play.thresholds("c", ProbeKind::Liveness);
    let answer =
        |attempt| Fact::Probed { container: "c".into(), attempt, kind: ProbeKind::Liveness, good: false, thresholds };
    play.observed.apply(answer(7), at(play.now));
    assert_eq!(asks(&play), [], "another run's answer");
    play.observed.after_restart();
    assert_eq!(asks(&play).len(), 1, "the agent was restarted");
    play.observed.apply(answer(0), at(play.now));
    play.log.clear();
    play.run().did(&["stop c"]);
}

#[test]
fn a_container_whose_hook_failed_is_ended() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    play.observed.apply(Fact::HookFailed { container: "c".into(), attempt: 0 }, at(play.now));
    play.run().did(&["stop c"]).wait(30).did(&["kill c"]).exits("c", 137).did(&["start c 1"]);
}

/// Adds an ephemeral container to a pod that is there.
fn debugged(play: &mut Play, target: &str) {
    let container = json!({"name": "d", "image": "j", "targetContainerName": target});
    play.pod.spec.ephemeral_containers = vec![serde_json::from_value(container).unwrap()];
}

const DEBUGGER: &str = "/ephemeralContainerStatuses/0/state";

#[test]
fn an_ephemeral_container_starts_once_and_counts_for_nothing() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    debugged(&mut play, "");
    play.run().did(&["pull", "start d 0"]).shows("Running", "/conditions/2/status", json!("True"));
    play.shows("Running", &format!("{DEBUGGER}/running/startedAt"), json!("1970-01-01T00:00:00Z"));
    play.shows("Running", "/ephemeralContainerStatuses/0/ready", json!(false));
    play.shows("Running", "/ephemeralContainerStatuses/0/started", Value::Null);
    play.exits("d", 3).wait(1000).did(&[]).shows("Running", &format!("{DEBUGGER}/terminated/exitCode"), json!(3));
    play.shows("Running", "/conditions/2/status", json!("True"));
}

#[test]
fn a_pod_that_ends_ends_its_ephemeral_containers() {
    let mut play = Play::one("Never");
    debugged(&mut play, "");
    play.run().log.clear();
    play.exits("c", 0).did(&["stop d"]).shows("Running", &format!("{STATE}/terminated/exitCode"), json!(0));
    play.wait(29).did(&[]).wait(1).did(&["kill d"]).exits("d", 137).did(&["destroy"]);
    play.shows("Succeeded", &format!("{DEBUGGER}/terminated/exitCode"), json!(137));
    let mut play = Play::one("Always");
    debugged(&mut play, "");
    play.run().log.clear();
    play.delete(30).did(&["stop c", "stop d"]).exits("d", 0).exits("c", 0).did(&["destroy", "delete"]);
}

#[test]
fn an_ephemeral_container_waits_for_its_target_and_not_for_initial_ones() {
    let mut play = Play::new(json!({
        "restartPolicy": "Always", "initContainers": [{"name": "a", "image": "i"}], "containers": [{"name": "c", "image": "i"}],
    }));
    play.run().log.clear();
    debugged(&mut play, "c");
    play.run().did(&["pull"]);
    play.shows("Pending", &format!("{DEBUGGER}/waiting/message"), json!("target container \"c\" is not running"));
    play.exits("a", 0).did(&["start c 0", "start d 0"]);
    let mut play = Play::new(json!({
        "restartPolicy": "Always", "initContainers": [{"name": "a", "image": "i"}], "containers": [{"name": "c", "image": "i"}],
    }));
    play.run().log.clear();
    debugged(&mut play, "");
    play.run().did(&["pull", "start d 0"]);
}

#[test]
fn an_ephemeral_container_that_cannot_be_made_is_tried_again_alone() {
    let mut play = Play::one("Always");
    play.run().log.clear();
    debugged(&mut play, "");
    play.run().log.clear();
    let refused =
        || Fact::Refused { container: "d".into(), reason: "CreateContainerError".into(), message: "full".into() };
    play.observed.containers.get_mut("d").unwrap().run = super::Run::Starting;
    play.observed.apply(refused(), at(0));
    play.run().did(&[]).shows("Running", &format!("{DEBUGGER}/waiting/reason"), json!("CreateContainerError"));
    play.shows("Running", &format!("{DEBUGGER}/waiting/message"), json!("full"));
    play.shows("Running", "/conditions/2/status", json!("True"));
    play.wait(9).did(&[]).wait(1).did(&["start d 0"]);
    play.shows("Running", "/ephemeralContainerStatuses/0/restartCount", json!(0));
}
