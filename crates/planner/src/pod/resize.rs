//! What the containers of a pod may use, when that is changed while they run: whether there is room for it, who has to start
//! anew for it, and what is told about it. The rules and words are the kubelet's (KEP 1287).
//!
//! Three amounts per container: what the specification wants, what was allotted to it (kept in [`Resize`]), and what its
//! newest run was given ([`Runs::given`](super::Runs)).

use std::collections::BTreeMap;
use std::sync::Arc;

use isopod_types::pod::{Container, Pod, Resources};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decide::{Action, Decision};
use super::observed::{Observed, Run, Runs};
use super::{after, backoff};
use crate::plan::Reason;
use crate::scheduler::resources::{self, Resources as Amounts};

/// What was allotted to a pod's containers, and how far that is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resize {
    /// By container; empty until the pod was first looked at.
    pub allotted: BTreeMap<String, Resources>,
    /// Why what is wanted is not allotted.
    pub pending: Option<Pending>,
    /// The generation of the pod whose amounts are being made real.
    pub under_way: Option<i64>,
}

/// Why what is wanted is not allotted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The generation of the pod that wants it.
    pub generation: i64,
}

/// Where the pod is.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// What the node has for pods.
    pub capacity: Amounts,
    /// What other pods have of it.
    pub others: Amounts,
    /// The size of the pod's own microVM, in the words of its annotation; none on a node of many.
    pub machine: Option<String>,
}

/// The pod with what was allotted to its containers instead of what they want.
pub fn allotted(pod: &Arc<Pod>, observed: &Observed) -> Arc<Pod> {
    if observed.resize.allotted.is_empty() || wanted(pod) == observed.resize.allotted {
        return pod.clone();
    }
    let mut pod = (**pod).clone();
    for container in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
        if let Some(resources) = observed.resize.allotted.get(&container.name) {
            container.resources.clone_from(resources);
        }
    }
    Arc::new(pod)
}

/// Brings what is allotted in line with what is wanted, as far as there is room; returns what the user is to be told.
pub fn settle(pod: &Pod, observed: &mut Observed, room: &Room, now: Timestamp) -> Vec<Reason> {
    let mut told = Vec::new();
    if observed.resize.allotted.is_empty() {
        begin(pod, observed);
    }
    allot(pod, observed, room, &mut told);
    for container in pod.spec.own_containers() {
        condemn(container, observed, now);
    }
    complete(pod, observed, &mut told);
    told
}

fn wanted(pod: &Pod) -> BTreeMap<String, Resources> {
    pod.spec.own_containers().map(|container| (container.name.clone(), container.resources.clone())).collect()
}

/// A pod comes with what its node was chosen for. What runs of it already was started so.
fn begin(pod: &Pod, observed: &mut Observed) {
    observed.resize.allotted = wanted(pod);
    for (name, resources) in &observed.resize.allotted {
        if let Some(runs) = observed.containers.get_mut(name).filter(|runs| runs.is_live()) {
            runs.given.get_or_insert_with(|| resources.clone());
        }
    }
}

fn allot(pod: &Pod, observed: &mut Observed, room: &Room, told: &mut Vec<Reason>) {
    let wanted = wanted(pod);
    if wanted == observed.resize.allotted {
        observed.resize.pending = None;
        return;
    }
    if pod.metadata.is_deleting() || pod.is_terminal() {
        return;
    }
    let generation = pod.metadata.generation;
    match refusal(pod, room) {
        None => {
            let text = format!("Pod resize started: {}", summary(&wanted, generation));
            observed.resize = Resize { allotted: wanted, pending: None, under_way: Some(generation) };
            observed.containers.values_mut().for_each(|runs| runs.resize_failure = None);
            told.push(Reason::normal("ResizeStarted", text));
        }
        Some((reason, message)) => {
            let pending = Some(Pending { reason: reason.into(), message: message.clone(), generation });
            if observed.resize.pending != pending {
                let event = if reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
                told.push(Reason::warning(event, format!("Pod resize {reason}: {message}")));
            }
            observed.resize.pending = pending;
        }
    }
}

