//! What the controllers know and what they are to look at, without tasks, watches or a clock: time is an argument. The
//! driver runs it for ever; a simulation runs it step by step. Writes nothing by itself.

use std::collections::{BTreeMap, BTreeSet};

use isopod_planner::{Target, Write};
use isopod_types::{Key, ObjectMeta};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cache::{Cache, Changed, Known, WATCHED, is_whole};
use crate::execute::{Executor, Outcome};
use crate::graph::{Metadata, Served};
use crate::labelled::Labelled;
use crate::loops::{self, GARBAGE, NAMESPACE_END, Scheduling, State};
use crate::placed::Placed;
use crate::queue::{Queue, Work};
use crate::watches::Seen;

/// Cache, queue, and what has to be seen before anything is decided.
pub(crate) struct Core {
    state: State,
    pub(crate) queue: Queue,
    pub(crate) served: Vec<Served>,
    /// Watches whose first list has not been seen whole.
    incomplete: BTreeSet<(&'static str, &'static str)>,
}

/// A decision whose writes are to be carried out.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) work: Work,
    pub(crate) writes: Vec<Write>,
    /// Owners that seem to be gone; none when nobody can say.
    owners: Option<Vec<(Target, String)>>,
}

impl Begun {
    /// Carries out the writes.
    pub(crate) async fn run(self, executor: &Executor) -> (Work, Outcome) {
        let may_exist = match &self.owners {
            Some(owners) => !owners.is_empty() && executor.any_exists(owners).await,
            None => true,
        };
        if may_exist {
            return (self.work, Outcome { failed: true, ..Outcome::default() });
        }
        if self.writes.iter().any(|write| matches!(write, Write::FinalizeNamespace { .. })) {
            executor.delete_events(&self.work.key.name).await;
        }
        let outcome = executor.run(self.writes).await;
        (self.work, outcome)
    }
}

impl Core {
    /// Knows nothing yet. What else than the watched kinds has to be seen whole first is named by the caller.
    pub(crate) fn new(ca_pem: String, also: Option<(&'static str, &'static str)>) -> Self {
        let incomplete = WATCHED.iter().map(|(_, _, kind, _)| ("object", *kind)).chain(also).collect();
        let state = State {
            cache: Cache::default(),
            metadata: Metadata::default(),
            placed: Placed::default(),
            ca_pem,
            scheduling: Scheduling::default(),
            sightings: loops::Sightings::default(),
            said: BTreeMap::new(),
            cursors: BTreeMap::new(),
            refusals: BTreeMap::new(),
            answers: BTreeMap::new(),
            histories: BTreeMap::new(),
            failures: BTreeMap::new(),
            sizes: Default::default(),
            labelled: Labelled::default(),
        };
        Self { state, queue: Queue::default(), served: Vec::new(), incomplete }
    }

    /// Objects of a kind will be told of. Until they have been seen, nothing is decided.
    pub(crate) fn serve(&mut self, kind: Served) {
        if !is_whole(&kind) {
            self.incomplete.insert((kind.group, kind.kind));
        }
        self.forget(&kind);
        self.served.push(kind);
    }

    fn forget(&mut self, kind: &Served) {
        self.served.retain(|known| (known.group, known.plural) != (kind.group, kind.plural));
    }

    /// Forgets a kind and its objects.
    pub(crate) fn unserve(&mut self, kind: &Served) {
        self.forget(kind);
        for key in self.state.metadata.keys(kind) {
            let touched = self.state.metadata.remove(kind, &key);
            self.touch_garbage(touched, &key.namespace);
        }
        self.complete((kind.group, kind.kind));
    }

    /// Something was seen whole.
    pub(crate) fn complete(&mut self, what: (&'static str, &'static str)) {
        if self.incomplete.remove(&what) && self.incomplete.is_empty() {
            self.start_up();
        }
    }

    /// Decides about what is ready until a decision has writes.
    pub(crate) fn begin(&mut self, now: Timestamp) -> Option<Begun> {
        if !self.incomplete.is_empty() {
            return None;
        }
        loop {
            let work = self.queue.take()?;
            let plan = loops::decide(&mut self.state, &work, now);
            if let Some(at) = plan.again_at {
                self.queue.add_at(work.clone(), at);
            }
            if plan.writes.is_empty() {
                self.queue.done(&work, false, now);
                continue;
            }
            let owners =
                if work.name == GARBAGE { self.owners_to_ask_for(&work, &plan.writes) } else { Some(Vec::new()) };
            return Some(Begun { work, writes: plan.writes, owners });
        }
    }

