//! Quotas: charges what is created to them, and counts again when something goes. What an object costs and whether there
//! is room is `isopod_planner::quota`'s.
//!
//! A charge is written to the quota by compare-and-set before the object is, and taken back when the object does not come
//! about. Until that is known the namespace's turn is held, so that nobody counts what is half done.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::future::BoxFuture;
use isopod_planner::admission::{Denied, Request};
use isopod_planner::amounts::Amounts;
use isopod_planner::quota;
use isopod_schema::{Status, Table};
use isopod_store::{Entry, Event, EventKind, ListQuery, Scope};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::codec;
use crate::context::{Context, WriteOptions};
use crate::edit::{self, Part};
use crate::follow::{self, Follower};
use crate::server::ApiServer;
use crate::strategy::{meta, text};

const PREFIX: &str = "resourcequotas/";
const TURNS: usize = 64;

/// One at a time per namespace; two namespaces rarely share a turn.
pub(crate) struct Turns([Arc<Mutex<()>>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl Turns {
    async fn take(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        Arc::clone(&self.0[at]).lock_owned().await
    }
}

/// What was charged for an object that is about to be written. Taken back unless it is kept.
pub(crate) struct Charge {
    server: Arc<ApiServer>,
    namespace: String,
    turn: Option<OwnedMutexGuard<()>>,
}

/// The object is there: what was charged for it stays.
pub(crate) fn keep(charge: Option<Charge>) {
    if let Some(mut charge) = charge {
        charge.turn = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let (server, namespace) = (Arc::clone(&self.server), std::mem::take(&mut self.namespace));
        tokio::spawn(async move {
            if let Err(error) = count(&server, &namespace).await {
                tracing::error!(namespace, %error, "a charge could not be taken back");
            }
            drop(turn);
        });
    }
}

/// What a request is charged with, if its namespace has quotas. Nothing is written for a dry run.
///
/// # Errors
/// What a quota refuses, and what writing it may run into.
pub(crate) async fn charge(
    context: &Context<'_>,
    request: &Request<'_>,
    object: &Value,
    dry_run: bool,
) -> Result<Result<Option<Charge>, Denied>, Status> {
    let Some(resource) = quota::counted(request) else { return Ok(Ok(None)) };
    let server = &context.server;
    if quotas(server, request.namespace)?.is_empty() {
        return Ok(Ok(None));
    }
    let turn = server.quotas.take(request.namespace).await;
    let mut wanted = Vec::new();
    for entry in quotas(server, request.namespace)? {
        let mut current = codec::decode(&entry.value)?;
        if !quota::is_current(&current) {
            current = counted_again(server, &current)?;
        }
        let decided = quota::wanted(&current, &resource, object, request.old)
            .and_then(|delta| quota::charged(&current, &delta).map(|_| delta));
        match decided {
            Err(denied) => return Ok(Err(denied)),
            Ok(delta) if delta.is_empty() => {}
            Ok(delta) => wanted.push((meta(&current, "name").to_owned(), delta)),
        }
    }
    if dry_run || wanted.is_empty() {
        return Ok(Ok(None));
    }
    let charge = Charge { server: Arc::clone(server), namespace: request.namespace.into(), turn: Some(turn) };
    for (name, delta) in wanted {
        spend(server, request.namespace, &name, &delta).await?;
    }
    Ok(Ok(Some(charge)))
}

async fn spend(server: &Arc<ApiServer>, namespace: &str, name: &str, delta: &Amounts) -> Result<(), Status> {
    change(server, namespace, name, |current| {
        let counted = if quota::is_current(current) { current.clone() } else { counted_again(server, current)? };
        quota::charged(&counted, delta)
            .map_err(|denied| Status::new(isopod_schema::Reason::Forbidden, denied.to_string()))
    })
    .await
}

/// Changes the status of a quota by compare-and-set. Boxed: writing is itself admitted.
fn change<'a>(
    server: &'a Arc<ApiServer>,
    namespace: &'a str,
    name: &'a str,
    change: impl Fn(&Value) -> Result<Value, Status> + Send + Sync + 'a,
) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(async move {
        let kind = Table::builtin().resource("", "v1", "resourcequotas").ok_or_else(Status::no_such_resource)?;
        let context = Context::own(server, (Table::builtin(), kind), namespace, name)?;
        edit::apply(&context, Part::Status, &WriteOptions::INTERNAL, change).await.map(|_| ())
    })
}

