//! Pods that wait for a node: the important first, those that failed later and later, and each woken only by what may help it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use isopod_types::Key;
use isopod_types::scheduling::Toleration;
use jiff::{SignedDuration, Timestamp};

use super::messages::Why;

const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(1);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(10);
/// A pod that nothing woke is looked at again after this time.
const FLUSH: SignedDuration = SignedDuration::from_mins(5);

/// What may help a pod that was not placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wakes {
    /// A node came or changed.
    pub by_node: bool,
    /// A placed pod went.
    pub by_departure: bool,
    /// A pod was placed or its labels changed.
    pub by_arrival: bool,
    /// A claim, volume or class came or changed.
    pub by_storage: bool,
}

impl Wakes {
    /// Everything.
    pub const ALL: Self = Self { by_node: true, by_departure: true, by_arrival: true, by_storage: true };

    /// What may help against these reasons.
    pub fn against<'a>(reasons: impl Iterator<Item = &'a Why>) -> Self {
        let mut wakes = Self { by_node: true, ..Self::default() };
        for why in reasons {
            match why {
                Why::NoVolume | Why::VolumeAffinity | Why::VolumeGone => wakes.by_storage = true,
                Why::ClaimInUse => (wakes.by_departure, wakes.by_storage) = (true, true),
                Why::PodAffinity => wakes.by_arrival = true,
                Why::Spread => (wakes.by_departure, wakes.by_arrival) = (true, true),
                _ => wakes.by_departure |= why.is_resolvable(),
            }
        }
        wakes
    }

    fn kinds(self) -> [bool; 4] {
        [self.by_node, self.by_departure, self.by_arrival, self.by_storage]
    }

    fn meets(self, news: Self) -> bool {
        self.kinds().into_iter().zip(news.kinds()).any(|(wanted, brought)| wanted && brought)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    Backoff(Timestamp),
    Waiting {
        wakes: Wakes,
        flush_at: Timestamp,
    },
    /// Being placed.
    Out,
}

#[derive(Clone, Debug)]
struct Entry {
    priority: i64,
    /// Order of arrival.
    turn: u64,
    attempts: u32,
    not_before: Timestamp,
    tolerations: Vec<Toleration>,
    place: Place,
}

type Rank = (Reverse<i64>, u64, Key);

/// Pods that wait for a node.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    entries: BTreeMap<Key, Entry>,
    active: BTreeSet<Rank>,
    backoff: BTreeSet<(Timestamp, Key)>,
    flush: BTreeSet<(Timestamp, Key)>,
    /// How many of those that wait each sort of news may help: most news help nobody.
    interested: [usize; 4],
    turns: u64,
}

impl Queue {
    /// Whether a pod waits or is being placed.
    pub fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// A pod wants a node, or changed so that it may get one now.
    pub fn add(&mut self, key: &Key, priority: i64, tolerations: &[Toleration]) {
        self.turns += 1;
        let fresh = || Entry {
            priority,
            turn: self.turns,
            attempts: 0,
            not_before: Timestamp::UNIX_EPOCH,
            tolerations: Vec::new(),
            place: Place::Out,
        };
        let mut entry = self.entries.remove(key).unwrap_or_else(fresh);
        self.unplace(key, &entry);
        (entry.priority, entry.tolerations) = (priority, tolerations.to_vec());
        self.put(key, entry, Place::Active);
    }

