//! What a host agent knows about one pod. It changes only by facts, and survives a restart of the agent on disk.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isopod_types::pod::Resources;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::admit::Rejection;
use super::decide::{Action, Signal};
use super::probes::{ProbeKind, Probes, Thresholds};
use super::resize::Resize;
use super::{BACKOFF_RESET_SECONDS, backoff};

/// Everything known about one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// Its microVM.
    pub machine: Machine,
    /// MicroVMs made so far.
    pub machine_count: u32,
    /// Images by reference.
    pub images: BTreeMap<String, Image>,
    /// Whether the guest has its identity, network and volumes.
    pub setup: Setup,
    /// Containers by name.
    pub containers: BTreeMap<String, Runs>,
    /// Why its node does not take it.
    pub rejected: Option<Rejection>,
    /// When the agent first saw the pod.
    pub seen_at: Option<Timestamp>,
    /// What its containers may use.
    pub resize: Resize,
    /// Address given to it, of a pod on a node of many; it keeps it for life.
    pub address: Option<Ipv4Addr>,
}

/// A pod's microVM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Machine {
    /// None was made.
    #[default]
    None,
    /// One is being made.
    Starting {
        /// Failures before.
        tries: u32,
    },
    /// It answers.
    Up {
        /// `booted`, `restored` or `claimed`.
        start_path: String,
    },
    /// Making it failed.
    Failed {
        /// Why.
        message: String,
        /// Failures in a row.
        tries: u32,
        /// When.
        at: Timestamp,
    },
    /// It is being taken away.
    Destroying,
    /// It is gone.
    Ended {
        /// Since when.
        at: Timestamp,
    },
}

/// An image on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Image {
    /// Being pulled.
    Pulling {
        /// Failures before.
        tries: u32,
    },
    /// There.
    Ready {
        /// Digest by which the status names it.
        id: String,
    },
    /// Pulling failed.
    Failed {
        /// `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`.
        reason: String,
        /// The registry's words.
        message: String,
        /// Failures in a row.
        tries: u32,
        /// When.
        at: Timestamp,
    },
}

/// Whether the guest has its identity, network and volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Setup {
    /// Not yet.
    #[default]
    Absent,
    /// Under way.
    Running {
        /// Failures before.
        tries: u32,
    },
    /// Done.
    Done,
    /// Something it needs is missing.
    Failed {
        /// `CreateContainerConfigError` or `FailedMount`.
        reason: String,
        /// What is missing.
        message: String,
        /// Failures in a row.
        tries: u32,
        /// When.
        at: Timestamp,
    },
}

/// All runs of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Runs {
    /// Times it was started.
    pub starts: u32,
    /// Short runs in a row.
    pub crashes: u32,
    /// The newest run.
    pub run: Run,
    /// The end of the run before the newest.
    pub last: Option<End>,
    /// The strongest signal sent to the newest run.
    pub signalled: Option<Signal>,
    /// What the probes of the newest run say.
    pub probes: Probes,
    /// Why it could not be made, and is to be tried again.
    pub refusal: Option<Refusal>,
    /// Reference of the image of the newest run.
    pub image: Option<String>,
    /// What the newest run may use.
    pub given: Option<Resources>,
    /// It is being given something else.
    pub resizing: bool,
    /// Why it could not be given something else, and is to be tried again.
    pub resize_failure: Option<Refusal>,
    /// Since when it is being ended to start with something else.
    pub replaced_at: Option<Timestamp>,
}

/// Why a container could not be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// `CreateContainerError`, `CreateContainerConfigError` or `Error`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Failures in a row.
    pub tries: u32,
    /// When.
    pub at: Timestamp,
}

impl Refusal {
    /// One more after those before.
    fn after(before: Option<&Self>, reason: String, message: String, at: Timestamp) -> Self {
        Self { reason, message, tries: before.map_or(0, |before| before.tries) + 1, at }
    }
}

