//! What an API server is told when it opens, and why it may not open.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use isopod_schema::names::SUFFIX_LENGTH;
use jiff::Timestamp;

use crate::audit::Audit;

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// Any other clock.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

/// Where UIDs and the ends of generated names come from.
#[derive(Clone)]
pub struct Identities(Arc<dyn Fn() -> [u8; 16] + Send + Sync>);

impl Identities {
    /// Random ones.
    pub fn random() -> Self {
        Self::new(|| uuid::Uuid::new_v4().into_bytes())
    }

    /// Any other source; what it gives must not repeat.
    pub fn new(next: impl Fn() -> [u8; 16] + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// A new UID.
    pub(crate) fn uid(&self) -> String {
        uuid::Builder::from_random_bytes((self.0)()).into_uuid().to_string()
    }

    /// Bytes for the end of a name.
    pub(crate) fn suffix(&self) -> [u8; SUFFIX_LENGTH] {
        let bytes = (self.0)();
        std::array::from_fn(|at| bytes[at])
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identities")
    }
}

/// Settings of an API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where certificates, keys and the store are kept. None keeps everything in memory: for tests and simulation.
    pub state_directory: Option<PathBuf>,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Names and addresses that the serving certificate is good for, besides those every cluster has.
    pub server_names: Vec<String>,
    /// Where clients in the cluster reach this server.
    pub advertise: SocketAddr,
    /// Range of Service addresses.
    pub service_cidr: Ipv4Net,
    /// Issuer of service account tokens.
    pub issuer: String,
    /// What `/version` says this server is compatible with, such as `v1.36.2`.
    pub kubernetes_version: String,
    /// Where the time comes from.
    pub clock: Clock,
    /// Where UIDs and the ends of generated names come from.
    pub identities: Identities,
    /// File with an AuthenticationConfiguration: whose tokens are believed besides the cluster's own; none:
    /// `authentication.yaml` in the state directory, if there is one.
    pub authentication: Option<PathBuf>,
    /// How requests are recorded; none: as `audit-policy.yaml` in the state directory says, if there is one.
    pub audit: Option<Audit>,
    /// Bounds of the store.
    pub store_limits: isopod_store::Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_directory: None,
            cluster_name: "isopod".into(),
            server_names: Vec::new(),
            advertise: SocketAddr::from(([127, 0, 0, 1], 6443)),
            service_cidr: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 100, 0, 0), 16),
            issuer: "https://kubernetes.default.svc.cluster.local".into(),
            kubernetes_version: "v1.36.2".into(),
            clock: Clock::system(),
            identities: Identities::random(),
            authentication: None,
            audit: None,
            store_limits: isopod_store::Limits::default(),
        }
    }
}

/// Why an API server could not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory of the state directory.
    #[error("cannot {action} {path}: {source}\nhint: check that the state directory is writable and has free space")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key.
    #[error(
        "{path} is unusable: {why}\nhint: restore the file, or remove the whole pki directory to make a new certificate authority (clients then need new kubeconfigs)"
    )]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration of encryption at rest.
    #[error(
        "{path} is unusable: {why}\nhint: restore the file: without its keys, what they sealed is lost (upstream documents the format as EncryptionConfiguration)"
    )]
    Encryption {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration of authentication.
    #[error(
        "authentication configuration {path} is unusable: {why}\nhint: it is an AuthenticationConfiguration of apiserver.config.k8s.io/v1, as upstream documents it"
    )]
    Authentication {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The audit policy.
    #[error(
        "audit policy {path} is unusable: {why}\nhint: it is a Policy of audit.k8s.io/v1, as upstream documents it"
    )]
    Audit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] isopod_store::OpenError),
    /// The objects every cluster has could not be written.
    #[error("cannot write the objects every cluster has: {0}")]
    Bootstrap(String),
    /// The Service address range has no room.
    #[error("service range {0} is too small\nhint: use a /16 to /28")]
    ServiceRange(Ipv4Net),
}
