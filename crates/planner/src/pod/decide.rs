//! What to do next for one pod.

use isopod_types::pod::{Container, Pod, Resources};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::observed::{Image, Machine, Observed, Run, Runs, Setup};
use super::probes::{self, ProbeKind};
use super::{after, backoff, resize, restarts};

/// A signal that ends a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    /// The image's stop signal, SIGTERM by default.
    Stop,
    /// SIGKILL.
    Kill,
}

/// Something for the host agent to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the microVM.
    StartMachine,
    /// Take the microVM away.
    DestroyMachine,
    /// Pull an image.
    PullImage {
        /// Reference.
        image: String,
    },
    /// Give the guest its identity, network and volumes.
    Configure,
    /// Start a container.
    StartContainer {
        /// Name.
        container: String,
        /// Number of the run, 0 for the first.
        attempt: u32,
        /// Reference of its image.
        image: String,
    },
    /// Signal a container.
    Signal {
        /// Name.
        container: String,
        /// Which.
        signal: Signal,
        /// The probe that it failed, when that is why.
        failed_probe: Option<ProbeKind>,
    },
    /// Give a running container other limits.
    Resize {
        /// Name.
        container: String,
        /// Which run.
        attempt: u32,
        /// What it may use from now on.
        resources: Resources,
    },
    /// Make a probe of a container.
    Probe {
        /// Name.
        container: String,
        /// Which run.
        attempt: u32,
        /// Which probe.
        kind: ProbeKind,
        /// Now.
        at: Timestamp,
    },
    /// Delete the pod object for good.
    DeleteObject,
}

/// What to do now, and when to decide again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Why a pod is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its object is being deleted; SIGKILL comes at this time.
    Deleted { kill_at: Timestamp },
    /// It ran longer than `activeDeadlineSeconds`.
    DeadlineExceeded { kill_at: Timestamp },
    /// Its work is done, well or not, or never began; only sidecars and ephemeral containers are left. SIGKILL comes at this time,
    /// if it is known when the work was done.
    Finished { kill_at: Option<Timestamp> },
}

/// Whether the pod is past its deadline, and when it will be.
pub(super) fn deadline(pod: &Pod, observed: &Observed) -> Option<Timestamp> {
    let seconds = pod.spec.active_deadline_seconds?;
    Some(after(observed.seen_at?, SignedDuration::from_secs(seconds)))
}

