//! Limits of the conversation. Both sides enforce them on what they receive; neither trusts the other to do so.

/// Largest message that the guest accepts, in bytes (a pod's ConfigMaps and Secrets come in one message).
pub const MESSAGE_TO_GUEST_BYTES: usize = 64 << 20;

/// Largest message that the host accepts, in bytes.
pub const MESSAGE_TO_HOST_BYTES: usize = 1 << 20;

/// Largest piece of output, log or forwarded data in one message, in bytes.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of output that the guest keeps per container for the log stream.
pub const LOG_RING_BYTES: usize = 4 << 20;

/// Records that the guest keeps per container for the log stream, however short each of them is.
pub const LOG_RING_RECORDS: usize = 64 << 10;

/// Events that the guest keeps for replay.
pub const EVENT_RING: usize = 4096;

/// Longest termination message in bytes, as the kubelet has it.
pub const TERMINATION_MESSAGE_BYTES: usize = 4096;

/// Containers that one pod may have at once, init and ephemeral ones included.
pub const CONTAINERS: usize = 256;

/// Exec, attach and forward sessions that may be open at once in one guest.
pub const SESSIONS: usize = 128;

/// Connections, or UDP conversations, that one port of a node passes on at once.
pub const RELAYED: usize = 1024;

/// Longest text of a fault in bytes.
pub const FAULT_BYTES: usize = 4096;
