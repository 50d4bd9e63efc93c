//! Webhooks and policies as they are configured now: an unchanging snapshot that is swapped when the store tells of a
//! change. Without any, a request pays for looking at empty lists.

use std::sync::Arc;
use std::time::Duration;

use isopod_schema::admission::{Binding, Policy, Webhook};
use isopod_schema::{Status, admission};
use isopod_store::{Event, ListQuery, Scope};
use serde_json::Value;
use tokio::sync::watch;

use super::call::Client;
use crate::codec;
use crate::follow::{self, Follower};
use crate::server::ApiServer;

/// How long a write of a configuration waits until it is in force.
const IN_FORCE: Duration = Duration::from_secs(2);

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";
const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";
const MUTATIONS: &str = "mutatingadmissionpolicies";
const MUTATION_BINDINGS: &str = "mutatingadmissionpolicybindings";

/// A webhook and the way to it.
pub(crate) struct Hook {
    pub(crate) webhook: Webhook,
    pub(crate) client: Client,
}

/// What is configured, in the order in which it is asked.
#[derive(Default)]
pub(crate) struct Configured {
    pub(crate) mutating: Vec<Hook>,
    pub(crate) validating: Vec<Hook>,
    /// Policies that are in force, with what puts them there.
    pub(crate) policies: Vec<(Policy, Vec<Binding>)>,
    /// The same of policies that mutate.
    pub(crate) mutations: Vec<(Policy, Vec<Binding>)>,
    revision: u64,
}

impl Configured {
    fn read(server: &ApiServer) -> Result<Self, Status> {
        // What is written from here on comes as another event.
        let revision = server.store.revision();
        Ok(Self {
            mutating: hooks(server, MUTATING)?,
            validating: hooks(server, VALIDATING)?,
            policies: bound(server, POLICIES, BINDINGS)?,
            mutations: bound(server, MUTATIONS, MUTATION_BINDINGS)?,
            revision,
        })
    }

    /// Nothing is configured that could change an object.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.mutating.is_empty() && self.mutations.is_empty()
    }
}

/// Policies with what puts them into force.
fn bound(server: &ApiServer, policies: &str, bindings: &str) -> Result<Vec<(Policy, Vec<Binding>)>, Status> {
    let mut bindings: Vec<Binding> = objects(server, bindings)?.iter().map(Binding::read).collect();
    let mut found = Vec::new();
    for policy in objects(server, policies)?.iter().map(Policy::read) {
        let (own, others) = bindings.into_iter().partition(|binding: &Binding| binding.policy == policy.name);
        bindings = others;
        found.push((policy, own));
    }
    found.retain(|(_, bindings)| !bindings.is_empty());
    Ok(found)
}

/// All objects of a kind, by name.
fn objects(server: &ApiServer, plural: &str) -> Result<Vec<Value>, Status> {
    let list = server.store.list(&ListQuery { prefix: prefix(plural), ..ListQuery::default() });
    list.map_err(Status::internal)?.entries.iter().map(|entry| codec::decode(&entry.value)).collect()
}

fn prefix(plural: &str) -> String {
    format!("{plural}.{}/", admission::GROUP)
}

fn hooks(server: &ApiServer, plural: &str) -> Result<Vec<Hook>, Status> {
    let webhooks = objects(server, plural)?.into_iter().flat_map(|object| Webhook::read_all(&object));
    Ok(webhooks.map(|webhook| Hook { client: Client::new(&webhook.ca_bundle), webhook }).collect())
}

/// Waits until what was written at this revision is in force, so that the next request of the same client meets it.
pub(crate) async fn in_force(server: &ApiServer, revision: u64) {
    let mut changes = server.configured.subscribe();
    let reached = changes.wait_for(|configured| configured.revision >= revision);
    if tokio::time::timeout(IN_FORCE, reached).await.is_err() {
        tracing::warn!(revision, "a configuration of admission is not in force yet");
    }
}

/// Reads what is configured, and follows it.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    follow::start(server, Keeper).await
}

/// Holds the snapshot.
pub(crate) type Snapshot = watch::Sender<Arc<Configured>>;

struct Keeper;

impl Follower for Keeper {
    const WHAT: &'static str = "webhooks and policies";

    fn scopes(&self) -> Vec<Scope> {
        [MUTATING, VALIDATING, POLICIES, BINDINGS, MUTATIONS, MUTATION_BINDINGS]
            .map(|plural| Scope::Prefix(prefix(plural)))
            .to_vec()
    }

    async fn settle(&mut self, server: &Arc<ApiServer>, _: Option<&[Arc<Event>]>) -> Result<(), Status> {
        server.configured.send_replace(Arc::new(Configured::read(server)?));
        Ok(())
    }
}