/// The newest run of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Run {
    /// Not started, or to be started anew in a new microVM.
    #[default]
    Idle,
    /// Being started.
    Starting,
    /// Running.
    Running {
        /// Start.
        started_at: Timestamp,
    },
    /// Ended.
    Ended(End),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Which run, 0 for the first.
    pub attempt: u32,
    /// Exit code as the guest sent it; 137 when nobody saw the end.
    pub code: i32,
    /// The signal it died of.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// Last words.
    pub message: String,
    /// Start.
    pub started_at: Timestamp,
    /// End.
    pub finished_at: Timestamp,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The microVM answers.
    MachineUp {
        /// `booted`, `restored` or `claimed`.
        start_path: String,
    },
    /// Making the microVM failed.
    MachineFailed {
        /// Why.
        message: String,
    },
    /// The microVM is gone, asked for or not.
    MachineEnded {
        /// What is known about its end.
        cause: String,
    },
    /// An image is there.
    ImageReady {
        /// Reference.
        image: String,
        /// Digest.
        id: String,
    },
    /// An image could not be had.
    ImageFailed {
        /// Reference.
        image: String,
        /// `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`.
        reason: String,
        /// The registry's words.
        message: String,
    },
    /// The guest has its identity, network and volumes.
    SetUp,
    /// Something it needs is missing.
    SetupFailed {
        /// `CreateContainerConfigError` or `FailedMount`.
        reason: String,
        /// What is missing.
        message: String,
    },
    /// A container runs.
    Started {
        /// Name.
        container: String,
        /// Start.
        started_at: Timestamp,
    },
    /// A container could not be started.
    StartFailed {
        /// Name.
        container: String,
        /// Exit code by convention: 127 not found, 126 not executable, 128 other.
        code: i32,
        /// Why.
        message: String,
    },
    /// A container could not be prepared: what it refers to is missing.
    ConfigFailed {
        /// Name.
        container: String,
        /// What is missing.
        message: String,
    },
    /// An ephemeral container could not be made. Nothing else of the pod is concerned, and it is tried again.
    Refused {
        /// Name.
        container: String,
        /// `CreateContainerError` or `CreateContainerConfigError`.
        reason: String,
        /// Why.
        message: String,
    },
    /// A running container may use something else from now on.
    Resized {
        /// Name.
        container: String,
        /// Which run.
        attempt: u32,
        /// What it may use.
        resources: Resources,
    },
    /// A running container could not be given something else; it is tried again.
    ResizeFailed {
        /// Name.
        container: String,
        /// Which run.
        attempt: u32,
        /// Why.
        message: String,
    },
    /// The hook after a container's start failed.
    HookFailed {
        /// Name.
        container: String,
        /// Which run.
        attempt: u32,
    },
    /// A probe was made.
    Probed {
        /// Name.
        container: String,
        /// Which run.
        attempt: u32,
        /// Which probe.
        kind: ProbeKind,
        /// Whether it succeeded.
        good: bool,
        /// What the probe asks for.
        thresholds: Thresholds,
    },
    /// A container ended.
    Exited {
        /// Name.
        container: String,
        /// Exit code.
        code: i32,
        /// The signal it died of.
        signal: Option<i32>,
        /// Whether the kernel killed it for memory.
        oom_killed: bool,
        /// Last words.
        message: String,
        /// End.
        finished_at: Timestamp,
    },
}

impl Observed {
    /// Takes note that an action has begun.
    pub fn begin(&mut self, action: &Action) {
        match action {
            Action::StartMachine => {
                let tries = if let Machine::Failed { tries, .. } = self.machine { tries } else { 0 };
                self.machine_count += u32::from(tries == 0);
                self.machine = Machine::Starting { tries };
            }
            Action::DestroyMachine => self.machine = Machine::Destroying,
            Action::PullImage { image } => {
                let tries = if let Some(Image::Failed { tries, .. }) = self.images.get(image) { *tries } else { 0 };
                self.images.insert(image.clone(), Image::Pulling { tries });
            }
            Action::Configure => {
                let tries = if let Setup::Failed { tries, .. } = self.setup { tries } else { 0 };
                self.setup = Setup::Running { tries };
            }
            Action::StartContainer { container, image, .. } => self.begin_container(container, image),
            Action::Signal { container, signal, .. } => self.runs(container).signalled = Some(*signal),
            Action::Probe { container, kind, at, .. } => self.runs(container).probes.asked(*kind, *at),
            Action::Resize { container, .. } => self.runs(container).resizing = true,
            Action::DeleteObject => {}
        }
    }

