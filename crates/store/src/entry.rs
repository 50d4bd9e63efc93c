//! What is stored and what watchers receive: values, entries, events. Plain data; no locks except the memo cell.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes to store, with an optional place where the store writes the revision of the write in decimal digits.
///
/// A caller that keeps the revision inside its own encoding does not know it before the commit; the writer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    bytes: Bytes,
    stamp_at: Option<usize>,
}

impl Value {
    /// A value that is stored as it is.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), stamp_at: None }
    }

    /// A value into which the decimal revision is inserted before byte `stamp_at`. An offset past the end appends.
    pub fn stamped(bytes: impl Into<Bytes>, stamp_at: usize) -> Self {
        Self { bytes: bytes.into(), stamp_at: Some(stamp_at) }
    }

    /// Length in bytes before stamping.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the value holds no bytes before stamping.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn at_revision(&self, revision: u64) -> Bytes {
        let Some(stamp_at) = self.stamp_at else { return self.bytes.clone() };
        let (head, tail) = self.bytes.split_at(stamp_at.min(self.bytes.len()));
        let digits = revision.to_string();
        let mut stamped = BytesMut::with_capacity(self.bytes.len() + digits.len());
        stamped.put_slice(head);
        stamped.put_slice(digits.as_bytes());
        stamped.put_slice(tail);
        stamped.freeze()
    }
}

/// One key at one revision. Shared by the index, lists and every watcher.
pub struct Entry {
    /// The key, unique in the store.
    pub key: Arc<str>,
    /// The stored bytes, already stamped.
    pub value: Bytes,
    /// Revision of the write that created the key.
    pub create_revision: u64,
    /// Revision of the write that made this entry.
    pub mod_revision: u64,
    /// 1 for the creating write, then one more per write.
    pub version: u64,
    memo: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Entry {
    pub(crate) fn new(key: Arc<str>, value: Bytes, create_revision: u64, mod_revision: u64, version: u64) -> Self {
        Self { key, value, create_revision, mod_revision, version, memo: OnceLock::new() }
    }

    /// Something the caller derives from the value, computed once and kept with the entry for every later reader.
    ///
    /// Returns `None` when an earlier caller kept a value of another type here.
    pub fn memo<T: Any + Send + Sync>(&self, derive: impl FnOnce(&Bytes) -> T) -> Option<Arc<T>> {
        let kept = self.memo.get_or_init(|| Arc::new(derive(&self.value)));
        Arc::clone(kept).downcast::<T>().ok()
    }

    /// The same entry showing another value, as of the same revision; for who shows what is stored in another form.
    pub fn shown_as(&self, value: Value) -> Self {
        let value = value.at_revision(self.mod_revision);
        Self::new(Arc::clone(&self.key), value, self.create_revision, self.mod_revision, self.version)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && self.value == other.value
            && self.create_revision == other.create_revision
            && self.mod_revision == other.mod_revision
            && self.version == other.version
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}({} bytes)", self.key, self.mod_revision, self.value.len())
    }
}

/// Whether a write put or deleted its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key has a new value.
    Put,
    /// The key is gone; the event's entry carries its last state.
    Delete,
}

/// One acknowledged write, as watchers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The new entry, or for a delete the last state with the deletion's revision.
    pub entry: Arc<Entry>,
    /// The entry before this write, `None` when the write created the key.
    pub previous: Option<Arc<Entry>>,
}

impl Event {
    /// The revision of the write.
    pub fn revision(&self) -> u64 {
        self.entry.mod_revision
    }
}
