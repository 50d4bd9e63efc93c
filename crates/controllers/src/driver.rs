//! The loop driver: the one task that owns cache and queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use isopod_planner::{Plan, Target, Write};
use isopod_types::names::ROOT_CA_CONFIG_MAP;
use isopod_types::{Key, ObjectMeta};
use jiff::Timestamp;
use kube::Client;
use kube::discovery::{Discovery, Scope, verbs};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Changed, WATCHED};
use crate::execute::{Executor, Outcome};
use crate::graph::{Metadata, Served, interned};
use crate::labelled::Labelled;
use crate::loops::{self, GARBAGE, NAMESPACE_END, Scheduling, State};
use crate::placed::Placed;
use crate::queue::{Queue, Work};
use crate::watches::{self, Seen};

/// Changes that wait to be taken in.
const INBOX: usize = 4096;
/// Plans that are carried out at once.
const RUNNING_MAX: usize = 256;
/// What stands for the definitions of custom kinds among what has to be seen whole.
const DEFINITIONS: (&str, &str) = ("object", "CustomResourceDefinition");

/// What the controllers need to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's certificate authority, PEM, for the ConfigMap in every namespace.
    pub ca_pem: String,
}

/// Runs all controllers until told to stop.
///
/// # Errors
/// When the API's kinds cannot be discovered.
pub async fn run(client: Client, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let served = discover(&client).await?;
    let (to_inbox, inbox) = mpsc::channel(INBOX);
    let mut tasks = JoinSet::new();
    watches::definitions(&mut tasks, &client, to_inbox.clone());
    for kind in WATCHED {
        let selector = (kind.2 == "ConfigMap").then(|| format!("metadata.name={ROOT_CA_CONFIG_MAP}"));
        watches::objects(&mut tasks, &client, *kind, selector.as_deref(), to_inbox.clone());
    }
    let mut driver = Driver::new(client, settings, Watching { tasks, handles: BTreeMap::new(), to_inbox });
    served.into_iter().for_each(|kind| driver.serve(kind));
    driver.run(inbox, stop).await;
    driver.watching.tasks.shutdown().await;
    Ok(())
}

/// All kinds that garbage collection and the end of namespaces have to do with. Events are not: they end by themselves.
async fn discover(client: &Client) -> anyhow::Result<Vec<Served>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut served = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let usable =
                [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb));
            if usable && resource.kind != "Event" {
                served.push(Served {
                    group: interned(&resource.group),
                    version: interned(&resource.version),
                    kind: interned(&resource.kind),
                    plural: interned(&resource.plural),
                    namespaced: capabilities.scope == Scope::Namespaced,
                });
            }
        }
    }
    Ok(served)
}

/// The watches, and what ends those of single kinds: group and plural.
struct Watching {
    tasks: JoinSet<()>,
    handles: BTreeMap<(&'static str, &'static str), AbortHandle>,
    to_inbox: mpsc::Sender<Seen>,
}

struct Driver {
    state: State,
    watching: Watching,
    /// Kinds by the definition that made them.
    custom: BTreeMap<String, Served>,
    queue: Queue,
    executor: Executor,
    served: Vec<Served>,
    /// Watches whose first list has not been seen whole.
    incomplete: BTreeSet<(&'static str, &'static str)>,
    running: JoinSet<(Work, Outcome)>,
}

impl Driver {
    fn new(client: Client, settings: Settings, watching: Watching) -> Self {
        let incomplete = WATCHED.iter().map(|(_, _, kind, _)| ("object", *kind)).chain([DEFINITIONS]).collect();
        let state = State {
            cache: Cache::default(),
            metadata: Metadata::default(),
            placed: Placed::default(),
            ca_pem: settings.ca_pem,
            scheduling: Scheduling::default(),
            sightings: loops::Sightings::default(),
            said: BTreeMap::new(),
            cursors: BTreeMap::new(),
            refusals: BTreeMap::new(),
            answers: BTreeMap::new(),
            histories: BTreeMap::new(),
            sizes: Default::default(),
            labelled: Labelled::default(),
        };
        let executor = Executor { client, recorder: Arc::default() };
        Self {
            state,
            watching,
            custom: BTreeMap::new(),
            queue: Queue::default(),
            executor,
            served: Vec::new(),
            incomplete,
            running: JoinSet::new(),
        }
    }

    /// Watches the objects of a kind from now on. Until they have been seen, nothing is decided.
    fn serve(&mut self, kind: Served) {
        let Watching { tasks, handles, to_inbox } = &mut self.watching;
        // Watches that were ended are kept until somebody looks.
        while tasks.try_join_next().is_some() {}
        let handle = watches::metadata(tasks, &self.executor.client, kind, to_inbox.clone());
        if let Some(before) = handles.insert((kind.group, kind.plural), handle) {
            before.abort();
        }
        self.incomplete.insert((kind.group, kind.kind));
        self.served.retain(|known| (known.group, known.plural) != (kind.group, kind.plural));
        self.served.push(kind);
    }