    fn begin_container(&mut self, container: &str, image: &str) {
        let given = self.resize.allotted.get(container).cloned();
        let runs = self.runs(container);
        runs.image = Some(image.to_owned());
        (runs.given, runs.resizing, runs.resize_failure, runs.replaced_at) = (given, false, None, None);
        if let Run::Ended(end) = std::mem::replace(&mut runs.run, Run::Starting) {
            runs.last = Some(end);
        }
        runs.starts += 1;
        (runs.signalled, runs.probes) = (None, Probes::default());
    }

    fn runs(&mut self, container: &str) -> &mut Runs {
        self.containers.entry(container.to_owned()).or_default()
    }

    /// A container's runs, if this is its newest one.
    fn runs_of(&mut self, container: &str, attempt: u32) -> Option<&mut Runs> {
        self.containers.get_mut(container).filter(|runs| runs.starts == attempt.saturating_add(1))
    }

    /// Takes note of a fact.
    pub fn apply(&mut self, fact: Fact, now: Timestamp) {
        match fact {
            Fact::MachineUp { start_path } => self.machine = Machine::Up { start_path },
            Fact::MachineFailed { message } => self.machine_failed(message, now),
            Fact::MachineEnded { cause } => self.machine_ended(&cause, now),
            Fact::ImageReady { image, id } => drop(self.images.insert(image, Image::Ready { id })),
            Fact::ImageFailed { image, reason, message } => self.image_failed(image, reason, message, now),
            Fact::SetUp => self.setup = Setup::Done,
            Fact::SetupFailed { reason, message } => self.setup_failed(reason, message, now),
            Fact::Started { container, started_at } => self.started(&container, started_at),
            Fact::StartFailed { container, code, message } => self.start_failed(&container, code, message, now),
            Fact::ConfigFailed { container, message } => {
                let runs = self.runs(&container);
                runs.starts = runs.starts.saturating_sub(1);
                runs.run = Run::Idle;
                self.setup_failed("CreateContainerConfigError".into(), message, now);
            }
            Fact::Resized { container, attempt, resources } => {
                if let Some(runs) = self.runs_of(&container, attempt) {
                    (runs.given, runs.resizing, runs.resize_failure) = (Some(resources), false, None);
                }
            }
            Fact::ResizeFailed { container, attempt, message } => {
                if let Some(runs) = self.runs_of(&container, attempt) {
                    let failure = Refusal::after(runs.resize_failure.as_ref(), "Error".into(), message, now);
                    (runs.resizing, runs.resize_failure) = (false, Some(failure));
                }
            }
            Fact::Refused { container, reason, message } => self.refused(&container, reason, message, now),
            Fact::HookFailed { container, attempt } => {
                if let Some(runs) = self.runs_of(&container, attempt) {
                    runs.probes.hook_failed(now);
                }
            }
            Fact::Probed { container, attempt, kind, good, thresholds } => {
                if let Some(runs) = self.runs_of(&container, attempt) {
                    runs.probes.note(kind, good, thresholds, now);
                }
            }
            Fact::Exited { container, code, signal, oom_killed, message, finished_at } => {
                let reason = match (oom_killed, code) {
                    (true, _) => "OOMKilled",
                    (false, 0) => "Completed",
                    _ => "Error",
                };
                self.ended(&container, Finish { code, signal, reason, message }, finished_at);
            }
        }
    }

    fn refused(&mut self, container: &str, reason: String, message: String, now: Timestamp) {
        let runs = self.runs(container);
        runs.starts = runs.starts.saturating_sub(1);
        runs.run = Run::Idle;
        runs.refusal = Some(Refusal::after(runs.refusal.as_ref(), reason, message, now));
    }

    /// The end of a short run may be known before its start is.
    fn started(&mut self, container: &str, started_at: Timestamp) {
        let runs = self.runs(container);
        runs.refusal = None;
        match &mut runs.run {
            Run::Ended(end) if end.started_at == end.finished_at => end.started_at = started_at.min(end.finished_at),
            Run::Ended(_) => {}
            run => *run = Run::Running { started_at },
        }
    }

