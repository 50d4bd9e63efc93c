//! One error enum per operation. Texts say what failed and what to do next.

use std::path::PathBuf;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the file.
    #[error(
        "store {path} is in use by another process\nhint: stop the other isopod process of this cluster, or use another state directory"
    )]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The file was written by a version with another layout.
    #[error(
        "store has format {found}, this program reads format {expected}\nhint: use the program version that wrote it, or restore a backup"
    )]
    Format {
        /// What the file says.
        found: u64,
        /// What this program writes.
        expected: u64,
    },
    /// A record does not decode.
    #[error("store record at revision {revision} is damaged: {what}\nhint: restore the state directory from a backup")]
    Damaged {
        /// Where.
        revision: u64,
        /// Which part does not decode.
        what: &'static str,
    },
    /// The file could not be read or made.
    #[error(
        "cannot open the store: {source}\nhint: check that the state directory exists, is writable and has free space"
    )]
    Disk {
        /// What the database said.
        source: Box<redb::Error>,
    },
    /// The writer thread could not start.
    #[error("cannot start the store's writer thread: {0}")]
    Thread(std::io::Error),
}

impl<E: Into<redb::Error>> From<E> for OpenError {
    fn from(error: E) -> Self {
        Self::Disk { source: Box::new(error.into()) }
    }
}

/// Why a write was not made. A lost compare is no error, see [`crate::Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Key or value exceed the store's limits.
    #[error("{what} of {found_bytes} bytes exceeds the limit of {limit_bytes} bytes")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Size offered.
        found_bytes: usize,
        /// Size allowed.
        limit_bytes: usize,
    },
    /// The disk refused a commit. Nothing more is written until the store is opened again, because what reached the
    /// disk is not known.
    #[error("the store cannot write: {0}\nhint: free disk space or repair the disk, then restart")]
    Disk(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// Why a list could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The revision asked for is older than the compaction revision.
    #[error("revision {asked} was compacted, the oldest readable is {oldest}")]
    Compacted {
        /// Revision asked for.
        asked: u64,
        /// Oldest that can be read.
        oldest: u64,
    },
    /// The revision asked for has not been written yet.
    #[error("revision {asked} is in the future, the store is at {current}")]
    Future {
        /// Revision asked for.
        asked: u64,
        /// The newest.
        current: u64,
    },
}

/// Why a watch could not start or had to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Events after the revision asked for are no longer kept.
    #[error("events after revision {asked} are no longer kept, the oldest start is {oldest}")]
    Compacted {
        /// Revision asked for.
        asked: u64,
        /// Oldest revision a watch can start from.
        oldest: u64,
    },
    /// The watcher read too slowly and its queue was full; what it read so far has no gap.
    #[error("the watcher fell {queue} events behind and was dropped")]
    Lagged {
        /// Length of the queue that was full.
        queue: usize,
    },
}

/// Why a compaction was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// Nothing has been written at that revision yet.
    #[error("cannot compact to revision {asked}: the store is at {current}")]
    Future {
        /// Revision asked for.
        asked: u64,
        /// The newest.
        current: u64,
    },
    /// The write of the compaction failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
