//! Streams: logs, exec and attach sessions, forwarded connections; and the statistics.

use bytes::Bytes;

/// Asks for a container's output.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LogsRequest {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Absolute offset to start at, counted in bytes of output since the container started.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Stay open until the container has ended and all its output was sent.
    #[prost(bool, tag = "3")]
    pub follow: bool,
}

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LogStream {
    /// Sent by a newer guest.
    Unspecified = 0,
    /// Standard output (also everything of a container with a terminal).
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A piece of output. `offset` above the previous chunk's end means that the guest's ring no longer had the bytes
/// between: a gap that the reader must show.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LogChunk {
    /// Absolute offset of the first byte.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// A `LogStream`.
    #[prost(enumeration = "LogStream", tag = "2")]
    pub stream: i32,
    /// When the guest read it, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub unix_nanos: i64,
    /// The bytes, not cut at lines.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct TerminalSize {
    /// Width.
    #[prost(uint32, tag = "1")]
    pub columns: u32,
    /// Height.
    #[prost(uint32, tag = "2")]
    pub rows: u32,
}

/// A command to run in a running container, as its user, in its environment.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExecStart {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Program and arguments.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// Give it a terminal.
    #[prost(bool, tag = "3")]
    pub tty: bool,
    /// Standard input follows; otherwise it is empty.
    #[prost(bool, tag = "4")]
    pub stdin: bool,
    /// First size of the terminal.
    #[prost(message, optional, tag = "5")]
    pub terminal_size: Option<TerminalSize>,
}

/// A container to attach to.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AttachRequest {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Standard input follows; refused when the container was started without it.
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    /// First size of the terminal.
    #[prost(message, optional, tag = "3")]
    pub terminal_size: Option<TerminalSize>,
}

/// Host to guest in an exec or attach session.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExecInput {
    /// What; none: sent by a newer host, refused.
    #[prost(oneof = "ExecInputKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<ExecInputKind>,
}

/// Host to guest in an exec or attach session.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum ExecInputKind {
    /// First message of an exec session.
    #[prost(message, tag = "1")]
    Start(ExecStart),
    /// First message of an attach session.
    #[prost(message, tag = "2")]
    Attach(AttachRequest),
    /// Bytes for standard input.
    #[prost(bytes, tag = "3")]
    Stdin(Bytes),
    /// No more input.
    #[prost(message, tag = "4")]
    StdinClosed(crate::Empty),
    /// The terminal has a new size.
    #[prost(message, tag = "5")]
    Resize(TerminalSize),
}

/// Guest to host in an exec or attach session. The stream ends after `Exited`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExecOutput {
    /// What; none: sent by a newer guest.
    #[prost(oneof = "ExecOutputKind", tags = "1, 2, 3")]
    pub kind: Option<ExecOutputKind>,
}

/// Guest to host in an exec or attach session.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum ExecOutputKind {
    /// Standard output (everything, with a terminal).
    #[prost(bytes, tag = "1")]
    Stdout(Bytes),
    /// Standard error.
    #[prost(bytes, tag = "2")]
    Stderr(Bytes),
    /// The process (exec) or the container (attach) has ended.
    #[prost(message, tag = "3")]
    Exited(ExecExited),
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ExecExited {
    /// Exit code as a shell has it: the program's own, or 128 + the signal.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Signal that ended it; 0: it exited.
    #[prost(uint32, tag = "2")]
    pub signal: u32,
}

/// Host to guest over a forwarded connection. The end of the stream closes the sending half.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConnectInput {
    /// What; none: refused.
    #[prost(oneof = "ConnectInputKind", tags = "1, 2, 3")]
    pub kind: Option<ConnectInputKind>,
}

/// Host to guest over a forwarded connection.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum ConnectInputKind {
    /// First message: TCP port on the only pod's loopback, 1 to 65535.
    #[prost(uint32, tag = "1")]
    Port(u32),
    /// First message: a port on the loopback of one pod of many.
    #[prost(message, tag = "3")]
    Target(ConnectTarget),
    /// Bytes.
    #[prost(bytes, tag = "2")]
    Data(Bytes),
}

/// Where a forwarded connection leads.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConnectTarget {
    /// UID of the pod.
    #[prost(string, tag = "1")]
    pub pod_uid: String,
    /// TCP port on its loopback, 1 to 65535.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// Guest to host over a forwarded connection. The first one is empty and says that it is connected.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConnectOutput {
    /// Bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

/// Use of resources, now.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct StatsResponse {
    /// When, nanoseconds since the Unix epoch on the guest's clock.
    #[prost(int64, tag = "1")]
    pub unix_nanos: i64,
    /// Processor time of the whole machine since it started, nanoseconds, idle time excluded.
    #[prost(uint64, tag = "2")]
    pub cpu_usage_nanos: u64,
    /// Memory of the whole machine in bytes.
    #[prost(uint64, tag = "3")]
    pub memory_total_bytes: u64,
    /// Memory that could be had without swapping or killing.
    #[prost(uint64, tag = "4")]
    pub memory_available_bytes: u64,
    /// Per running container, by id.
    #[prost(message, repeated, tag = "5")]
    pub containers: Vec<ContainerStats>,
}

/// Use of resources by one container.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ContainerStats {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Processor time since it started, nanoseconds.
    #[prost(uint64, tag = "2")]
    pub cpu_usage_nanos: u64,
    /// Memory in use without the inactive page cache, as the kubelet computes it, in bytes.
    #[prost(uint64, tag = "3")]
    pub memory_working_set_bytes: u64,
    /// Memory in use in bytes.
    #[prost(uint64, tag = "4")]
    pub memory_usage_bytes: u64,
    /// Processes and threads.
    #[prost(uint64, tag = "5")]
    pub pids: u64,
}