    fn machine_failed(&mut self, message: String, now: Timestamp) {
        let tries = if let Machine::Starting { tries } = self.machine { tries + 1 } else { 1 };
        self.machine = Machine::Failed { message, tries, at: now };
    }

    fn machine_ended(&mut self, cause: &str, now: Timestamp) {
        let unseen: Vec<String> =
            self.containers.iter().filter(|(_, r)| r.is_live()).map(|(name, _)| name.clone()).collect();
        for name in unseen {
            let message = format!("the microVM ended and the exit code was not seen: {cause}");
            self.ended(&name, Finish { code: 137, signal: None, reason: "ContainerStatusUnknown", message }, now);
        }
        self.machine = Machine::Ended { at: now };
        self.setup = Setup::Absent;
    }

    fn image_failed(&mut self, image: String, reason: String, message: String, now: Timestamp) {
        let tries = if let Some(Image::Pulling { tries }) = self.images.get(&image) { tries + 1 } else { 1 };
        self.images.insert(image, Image::Failed { reason, message, tries, at: now });
    }

    fn setup_failed(&mut self, reason: String, message: String, now: Timestamp) {
        let tries = if let Setup::Running { tries } = self.setup { tries + 1 } else { 1 };
        self.setup = Setup::Failed { reason, message, tries, at: now };
    }

    fn start_failed(&mut self, container: &str, code: i32, message: String, now: Timestamp) {
        self.ended(container, Finish { code, signal: None, reason: "StartError", message }, now);
    }

    fn ended(&mut self, container: &str, finish: Finish, finished_at: Timestamp) {
        let runs = self.runs(container);
        let started_at = match &runs.run {
            Run::Running { started_at } => *started_at,
            Run::Ended(_) => return,
            Run::Idle | Run::Starting => finished_at,
        };
        let lasted = finished_at.duration_since(started_at).as_secs();
        runs.crashes = if lasted >= BACKOFF_RESET_SECONDS { 1 } else { runs.crashes + 1 };
        let attempt = runs.starts.saturating_sub(1);
        let Finish { code, signal, reason, message } = finish;
        let reason = reason.to_owned();
        let end = End { attempt, code, signal, reason, message, started_at, finished_at };
        if runs.replaced_at.take().is_some() {
            // It did as it was asked, and starts anew whatever its policy says.
            (runs.run, runs.last, runs.crashes) = (Run::Idle, Some(end), 0);
        } else {
            runs.run = Run::Ended(end);
        }
    }

    /// What stays true when the agent itself was restarted: whatever was under way is unknown.
    pub fn after_restart(&mut self) {
        self.images.retain(|_, image| !matches!(image, Image::Pulling { .. }));
        if matches!(self.setup, Setup::Running { .. }) {
            self.setup = Setup::Absent;
        }
        for runs in self.containers.values_mut() {
            runs.probes.forget_under_way();
            runs.resizing = false;
        }
    }

    /// Whether a container runs or is being started.
    pub fn any_live(&self) -> bool {
        self.containers.values().any(Runs::is_live)
    }
}

/// How a run finished, before it is put in time.
struct Finish {
    code: i32,
    signal: Option<i32>,
    reason: &'static str,
    message: String,
}

impl Runs {
    /// Whether it runs or is being started.
    pub fn is_live(&self) -> bool {
        matches!(self.run, Run::Starting | Run::Running { .. })
    }

    /// Whether any run has really begun.
    pub fn has_started(&self) -> bool {
        match self.run {
            Run::Running { .. } | Run::Ended(_) => true,
            Run::Starting => self.starts > 1,
            Run::Idle => self.starts > 0,
        }
    }

    /// Times it was started again.
    pub fn restart_count(&self) -> i64 {
        i64::from(self.starts.saturating_sub(1))
    }

    /// When it may be started again: at once after the first short run, later and later after more.
    pub fn restart_at(&self) -> Option<Timestamp> {
        let Run::Ended(end) = &self.run else { return None };
        let delay = if self.crashes <= 1 { jiff::SignedDuration::ZERO } else { backoff(self.crashes - 1) };
        Some(super::after(end.finished_at, delay))
    }
}
