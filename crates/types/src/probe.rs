//! Probes and lifecycle hooks of containers, as the pod says them.

use serde::Deserialize;

/// A check that is made of a container again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// What is done.
    #[serde(flatten)]
    pub handler: Handler,
    /// Seconds from the container's start to the first check.
    pub initial_delay_seconds: i64,
    /// Seconds that a check may take; 0 means 1.
    pub timeout_seconds: i64,
    /// Seconds between checks; 0 means 10.
    pub period_seconds: i64,
    /// Successes in a row that make it pass; 0 means 1.
    pub success_threshold: u32,
    /// Failures in a row that make it fail; 0 means 3.
    pub failure_threshold: u32,
    /// Grace for the container when the probe has it ended, in place of the pod's.
    pub termination_grace_period_seconds: Option<i64>,
}

/// One of several things to do; none: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handler {
    /// Run a command in the container.
    pub exec: Option<ExecAction>,
    /// Ask a web server.
    pub http_get: Option<HttpGetAction>,
    /// Connect.
    pub tcp_socket: Option<TcpSocketAction>,
    /// Ask a gRPC health service.
    pub grpc: Option<GrpcAction>,
    /// Wait; of hooks only.
    pub sleep: Option<SleepAction>,
}

/// A command in the container; exit code 0 is success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ExecAction {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A GET request; answers from 200 to 399 are success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGetAction {
    /// Path, with query.
    pub path: String,
    /// Port of the pod.
    pub port: PortRef,
    /// Another host than the pod; refused.
    pub host: String,
    /// `HTTP` or `HTTPS`, whose certificate is not looked at.
    pub scheme: String,
    /// Further headers.
    pub http_headers: Vec<HttpHeader>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A connection that is opened and closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TcpSocketAction {
    /// Port of the pod.
    pub port: PortRef,
    /// Another host than the pod; refused.
    pub host: String,
}

/// `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcAction {
    /// Port of the pod.
    pub port: u16,
    /// Service asked about; empty for the whole server.
    pub service: Option<String>,
}

/// A pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SleepAction {
    /// How long, in seconds.
    pub seconds: u64,
}

/// A port by number, or by the name that the container gives it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// Number.
    Number(u16),
    /// Name of one of the container's ports.
    Name(String),
}

impl Default for PortRef {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// What is done when a container starts and before it is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// After its start; it does not count as running before this is done.
    pub post_start: Option<Handler>,
    /// Before its stop signal; it takes from the grace period.
    pub pre_stop: Option<Handler>,
    /// The signal that stops it, in place of the image's.
    pub stop_signal: String,
}
