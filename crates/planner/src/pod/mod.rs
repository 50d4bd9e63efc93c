//! The life of one pod in its microVM, as a host agent decides it.
//!
//! ```text
//!            StartMachine          Configure            StartContainer (init in order, then all others)
//!  None ---------------> Starting ----------> Up --------------------------------------> running
//!   ^                        |                 |  every container ended for good, or the pod is to go
//!   |  something is to run   v                 v
//!   +------------------- Ended <---------- DestroyMachine ------> final status ------> DeleteObject
//! ```
//!
//! `resize` decides what its containers may use when that is changed while they run.
//! `observed` holds what is known, only from facts; `decide` compares it with the pod and returns what to do next;
//! `status` renders what the user sees. Nothing is invented: an exit code is what the guest sent, and a container whose end
//! nobody saw is reported as `ContainerStatusUnknown`.

pub mod admit;
mod decide;
mod observed;
mod probes;
pub mod resize;
pub mod status;

pub use decide::{Action, Decision, Signal, decide};
pub use observed::{End, Fact, Image, Machine, Observed, Refusal, Run, Runs, Setup};
pub use probes::{ProbeKind, Probes, Thresholds};

use isopod_types::pod::{Container, Pod};
use jiff::{SignedDuration, Timestamp};

/// First delay of a container that keeps ending, in seconds; it doubles.
const BACKOFF_FIRST_SECONDS: i64 = 10;
/// Longest delay of a container or an image pull, in seconds.
const BACKOFF_MAX_SECONDS: i64 = 300;
/// A run this long, in seconds, makes the next delay the first again.
const BACKOFF_RESET_SECONDS: i64 = 600;

/// The delay before try number `tries` (1 is the first try that has to wait).
fn backoff(tries: u32) -> SignedDuration {
    let doubled = BACKOFF_FIRST_SECONDS.saturating_mul(1 << tries.saturating_sub(1).min(10));
    SignedDuration::from_secs(doubled.min(BACKOFF_MAX_SECONDS))
}

fn after(at: Timestamp, delay: SignedDuration) -> Timestamp {
    at.saturating_add(delay).unwrap_or(at)
}

/// Whether a container that ended with this code is to run again. Ephemeral ones run once.
fn restarts(pod: &Pod, container: &Container, code: i32) -> bool {
    if pod.spec.is_ephemeral(&container.name) {
        return false;
    }
    if container.is_sidecar() {
        return true;
    }
    match pod.spec.restart_policy.as_str() {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => !is_init(pod, container) || code != 0,
    }
}

fn is_init(pod: &Pod, container: &Container) -> bool {
    pod.spec.init_containers.iter().any(|init| init.name == container.name)
}

#[cfg(test)]
mod tests;