    /// Forgets a kind and its objects.
    fn unserve(&mut self, kind: &Served) {
        if let Some(handle) = self.watching.handles.remove(&(kind.group, kind.plural)) {
            handle.abort();
        }
        self.served.retain(|known| (known.group, known.plural) != (kind.group, kind.plural));
        for key in self.state.metadata.keys(kind) {
            let touched = self.state.metadata.remove(kind, &key);
            self.touch_garbage(touched, &key.namespace);
        }
        self.complete((kind.group, kind.kind));
    }

    /// A definition says which kind it makes, if any.
    fn define(&mut self, definition: String, kind: Option<Served>) {
        let before = self.custom.get(&definition).copied();
        if before == kind {
            return;
        }
        if let Some(before) = before {
            self.custom.remove(&definition);
            self.unserve(&before);
        }
        if let Some(kind) = kind {
            self.custom.insert(definition, kind);
            // Kinds that were there when the controllers started are watched already.
            if !self.served.contains(&kind) {
                self.serve(kind);
            }
        }
    }

    fn complete(&mut self, what: (&'static str, &'static str)) {
        if self.incomplete.remove(&what) && self.incomplete.is_empty() {
            self.start_up();
        }
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Seen>, stop: CancellationToken) {
        loop {
            self.queue.advance(Timestamp::now());
            if self.incomplete.is_empty() {
                self.start_ready();
            }
            // Plans may have named times of their own.
            let next = self.queue.next_at();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(seen) = inbox.recv() => {
                    self.take_in(seen);
                    while let Ok(seen) = inbox.try_recv() {
                        self.take_in(seen);
                    }
                }
                Some(Ok((work, outcome))) = self.running.join_next() => self.finish(&work, outcome),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Decides about everything that is ready, and starts the writes.
    fn start_ready(&mut self) {
        while self.running.len() < RUNNING_MAX {
            let Some(work) = self.queue.take() else { return };
            let now = Timestamp::now();
            let plan = loops::decide(&mut self.state, &work, now);
            if let Some(at) = plan.again_at {
                self.queue.add_at(work.clone(), at);
            }
            if plan.writes.is_empty() {
                self.queue.done(&work, false, now);
                continue;
            }
            self.start(work, plan);
        }
    }

    fn start(&mut self, work: Work, plan: Plan) {
        let executor = self.executor.clone();
        let owners = if work.name == GARBAGE { self.owners_to_ask_for(&work, &plan) } else { Some(Vec::new()) };
        let finalizes = plan.writes.iter().any(|write| matches!(write, Write::FinalizeNamespace { .. }));
        self.running.spawn(async move {
            let may_exist = match &owners {
                Some(owners) => !owners.is_empty() && executor.any_exists(owners).await,
                None => true,
            };
            if may_exist {
                return (work, Outcome { failed: true, ..Outcome::default() });
            }
            if finalizes {
                executor.delete_events(&work.key.name).await;
            }
            let outcome = executor.run(plan.writes).await;
            (work, outcome)
        });
    }

    /// Owners that seem to be gone are asked for at the API before their dependents go. None when an owner is of a kind
    /// that is not served now: nobody can say whether it is gone.
    fn owners_to_ask_for(&self, work: &Work, plan: &Plan) -> Option<Vec<(Target, String)>> {
        let collects =
            plan.writes.iter().any(|write| matches!(write, Write::Delete { propagation: Some("Background"), .. }));
        let Some(item) = self.state.metadata.graph.get(&work.key.name).filter(|_| collects) else {
            return Some(Vec::new());
        };
        let target = |owner: &isopod_types::OwnerReference| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let fits = |served: &&Served| served.kind == owner.kind && served.group == group;
            let served = self.served.iter().find(fits)?;
            let namespace = if served.namespaced { &*item.meta.namespace } else { "" };
            let meta = ObjectMeta { name: owner.name.clone(), namespace: namespace.into(), ..ObjectMeta::default() };
            Some((served.target(&meta), owner.uid.clone()))
        };
        item.meta.owner_references.iter().map(target).collect()
    }

    fn finish(&mut self, work: &Work, outcome: Outcome) {
        for (kind, document) in outcome.written {
            self.put(kind, &document);
        }
        for (kind, key, uid) in outcome.gone {
            self.end(kind, &key, &uid);
        }
        for target in &outcome.not_created {
            if let Some(key) = loops::assumed_node(target) {
                self.remove("Node", key);
            }
        }
        if !outcome.answers.is_empty() {
            self.state.answers.entry(work.clone()).or_default().extend(outcome.answers);
            self.queue.add(work.clone());
        }
        match outcome.refusal {
            Some(words) => drop(self.state.refusals.insert(work.clone(), words)),
            None if !outcome.failed => drop(self.state.refusals.remove(work)),
            None => {}
        }
        let now = Timestamp::now();
        if outcome.failed {
            loops::failed(&mut self.state, work, now);
        }
        self.queue.done(work, outcome.failed, now);
    }

    fn put(&mut self, kind: &str, document: &Value) {
        if let Some(changed) = self.state.cache.put(kind, document) {
            self.changed(&changed);
        }
        // The graph must not fall behind the cache: a new object's owner is known with it.
        let served = self.served.iter().find(|served| served.kind == kind).copied();
        if let (Some(served), Ok(meta)) = (served, ObjectMeta::deserialize(&document["metadata"])) {
            self.put_meta(&served, meta);
        }
    }

    /// An object is known to be gone. Without a UID whatever has its name is.
    fn end(&mut self, kind: &str, key: &Key, uid: &str) {
        if uid.is_empty() {
            self.remove(kind, key);
        } else if let Some(changed) = self.state.cache.end(kind, key, uid) {
            self.changed(&changed);
        }
    }

    fn remove(&mut self, kind: &str, key: &Key) {
        if let Some(changed) = self.state.cache.remove(kind, key) {
            self.changed(&changed);
        }
    }

    fn changed(&mut self, changed: &Changed) {
        tracing::trace!(changed = ?changed.named(), "seen");
        loops::touched(&mut self.state, changed, Timestamp::now()).into_iter().for_each(|work| self.queue.add(work));
    }

    fn put_meta(&mut self, served: &Served, meta: ObjectMeta) {
        let namespace = meta.namespace.clone();
        let known = self.state.metadata.graph.get(&meta.uid);
        let revision = |meta: &ObjectMeta| meta.resource_version.parse::<u64>().unwrap_or(0);
        if known.is_some_and(|known| revision(&known.meta) >= revision(&meta)) {
            return;
        }
        let touched = self.state.metadata.put(served, meta);
        self.touch_garbage(touched, &namespace);
    }

    fn touch_garbage(&mut self, uids: Vec<String>, namespace: &str) {
        uids.into_iter().for_each(|uid| self.queue.add(loops::garbage_work(uid)));
        let ending = self.state.cache.namespaces.get(&Key::cluster(namespace));
        if ending.is_some_and(|namespace| namespace.metadata.is_deleting()) {
            self.queue.add(Work { name: NAMESPACE_END, key: Key::cluster(namespace) });
        }
    }

    /// Takes in what a watch saw.
    fn take_in(&mut self, seen: Seen) {
        match seen {
            Seen::Object { kind, document } => self.put(kind, &document),
            Seen::Gone { kind, key, uid } => self.end(kind, &key, &uid),
            Seen::Complete { kind, keys } => {
                let vanished: Vec<Key> =
                    self.state.cache.keys(kind).into_iter().filter(|key| !keys.contains(key)).collect();
                vanished.iter().for_each(|key| self.remove(kind, key));
                self.complete(("object", kind));
            }
            Seen::Meta { served, meta } => self.put_meta(&served, meta),
            Seen::MetaGone { served, key, uid } => {
                let touched = self.state.metadata.end(&served, &key, &uid);
                self.touch_garbage(touched, &key.namespace);
            }
            Seen::MetaComplete { served, keys } => {
                for key in self.state.metadata.keys(&served).into_iter().filter(|key| !keys.contains(key)) {
                    let touched = self.state.metadata.remove(&served, &key);
                    self.touch_garbage(touched, &key.namespace);
                }
                self.complete((served.group, served.kind));
            }
            Seen::Defined { definition, served } => self.define(definition, served),
            Seen::DefinitionsComplete { definitions } => {
                let gone: Vec<String> =
                    self.custom.keys().filter(|name| !definitions.contains(*name)).cloned().collect();
                gone.into_iter().for_each(|name| self.define(name, None));
                self.complete(DEFINITIONS);
            }
        }
    }

    /// Everything is known: look at all that has owners once.
    fn start_up(&mut self) {
        tracing::info!("controllers have seen the whole cluster");
        let candidates = self.state.metadata.graph.candidates();
        candidates.into_iter().for_each(|uid| self.queue.add(loops::garbage_work(uid)));
    }
}

/// Sleeps until a time, or for ever.
async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.duration_since(Timestamp::now()).unsigned_abs();
            let due = at <= Timestamp::now();
            tokio::time::sleep(if due { Duration::ZERO } else { left }).await;
        }
    }
}
