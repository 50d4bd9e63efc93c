//! Recent events and live watchers, by topic. A topic is a key's first path segment, so that a write wakes only
//! watchers of its own kind of key. One lock around it, held by the store; nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::entry::Event;
use crate::error::WatchError;
use crate::watch::Scope;

/// One live watcher's end in the hub.
#[derive(Debug)]
struct Watcher {
    scope: Scope,
    from: u64,
    queue: mpsc::Sender<Arc<Event>>,
    lagged: Arc<AtomicBool>,
}

impl Watcher {
    /// Hands the event over; false when the watcher is gone or too slow.
    fn offer(&self, event: &Arc<Event>) -> bool {
        if event.revision() <= self.from || !self.scope.covers(&event.entry.key) {
            return !self.queue.is_closed();
        }
        match self.queue.try_send(Arc::clone(event)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

#[derive(Debug, Default)]
struct Topic {
    ring: VecDeque<Arc<Event>>,
    /// Newest revision that the ring has let go; 0 when it never did.
    forgotten: u64,
    watchers: Vec<Watcher>,
}

impl Topic {
    fn publish(&mut self, event: &Arc<Event>, ring_max: usize) {
        if self.ring.len() >= ring_max
            && let Some(oldest) = self.ring.pop_front()
        {
            self.forgotten = oldest.revision();
        }
        self.ring.push_back(Arc::clone(event));
        self.watchers.retain(|watcher| watcher.offer(event));
    }

    fn since(&self, revision: u64) -> impl Iterator<Item = &Arc<Event>> {
        let start = self.ring.partition_point(|event| event.revision() <= revision);
        self.ring.range(start..)
    }
}

/// What a new watcher receives: events that already happened, then a queue of those to come.
pub(crate) struct Subscription {
    pub(crate) replay: VecDeque<Arc<Event>>,
    pub(crate) live: mpsc::Receiver<Arc<Event>>,
    pub(crate) lagged: Arc<AtomicBool>,
}

/// Rings and watchers of all topics.
#[derive(Debug)]
pub(crate) struct Hub {
    topics: BTreeMap<String, Topic>,
    wide: Vec<Watcher>,
    compacted: u64,
    ring_max: usize,
}

impl Hub {
    pub(crate) fn new(compacted: u64, ring_max: usize) -> Self {
        Self { topics: BTreeMap::new(), wide: Vec::new(), compacted, ring_max: ring_max.max(1) }
    }

    pub(crate) fn publish(&mut self, event: &Arc<Event>) {
        let topic = topic_of(&event.entry.key);
        match self.topics.get_mut(topic) {
            Some(known) => known.publish(event, self.ring_max),
            None => self.topics.entry(topic.to_owned()).or_default().publish(event, self.ring_max),
        }
        self.wide.retain(|watcher| watcher.offer(event));
    }

    pub(crate) fn subscribe(&mut self, scope: Scope, from: u64, queue: usize) -> Result<Subscription, WatchError> {
        let oldest = self.oldest(&scope);
        if from < oldest {
            return Err(WatchError::Compacted { asked: from, oldest });
        }
        let replay = self.replay(&scope, from);
        let (sender, live) = mpsc::channel(queue.max(1));
        let lagged = Arc::new(AtomicBool::new(false));
        let watcher = Watcher { scope, from, queue: sender, lagged: Arc::clone(&lagged) };
        match watcher.scope.topic() {
            Some(topic) => self.topics.entry(topic.to_owned()).or_default().watchers.push(watcher),
            None => self.wide.push(watcher),
        }
        Ok(Subscription { replay, live, lagged })
    }

    fn oldest(&self, scope: &Scope) -> u64 {
        let forgotten = match scope.topic() {
            Some(topic) => self.topics.get(topic).map_or(0, |topic| topic.forgotten),
            None => self.topics.values().map(|topic| topic.forgotten).max().unwrap_or(0),
        };
        forgotten.max(self.compacted)
    }

    fn replay(&self, scope: &Scope, from: u64) -> VecDeque<Arc<Event>> {
        let covered = |event: &&Arc<Event>| scope.covers(&event.entry.key);
        if let Some(topic) = scope.topic() {
            let known = self.topics.get(topic);
            return known.into_iter().flat_map(|topic| topic.since(from)).filter(covered).cloned().collect();
        }
        let mut events: Vec<_> =
            self.topics.values().flat_map(|topic| topic.since(from)).filter(covered).cloned().collect();
        events.sort_by_key(|event| event.revision());
        events.into()
    }

    pub(crate) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
        for topic in self.topics.values_mut() {
            let gone = topic.ring.partition_point(|event| event.revision() <= revision);
            topic.ring.drain(..gone);
            topic.watchers.retain(|watcher| !watcher.queue.is_closed());
        }
        self.topics
            .retain(|_, topic| !topic.ring.is_empty() || !topic.watchers.is_empty() || topic.forgotten > revision);
        self.wide.retain(|watcher| !watcher.queue.is_closed());
    }

    pub(crate) fn watchers(&self) -> usize {
        self.wide.len() + self.topics.values().map(|topic| topic.watchers.len()).sum::<usize>()
    }

    pub(crate) fn events(&self) -> usize {
        self.topics.values().map(|topic| topic.ring.len()).sum()
    }
}

pub(crate) fn topic_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(topic, _)| topic)
}
