//! Reaps every process of the guest, as PID 1 must, and passes on how those ended that someone waits for.
//!
//! A container's first process is created by a helper and becomes ours when the helper ends, so it may end before its
//! number is known here. Ends that nobody waits for are therefore remembered while any helper runs, and forgotten after.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{WaitOptions, WaitStatus};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// As a shell has it: the program's own, or 128 + the signal.
    pub(crate) code: i32,
    /// 0: it exited.
    pub(crate) signal: u32,
}

impl From<WaitStatus> for End {
    fn from(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self { code: 128 + signal, signal: signal.unsigned_abs() },
            None => Self { code: status.exit_status().unwrap_or(255), signal: 0 },
        }
    }
}

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Reaper(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<i32, oneshot::Sender<End>>,
    unclaimed: BTreeMap<i32, End>,
    helpers: usize,
}

/// While this exists, ends are remembered.
#[derive(Debug)]
pub(crate) struct Remembering<'a>(&'a Reaper);

impl Drop for Remembering<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.helpers -= 1;
        if state.helpers == 0 {
            state.unclaimed.clear();
        }
    }
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before a process is made that `wait` will be called for.
    pub(crate) fn remember(&self) -> Remembering<'_> {
        self.lock().helpers += 1;
        Remembering(self)
    }

    /// The end of a process, which may lie in the past.
    pub(crate) fn wait(&self, pid: i32) -> oneshot::Receiver<End> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        match state.unclaimed.remove(&pid) {
            Some(end) => drop(sender.send(end)),
            None => drop(state.waiting.insert(pid, sender)),
        }
        receiver
    }

    fn ended(&self, pid: i32, end: End) {
        let mut state = self.lock();
        match state.waiting.remove(&pid) {
            // Whoever waited may have left.
            Some(sender) => drop(sender.send(end)),
            None if state.helpers > 0 => drop(state.unclaimed.insert(pid, end)),
            None => {}
        }
    }

    /// Reaps for ever.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                self.ended(pid.as_raw_nonzero().get(), status.into());
            }
            children.recv().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_passed_on_whether_it_comes_before_or_after_the_question() {
        let end = End { code: 3, signal: 0 };
        let reaper = Reaper::default();
        let mut early = reaper.wait(5);
        reaper.ended(5, end);
        assert_eq!(early.try_recv(), Ok(end));
        let remembering = reaper.remember();
        reaper.ended(6, end);
        assert_eq!(reaper.wait(6).try_recv(), Ok(end));
        reaper.ended(7, end);
        drop(remembering);
        assert!(reaper.wait(7).try_recv().is_err());
    }
}
