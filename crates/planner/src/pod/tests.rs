//! Pods are played against a microVM that does at once what it is asked; the script says how containers end.

use isopod_types::pod::Pod;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::{Addresses, render};
use super::{Action, Fact, Observed, Signal, decide};

struct Play {
    pod: Pod,
    observed: Observed,
    now: i64,
    log: Vec<String>,
    /// Images that cannot be pulled.
    missing: bool,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Play {
    fn new(spec: Value) -> Self {
        let metadata = json!({"name": "p", "namespace": "default", "uid": "u"});
        let pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let observed = Observed { seen_at: Some(at(0)), ..Observed::default() };
        Self { pod, observed, now: 0, log: Vec::new(), missing: false }
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
            Action::StartContainer { container, attempt } => {
                let started = Fact::Started { container: container.clone(), started_at: at(self.now) };
                (format!("start {container} {attempt}"), Some(started))
            }
            Action::Signal { container, signal: Signal::Stop } => (format!("stop {container}"), None),
            Action::Signal { container, signal: Signal::Kill } => (format!("kill {container}"), None),
            Action::DeleteObject => ("delete".into(), None),
        };
        self.log.push(text);
        fact
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
