//! The status of a pod, from what is known about it.

use isopod_types::pod::{Container, ContainerState, ContainerStatus, Pod, Resources, Running, Terminated, Waiting};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::decide::{Stop, outcome, stop};
use super::observed::{End, Image, Machine, Observed, Run, Runs, Setup};
use super::resize::Resize;
use super::{probes, restarts};

/// How long a failed pull shows as `ErrImagePull` before it shows as `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// Addresses that the status names.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Address of the pod.
    pub pod: String,
    /// Address of the node.
    pub host: String,
}

/// The pod's status as far as it is the agent's, as a strategic merge patch: conditions of other writers stay as they are.
pub fn render(pod: &Pod, observed: &Observed, addresses: &Addresses, now: Timestamp) -> Value {
    let view = View { pod, observed, now };
    let phase = view.phase();
    let mut status = json!({
        "phase": phase,
        "startTime": observed.seen_at,
        "reason": view.reason(),
        "message": view.message(),
        "observedGeneration": pod.metadata.generation,
    });
    if observed.rejected.is_some() {
        // Of containers that nobody meant to start there is nothing to say.
        return json!({"status": status});
    }
    status["conditions"] = json!(view.conditions(phase));
    status["containerStatuses"] = json!(view.statuses(&pod.spec.containers));
    if !pod.spec.init_containers.is_empty() {
        status["initContainerStatuses"] = json!(view.statuses(&pod.spec.init_containers));
    }
    if !pod.spec.ephemeral_containers.is_empty() {
        status["ephemeralContainerStatuses"] = view.ephemeral_statuses();
    }
    if !addresses.pod.is_empty() {
        status["podIP"] = json!(addresses.pod);
        status["podIPs"] = json!([{"ip": addresses.pod}]);
        status["hostIP"] = json!(addresses.host);
        status["hostIPs"] = json!([{"ip": addresses.host}]);
    }
    json!({"status": status})
}

/// Whether a condition is true, and reason and message.
type Condition = (bool, &'static str, String);

struct View<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    now: Timestamp,
}