/// Why there is no room for what the pod wants: never on this node, or not now.
fn refusal(pod: &Pod, room: &Room) -> Option<(&'static str, String)> {
    let wanted = resources::requested(&pod.spec);
    let missing = |others: &Amounts| {
        room.capacity.missing(others, &wanted).into_iter().find(|name| matches!(*name, "cpu" | "memory"))
    };
    let of = |amounts: &Amounts, name: &str| if name == "cpu" { amounts.cpu_milli } else { amounts.memory_bytes };
    if let Some(name) = missing(&Amounts::default()) {
        let (asked, all) = (of(&wanted, name), of(&room.capacity, name));
        let mut text = format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {all}");
        if let Some(size) = &room.machine {
            text.push_str(&format!("; the pod's microVM has {size} and does not grow: start a new pod for more"));
        }
        return Some(("Infeasible", text));
    }
    let name = missing(&room.others)?;
    let (asked, used, all) = (of(&wanted, name), of(&room.others, name), of(&room.capacity, name));
    let text = format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {all}");
    Some(("Deferred", text))
}

/// A container that has to start anew for what was allotted to it, or with another image, is to be ended.
fn condemn(container: &Container, observed: &mut Observed, now: Timestamp) {
    let Some(allotted) = observed.resize.allotted.get(&container.name) else { return };
    let Some(runs) = observed.containers.get_mut(&container.name) else { return };
    let Run::Running { .. } = runs.run else { return };
    let is_resized = || {
        let given = runs.given.as_ref();
        given.is_some_and(|given| given != allotted && restarts(container, given, allotted))
    };
    if runs.image.as_ref().is_some_and(|image| *image != container.image) || is_resized() {
        runs.replaced_at.get_or_insert(now);
    }
}

/// Whether the policy of what differs asks for a new start.
fn restarts(container: &Container, from: &Resources, to: &Resources) -> bool {
    let differs =
        |name: &str| from.requests.get(name) != to.requests.get(name) || from.limits.get(name) != to.limits.get(name);
    let mut policies = container.resize_policy.iter();
    policies.any(|policy| policy.restart_policy == "RestartContainer" && differs(&policy.resource_name))
}

fn complete(pod: &Pod, observed: &mut Observed, told: &mut Vec<Reason>) {
    let Some(generation) = observed.resize.under_way else { return };
    let allotted = &observed.resize.allotted;
    let is_real = |container: &Container| match observed.containers.get(&container.name) {
        Some(runs) if runs.replaced_at.is_some() => false,
        // It ended to start anew, and has not.
        Some(Runs { run: Run::Idle, starts, .. }) => *starts == 0,
        Some(Runs { run: Run::Starting | Run::Running { .. }, given, .. }) => {
            given.as_ref() == allotted.get(&container.name)
        }
        _ => true,
    };
    if pod.spec.own_containers().all(is_real) {
        told.push(Reason::normal(
            "ResizeCompleted",
            format!("Pod resize completed: {}", summary(allotted, generation)),
        ));
        observed.resize.under_way = None;
    }
}

fn summary(allotted: &BTreeMap<String, Resources>, generation: i64) -> String {
    let containers: Vec<_> =
        allotted.iter().map(|(name, resources)| json!({"name": name, "resources": resources})).collect();
    json!({"containers": containers, "generation": generation}).to_string()
}

