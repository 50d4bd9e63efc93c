//! Signals to a container's first process. The first process of a namespace never sees a signal that it has no handler for,
//! and a young one has none yet: it gets the signal once it listens, so that a pod that is deleted early need not wait for
//! its whole grace period.

use std::{fs, sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::time::Instant;

use crate::container::Running;

/// Age at which a process that does not listen never will.
const YOUTH: Duration = Duration::from_secs(5);

/// Time between two looks: the kernel tells nobody when a handler is set.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Sends a signal to a first process of this age, now or as soon as it listens.
pub(crate) async fn deliver(running: Arc<Running>, age: Duration, signal: Signal) {
    let grown_up = Instant::now() + YOUTH.saturating_sub(age);
    while Instant::now() < grown_up && is_deaf(running.child.pid, signal) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    running.child.signal(signal);
}

fn is_deaf(pid: i32, signal: Signal) -> bool {
    if [Signal::KILL, Signal::STOP].contains(&signal) {
        return false;
    }
    // One that has ended needs no waiting for.
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !heeds(&status, signal.as_raw()))
}

/// Whether a process handles, blocks or ignores a signal, by its `/proc/PID/status` (proc_pid_status(5)).
fn heeds(status: &str, number: i32) -> bool {
    let masks = status.lines().filter_map(|line| line.split_once(':'));
    let masks = masks.filter(|(name, _)| ["SigBlk", "SigIgn", "SigCgt"].contains(name));
    let mask = masks.filter_map(|(_, mask)| u64::from_str_radix(mask.trim(), 16).ok()).fold(0, |all, mask| all | mask);
    mask >> (number - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_heeds_what_it_handles_blocks_or_ignores() {
        let status = "Name:\tnginx\nSigPnd:\t0000000000000004\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000002\n\
                      SigCgt:\t0000000000004000\n";
        for (number, heeded) in [(1, true), (2, true), (3, false), (14, false), (15, true), (64, false)] {
            assert_eq!(heeds(status, number), heeded, "{number}");
        }
    }
}