fn quotas(server: &ApiServer, namespace: &str) -> Result<Vec<Arc<Entry>>, Status> {
    let prefix = if namespace.is_empty() { PREFIX.to_owned() } else { format!("{PREFIX}{namespace}/") };
    Ok(server.store.list(&ListQuery { prefix, ..ListQuery::default() }).map_err(Status::internal)?.entries)
}

/// The quota with a status that is counted from what is there.
fn counted_again(server: &ApiServer, current: &Value) -> Result<Value, Status> {
    let kinds = quota::resources(current);
    let mut objects = Vec::new();
    for kind in &kinds {
        let prefix = format!("{kind}/{}/", meta(current, "namespace"));
        let list = server.store.list(&ListQuery { prefix, ..ListQuery::default() }).map_err(Status::internal)?;
        for entry in list.entries {
            objects.push((kind.as_str(), codec::decode(&entry.value)?));
        }
    }
    Ok(quota::counted_again(current, objects.iter().map(|(kind, object)| (*kind, object))))
}

/// Counts all quotas of a namespace. Its turn is the caller's.
async fn count(server: &Arc<ApiServer>, namespace: &str) -> Result<(), Status> {
    for entry in quotas(server, namespace)? {
        let name = entry.key.rsplit('/').next().unwrap_or_default();
        match change(server, namespace, name, |current| counted_again(server, current)).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// Counts when something goes or ends, and when a quota changes.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    follow::start(server, Counter::default()).await
}

/// Kinds that are counted, by namespace with quotas.
#[derive(Default)]
struct Counter(BTreeMap<String, BTreeSet<String>>);

impl Follower for Counter {
    const WHAT: &'static str = "quotas";

    /// Without quotas there is nothing else to look at.
    fn scopes(&self) -> Vec<Scope> {
        vec![Scope::Prefix(if self.0.is_empty() { PREFIX.into() } else { String::new() })]
    }

    async fn settle(&mut self, server: &Arc<ApiServer>, events: Option<&[Arc<Event>]>) -> Result<(), Status> {
        let concerned: BTreeSet<String> =
            events.into_iter().flatten().filter_map(|event| self.concerned(event)).collect();
        if events.is_some() && concerned.is_empty() {
            return Ok(());
        }
        let before = std::mem::take(&mut self.0);
        for entry in quotas(server, "")? {
            let current = codec::decode(&entry.value)?;
            self.0.entry(meta(&current, "namespace").to_owned()).or_default().extend(quota::resources(&current));
        }
        let is_due = |namespace: &&String| {
            events.is_none() || concerned.contains(*namespace) || !before.contains_key(*namespace)
        };
        for namespace in self.0.keys().filter(is_due) {
            let _turn = server.quotas.take(namespace).await;
            if let Err(error) = count(server, namespace).await {
                tracing::error!(namespace, %error, "quotas could not be counted");
            }
        }
        Ok(())
    }
}

impl Counter {
    /// The namespace whose quotas have to be counted again.
    fn concerned(&self, event: &Event) -> Option<String> {
        let (resource, rest) = event.entry.key.split_once('/')?;
        let (namespace, _) = rest.split_once('/')?;
        if resource == "resourcequotas" {
            let is_settled = event.kind == EventKind::Put
                && codec::decode(&event.entry.value).is_ok_and(|current| quota::is_current(&current));
            return (!is_settled).then(|| namespace.to_owned());
        }
        let is_counted = self.0.get(namespace)?.contains(resource);
        let ended = || {
            let phase = codec::decode(&event.entry.value).map(|pod| text(&pod, &["status", "phase"]).to_owned());
            matches!(phase.as_deref(), Ok("Succeeded" | "Failed"))
        };
        let frees = event.kind == EventKind::Delete || (resource == "pods" && ended());
        (is_counted && frees).then(|| namespace.to_owned())
    }
}
