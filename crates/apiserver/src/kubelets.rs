//! The way from the API server to the node agents: a trait that the binary implements. Only for logs, exec,
//! attach, port-forward and what is proxied; all else goes through objects.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use isopod_schema::Status;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Which container of which pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod, so that a namesake is never meant.
    pub uid: String,
    /// Name of the container; empty for port-forward.
    pub container: String,
}

/// What part of a container's log is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The container.
    pub target: Target,
    /// Go on with what is written later.
    pub follow: bool,
    /// Of the container's previous run.
    pub previous: bool,
    /// Each line begins with its RFC 3339 time.
    pub timestamps: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines written since.
    pub since: Option<Timestamp>,
    /// Only `Stdout` or `Stderr`; none means both.
    pub stream: Option<String>,
}

/// A command to run in a container, or with `attach` the container's own process to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container.
    pub target: Target,
    /// The command; empty for attach.
    pub command: Vec<String>,
    /// Attach to the container's process instead of starting one.
    pub attach: bool,
    /// Standard input is wanted.
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted.
    pub stderr: bool,
    /// With a terminal.
    pub tty: bool,
}

/// A TCP port inside a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// The pod.
    pub target: Target,
    /// The port.
    pub port: u16,
}

/// What the client sends to a running command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes of standard input.
    Stdin(Bytes),
    /// Standard input has ended.
    StdinClosed,
    /// The terminal has a new size.
    Resize {
        /// Width in characters.
        columns: u16,
        /// Height in characters.
        rows: u16,
    },
}

/// What a running command sends back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of standard output (with a terminal: of both).
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// It ended. Nothing follows.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// It could not be started or was lost. Nothing follows.
    Failed(String),
}

/// A running command.
#[derive(Debug)]
pub struct ExecSession {
    /// To the command. Dropping it means that the client is gone.
    pub input: mpsc::Sender<ExecInput>,
    /// From the command.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// What something has used until a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it was measured: nanoseconds since the Unix epoch, by the guest's clock.
    pub at_unix_nanos: i64,
    /// Processor time used since it began, nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in use that could not be had otherwise, bytes.
    pub memory_bytes: u64,
}

/// What the containers of a pod have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Running containers by name.
    pub containers: BTreeMap<String, Usage>,
}

/// What a node and its pods have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// The node's machine.
    pub whole: Usage,
    /// Its pods.
    pub pods: Vec<PodUsage>,
}

/// Reaches node agents.
#[async_trait]
pub trait Kubelets: Send + Sync {
    /// Chunks of a container's log. The channel closes at its end; an `Err` ends it with a reason.
    ///
    /// # Errors
    /// When the node cannot be reached or has no such container.
    async fn logs(&self, node: &str, request: LogRequest) -> Result<mpsc::Receiver<Result<Bytes, String>>, Status>;

    /// Starts a command, or attaches.
    ///
    /// # Errors
    /// When the node cannot be reached or has no such container.
    async fn exec(&self, node: &str, request: ExecRequest) -> Result<ExecSession, Status>;

    /// Connects to a port of a pod.
    ///
    /// # Errors
    /// When the node cannot be reached or nothing listens.
    async fn port_forward(&self, node: &str, request: PortForwardRequest) -> Result<Box<dyn Duplex>, Status>;

    /// What a node and its pods have used until now.
    ///
    /// # Errors
    /// When the node cannot be reached.
    async fn usage(&self, node: &str) -> Result<NodeUsage, Status>;

    /// Connects to an address of the cluster's network: a pod's, or where an extension of the API is served. From where
    /// the server runs that is an ordinary connection, unless an implementation knows a better way.
    ///
    /// # Errors
    /// When nothing answers there.
    async fn dial(&self, address: SocketAddr) -> std::io::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
