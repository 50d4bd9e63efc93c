//! The API server as a whole: what it holds, how it opens, and its doors.

use std::sync::{Arc, OnceLock};

use isopod_schema::Status;
use isopod_store::Store;
use tokio::sync::{Semaphore, watch};

use crate::addresses::{self, Addresses};
use crate::admission::configured::{self, Snapshot};
use crate::admission::quota::{self, Turns};
use crate::aggregation::{self, Routes};
use crate::audit::{Audit, Auditor};
use crate::config::{Config, OpenError};
use crate::conversion::Clients;
use crate::customs::{self, Served, Tables};
use crate::door::InProcess;
use crate::encoded::Encoded;
use crate::fair::FairQueue;
use crate::kubelets::Kubelets;
use crate::metrics::Metrics;
use crate::oidc::Oidc;
use crate::pki::Pki;
use crate::tokens::Tokens;
use crate::usage::Measurements;
use crate::user::UserInfo;
use crate::{bootstrap, forward, signing, upkeep};

/// Reads at once, besides watches and streams; upstream's default.
pub(crate) const READS_IN_FLIGHT: usize = 400;
/// Writes at once; upstream's default.
pub(crate) const WRITES_IN_FLIGHT: usize = 200;

/// Protobuf messages kept for the next reader, in bytes.
const ENCODED_BYTES: usize = 64 << 20;

/// An API server over its own store.
pub struct ApiServer {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) pki: Pki,
    pub(crate) tokens: Tokens,
    tables: watch::Sender<Arc<Served>>,
    pub(crate) reads: FairQueue,
    pub(crate) writes: FairQueue,
    /// What is chosen for Services that are being written.
    pub(crate) addresses: Addresses,
    /// Webhooks and policies.
    pub(crate) configured: Snapshot,
    /// Held per namespace while something is charged to its quotas and written.
    pub(crate) quotas: Turns,
    pub(crate) metrics: Metrics,
    pub(crate) audit: Auditor,
    /// Issuers that are believed besides the cluster itself.
    pub(crate) oidc: Oidc,
    pub(crate) encoded: Encoded,
    /// Group versions that other servers answer for.
    pub(crate) extensions: aggregation::Snapshot,
    /// What they say of themselves, joined to what this server says.
    pub(crate) openapi: aggregation::Joined,
    /// Something about them has changed.
    pub(crate) extensions_check: watch::Sender<()>,
    /// Ways to webhooks that convert custom objects.
    pub(crate) converters: Clients,
    /// Places for requests that are passed on to other servers.
    pub(crate) forwards: Arc<Semaphore>,
    kubelets: OnceLock<Arc<dyn Kubelets>>,
    /// What pods and nodes used of late.
    pub(crate) measurements: Measurements,
}

impl ApiServer {
    /// Opens the state directory, or makes it: certificates, store, and the objects every cluster has.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        if !(8..=28).contains(&config.service_cidr.prefix_len()) {
            return Err(OpenError::ServiceRange(config.service_cidr));
        }
        let pki = Pki::open(&config)?;
        let store = match &config.state_directory {
            Some(directory) => {
                Store::open_sealed(&directory.join("store.redb"), config.store_limits, Some(pki.sealer.clone()))?
            }
            None => Store::memory(config.store_limits),
        };
        let audit = config.audit.clone().or_else(|| Audit::of_directory(config.state_directory.as_deref()?));
        let file = || Oidc::file_of(config.state_directory.as_deref()?);
        let authentication = config.authentication.clone().or_else(file);
        let server = Arc::new(Self {
            oidc: Oidc::open(authentication, &config.issuer)?,
            audit: Auditor::open(audit.as_ref(), &config.clock)?,
            tokens: Tokens::new(&pki, &config)?,
            tables: watch::Sender::new(Arc::new(Served::builtin())),
            reads: FairQueue::new(READS_IN_FLIGHT),
            writes: FairQueue::new(WRITES_IN_FLIGHT),
            addresses: Addresses::default(),
            configured: Snapshot::new(Arc::default()),
            quotas: Turns::default(),
            metrics: Metrics::default(),
            encoded: Encoded::new(ENCODED_BYTES),
            extensions: aggregation::Snapshot::new(Arc::new(Routes::default())),
            openapi: aggregation::Joined::default(),
            extensions_check: watch::Sender::new(()),
            converters: Clients::default(),
            forwards: Arc::new(Semaphore::new(forward::AT_ONCE)),
            kubelets: OnceLock::new(),
            measurements: Measurements::default(),
            config,
            store,
            pki,
        });
        bootstrap::run(&server).await?;
        upkeep::start(&server);
        follow(&server).await.map_err(|status| OpenError::Bootstrap(status.to_string()))?;
        Ok(server)
    }

    /// Tells the server how to reach node agents. The first call counts; until then streams answer 503.
    pub fn connect_kubelets(&self, kubelets: Arc<dyn Kubelets>) {
        if self.kubelets.set(kubelets).is_err() {
            tracing::warn!("the API server already knows how to reach node agents");
        }
    }

    pub(crate) fn kubelets(&self) -> Result<&Arc<dyn Kubelets>, Status> {
        self.kubelets.get().ok_or_else(|| Status::unavailable("no node agents are connected to this server yet"))
    }

    /// The kinds that are served now. A request takes them once and keeps to them.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.tables.borrow().clone()
    }

    /// Tells when other kinds are served.
    pub(crate) fn tables(&self) -> Tables {
        self.tables.subscribe()
    }

    /// Serves these kinds from now on.
    pub(crate) fn swap_tables(&self, served: Served) {
        self.tables.send_replace(Arc::new(served));
    }

    /// A door for a component in the same process, which acts as this user: authentication is done, everything else
    /// is as over the network.
    pub fn in_process(self: &Arc<Self>, user: UserInfo) -> InProcess {
        InProcess::new(Arc::clone(self), user)
    }

    /// A kubeconfig for the administrator (group `system:masters`), with its certificate inside.
    pub fn admin_kubeconfig(&self, server_url: &str, context_name: &str) -> String {
        self.pki.kubeconfig(server_url, context_name)
    }

    /// The certificate authority's certificate in PEM.
    pub fn ca_certificate_pem(&self) -> &str {
        &self.pki.ca.certificate_pem
    }

    /// Sizes of the store.
    pub fn store_stats(&self) -> isopod_store::Stats {
        self.store.stats()
    }

    /// A token for a service account, without asking anybody: for components that start before they can ask.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn service_account_token(&self, namespace: &str, name: &str, seconds: i64) -> Result<String, Status> {
        self.tokens.for_account(self, namespace, name, seconds)
    }
}

/// Begins to keep what follows from the store in step with it.
async fn follow(server: &Arc<ApiServer>) -> Result<(), Status> {
    customs::start(server).await?;
    configured::start(server).await?;
    quota::start(server).await?;
    addresses::objects::start(server).await?;
    aggregation::start(server).await?;
    signing::start(server).await
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ApiServer").field("config", &self.config).finish_non_exhaustive()
    }
}
