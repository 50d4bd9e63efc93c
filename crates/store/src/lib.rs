//! A revisioned key-value log over bytes: compare-and-set writes, ordered watches, reads at old revisions, compaction.
//!
//! One `u64` revision counts every write of the whole store. A write is durable before it is acknowledged and before
//! any reader or watcher can see it. All reads are answered from an in-memory index, which is at the same time the
//! watch cache; the disk is read once, when the store opens.
//!
//! This crate never looks inside a value and knows nothing of Kubernetes.

mod disk;
mod entry;
mod error;
mod hub;
mod index;
mod seal;
mod store;
mod watch;
mod write;
mod writer;

pub use entry::{Entry, Event, EventKind, Value};
pub use error::{CommitError, CompactError, ListError, OpenError, WatchError};
pub use redb::StorageBackend;
pub use seal::Sealer;
pub use store::{Limits, Stats, Store};
pub use watch::{Scope, Watch};
pub use write::{Expect, Outcome, Write};

pub use index::{List, ListQuery};
