//! The store: one handle, cheap to clone, over the index, the hub and the writer.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Builder, Database, StorageBackend};
use tokio::sync::watch as signal;

use crate::disk::{Disk, PAGE_CACHE_BYTES};
use crate::entry::{Entry, Event};
use crate::error::{CommitError, CompactError, ListError, OpenError, WatchError};
use crate::hub::Hub;
use crate::index::{Index, List, ListQuery};
use crate::seal::{Sealer, Seals};
use crate::watch::{Scope, Watch};
use crate::write::{Batch, Outcome, Write};
use crate::writer::Writer;

/// Bounds of a store. All are per store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Recent events kept per topic (first key segment) for watches that start in the past.
    pub events_per_topic: usize,
    /// Events a watcher may be behind before it is dropped.
    pub watch_queue: usize,
    /// Writes waiting for the writer thread before callers wait.
    pub commit_queue: usize,
    /// Writes made durable by one commit.
    pub commit_batch: usize,
    /// Longest key in bytes.
    pub key_bytes: usize,
    /// Largest value in bytes.
    pub value_bytes: usize,
    /// Superseded bytes kept in memory before the store compacts by itself.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events_per_topic: 16_384,
            watch_queue: 4_096,
            commit_queue: 4_096,
            commit_batch: 512,
            key_bytes: 1_024,
            value_bytes: 8 << 20,
            history_bytes: 256 << 20,
        }
    }
}

/// Sizes, for metrics and quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Newest revision.
    pub revision: u64,
    /// Oldest readable revision.
    pub compacted: u64,
    /// Keys that exist.
    pub keys: usize,
    /// Bytes of their keys and values.
    pub live_bytes: usize,
    /// Bytes of superseded versions.
    pub history_bytes: usize,
    /// Events kept for replay.
    pub events: usize,
    /// Watchers that are open, as of the last event of their topic.
    pub watchers: usize,
}

/// A revisioned key-value store. Clones share it; it closes when the last one goes.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    writer: Arc<Door>,
}

#[derive(Debug)]
enum Door {
    /// Writes go to a thread that owns the disk.
    Thread(Writer),
    /// Writes are made by the caller, one at a time.
    Memory(Mutex<()>),
}

impl Store {
    /// Opens the store in a file, or makes it.
    ///
    /// # Errors
    /// [`OpenError`]: in use, another format, damaged, or the disk failed.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, OpenError> {
        Self::open_sealed(path, limits, None)
    }

    /// As [`Store::open`], with a sealer for what it writes. What an earlier process wrote with other seals is written anew.
    ///
    /// # Errors
    /// As [`Store::open`]; what no key opens counts as damaged.
    pub fn open_sealed(path: &Path, limits: Limits, sealer: Option<Arc<dyn Sealer>>) -> Result<Self, OpenError> {
        let opened = Builder::new().set_cache_size(PAGE_CACHE_BYTES).create(path);
        let database = opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
            other => OpenError::from(other),
        })?;
        Self::over(database, limits, Seals(sealer))
    }

    /// Opens the store over any storage, for example one that injects faults.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(backend: impl StorageBackend, limits: Limits) -> Result<Self, OpenError> {
        let database = Builder::new().set_cache_size(PAGE_CACHE_BYTES).create_with_backend(backend)?;
        Self::over(database, limits, Seals::default())
    }

    /// A store that forgets everything when it closes. It has no thread: a write happens in the call that makes it.
    pub fn memory(limits: Limits) -> Self {
        let shared = Shared::new(Index::default(), Hub::new(0, limits.events_per_topic), limits);
        Self { shared: Arc::new(shared), writer: Arc::new(Door::Memory(Mutex::new(()))) }
    }

    fn over(database: Database, limits: Limits, seals: Seals) -> Result<Self, OpenError> {
        let (disk, marked, compacted) = Disk::open(database, seals)?;
        let mut index = Index::starting_at(marked, compacted);
        let mut hub = Hub::new(compacted, limits.events_per_topic);
        disk.load(|record| {
            let previous = index.get(&record.entry.key);
            let event = Arc::new(Event { kind: record.kind, entry: Arc::new(record.entry), previous });
            index.apply(&event);
            if event.revision() > compacted {
                hub.publish(&event);
            }
        })?;
        index.raise(marked);
        let shared = Arc::new(Shared::new(index, hub, limits));
        let writer = Writer::start(disk, Arc::clone(&shared)).map_err(OpenError::Thread)?;
        Ok(Self { shared, writer: Arc::new(Door::Thread(writer)) })
    }

    /// The key's entry now.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.shared.index().get(key)
    }

    /// Entries in key order, all of one revision.
    ///
    /// # Errors
    /// [`ListError`] when the revision asked for cannot be read.
    pub fn list(&self, query: &ListQuery) -> Result<List, ListError> {
        self.shared.index().list(query)
    }

    /// The newest revision that readers can see.
    pub fn revision(&self) -> u64 {
        self.shared.index().revision()
    }

    /// Waits until the store has reached a revision. Returns at once when it has.
    pub async fn reached(&self, revision: u64) {
        let mut changed = self.shared.changed.subscribe();
        // The sender lives in `shared`, which `self` holds: the wait cannot end for another reason.
        let _ = changed.wait_for(|current| *current >= revision).await;
    }

    /// Makes one write. When this returns `Committed` the write is durable and visible to every reader.
    ///
    /// # Errors
    /// [`CommitError`] when nothing can be written; a lost compare is [`Outcome::Lost`].
    pub async fn commit(&self, write: Write) -> Result<Outcome, CommitError> {
        self.shared.check_size(&write)?;
        match &*self.writer {
            Door::Thread(writer) => writer.commit(write).await,
            Door::Memory(turn) => {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                let (outcomes, events) = self.shared.decide([write]);
                self.shared.show(events);
                self.shared.deliver();
                if let Some(target) = self.shared.overfull() {
                    self.shared.forget(target);
                }
                outcomes.into_iter().next().ok_or(CommitError::Closed)
            }
        }
    }

    /// Watches keys: every event with a revision above `from`, then those to come.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when events after `from` are no longer kept.
    pub fn watch(&self, scope: Scope, from: u64) -> Result<Watch, WatchError> {
        let queue = self.shared.limits.watch_queue;
        let subscription = self.shared.hub().subscribe(scope, from, queue)?;
        Ok(Watch::new(subscription, Arc::clone(&self.shared.published), queue, from))
    }

    /// Forgets versions and events that only reads before `revision` need. Compacting to an already compacted
    /// revision changes nothing.
    ///
    /// # Errors
    /// [`CompactError::Future`] for a revision that was not written yet, or the failed write.
    pub async fn compact(&self, revision: u64) -> Result<(), CompactError> {
        let current = self.revision();
        if revision > current {
            return Err(CompactError::Future { asked: revision, current });
        }
        match &*self.writer {
            Door::Thread(writer) => writer.compact(revision).await?,
            Door::Memory(turn) => {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                self.shared.forget(revision);
            }
        }
        Ok(())
    }

    /// Sizes now.
    pub fn stats(&self) -> Stats {
        let index = self.shared.index();
        let (keys, live_bytes, history_bytes) = index.sizes();
        let (revision, compacted) = (index.revision(), index.compacted());
        drop(index);
        let hub = self.shared.hub();
        let (events, watchers) = (hub.events(), hub.watchers());
        Stats { revision, compacted, keys, live_bytes, history_bytes, events, watchers }
    }
}