impl View<'_> {
    fn runs(&self, container: &Container) -> Runs {
        self.observed.containers.get(&container.name).cloned().unwrap_or_default()
    }

    fn deadline_exceeded(&self) -> bool {
        let stopped = matches!(stop(self.pod, self.observed, self.now), Some(Stop::DeadlineExceeded { .. }));
        stopped || self.pod.status.reason == "DeadlineExceeded"
    }

    fn phase(&self) -> &'static str {
        match self.pod.status.phase.as_str() {
            "Succeeded" => return "Succeeded",
            "Failed" => return "Failed",
            _ => {}
        }
        if self.observed.rejected.is_some() {
            return "Failed";
        }
        let over = !self.observed.any_live();
        if let Some(good) = outcome(self.pod, self.observed).filter(|_| over) {
            return if good { "Succeeded" } else { "Failed" };
        }
        if over && self.deadline_exceeded() {
            return "Failed";
        }
        let ending = self.pod.metadata.is_deleting() && over;
        let started = self.pod.spec.containers.iter().all(|container| self.runs(container).has_started());
        if ending && started {
            let ended_well = |c: &Container| matches!(self.runs(c).run, Run::Ended(End { code: 0, .. }));
            return if self.pod.spec.containers.iter().all(ended_well) { "Succeeded" } else { "Failed" };
        }
        if started { "Running" } else { "Pending" }
    }

    fn reason(&self) -> Option<&str> {
        let rejected = self.observed.rejected.as_ref().map(|why| why.reason.as_str());
        rejected.or_else(|| self.deadline_exceeded().then_some("DeadlineExceeded"))
    }

    fn message(&self) -> Option<String> {
        if let Some(why) = &self.observed.rejected {
            return Some(format!("Pod was rejected: {}", why.message));
        }
        match &self.observed.machine {
            _ if self.deadline_exceeded() => {
                Some("Pod was active on the node longer than the specified deadline".into())
            }
            Machine::Failed { message, .. } => Some(format!("the microVM could not be started: {message}")),
            _ => None,
        }
    }

    fn initialized(&self) -> bool {
        self.incomplete().next().is_none()
    }

    /// The init containers that the others still wait for.
    fn incomplete(&self) -> impl Iterator<Item = &str> {
        let complete = |container: &Container| match self.runs(container).run {
            Run::Ended(end) => container.is_sidecar() || end.code == 0,
            Run::Running { .. } => container.is_sidecar() && probes::has_started(container, &self.runs(container)),
            _ => false,
        };
        let waited_for = self.pod.spec.init_containers.iter().filter(move |container| !complete(container));
        waited_for.map(|container| container.name.as_str())
    }

    fn statuses(&self, containers: &[Container]) -> Vec<ContainerStatus> {
        containers.iter().map(|container| self.status(container)).collect()
    }

    /// Ephemeral containers are never ready, and nobody asks whether they have started.
    fn ephemeral_statuses(&self) -> Value {
        let statuses = self.pod.spec.ephemeral_containers.iter().map(|container| {
            let mut status = json!(ContainerStatus { ready: false, resources: None, ..self.status(container) });
            if let Some(fields) = status.as_object_mut() {
                fields.shift_remove("started");
            }
            status
        });
        statuses.collect()
    }

    fn status(&self, container: &Container) -> ContainerStatus {
        let runs = self.runs(container);
        let uid = &self.pod.metadata.uid;
        let id = |attempt: u32| format!("isopod://{uid}/{}/{attempt}", container.name);
        let image_id = match self.observed.images.get(&container.image) {
            Some(Image::Ready { id }) => id.clone(),
            _ => String::new(),
        };
        let waiting_again = matches!(&runs.run, Run::Ended(end) if self.will_restart(container, end.code));
        let (state, last) = match &runs.run {
            Run::Running { started_at } => (running(*started_at), runs.last.as_ref()),
            Run::Ended(end) if waiting_again => (self.waiting(container, &runs), Some(end)),
            Run::Ended(end) => (terminated(end, id(end.attempt)), runs.last.as_ref()),
            Run::Idle | Run::Starting => (self.waiting(container, &runs), runs.last.as_ref()),
        };
        let init_done = super::is_init(self.pod, container) && matches!(&runs.run, Run::Ended(End { code: 0, .. }));
        ContainerStatus {
            name: container.name.clone(),
            state,
            last_state: last.map(|end| terminated(end, id(end.attempt))).unwrap_or_default(),
            ready: probes::is_ready(container, &runs) || init_done,
            restart_count: runs.restart_count(),
            image: container.image.clone(),
            image_id,
            container_id: if runs.starts > 0 { id(runs.starts - 1) } else { String::new() },
            started: probes::has_started(container, &runs),
            allocated_resources: container.resources.requests.clone(),
            resources: Some(self.resources(container, &runs)),
        }
    }

    /// What a container really has: its run's, or what it will start with.
    fn resources(&self, container: &Container, runs: &Runs) -> Resources {
        match &runs.given {
            Some(given) if runs.is_live() => given.clone(),
            _ => container.resources.clone(),
        }
    }

    fn will_restart(&self, container: &Container, code: i32) -> bool {
        stop(self.pod, self.observed, self.now).is_none() && restarts(self.pod, container, code)
    }

    fn waiting(&self, container: &Container, runs: &Runs) -> ContainerState {
        let (reason, message) = self.why_waiting(container, runs);
        ContainerState { waiting: Some(Waiting { reason, message }), ..ContainerState::default() }
    }

    fn why_waiting(&self, container: &Container, runs: &Runs) -> (String, String) {
        if let Some(Image::Failed { reason, message, at, .. }) = self.observed.images.get(&container.image) {
            let fresh = self.now.duration_since(*at) < PULL_ERROR_SHOWN || reason != "ErrImagePull";
            let image = &container.image;
            return if fresh {
                (reason.clone(), message.clone())
            } else {
                ("ImagePullBackOff".into(), format!("Back-off pulling image {image:?}: ErrImagePull: {message}"))
            };
        }
        if let Setup::Failed { reason, message, .. } = &self.observed.setup {
            let shown = if reason == "FailedMount" { "ContainerCreating" } else { reason };
            return (shown.into(), message.clone());
        }
        if matches!(runs.run, Run::Ended(_)) {
            return self.why_not_again(container, runs);
        }
        if let Some(refusal) = &runs.refusal {
            return (refusal.reason.clone(), refusal.message.clone());
        }
        if self.pod.spec.is_ephemeral(&container.name) {
            return ("ContainerCreating".into(), self.missing_target(container));
        }
        // Also said of init containers themselves, as upstream does.
        let initializes = !self.pod.spec.init_containers.is_empty();
        (if initializes { "PodInitializing" } else { "ContainerCreating" }.into(), String::new())
    }

    /// What an ephemeral container waits for, when that is its target.
    fn missing_target(&self, container: &Container) -> String {
        let target = &container.target_container_name;
        let runs = self.observed.containers.get(target).map(|runs| &runs.run);
        if target.is_empty() || matches!(runs, Some(Run::Running { .. })) {
            return String::new();
        }
        format!("target container {target:?} is not running")
    }

    fn why_not_again(&self, container: &Container, runs: &Runs) -> (String, String) {
        let delay = super::backoff(runs.crashes.saturating_sub(1)).as_secs();
        let meta = &self.pod.metadata;
        let pod = format!("{}_{}({})", meta.name, meta.namespace, meta.uid);
        let text = format!("back-off {delay}s restarting failed container={} pod={pod}", container.name);
        ("CrashLoopBackOff".into(), text)
    }

    fn conditions(&self, phase: &str) -> Vec<Value> {
        let names = |ready: fn(&ContainerStatus) -> bool| -> Vec<String> {
            let sidecars = self.pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
            let statuses = sidecars.chain(&self.pod.spec.containers).map(|container| self.status(container));
            statuses.filter(|status| !ready(status)).map(|status| status.name).collect()
        };
        let unready = names(|status| status.ready);
        let done = phase == "Succeeded";
        let containers_ready = if done {
            (false, "PodCompleted", String::new())
        } else if unready.is_empty() {
            (true, "", String::new())
        } else {
            (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
        };
        let initialized = if self.initialized() {
            (true, "", String::new())
        } else {
            let names: Vec<&str> = self.incomplete().collect();
            (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", names.join(" ")))
        };
        let sandbox = (matches!(self.observed.machine, Machine::Up { .. }), "", String::new());
        let wanted = [
            ("PodReadyToStartContainers", sandbox),
            ("Initialized", initialized),
            ("Ready", self.gated(containers_ready.clone())),
            ("ContainersReady", containers_ready),
            ("PodScheduled", (true, "", String::new())),
        ];
        let wanted = wanted.into_iter().map(|(type_, facts)| self.condition(type_, facts));
        wanted.chain(self.resize_conditions()).collect()
    }

    /// What the pod wants and has not, and what it is on the way to have. What is over is taken out.
    fn resize_conditions(&self) -> Vec<Value> {
        let Resize { pending, under_way, .. } = &self.observed.resize;
        let pending = pending.as_ref().map(|why| (why.generation, why.reason.as_str(), why.message.as_str()));
        let failures = || self.observed.containers.values().find_map(|runs| runs.resize_failure.as_ref());
        let in_progress = under_way.map(|generation| {
            let (reason, message) = failures().map_or(("", ""), |why| (why.reason.as_str(), why.message.as_str()));
            (generation, reason, message)
        });
        let mut conditions = Vec::new();
        for (type_, facts) in [("PodResizePending", pending), ("PodResizeInProgress", in_progress)] {
            if let Some((generation, reason, message)) = facts {
                let mut condition = self.condition(type_, (true, "", message.to_owned()));
                condition["observedGeneration"] = generation.into();
                condition["reason"] = if reason.is_empty() { Value::Null } else { reason.into() };
                conditions.push(condition);
            } else if self.pod.status.conditions.iter().any(|old| old.type_ == type_) {
                conditions.push(json!({"type": type_, "$patch": "delete"}));
            }
        }
        conditions
    }

    /// Whether the pod is ready when its containers are: others have a say by conditions of their own.
    fn gated(&self, (ready, reason, message): Condition) -> Condition {
        if !ready {
            return (ready, reason, message);
        }
        let gates = self.pod.spec.readiness_gates.iter();
        let unmet: Vec<String> = gates.filter_map(|gate| self.unmet(&gate.condition_type)).collect();
        match unmet.is_empty() {
            true => (true, "", String::new()),
            false => (false, "ReadinessGatesNotReady", unmet.join(", ")),
        }
    }

    fn unmet(&self, gate: &str) -> Option<String> {
        match self.pod.status.conditions.iter().find(|condition| condition.type_ == gate) {
            None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
            Some(found) if found.status == "True" => None,
            Some(found) => {
                Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", found.status))
            }
        }
    }

    /// What is empty is said to be so: a patch that leaves it out would keep what was there.
    fn condition(&self, type_: &str, (status, reason, message): Condition) -> Value {
        let status = if status { "True" } else { "False" };
        let old = self.pod.status.conditions.iter().find(|old| old.type_ == type_ && old.status == status);
        let filled = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        json!({
            "type": type_,
            "status": status,
            "observedGeneration": self.pod.metadata.generation,
            "lastTransitionTime": old.and_then(|old| old.last_transition_time).unwrap_or(self.now),
            "reason": filled(reason),
            "message": filled(&message),
        })
    }
}

fn running(started_at: Timestamp) -> ContainerState {
    ContainerState { running: Some(Running { started_at: Some(started_at) }), ..ContainerState::default() }
}

fn terminated(end: &End, container_id: String) -> ContainerState {
    let terminated = Terminated {
        exit_code: end.code,
        signal: end.signal,
        reason: end.reason.clone(),
        message: end.message.clone(),
        started_at: Some(end.started_at),
        finished_at: Some(end.finished_at),
        container_id,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}
