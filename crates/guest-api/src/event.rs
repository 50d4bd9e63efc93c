//! What happened in the guest, numbered, so that a host that was away learns exactly what it missed.

/// Asks for events after a sequence number. Older ones are replayed first, then the stream stays open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct EventsRequest {
    /// Sequence number of the last event that the caller has; 0: all.
    #[prost(uint64, tag = "1")]
    pub after_sequence: u64,
}

/// One event. Sequence numbers start at 1 and have no holes; a first event above `after_sequence + 1` means that
/// the guest no longer had the ones between, and `Hello` tells the present state.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Event {
    /// Position in this guest's history.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// When, nanoseconds since the Unix epoch on the guest's clock.
    #[prost(int64, tag = "2")]
    pub unix_nanos: i64,
    /// What; none: sent by a newer guest.
    #[prost(oneof = "EventKind", tags = "3, 4")]
    pub kind: Option<EventKind>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum EventKind {
    /// A container's program was executed.
    #[prost(message, tag = "3")]
    Started(ContainerStarted),
    /// A container's first process ended.
    #[prost(message, tag = "4")]
    Exited(ContainerExited),
}

/// A container's program was executed.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ContainerStarted {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// When, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub started_unix_nanos: i64,
}

/// A container's first process ended; nothing of the container runs any more.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ContainerExited {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exit code as a shell has it: the program's own, or 128 + the signal.
    #[prost(int32, tag = "2")]
    pub code: i32,
    /// Signal that ended it; 0: it exited.
    #[prost(uint32, tag = "3")]
    pub signal: u32,
    /// The kernel killed one of its processes for want of memory.
    #[prost(bool, tag = "4")]
    pub oom_killed: bool,
    /// When it started, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "5")]
    pub started_unix_nanos: i64,
    /// When it ended.
    #[prost(int64, tag = "6")]
    pub finished_unix_nanos: i64,
    /// What it left in its termination message file, at most `limit::TERMINATION_MESSAGE_BYTES`, made valid UTF-8.
    #[prost(string, tag = "7")]
    pub termination_message: String,
    /// End of its log: `Logs` has ended when this offset was read.
    #[prost(uint64, tag = "8")]
    pub log_end_offset: u64,
}