pub(super) fn stop(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Stop> {
    if let Some(kill_at) = pod.metadata.deletion_timestamp {
        return Some(Stop::Deleted { kill_at });
    }
    if observed.rejected.is_some() || outcome(pod, observed).is_some() || pod.is_terminal() {
        let kill_at = finished_at(pod, observed).map(|at| after(at, grace(pod)));
        return Some(Stop::Finished { kill_at });
    }
    let at = deadline(pod, observed).filter(|at| *at <= now)?;
    Some(Stop::DeadlineExceeded { kill_at: after(at, grace(pod)) })
}

fn grace(pod: &Pod) -> SignedDuration {
    SignedDuration::from_secs(pod.spec.termination_grace_period_seconds.unwrap_or(30))
}

/// When the last of the pod's own containers ended, sidecars aside.
fn finished_at(pod: &Pod, observed: &Observed) -> Option<Timestamp> {
    let workers = pod.spec.own_containers().filter(|container| !container.is_sidecar());
    let ends = workers.filter_map(|container| match &observed.containers.get(&container.name)?.run {
        Run::Ended(end) => Some(end.finished_at),
        _ => None,
    });
    ends.max()
}

/// How the pod's work ended, when it has: true for success.
pub(super) fn outcome(pod: &Pod, observed: &Observed) -> Option<bool> {
    let end = |container: &Container| match &observed.containers.get(&container.name)?.run {
        Run::Ended(end) if !restarts(pod, container, end.code) => Some(end.code),
        _ => None,
    };
    let failed_init = pod.spec.init_containers.iter().any(|c| !c.is_sidecar() && end(c).is_some_and(|code| code != 0));
    if failed_init {
        return Some(false);
    }
    let codes: Option<Vec<i32>> = pod.spec.containers.iter().map(end).collect();
    codes.map(|codes| codes.iter().all(|code| *code == 0))
}

/// Decides what to do next.
pub fn decide(pod: &Pod, observed: &Observed, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    match stop(pod, observed, now) {
        Some(reason) => wind_down(pod, observed, reason, now, &mut decision),
        None => wind_up(pod, observed, now, &mut decision),
    }
    decision
}

fn wind_down(pod: &Pod, observed: &Observed, reason: Stop, now: Timestamp, decision: &mut Decision) {
    if observed.any_live() && matches!(observed.machine, Machine::Up { .. }) {
        return end_containers(pod, observed, reason, now, decision);
    }
    match observed.machine {
        Machine::Up { .. } => decision.act(Action::DestroyMachine),
        Machine::None | Machine::Ended { .. } | Machine::Failed { .. } if matches!(reason, Stop::Deleted { .. }) => {
            decision.act(Action::DeleteObject);
        }
        _ => {}
    }
}

/// Signals what still runs: sidecars only after the others.
fn end_containers(pod: &Pod, observed: &Observed, reason: Stop, now: Timestamp, decision: &mut Decision) {
    let live = |container: &&Container| observed.containers.get(&container.name).is_some_and(Runs::is_live);
    let (sidecars, mains): (Vec<&Container>, Vec<&Container>) =
        pod.spec.all_containers().filter(live).partition(|container| container.is_sidecar());
    let kill_at = match reason {
        Stop::Deleted { kill_at } | Stop::DeadlineExceeded { kill_at } => Some(kill_at),
        Stop::Finished { kill_at } => kill_at,
    };
    let signal = if kill_at.is_some_and(|at| at <= now) { Signal::Kill } else { Signal::Stop };
    let due = if mains.is_empty() || signal == Signal::Kill { [mains, sidecars].concat() } else { mains };
    for container in due {
        let sent = observed.containers.get(&container.name).and_then(|runs| runs.signalled);
        if sent < Some(signal) {
            decision.act(Action::Signal { container: container.name.clone(), signal, failed_probe: None });
        }
    }
    if let Some(at) = kill_at.filter(|at| *at > now) {
        decision.wake(at);
    }
}

fn wind_up(pod: &Pod, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    if let Some(at) = deadline(pod, observed) {
        decision.wake(at);
    }
    pull_images(pod, observed, now, decision);
    match &observed.machine {
        Machine::None | Machine::Ended { .. } => start_machine(pod, observed, now, decision),
        Machine::Failed { tries, at, .. } => retry(after(*at, backoff(*tries)), now, decision, Action::StartMachine),
        Machine::Up { .. } => run_containers(pod, observed, now, decision),
        Machine::Starting { .. } | Machine::Destroying => {}
    }
}

fn retry(at: Timestamp, now: Timestamp, decision: &mut Decision, action: Action) {
    if at <= now { decision.act(action) } else { decision.wake(at) }
}

/// A microVM that ended is replaced when the first of its containers may run again.
fn start_machine(pod: &Pod, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    let runs = pod.spec.own_containers().filter_map(|container| observed.containers.get(&container.name));
    let earliest = runs.filter_map(Runs::restart_at).min();
    retry(earliest.unwrap_or(now), now, decision, Action::StartMachine);
}

fn pull_images(pod: &Pod, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    let mut asked: Vec<&str> = Vec::new();
    for container in pod.spec.all_containers() {
        let image = container.image.as_str();
        if asked.contains(&image) {
            continue;
        }
        asked.push(image);
        match observed.images.get(image) {
            None => decision.act(Action::PullImage { image: image.into() }),
            Some(Image::Failed { reason, .. }) if reason == "InvalidImageName" => {}
            Some(Image::Failed { tries, at, .. }) => {
                retry(after(*at, backoff(*tries)), now, decision, Action::PullImage { image: image.into() });
                decision.wake(after(*at, super::status::PULL_ERROR_SHOWN));
            }
            Some(Image::Pulling { .. } | Image::Ready { .. }) => {}
        }
    }
    decision.wake_at = decision.wake_at.filter(|at| *at > now);
}

fn run_containers(pod: &Pod, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    match &observed.setup {
        Setup::Absent => return decision.act(Action::Configure),
        Setup::Failed { tries, at, .. } => return retry(after(*at, backoff(*tries)), now, decision, Action::Configure),
        Setup::Running { .. } => return,
        Setup::Done => {}
    }
    // Before the initial ones, so that a pod that hangs in them can be looked into.
    for container in &pod.spec.ephemeral_containers {
        start_ephemeral(pod, container, observed, now, decision);
    }
    for container in &pod.spec.init_containers {
        let runs = observed.containers.get(&container.name);
        let passed = match runs.map(|runs| &runs.run) {
            Some(Run::Ended(end)) => end.code == 0 && !container.is_sidecar(),
            Some(Run::Running { .. }) => {
                container.is_sidecar() && runs.is_some_and(|runs| probes::has_started(container, runs))
            }
            _ => false,
        };
        if let Some(runs) = runs {
            probes::tend(pod, container, runs, now, decision);
            resize::tend(container, runs, now, decision);
        }
        if !passed {
            start_if_due(pod, container, observed, now, decision);
            // A sidecar that ended does not hold up what came after it; one that never started does.
            let began = runs.is_some_and(|runs| runs.starts > 1 || matches!(runs.run, Run::Ended(_)));
            if !container.is_sidecar() || !began {
                return;
            }
        }
    }
    for container in &pod.spec.containers {
        if let Some(runs) = observed.containers.get(&container.name) {
            probes::tend(pod, container, runs, now, decision);
            resize::tend(container, runs, now, decision);
        }
        start_if_due(pod, container, observed, now, decision);
    }
}

/// An ephemeral container starts once its image is there and its target runs.
fn start_ephemeral(pod: &Pod, container: &Container, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    let target = &container.target_container_name;
    let target_runs = || observed.containers.get(target).is_some_and(|runs| matches!(runs.run, Run::Running { .. }));
    if target.is_empty() || target_runs() {
        start_if_due(pod, container, observed, now, decision);
    }
}

fn start_if_due(pod: &Pod, container: &Container, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    if !matches!(observed.images.get(&container.image), Some(Image::Ready { .. })) {
        return;
    }
    let runs = observed.containers.get(&container.name).cloned().unwrap_or_default();
    let (container_name, image) = (container.name.clone(), container.image.clone());
    let start = Action::StartContainer { container: container_name, attempt: runs.starts, image };
    match &runs.run {
        Run::Idle => match &runs.refusal {
            Some(refusal) => retry(after(refusal.at, backoff(refusal.tries)), now, decision, start),
            None => decision.act(start),
        },
        Run::Ended(end) if restarts(pod, container, end.code) => {
            retry(runs.restart_at().unwrap_or(now), now, decision, start);
        }
        _ => {}
    }
}