/// Has a running container given what was allotted to it since its start. `container` has what was allotted.
pub(super) fn tend(container: &Container, runs: &Runs, now: Timestamp, decision: &mut Decision) {
    let Run::Running { .. } = runs.run else { return };
    let stale = runs.given.as_ref().is_some_and(|given| *given != container.resources);
    if !stale || runs.resizing || runs.replaced_at.is_some() {
        return;
    }
    let action = Action::Resize {
        container: container.name.clone(),
        attempt: runs.starts.saturating_sub(1),
        resources: container.resources.clone(),
    };
    match runs.resize_failure.as_ref().map(|failure| after(failure.at, backoff(failure.tries))) {
        Some(at) if at > now => decision.wake(at),
        _ => decision.act(action),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fact, Machine, Setup, decide, status};
    use super::*;
    use serde_json::Value;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn amounts(cpu_milli: i64, memory_mib: i64) -> Amounts {
        Amounts { cpu_milli, memory_bytes: memory_mib << 20, ..Amounts::default() }
    }

    /// A pod of one container that runs on a node with one processor and a GiB.
    struct Play {
        pod: Arc<Pod>,
        observed: Observed,
        room: Room,
        now: i64,
    }

    impl Play {
        fn new(policy: Value) -> Self {
            let mut observed = Observed {
                machine: Machine::Up { start_path: "booted".into() },
                setup: Setup::Done,
                seen_at: Some(at(0)),
                ..Observed::default()
            };
            observed.apply(Fact::ImageReady { image: "i".into(), id: "sha256:1".into() }, at(0));
            let room = Room { capacity: amounts(1000, 1024), ..Room::default() };
            let mut play = Self { pod: Arc::default(), observed, room, now: 0 };
            play.wants(policy.clone(), "100m", 1);
            assert_eq!(play.step(), ["start c 0"]);
            play.fact(Fact::Started { container: "c".into(), started_at: at(0) });
            assert_eq!(play.step(), Vec::<String>::new());
            play
        }

        fn wants(&mut self, policy: Value, cpu: &str, generation: i64) -> &mut Self {
            let resources = json!({"requests": {"cpu": cpu, "memory": "64Mi"}});
            let container = json!({"name": "c", "image": "i", "resizePolicy": policy, "resources": resources});
            let metadata = json!({"name": "p", "namespace": "default", "uid": "u", "generation": generation});
            let pod = json!({"metadata": metadata, "spec": {"restartPolicy": "OnFailure", "containers": [container]}});
            self.pod = Arc::new(serde_json::from_value(pod).unwrap());
            self
        }

        fn fact(&mut self, fact: Fact) -> &mut Self {
            self.observed.apply(fact, at(self.now));
            self
        }

        /// One round of an actor; what it does and tells.
        fn step(&mut self) -> Vec<String> {
            let told = settle(&self.pod, &mut self.observed, &self.room, at(self.now));
            let pod = allotted(&self.pod, &self.observed);
            let mut log: Vec<String> = told.iter().map(|reason| reason.reason.to_owned()).collect();
            for action in decide(&pod, &self.observed, at(self.now)).actions {
                self.observed.begin(&action);
                log.push(match action {
                    Action::Resize { attempt, resources, .. } => {
                        format!("resize {attempt} {}", resources.requests["cpu"])
                    }
                    Action::StartContainer { container, attempt, .. } => format!("start {container} {attempt}"),
                    Action::Signal { signal, .. } => format!("{signal:?}"),
                    other => format!("{other:?}"),
                });
            }
            log
        }

        fn resized(&mut self, attempt: u32) -> &mut Self {
            let resources = self.observed.resize.allotted["c"].clone();
            self.fact(Fact::Resized { container: "c".into(), attempt, resources })
        }

        fn status(&self) -> Value {
            let pod = allotted(&self.pod, &self.observed);
            status::render(&pod, &self.observed, &status::Addresses::default(), at(self.now))["status"].clone()
        }

        /// Requests of processor: allotted, and what the container has; and conditions about it.
        fn shows(&self, allotted: &str, given: &str, conditions: &[&str]) -> &Self {
            let status = self.status();
            let container = &status["containerStatuses"][0];
            let found = (&container["allocatedResources"]["cpu"], &container["resources"]["requests"]["cpu"]);
            assert_eq!(found, (&json!(allotted), &json!(given)), "{status}");
            let all = status["conditions"].as_array().unwrap().iter();
            let about: Vec<String> = all
                .filter(|condition| condition["type"].as_str().is_some_and(|name| name.starts_with("PodResize")))
                .map(|condition| {
                    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
                    format!("{} {} {}", text("type"), condition["observedGeneration"], text("reason"))
                })
                .collect();
            assert_eq!(about, conditions, "{status}");
            self
        }
    }

    #[test]
    fn a_running_container_is_given_what_there_is_room_for() {
        let mut play = Play::new(json!([]));
        play.shows("100m", "100m", &[]);
        assert_eq!(play.wants(json!([]), "500m", 2).step(), ["ResizeStarted", "resize 0 500m"]);
        play.shows("500m", "100m", &["PodResizeInProgress 2 "]);
        assert_eq!(play.step(), Vec::<String>::new());
        assert_eq!(play.resized(0).step(), ["ResizeCompleted"]);
        play.shows("500m", "500m", &[]);
        assert_eq!(play.status()["containerStatuses"][0]["restartCount"], 0);
    }

    #[test]
    fn what_never_fits_is_refused_and_what_does_not_fit_now_waits() {
        let mut play = Play::new(json!([]));
        assert_eq!(play.wants(json!([]), "1500m", 2).step(), ["ResizeInfeasible"]);
        play.shows("100m", "100m", &["PodResizePending 2 Infeasible"]);
        let pending = play.observed.resize.pending.clone().unwrap();
        assert_eq!(pending.message, "Node didn't have enough capacity: cpu, requested: 1500, capacity: 1000");
        assert_eq!(play.step(), Vec::<String>::new(), "told once");
        play.room.others = amounts(700, 0);
        assert_eq!(play.wants(json!([]), "400m", 3).step(), ["ResizeDeferred"]);
        play.shows("100m", "100m", &["PodResizePending 3 Deferred"]);
        let pending = play.observed.resize.pending.clone().unwrap();
        assert_eq!(pending.message, "Node didn't have enough resource: cpu, requested: 400, used: 700, capacity: 1000");
        play.room.others = amounts(600, 0);
        assert_eq!(play.step(), ["ResizeStarted", "resize 0 400m"]);
        play.shows("400m", "100m", &["PodResizeInProgress 3 "]);
        assert_eq!(play.resized(0).step(), ["ResizeCompleted"]);
        // Whoever takes back what was refused is told of nothing any more.
        play.wants(json!([]), "2", 4).step();
        assert_eq!(play.wants(json!([]), "400m", 5).step(), Vec::<String>::new());
        play.shows("400m", "400m", &[]);
        play.room = Room { capacity: amounts(250, 512), machine: Some("0.25vCPU 0.5GB".into()), ..Room::default() };
        assert_eq!(play.wants(json!([]), "500m", 6).step(), ["ResizeInfeasible"]);
        let pending = play.observed.resize.pending.clone().unwrap();
        assert!(
            pending.message.contains("the pod's microVM has 0.25vCPU 0.5GB and does not grow"),
            "{}",
            pending.message
        );
    }

    #[test]
    fn a_container_whose_policy_says_so_starts_anew() {
        let policy = || json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        let mut play = Play::new(policy());
        assert_eq!(play.wants(policy(), "500m", 2).step(), ["ResizeStarted", "Stop"]);
        play.shows("500m", "100m", &["PodResizeInProgress 2 "]);
        play.now = 29;
        assert_eq!(play.step(), Vec::<String>::new());
        play.now = 30;
        assert_eq!(play.step(), ["Kill"]);
        // Its end is no success of the pod's, nor a crash.
        let (code, signal, oom_killed, message) = (0, None, false, String::new());
        play.fact(Fact::Exited { container: "c".into(), code, signal, oom_killed, message, finished_at: at(30) });
        assert_eq!(play.step(), ["start c 1"]);
        let started = Fact::Started { container: "c".into(), started_at: at(31) };
        assert_eq!(play.fact(started).step(), ["ResizeCompleted"]);
        play.shows("500m", "500m", &[]);
        assert_eq!(play.status()["containerStatuses"][0]["restartCount"], 1);
        assert_eq!(play.status()["phase"], "Running");
    }

    #[test]
    fn a_container_of_another_image_starts_anew() {
        let mut play = Play::new(json!([]));
        Arc::make_mut(&mut play.pod).spec.containers[0].image = "new".into();
        assert_eq!(play.step(), ["PullImage { image: \"new\" }", "Stop"]);
        let (code, signal, oom_killed, message) = (143, None, false, String::new());
        play.fact(Fact::Exited { container: "c".into(), code, signal, oom_killed, message, finished_at: at(1) });
        assert_eq!(play.step(), Vec::<String>::new());
        play.fact(Fact::ImageReady { image: "new".into(), id: "sha256:1".into() });
        assert_eq!(play.step(), ["start c 1"]);
        assert_eq!(play.observed.containers["c"].image.as_deref(), Some("new"));
    }

    #[test]
    fn what_the_guest_refuses_is_tried_again() {
        let mut play = Play::new(json!([]));
        play.wants(json!([]), "50m", 2).step();
        let failed = || Fact::ResizeFailed { container: "c".into(), attempt: 0, message: "in use".into() };
        assert_eq!(play.fact(failed()).step(), Vec::<String>::new());
        play.shows("50m", "100m", &["PodResizeInProgress 2 Error"]);
        play.now = 10;
        assert_eq!(play.step(), ["resize 0 50m"]);
        assert_eq!(play.resized(0).step(), ["ResizeCompleted"]);
        play.shows("50m", "50m", &[]);
        assert_eq!(play.fact(failed()).wants(json!([]), "60m", 3).step(), ["ResizeStarted", "resize 0 60m"]);
        play.observed.after_restart();
        assert_eq!(play.step(), ["resize 0 60m"], "the agent was restarted");
    }
}