    /// A pod wants no node any more.
    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.unplace(key, &entry);
        }
    }

    /// Takes the most important pod that may be tried now.
    pub fn pop(&mut self, now: Timestamp) -> Option<Key> {
        self.advance(now);
        let (_, _, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::Out;
        Some(key)
    }

    /// When there is something to do next; a time that has passed when there is something now.
    pub fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        if !self.active.is_empty() {
            return Some(now);
        }
        let first = |times: &BTreeSet<(Timestamp, Key)>| times.first().map(|(at, _)| *at);
        [first(&self.backoff), first(&self.flush)].into_iter().flatten().min()
    }

    /// A pod was tried and not placed.
    pub fn failed(&mut self, key: &Key, wakes: Wakes, now: Timestamp) {
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.unplace(key, &entry);
        entry.attempts = entry.attempts.saturating_add(1);
        let delay = BACKOFF_FIRST.saturating_mul(1 << (entry.attempts - 1).min(10)).min(BACKOFF_MAX);
        entry.not_before = now.saturating_add(delay).unwrap_or(now);
        let flush_at = now.saturating_add(FLUSH).unwrap_or(now);
        self.put(key, entry, Place::Waiting { wakes, flush_at });
    }

    /// A pod has its node and waits for its claims; it is tried again at once when it is woken for them.
    pub fn hold(&mut self, key: &Key, now: Timestamp) {
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.unplace(key, &entry);
        entry.not_before = now;
        let flush_at = now.saturating_add(FLUSH).unwrap_or(now);
        self.put(key, entry, Place::Waiting { wakes: Wakes::default(), flush_at });
    }

    /// Something went wrong on the way: the pod is tried again after its pause.
    pub fn retry(&mut self, key: &Key, now: Timestamp) {
        self.failed(key, Wakes::ALL, now);
        self.wake(key);
    }

    /// A pod that waits is tried again as soon as its pause is over; whether it waited.
    pub fn wake(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        let waits = matches!(entry.place, Place::Waiting { .. });
        let place = if waits { Place::Backoff(entry.not_before) } else { entry.place };
        self.unplace(key, &entry);
        self.put(key, entry, place);
        waits
    }

    /// Wakes the pods that this may help; `accepted` says whether a pod puts up with the node it is about. How many.
    pub fn wake_all(&mut self, news: Wakes, accepted: impl Fn(&[Toleration]) -> bool) -> usize {
        let helped = |entry: &Entry| match entry.place {
            Place::Waiting { wakes, .. } => wakes.meets(news) && accepted(&entry.tolerations),
            _ => false,
        };
        let reaches_somebody = self.interested.iter().zip(news.kinds()).any(|(count, brought)| brought && *count > 0);
        if !reaches_somebody {
            return 0;
        }
        let waiting = self.flush.iter().map(|(_, key)| key);
        let woken: Vec<Key> = waiting.filter(|key| self.entries.get(*key).is_some_and(helped)).cloned().collect();
        woken.iter().for_each(|key| {
            self.wake(key);
        });
        woken.len()
    }

    fn advance(&mut self, now: Timestamp) {
        for which in [true, false] {
            loop {
                let times = if which { &self.backoff } else { &self.flush };
                let Some((_, key)) = times.first().filter(|(at, _)| *at <= now).cloned() else { break };
                let Some(entry) = self.entries.remove(&key) else { break };
                self.unplace(&key, &entry);
                self.put(&key, entry, Place::Active);
            }
        }
    }

    fn put(&mut self, key: &Key, mut entry: Entry, place: Place) {
        entry.place = place;
        match place {
            Place::Active => {
                self.active.insert((Reverse(entry.priority), entry.turn, key.clone()));
            }
            Place::Backoff(at) => {
                self.backoff.insert((at, key.clone()));
            }
            Place::Waiting { flush_at, wakes } => {
                self.flush.insert((flush_at, key.clone()));
                self.interested.iter_mut().zip(wakes.kinds()).for_each(|(count, wanted)| *count += usize::from(wanted));
            }
            Place::Out => {}
        }
        self.entries.insert(key.clone(), entry);
    }

    fn unplace(&mut self, key: &Key, entry: &Entry) {
        match entry.place {
            Place::Active => {
                self.active.remove(&(Reverse(entry.priority), entry.turn, key.clone()));
            }
            Place::Backoff(at) => {
                self.backoff.remove(&(at, key.clone()));
            }
            Place::Waiting { flush_at, wakes } => {
                self.flush.remove(&(flush_at, key.clone()));
                self.interested.iter_mut().zip(wakes.kinds()).for_each(|(count, wanted)| *count -= usize::from(wanted));
            }
            Place::Out => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("x", name)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_important_go_first_then_those_that_came_first() {
        let mut queue = Queue::default();
        for (name, priority) in [("b", 0), ("a", 0), ("high", 10), ("low", -1)] {
            queue.add(&key(name), priority, &[]);
        }
        let order: Vec<String> = std::iter::from_fn(|| queue.pop(at(0))).map(|key| key.name).collect();
        assert_eq!(order, ["high", "b", "a", "low"]);
    }

    #[test]
    fn pods_wait_longer_and_longer_and_only_for_what_helps() {
        let mut queue = Queue::default();
        queue.add(&key("a"), 0, &[]);
        let mut now = 0;
        for pause in [1, 2, 4, 8, 10, 10] {
            assert_eq!(queue.pop(at(now)), Some(key("a")));
            queue.failed(&key("a"), Wakes { by_departure: true, ..Wakes::default() }, at(now));
            assert_eq!(queue.next_at(at(now)), Some(at(now + 300)));
            assert_eq!(queue.wake_all(Wakes { by_storage: true, ..Wakes::default() }, |_| true), 0);
            assert_eq!(queue.wake_all(Wakes::ALL, |_| false), 0);
            assert_eq!(queue.wake_all(Wakes::ALL, |_| true), 1);
            assert_eq!((queue.pop(at(now)), queue.next_at(at(now))), (None, Some(at(now + pause))));
            now += pause;
        }
        queue.pop(at(now));
        queue.failed(&key("a"), Wakes::default(), at(now));
        assert_eq!((queue.pop(at(now + 299)), queue.pop(at(now + 300))), (None, Some(key("a"))));
    }

    #[test]
    fn a_pod_that_goes_is_forgotten() {
        let mut queue = Queue::default();
        queue.add(&key("a"), 0, &[]);
        queue.remove(&key("a"));
        assert_eq!((queue.pop(at(0)), queue.next_at(at(0)), queue.contains(&key("a"))), (None, None, false));
    }
}
