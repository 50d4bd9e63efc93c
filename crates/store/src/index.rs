//! The ordered index: every key's versions back to the compaction revision. Pure; locking is the store's business.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::entry::{Entry, Event, EventKind};
use crate::error::ListError;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Only keys from this one on (inclusive); empty means from the first.
    pub start: String,
    /// At most so many entries; 0 means all.
    pub limit: usize,
    /// State at this revision; `None` means now.
    pub at: Option<u64>,
}

/// A consistent answer to a [`ListQuery`].
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Entries in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The revision this is the state of.
    pub revision: u64,
    /// How many entries the limit cut off.
    pub remaining: usize,
}

#[derive(Debug)]
struct Version {
    revision: u64,
    entry: Option<Arc<Entry>>,
}

impl Version {
    fn size_bytes(&self) -> usize {
        self.entry.as_ref().map_or(0, |entry| entry.size_bytes())
    }
}

/// Versions of one key, oldest first; never empty.
#[derive(Debug)]
struct Chain {
    older: Vec<Version>,
    newest: Version,
}

impl Chain {
    fn at(&self, revision: u64) -> Option<&Arc<Entry>> {
        if self.newest.revision <= revision {
            return self.newest.entry.as_ref();
        }
        self.older.iter().rev().find(|version| version.revision <= revision)?.entry.as_ref()
    }

    fn push(&mut self, version: Version) {
        self.older.push(std::mem::replace(&mut self.newest, version));
    }

    /// Forgets versions that no read at `revision` or later can see; returns their revisions and bytes.
    fn prune(&mut self, revision: u64, dropped: &mut Vec<u64>) -> usize {
        let visible = |version: &Version| version.revision <= revision;
        let keep_from =
            if visible(&self.newest) { self.older.len() } else { self.older.iter().rposition(visible).unwrap_or(0) };
        let mut bytes = 0;
        for version in self.older.drain(..keep_from) {
            bytes += version.size_bytes();
            dropped.push(version.revision);
        }
        if self.older.first().is_some_and(|version| visible(version) && version.entry.is_none()) {
            dropped.push(self.older.remove(0).revision);
        }
        bytes
    }

    fn is_forgotten(&self, revision: u64) -> bool {
        self.newest.entry.is_none() && self.newest.revision <= revision && self.older.is_empty()
    }
}

/// Keys and versions.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chains: BTreeMap<Arc<str>, Chain>,
    revision: u64,
    compacted: u64,
    live: usize,
    live_bytes: usize,
    history_bytes: usize,
}

impl Index {
    pub(crate) fn starting_at(revision: u64, compacted: u64) -> Self {
        Self { revision, compacted, ..Self::default() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Sets the revision when compaction removed the records of the newest writes.
    pub(crate) fn raise(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Keys that exist, their bytes, and the bytes of versions kept only as history.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.live, self.live_bytes, self.history_bytes)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.chains.get(key)?.newest.entry.clone()
    }

    pub(crate) fn list(&self, query: &ListQuery) -> Result<List, ListError> {
        let at = self.readable(query.at)?;
        let mut found = self.range(&query.prefix, &query.start).filter_map(|chain| chain.at(at));
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let entries: Vec<_> = found.by_ref().take(limit).cloned().collect();
        Ok(List { entries, revision: at, remaining: found.count() })
    }

    fn readable(&self, asked: Option<u64>) -> Result<u64, ListError> {
        match asked {
            None => Ok(self.revision),
            Some(asked) if asked < self.compacted => Err(ListError::Compacted { asked, oldest: self.compacted }),
            Some(asked) if asked > self.revision => Err(ListError::Future { asked, current: self.revision }),
            Some(asked) => Ok(asked),
        }
    }

    fn range<'a>(&'a self, prefix: &'a str, start: &str) -> impl Iterator<Item = &'a Chain> {
        let from = start.max(prefix);
        self.chains
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, chain)| chain)
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        let entry = matches!(event.kind, EventKind::Put).then(|| Arc::clone(&event.entry));
        self.account(entry.as_deref(), event.previous.as_deref());
        self.revision = event.revision();
        let version = Version { revision: event.revision(), entry };
        match self.chains.get_mut(&event.entry.key) {
            Some(chain) => chain.push(version),
            None => {
                let chain = Chain { older: Vec::new(), newest: version };
                self.chains.insert(Arc::clone(&event.entry.key), chain);
            }
        }
    }

    fn account(&mut self, new: Option<&Entry>, previous: Option<&Entry>) {
        if let Some(new) = new {
            self.live += 1;
            self.live_bytes += new.size_bytes();
        }
        if let Some(previous) = previous {
            self.live -= 1;
            self.live_bytes -= previous.size_bytes();
            self.history_bytes += previous.size_bytes();
        }
    }

    /// The log revisions that a compaction to `revision` makes unnecessary.
    pub(crate) fn compact(&mut self, revision: u64) -> Vec<u64> {
        let mut dropped = Vec::new();
        let mut freed = 0;
        self.chains.retain(|_, chain| {
            freed += chain.prune(revision, &mut dropped);
            let forgotten = chain.is_forgotten(revision);
            if forgotten {
                dropped.push(chain.newest.revision);
            }
            !forgotten
        });
        self.history_bytes -= freed.min(self.history_bytes);
        self.compacted = self.compacted.max(revision);
        dropped
    }
}
