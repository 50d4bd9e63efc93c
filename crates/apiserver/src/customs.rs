//! Custom kinds: follows the definitions in the store, decides their conditions, swaps the table, and takes the objects of
//! definitions that are deleted with them. Told by the store's watch, never asks again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use isopod_schema::crd::{self, names};
use isopod_schema::openapi::Documents;
use isopod_schema::{Kind, Status, Table};
use isopod_store::{Entry, Event, Expect, ListQuery, Scope, Write};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::context::{Context, commit};
use crate::follow::{self, Follower};
use crate::server::ApiServer;
use crate::strategy::{self, meta, text};
use crate::{codec, delete, deletion};

/// Where definitions are.
const PREFIX: &str = "customresourcedefinitions.apiextensions.k8s.io/";
/// Kind of the definitions in messages and writes.
const DEFINITIONS: (&str, &str, &str) = (crd::GROUP, "v1", crd::PLURAL);

/// Kinds that are served at one time, with their documents.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) table: Arc<Table>,
    pub(crate) documents: Documents,
    /// Names of definitions that are being deleted: none of their objects may be created any more.
    pub(crate) terminating: BTreeSet<String>,
}

/// Receives what is served whenever that changes.
pub(crate) type Tables = watch::Receiver<Arc<Served>>;

impl Served {
    pub(crate) fn builtin() -> Self {
        let table = Arc::new(Table::builtin().clone());
        Self { documents: Documents::new(Arc::clone(&table), None), table, terminating: BTreeSet::new() }
    }

    /// The very same row is served.
    pub(crate) fn has(&self, kind: &Arc<Kind>) -> bool {
        self.table.resource(&kind.group, &kind.version, &kind.plural).is_some_and(|found| Arc::ptr_eq(found, kind))
    }
}

