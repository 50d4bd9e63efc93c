//! What probes say about a container: when the next check is due, whether it has started and is ready, and whether it is to be
//! ended. The rules are the kubelet's.

use isopod_types::pod::{Container, Pod};
use isopod_types::probe::Probe;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::after;
use super::decide::{Action, Decision, Signal};
use super::observed::{Run, Runs};

/// Which probe of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProbeKind {
    /// Until it passes once, the others wait.
    Startup,
    /// When it fails, the container is ended.
    Liveness,
    /// While it does not pass, the pod is not ready.
    Readiness,
}

impl ProbeKind {
    /// `startup`, `liveness` or `readiness`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// This probe of a container.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// Results in a row that make a probe pass or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes.
    pub success: u32,
    /// Failures.
    pub failure: u32,
}

impl Thresholds {
    /// Those of a probe.
    pub fn of(probe: &Probe) -> Self {
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        Self { success: or(probe.success_threshold, 1), failure: or(probe.failure_threshold, 3) }
    }
}

/// The results of one probe of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    /// When the last check was asked for.
    asked_at: Option<Timestamp>,
    /// A check is under way.
    under_way: bool,
    /// The last result, and how often in a row it came.
    last: Option<(bool, u32)>,
    /// What it has come to, once enough results came in a row.
    verdict: Option<bool>,
    /// Since when it fails.
    failed_at: Option<Timestamp>,
}

impl Series {
    fn note(&mut self, good: bool, thresholds: Thresholds, now: Timestamp) {
        self.under_way = false;
        let count = match self.last {
            Some((same, count)) if same == good => count.saturating_add(1),
            _ => 1,
        };
        self.last = Some((good, count));
        if count >= if good { thresholds.success } else { thresholds.failure } {
            self.failed_at = if good { None } else { self.failed_at.or(Some(now)) };
            self.verdict = Some(good);
        }
    }

    fn due_at(&self, probe: &Probe, started_at: Timestamp) -> Timestamp {
        let period = if probe.period_seconds <= 0 { 10 } else { probe.period_seconds };
        match self.asked_at {
            None => after(started_at, SignedDuration::from_secs(probe.initial_delay_seconds.max(0))),
            Some(at) => after(at, SignedDuration::from_secs(period)),
        }
    }
}

/// The probes of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    startup: Series,
    liveness: Series,
    readiness: Series,
    /// When the hook after the start failed.
    hook_failed_at: Option<Timestamp>,
}

impl Probes {
    fn series(&mut self, kind: ProbeKind) -> &mut Series {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }

    pub(super) fn asked(&mut self, kind: ProbeKind, at: Timestamp) {
        let series = self.series(kind);
        (series.asked_at, series.under_way) = (Some(at), true);
    }

    pub(super) fn note(&mut self, kind: ProbeKind, good: bool, thresholds: Thresholds, now: Timestamp) {
        self.series(kind).note(good, thresholds, now);
    }

    pub(super) fn hook_failed(&mut self, now: Timestamp) {
        self.hook_failed_at.get_or_insert(now);
    }

    /// Checks that were under way when the agent ended are asked for again.
    pub(super) fn forget_under_way(&mut self) {
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            self.series(kind).under_way = false;
        }
    }
}

/// Whether a container runs and its startup probe, if any, has passed.
pub fn has_started(container: &Container, runs: &Runs) -> bool {
    let passed = container.startup_probe.is_none() || runs.probes.startup.verdict == Some(true);
    matches!(runs.run, Run::Running { .. }) && passed
}

/// Whether a container has started and its readiness probe, if any, passes.
pub fn is_ready(container: &Container, runs: &Runs) -> bool {
    let passes = container.readiness_probe.is_none() || runs.probes.readiness.verdict == Some(true);
    has_started(container, runs) && passes
}

/// Why a container is to be ended, since when, and its grace in seconds.
struct Condemned {
    probe: Option<ProbeKind>,
    since: Timestamp,
    grace_seconds: i64,
}

fn condemned(pod: &Pod, container: &Container, runs: &Runs) -> Option<Condemned> {
    let pods = pod.spec.termination_grace_period_seconds.unwrap_or(30);
    if let Some(since) = runs.probes.hook_failed_at.or(runs.replaced_at) {
        return Some(Condemned { probe: None, since, grace_seconds: pods });
    }
    let failing = |kind: ProbeKind, series: &Series| {
        let since = series.failed_at?;
        let own = kind.of(container)?.termination_grace_period_seconds;
        Some(Condemned { probe: Some(kind), since, grace_seconds: own.unwrap_or(pods) })
    };
    failing(ProbeKind::Startup, &runs.probes.startup).or_else(|| failing(ProbeKind::Liveness, &runs.probes.liveness))
}

/// Has a running container checked, or ended when it does not pass.
pub(super) fn tend(pod: &Pod, container: &Container, runs: &Runs, now: Timestamp, decision: &mut Decision) {
    let Run::Running { started_at } = runs.run else { return };
    if let Some(reason) = condemned(pod, container, runs) {
        return end(container, runs, &reason, now, decision);
    }
    let started = has_started(container, runs);
    let kinds: &[ProbeKind] =
        if started { &[ProbeKind::Liveness, ProbeKind::Readiness] } else { &[ProbeKind::Startup] };
    let mut probes = runs.probes.clone();
    for &kind in kinds {
        let (Some(probe), series) = (kind.of(container), probes.series(kind)) else { continue };
        let due_at = series.due_at(probe, started_at);
        if series.under_way {
            continue;
        } else if due_at <= now {
            let attempt = runs.starts.saturating_sub(1);
            decision.act(Action::Probe { container: container.name.clone(), attempt, kind, at: now });
        } else {
            decision.wake(due_at);
        }
    }
}

fn end(container: &Container, runs: &Runs, reason: &Condemned, now: Timestamp, decision: &mut Decision) {
    let kill_at = after(reason.since, SignedDuration::from_secs(reason.grace_seconds.max(0)));
    let signal = if kill_at <= now { Signal::Kill } else { Signal::Stop };
    if runs.signalled < Some(signal) {
        decision.act(Action::Signal { container: container.name.clone(), signal, failed_probe: reason.probe });
    }
    if kill_at > now {
        decision.wake(kill_at);
    }
}
