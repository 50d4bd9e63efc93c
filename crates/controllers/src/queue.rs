//! The work queue: which keys are to be decided about, and when. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use isopod_types::Key;
use jiff::{SignedDuration, Timestamp};

/// First delay after a failure; it doubles.
const RETRY_FIRST: SignedDuration = SignedDuration::from_millis(20);
/// Longest delay after failures.
const RETRY_MAX: SignedDuration = SignedDuration::from_secs(60);

/// One of the loops, and what it is to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) key: Key,
}

/// What is to be done, what is being done, and what is to be done later.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// In the order asked for, so that no loop waits behind another for ever.
    order: VecDeque<Work>,
    ready: BTreeSet<Work>,
    busy: BTreeSet<Work>,
    /// Became due while busy.
    again: BTreeSet<Work>,
    later: BTreeMap<Work, Timestamp>,
    /// The same by time: most of what is due later is due much later.
    times: BTreeSet<(Timestamp, Work)>,
    failures: BTreeMap<Work, u32>,
}

impl Queue {
    /// Asks for work to be done soon; what is asked for twice is done once.
    pub(crate) fn add(&mut self, work: Work) {
        if self.busy.contains(&work) {
            self.again.insert(work);
        } else if self.ready.insert(work.clone()) {
            self.order.push_back(work);
        }
    }

    /// Asks for work to be done at a time at the latest.
    pub(crate) fn add_at(&mut self, work: Work, at: Timestamp) {
        if let Some(before) = self.later.get(&work).copied() {
            if before <= at {
                return;
            }
            self.times.remove(&(before, work.clone()));
        }
        self.later.insert(work.clone(), at);
        self.times.insert((at, work));
    }

    /// Takes the next work; it is busy until `done`.
    pub(crate) fn take(&mut self) -> Option<Work> {
        let work = self.order.pop_front()?;
        self.ready.remove(&work);
        self.busy.insert(work.clone());
        Some(work)
    }

    /// Work is done; after a failure it is due again later and later.
    pub(crate) fn done(&mut self, work: &Work, failed: bool, now: Timestamp) {
        self.busy.remove(work);
        if failed {
            let failures = self.failures.entry(work.clone()).or_default();
            *failures = failures.saturating_add(1);
            let delay = RETRY_FIRST.saturating_mul(1 << (*failures - 1).min(12)).min(RETRY_MAX);
            self.again.remove(work);
            self.add_at(work.clone(), now.saturating_add(delay).unwrap_or(now));
            return;
        }
        self.failures.remove(work);
        if self.again.remove(work) {
            self.add(work.clone());
        }
    }

    /// Makes ready what is due.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        while self.times.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, work)) = self.times.pop_first() else { return };
            self.later.remove(&work);
            self.add(work);
        }
    }

    /// When something is due next.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.times.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(name: &str) -> Work {
        Work { name: "loop", key: Key::new("x", name) }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn work_is_done_once_and_again_when_it_changed_meanwhile() {
        let mut queue = Queue::default();
        queue.add(work("a"));
        queue.add(work("a"));
        assert_eq!(queue.take(), Some(work("a")));
        assert_eq!(queue.take(), None);
        queue.add(work("a"));
        assert_eq!(queue.take(), None);
        queue.done(&work("a"), false, at(0));
        assert_eq!(queue.take(), Some(work("a")));
    }

    #[test]
    fn what_was_asked_for_first_is_done_first() {
        let mut queue = Queue::default();
        for name in ["z", "a", "m", "a"] {
            queue.add(work(name));
        }
        let taken: Vec<String> = std::iter::from_fn(|| queue.take()).map(|work| work.key.name).collect();
        assert_eq!(taken, ["z", "a", "m"]);
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let mut queue = Queue::default();
        let mut now = 0;
        for delay in [20, 40, 80] {
            queue.add(work("a"));
            queue.take();
            queue.done(&work("a"), true, at(now));
            queue.advance(at(now));
            assert_eq!(queue.next_at(), Some(at(now + delay)));
            queue.advance(at(now + delay));
            assert_eq!(queue.next_at(), None);
            queue.take();
            queue.busy.clear();
            now += delay;
        }
    }

    #[test]
    fn the_earliest_time_wins() {
        let mut queue = Queue::default();
        queue.add_at(work("a"), at(50));
        queue.add_at(work("a"), at(20));
        queue.add_at(work("a"), at(70));
        queue.advance(at(0));
        assert_eq!(queue.next_at(), Some(at(20)));
        queue.advance(at(20));
        assert_eq!(queue.take(), Some(work("a")));
    }
}
