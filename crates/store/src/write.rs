//! Writes and what becomes of them, decided purely: a batch of writes against an index gives events and outcomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::entry::{Entry, Event, EventKind, Value};
use crate::index::Index;

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No demand.
    Any,
    /// The key must not exist.
    Absent,
    /// The key's `mod_revision` must be this.
    Revision(u64),
}

/// One write to one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: Arc<str>,
    /// Demand; when it is not met nothing is written and the current entry is returned.
    pub expect: Expect,
    pub(crate) change: Change,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Value),
    Delete(Option<Value>),
}

impl Write {
    /// Sets the key's value.
    pub fn put(key: impl Into<Arc<str>>, expect: Expect, value: Value) -> Self {
        Self { key: key.into(), expect, change: Change::Put(value) }
    }

    /// Removes the key. `last_state` is what the delete event shows, by default the stored value. Deleting a key that
    /// does not exist is a lost compare.
    pub fn delete(key: impl Into<Arc<str>>, expect: Expect, last_state: Option<Value>) -> Self {
        Self { key: key.into(), expect, change: Change::Delete(last_state) }
    }

    pub(crate) fn value_bytes(&self) -> usize {
        match &self.change {
            Change::Put(value) | Change::Delete(Some(value)) => value.len(),
            Change::Delete(None) => 0,
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Written and durable; the entry carries the new revision. For a delete it is the last state.
    Committed(Arc<Entry>),
    /// The demand was not met; the entry that stood in the way, if any.
    Lost(Option<Arc<Entry>>),
}

/// A batch on its way to the disk: its writes see each other, nobody else sees them yet.
pub(crate) struct Batch<'a> {
    index: &'a Index,
    pending: BTreeMap<Arc<str>, Option<Arc<Entry>>>,
    pub(crate) events: Vec<Arc<Event>>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(index: &'a Index) -> Self {
        Self { index, pending: BTreeMap::new(), events: Vec::new() }
    }

    pub(crate) fn add(&mut self, write: Write) -> Outcome {
        let current = self.current(&write.key);
        if !meets(write.expect, current.as_deref()) {
            return Outcome::Lost(current);
        }
        let Some(event) = self.event(write, current) else { return Outcome::Lost(None) };
        let after = matches!(event.kind, EventKind::Put).then(|| Arc::clone(&event.entry));
        self.pending.insert(Arc::clone(&event.entry.key), after);
        let entry = Arc::clone(&event.entry);
        self.events.push(Arc::new(event));
        Outcome::Committed(entry)
    }

    fn current(&self, key: &str) -> Option<Arc<Entry>> {
        match self.pending.get(key) {
            Some(pending) => pending.clone(),
            None => self.index.get(key),
        }
    }

    fn event(&self, write: Write, previous: Option<Arc<Entry>>) -> Option<Event> {
        let revision = self.index.revision() + self.events.len() as u64 + 1;
        let (kind, value) = match (&write.change, &previous) {
            (Change::Put(value), _) => (EventKind::Put, value.at_revision(revision)),
            (Change::Delete(Some(last)), Some(_)) => (EventKind::Delete, last.at_revision(revision)),
            (Change::Delete(None), Some(previous)) => (EventKind::Delete, previous.value.clone()),
            (Change::Delete(_), None) => return None,
        };
        let (key, created, version) = match &previous {
            Some(previous) => (Arc::clone(&previous.key), previous.create_revision, previous.version + 1),
            None => (write.key, revision, 1),
        };
        let entry = Arc::new(Entry::new(key, value, created, revision, version));
        Some(Event { kind, entry, previous })
    }
}

fn meets(expect: Expect, current: Option<&Entry>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current.is_some_and(|entry| entry.mod_revision == revision),
    }
}