/// What readers and the one writer share. Only the writer changes it.
#[derive(Debug)]
pub(crate) struct Shared {
    index: RwLock<Index>,
    /// Events that readers can see and watchers do not have yet, in order.
    undelivered: Mutex<Vec<Arc<Event>>>,
    hub: Mutex<Hub>,
    published: Arc<AtomicU64>,
    changed: signal::Sender<u64>,
    pub(crate) limits: Limits,
}

impl Shared {
    fn new(index: Index, hub: Hub, limits: Limits) -> Self {
        let revision = index.revision();
        Self {
            index: RwLock::new(index),
            undelivered: Mutex::default(),
            hub: Mutex::new(hub),
            published: Arc::new(AtomicU64::new(revision)),
            changed: signal::Sender::new(revision),
            limits,
        }
    }

    // A poisoned lock means a panic elsewhere between two map operations; each leaves the maps usable.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub, which knows every event that was shown before it was asked for.
    fn hub(&self) -> MutexGuard<'_, Hub> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken while the hub is held, so that events stay in order whoever delivers them.
        let events = std::mem::take(&mut *self.undelivered.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(last) = events.last() {
            events.iter().for_each(|event| hub.publish(event));
            self.published.store(last.revision(), Ordering::Release);
            self.changed.send_replace(last.revision());
        }
        hub
    }

    fn check_size(&self, write: &Write) -> Result<(), CommitError> {
        let check = |what, found_bytes, limit_bytes| {
            if found_bytes > limit_bytes {
                return Err(CommitError::TooLarge { what, found_bytes, limit_bytes });
            }
            Ok(())
        };
        check("key", write.key.len(), self.limits.key_bytes)?;
        check("value", write.value_bytes(), self.limits.value_bytes)
    }

    /// Decides a batch against the present state; changes nothing.
    pub(crate) fn decide(&self, writes: impl IntoIterator<Item = Write>) -> (Vec<Outcome>, Vec<Arc<Event>>) {
        let index = self.index();
        let mut batch = Batch::new(&index);
        let outcomes = writes.into_iter().map(|write| batch.add(write)).collect();
        (outcomes, batch.events)
    }

    /// Shows durable events to readers. Only the writer does, in the order of their revisions.
    pub(crate) fn show(&self, events: Vec<Arc<Event>>) {
        {
            let mut index = self.index_mut();
            events.iter().for_each(|event| index.apply(event));
        }
        self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
    }

    /// Hands what was shown to its watchers.
    pub(crate) fn deliver(&self) {
        drop(self.hub());
    }

    /// The revision to compact to when history takes more memory than allowed.
    pub(crate) fn overfull(&self) -> Option<u64> {
        let index = self.index();
        let (_, _, history_bytes) = index.sizes();
        let halfway = index.compacted().midpoint(index.revision()) + 1;
        (history_bytes > self.limits.history_bytes).then_some(halfway.min(index.revision()))
    }

    /// Forgets history in memory; returns the log revisions that are no longer needed.
    pub(crate) fn forget(&self, revision: u64) -> Vec<u64> {
        let dropped = self.index_mut().compact(revision);
        self.hub().compact(revision);
        dropped
    }
}