    /// Owners that seem to be gone are asked for at the API before their dependents go. None when an owner is of a kind
    /// that is not served now: nobody can say whether it is gone.
    fn owners_to_ask_for(&self, work: &Work, writes: &[Write]) -> Option<Vec<(Target, String)>> {
        let collects =
            writes.iter().any(|write| matches!(write, Write::Delete { propagation: Some("Background"), .. }));
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

    /// Takes in how the writes of a decision went.
    pub(crate) fn finish(&mut self, work: &Work, outcome: Outcome, now: Timestamp) {
        for (kind, document) in outcome.written {
            self.put(kind, &document, now);
        }
        for (kind, key, uid) in outcome.gone {
            self.end(kind, &key, &uid, now);
        }
        for target in &outcome.not_created {
            if let Some(key) = loops::assumed_node(target) {
                self.remove("Node", key, now);
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
        if outcome.failed {
            loops::failed(&mut self.state, work, now);
        }
        self.queue.done(work, outcome.failed, now);
    }

    fn put(&mut self, kind: &str, document: &Value, now: Timestamp) {
        if let Some(changed) = self.state.cache.put(kind, document) {
            self.changed(&changed, now);
        }
        if let Ok(meta) = ObjectMeta::deserialize(&document["metadata"]) {
            self.put_meta_of(kind, &meta);
        }
    }

    fn put_known(&mut self, known: Known, now: Timestamp) {
        let (kind, meta) = known.named();
        self.put_meta_of(kind, meta);
        if let Some(changed) = self.state.cache.take_in(known) {
            self.changed(&changed, now);
        }
    }

    /// The graph must not fall behind the cache: a new object's owner is known with it.
    fn put_meta_of(&mut self, kind: &str, meta: &ObjectMeta) {
        if let Some(served) = self.served.iter().find(|served| served.kind == kind).copied() {
            self.put_meta(&served, meta);
        }
    }

    /// The kind that is watched whole under this name, as it is served.
    fn whole(&self, kind: &str) -> Option<Served> {
        self.served.iter().find(|served| served.kind == kind && is_whole(served)).copied()
    }

    /// An object is known to be gone. Without a UID whatever has its name is.
    fn end(&mut self, kind: &str, key: &Key, uid: &str, now: Timestamp) {
        if uid.is_empty() {
            self.remove(kind, key, now);
        } else if let Some(changed) = self.state.cache.end(kind, key, uid) {
            self.changed(&changed, now);
        }
    }

    fn remove(&mut self, kind: &str, key: &Key, now: Timestamp) {
        if let Some(changed) = self.state.cache.remove(kind, key) {
            self.changed(&changed, now);
        }
    }

    fn changed(&mut self, changed: &Changed, now: Timestamp) {
        tracing::trace!(changed = ?changed.named(), "seen");
        loops::touched(&mut self.state, changed, now).into_iter().for_each(|work| self.queue.add(work));
    }

    fn put_meta(&mut self, served: &Served, meta: &ObjectMeta) {
        let known = self.state.metadata.graph.get(&meta.uid);
        let revision = |meta: &ObjectMeta| meta.resource_version.parse::<u64>().unwrap_or(0);
        if known.is_some_and(|known| revision(&known.meta) >= revision(meta)) {
            return;
        }
        let touched = self.state.metadata.put(served, meta);
        self.touch_garbage(touched, &meta.namespace);
    }

    fn end_meta(&mut self, served: &Served, key: &Key, uid: &str) {
        let touched = self.state.metadata.end(served, key, uid);
        self.touch_garbage(touched, &key.namespace);
    }

    /// Of a kind, only these objects are there.
    fn keep_meta(&mut self, served: &Served, keys: &BTreeSet<Key>) {
        for key in self.state.metadata.keys(served).into_iter().filter(|key| !keys.contains(key)) {
            let touched = self.state.metadata.remove(served, &key);
            self.touch_garbage(touched, &key.namespace);
        }
    }

    fn touch_garbage(&mut self, uids: Vec<String>, namespace: &str) {
        uids.into_iter().for_each(|uid| self.queue.add(loops::garbage_work(uid)));
        let ending = self.state.cache.namespaces.get(&Key::cluster(namespace));
        if ending.is_some_and(|namespace| namespace.metadata.is_deleting()) {
            self.queue.add(Work { name: NAMESPACE_END, key: Key::cluster(namespace) });
        }
    }

    /// Takes in what a watch saw.
    pub(crate) fn take_in(&mut self, seen: Seen, now: Timestamp) {
        match seen {
            Seen::Object(known) => self.put_known(known, now),
            Seen::Unreadable { kind, meta } => self.put_meta_of(kind, &meta),
            Seen::Gone { kind, key, uid } => {
                self.end(kind, &key, &uid, now);
                if let Some(served) = self.whole(kind) {
                    self.end_meta(&served, &key, &uid);
                }
            }
            Seen::Complete { kind, keys } => {
                let vanished: Vec<Key> =
                    self.state.cache.keys(kind).into_iter().filter(|key| !keys.contains(key)).collect();
                vanished.iter().for_each(|key| self.remove(kind, key, now));
                if let Some(served) = self.whole(kind) {
                    self.keep_meta(&served, &keys);
                }
                self.complete(("object", kind));
            }
            Seen::Meta { served, meta } => self.put_meta(&served, &meta),
            Seen::MetaGone { served, key, uid } => self.end_meta(&served, &key, &uid),
            Seen::MetaComplete { served, keys } => {
                self.keep_meta(&served, &keys);
                self.complete((served.group, served.kind));
            }
            // The driver starts and ends watches for these.
            Seen::Defined { .. } | Seen::DefinitionsComplete { .. } => {}
        }
    }

    /// Everything is known: look at all that has owners once.
    fn start_up(&mut self) {
        tracing::info!("controllers have seen the whole cluster");
        let candidates = self.state.metadata.graph.candidates();
        candidates.into_iter().for_each(|uid| self.queue.add(loops::garbage_work(uid)));
    }
}