/// Waits for another table; for ever where there is nothing to wait for.
pub(crate) async fn changed(tables: Option<&mut Tables>) -> Arc<Served> {
    if let Some(tables) = tables
        && tables.changed().await.is_ok()
    {
        return tables.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// What is kept of a definition.
struct Definition {
    revision: u64,
    group: String,
    accepted: Value,
    is_settled: bool,
    /// What its rows follow from.
    basis: (String, [u8; 32], Value),
    terminating: bool,
    rows: Vec<Arc<Kind>>,
}

/// Everything known of definitions, by name.
#[derive(Default)]
struct Keeper {
    definitions: BTreeMap<String, Definition>,
    /// UIDs of those whose objects are being removed.
    ending: Arc<Mutex<BTreeSet<String>>>,
}

/// Serves what is defined already, and follows what becomes of it.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    follow::start(server, Keeper::default()).await
}

impl Follower for Keeper {
    const WHAT: &'static str = "custom kinds";

    fn scopes(&self) -> Vec<Scope> {
        vec![Scope::Prefix(PREFIX.into())]
    }

    async fn settle(&mut self, server: &Arc<ApiServer>, _: Option<&[Arc<Event>]>) -> Result<(), Status> {
        self.settle_all(server).await
    }
}

impl Keeper {
    /// Decides about every definition that changed or waits, serves what is established, writes what was decided.
    async fn settle_all(&mut self, server: &Arc<ApiServer>) -> Result<(), Status> {
        let query = ListQuery { prefix: PREFIX.into(), ..ListQuery::default() };
        let mut entries = server.store.list(&query).map_err(Status::internal)?.entries;
        let present: BTreeSet<&str> = entries.iter().map(|entry| name_of(entry)).collect();
        self.definitions.retain(|name, _| present.contains(name.as_str()));
        // Who was first keeps the name.
        entries.sort_by_key(|entry| entry.create_revision);
        let mut writes = Vec::new();
        for entry in &entries {
            let known = self.definitions.get(name_of(entry));
            if known.is_none_or(|known| known.revision != entry.mod_revision || !known.is_settled) {
                let stored = codec::decode(&entry.value)?;
                let decided = self.decide(server, entry, &stored);
                if decided != stored {
                    writes.push((entry, decided));
                } else if crd::is_terminating(&stored) {
                    self.end(server, &stored);
                }
            }
        }
        self.serve(server);
        for (entry, decided) in writes {
            let write = Write::put(entry.key.clone(), Expect::Revision(entry.mod_revision), codec::encode(&decided));
            // One that was written meanwhile comes back as an event.
            commit(server, write).await?;
        }
        Ok(())
    }

    /// The definition as it should be; its rows are made if they changed.
    fn decide(&mut self, server: &ApiServer, entry: &Entry, stored: &Value) -> Value {
        let name = name_of(entry);
        let group = text(stored, &["spec", "group"]).to_owned();
        let others = self.definitions.iter().filter(|(other, known)| *other != name && known.group == group);
        let now = strategy::time_text(server.config.clock.now());
        let decided = names::decided(stored, others.map(|(_, known)| &known.accepted), &now);
        let accepted = decided["status"]["acceptedNames"].clone();
        // The beginning of a deletion raises the generation as well, and must not end watches.
        let spec: [u8; 32] = Sha256::digest(stored["spec"].to_string()).into();
        let basis = (meta(stored, "uid").to_owned(), spec, accepted.clone());
        let rows = match self.definitions.remove(name) {
            Some(known) if known.basis == basis && !known.rows.is_empty() => known.rows,
            _ if names::is_established(&decided) => crd::rows(&decided),
            _ => Vec::new(),
        };
        let conditions = decided["status"]["conditions"].as_array().into_iter().flatten();
        let is_settled =
            conditions.into_iter().any(|found| found["type"] == "NamesAccepted" && found["status"] == "True");
        let terminating = crd::is_terminating(stored);
        let definition =
            Definition { revision: entry.mod_revision, group, accepted, is_settled, basis, terminating, rows };
        self.definitions.insert(name.to_owned(), definition);
        decided
    }

    /// Swaps the table if other rows make it up.
    fn serve(&self, server: &ApiServer) {
        let mut rows: Vec<&Arc<Kind>> = self.definitions.values().flat_map(|definition| &definition.rows).collect();
        rows.sort_by(|a, b| {
            let order = |kind: &Kind| std::cmp::Reverse(crd::version_order(&kind.version));
            (&a.group, order(a), &a.plural).cmp(&(&b.group, order(b), &b.plural))
        });
        let ending = self.definitions.iter().filter(|(_, definition)| definition.terminating);
        let terminating: BTreeSet<String> = ending.map(|(name, _)| name.clone()).collect();
        let before = server.served();
        let now = before.table.kinds().filter(|kind| kind.custom.is_some()).map(std::ptr::from_ref);
        let is_same = now.eq(rows.iter().map(|row| Arc::as_ptr(row)));
        if is_same && before.terminating == terminating {
            return;
        }
        let table = match is_same {
            true => Arc::clone(&before.table),
            false => Arc::new(Table::with_custom(rows.into_iter().cloned())),
        };
        let documents = Documents::new(Arc::clone(&table), Some(&before.documents));
        server.swap_tables(Served { table, documents, terminating });
    }

    /// Begins to remove the objects of a definition.
    fn end(&self, server: &Arc<ApiServer>, definition: &Value) {
        let uid = meta(definition, "uid").to_owned();
        let holds = definition["metadata"]["finalizers"].as_array();
        let is_held = holds.is_some_and(|list| list.iter().any(|name| name == crd::CLEANUP_FINALIZER));
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_held || !ending.insert(uid.clone()) {
            return;
        }
        let (server, all, definition) = (Arc::downgrade(server), Arc::clone(&self.ending), definition.clone());
        tokio::spawn(async move {
            if let Err(error) = clean_up(&server, &definition).await {
                tracing::error!(definition = meta(&definition, "name"), %error, "custom objects could not be removed");
            }
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        });
    }
}

fn name_of(entry: &Entry) -> &str {
    entry.key.strip_prefix(PREFIX).unwrap_or_default()
}

/// Deletes all objects of a definition, waits for their finalizers, and lets the definition go.
async fn clean_up(server: &Weak<ApiServer>, definition: &Value) -> Result<(), Status> {
    let Some(kind) = crd::storage_row(definition) else { return Ok(()) };
    let prefix = codec::prefix(&kind, "");
    loop {
        let mut watch = {
            let Some(server) = server.upgrade() else { return Ok(()) };
            let list = server.store.list(&ListQuery { prefix: prefix.clone(), ..ListQuery::default() });
            let list = list.map_err(Status::internal)?;
            if list.entries.is_empty() {
                return release(&server, definition).await;
            }
            let watch = server.store.watch(Scope::Prefix(prefix.clone()), list.revision).map_err(Status::internal)?;
            for entry in &list.entries {
                delete_one(&server, &kind, entry).await?;
            }
            watch
        };
        if watch.next().await.is_none() {
            return Ok(());
        }
    }
}

async fn delete_one(server: &Arc<ApiServer>, kind: &Arc<Kind>, entry: &Entry) -> Result<(), Status> {
    let object = codec::decode(&entry.value)?;
    if strategy::is_deleting(&object) {
        return Ok(());
    }
    let (namespace, name) = (meta(&object, "namespace"), meta(&object, "name"));
    let context = Context::own(server, (Table::builtin(), kind), namespace, name)?;
    match delete::named(&context, name, &deletion::Options::default()).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// Takes the finalizer away, and the definition with it when nothing else holds it.
async fn release(server: &Arc<ApiServer>, definition: &Value) -> Result<(), Status> {
    let (group, version, plural) = DEFINITIONS;
    let kind = Table::builtin().resource(group, version, plural).ok_or_else(Status::no_such_resource)?;
    let key = codec::key(kind, "", meta(definition, "name"));
    loop {
        let Some(entry) = server.store.get(&key) else { return Ok(()) };
        let mut current = codec::decode(&entry.value)?;
        if meta(&current, "uid") != meta(definition, "uid") {
            return Ok(());
        }
        let finalizers = strategy::metadata(&mut current).get_mut("finalizers").and_then(Value::as_array_mut);
        if let Some(list) = finalizers {
            list.retain(|name| name != crd::CLEANUP_FINALIZER);
        }
        let expect = Expect::Revision(entry.mod_revision);
        let write = if strategy::is_finished(kind, &current) {
            Write::delete(key.clone(), expect, Some(codec::encode(&current)))
        } else {
            Write::put(key.clone(), expect, codec::encode(&current))
        };
        if let isopod_store::Outcome::Committed(_) = commit(server, write).await? {
            return Ok(());
        }
    }
}
