//! Garbage collection: what becomes of objects when their owners go.
//!
//! Source: the rules of upstream's collector. An owner counts as there only if an object with its UID lives in the
//! dependent's namespace or in the cluster scope.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::names::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use isopod_types::{ObjectMeta, OwnerReference};
use serde_json::json;

use crate::plan::{Plan, Target, Write};

/// Most objects that are looked at to find out who waits for whom.
const CYCLE_MAX: usize = 1000;

/// One object as the collector sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Which object.
    pub target: Target,
    /// Its metadata.
    pub meta: ObjectMeta,
}

/// All objects, and by owner UID those that name it.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    items: BTreeMap<String, Item>,
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Builds the graph of these objects.
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        let mut graph = Self::default();
        for item in items {
            graph.insert(item);
        }
        graph
    }

    /// Adds or replaces an object.
    pub fn insert(&mut self, item: Item) {
        self.remove(&item.meta.uid);
        for owner in &item.meta.owner_references {
            self.dependents.entry(owner.uid.clone()).or_default().insert(item.meta.uid.clone());
        }
        self.items.insert(item.meta.uid.clone(), item);
    }

    /// Removes an object; returns the UIDs of those whose fate this may change.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        if let Some(item) = self.items.remove(uid) {
            for owner in &item.meta.owner_references {
                if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                    dependents.remove(uid);
                    if dependents.is_empty() {
                        self.dependents.remove(&owner.uid);
                    }
                }
            }
        }
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Takes in a later revision of an object if nothing changed that a decision rests on; returns whether it did.
    pub fn renew(&mut self, meta: &ObjectMeta) -> bool {
        let Some(known) = self.items.get_mut(&meta.uid) else { return false };
        let before = &known.meta;
        let is_same = (&before.namespace, &before.name) == (&meta.namespace, &meta.name)
            && before.owner_references == meta.owner_references
            && before.finalizers == meta.finalizers
            && before.is_deleting() == meta.is_deleting();
        if is_same {
            known.meta.resource_version.clone_from(&meta.resource_version);
            known.target.resource_version.clone_from(&meta.resource_version);
        }
        is_same
    }

    /// The object with this UID.
    pub fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    /// UIDs of all objects that have an owner or wait for dependents.
    pub fn candidates(&self) -> Vec<String> {
        let relevant = |item: &&Item| {
            !item.meta.owner_references.is_empty()
                || item.meta.finalizers.iter().any(|f| f == FOREGROUND_FINALIZER || f == ORPHAN_FINALIZER)
        };
        self.items.values().filter(relevant).map(|item| item.meta.uid.clone()).collect()
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &Item> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|dependent| self.items.get(dependent))
    }

    fn owner(&self, of: &Item, reference: &OwnerReference) -> Option<&Item> {
        let owner = self.items.get(&reference.uid)?;
        let reachable = owner.meta.namespace.is_empty() || owner.meta.namespace == of.meta.namespace;
        (reachable && owner.meta.name == reference.name && owner.target.kind == reference.kind).then_some(owner)
    }
}

/// Decides about one object.
pub fn plan(graph: &Graph, uid: &str) -> Plan {
    let Some(item) = graph.get(uid) else { return Plan::nothing() };
    let has = |finalizer: &str| item.meta.finalizers.iter().any(|f| f == finalizer);
    if item.meta.is_deleting() && has(ORPHAN_FINALIZER) {
        return orphan(graph, item);
    }
    if item.meta.is_deleting() && has(FOREGROUND_FINALIZER) {
        return foreground(graph, item);
    }
    if item.meta.is_deleting() || item.meta.owner_references.is_empty() {
        return Plan::nothing();
    }
    collect(graph, item)
}

/// Deletes an object that has lost all owners, or forgets those that are gone. An owner that waits for its dependents to go is as
/// good as gone to those that have another.
fn collect(graph: &Graph, item: &Item) -> Plan {
    let owner = |reference: &OwnerReference| graph.owner(item, reference);
    let references = &item.meta.owner_references;
    let stays = |reference: &&OwnerReference| owner(reference).is_some_and(|owner| !waits_for_dependents(owner));
    let staying: Vec<_> = references.iter().filter(stays).collect();
    if staying.is_empty() {
        let is_waited_for = references.iter().any(|reference| owner(reference).is_some());
        return delete(item, if is_waited_for { "Foreground" } else { "Background" });
    }
    if staying.len() == references.len() {
        return Plan::nothing();
    }
    patch_meta(item, &json!({"ownerReferences": staying}))
}

fn waits_for_dependents(owner: &Item) -> bool {
    owner.meta.is_deleting() && owner.meta.finalizers.iter().any(|f| f == FOREGROUND_FINALIZER)
}

fn delete(item: &Item, propagation: &'static str) -> Plan {
    let target = Target { resource_version: String::new(), ..item.target.clone() };
    let delete = Write::Delete { target, propagation: Some(propagation), grace_period_seconds: None };
    Plan { writes: vec![delete], again_at: None }
}

fn patch_meta(item: &Item, metadata: &serde_json::Value) -> Plan {
    let patch = json!({"metadata": metadata});
    Plan { writes: vec![Write::Patch { target: item.target.clone(), subresource: "", patch }], again_at: None }
}

fn without(item: &Item, finalizer: &str) -> Plan {
    let rest: Vec<&String> = item.meta.finalizers.iter().filter(|f| *f != finalizer).collect();
    patch_meta(item, &json!({"finalizers": rest}))
}

/// Takes the object out of its dependents' owners, then lets it go.
fn orphan(graph: &Graph, item: &Item) -> Plan {
    let mut plan = Plan::nothing();
    for dependent in graph.dependents(&item.meta.uid) {
        let rest: Vec<_> = dependent.meta.owner_references.iter().filter(|owner| owner.uid != item.meta.uid).collect();
        plan.writes.extend(patch_meta(dependent, &json!({"ownerReferences": rest})).writes);
    }
    if plan.writes.is_empty() { without(item, ORPHAN_FINALIZER) } else { plan }
}

fn blocks(dependent: &Item, owner: &str) -> bool {
    dependent.meta.owner_references.iter().any(|found| found.uid == owner && found.block_owner_deletion)
}

/// Whether one object waits for another, itself or through those that it waits for.
fn waits_for(graph: &Graph, item: &Item, uid: &str) -> bool {
    let (mut next, mut seen) = (vec![item], BTreeSet::new());
    while let Some(item) = next.pop().filter(|_| seen.len() < CYCLE_MAX) {
        if item.meta.uid == uid {
            return true;
        }
        if waits_for_dependents(item) && seen.insert(item.meta.uid.as_str()) {
            next.extend(graph.dependents(&item.meta.uid).filter(|dependent| blocks(dependent, &item.meta.uid)));
        }
    }
    false
}

/// Deletes the dependents that block and have no other owner, then lets the object go. What waits for the object itself cannot be
/// waited for: owners in a circle go at once.
fn foreground(graph: &Graph, item: &Item) -> Plan {
    let blocking = |dependent: &&Item| {
        let waits = dependent.meta.is_deleting() && waits_for(graph, dependent, &item.meta.uid);
        blocks(dependent, &item.meta.uid) && !waits
    };
    let mut left = graph.dependents(&item.meta.uid).filter(blocking).peekable();
    if left.peek().is_none() {
        return without(item, FOREGROUND_FINALIZER);
    }
    let mut plan = Plan::nothing();
    for dependent in left.filter(|dependent| !dependent.meta.is_deleting()) {
        plan.writes.extend(collect(graph, dependent).writes);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::Key;
    use isopod_types::pod::Pod;

    /// `uid [<owner[!]]... [deleting] [finalizer]`; `!` blocks the owner's deletion.
    fn item(text: &str) -> Item {
        let mut words = text.split_whitespace();
        let uid = words.next().unwrap();
        let mut meta = ObjectMeta { name: uid.into(), uid: uid.into(), namespace: "x".into(), ..Default::default() };
        for word in words {
            match word.strip_prefix('<') {
                Some(owner) => meta.owner_references.push(OwnerReference {
                    kind: "Pod".into(),
                    name: owner.trim_end_matches('!').into(),
                    uid: owner.trim_end_matches('!').into(),
                    block_owner_deletion: owner.ends_with('!'),
                    ..Default::default()
                }),
                None if word == "deleting" => meta.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH),
                None => meta.finalizers.push(word.into()),
            }
        }
        Item { target: Target::named::<Pod>(Key::new("x", uid)), meta }
    }

    fn check(items: &[&str], uid: &str, expected: &[&str]) {
        let graph = Graph::new(items.iter().map(|text| item(text)));
        let found: Vec<String> = plan(&graph, uid)
            .writes
            .iter()
            .map(|write| match write {
                Write::Delete { target, propagation, .. } => {
                    format!("delete {} {}", target.key.name, propagation.unwrap())
                }
                Write::Patch { target, patch, .. } => format!("patch {} {}", target.key.name, patch["metadata"]),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(f, e)| f.starts_with(e)), "{found:?}");
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        check(&["a", "b <a"], "b", &[]);
        check(&["b <a"], "b", &["delete b Background"]);
        check(&["c", "b <a <c"], "b", &["patch b {\"ownerReferences\""]);
        check(&["b <a deleting"], "b", &[]);
        check(&["a deleting", "b <a"], "b", &[]);
    }

    #[test]
    fn foreground_deletion_waits_for_what_blocks() {
        let all = ["a deleting foregroundDeletion", "b <a!", "c <a"];
        check(&all, "a", &["delete b Foreground"]);
        check(&all, "b", &["delete b Foreground"]);
        check(&["a deleting foregroundDeletion", "c <a"], "a", &["patch a {\"finalizers\":[]"]);
        check(&["a deleting foregroundDeletion", "b <a! deleting"], "a", &[]);
        let shared = ["a deleting foregroundDeletion", "b <a! <c", "c"];
        check(&shared, "a", &["patch b {\"ownerReferences\":[{"]);
        check(&shared, "b", &["patch b {\"ownerReferences\":[{"]);
        check(&["a deleting foregroundDeletion", "b <a! <gone"], "a", &["delete b Foreground"]);
    }

    #[test]
    fn owners_in_a_circle_do_not_wait_for_each_other() {
        let two = "a <b! deleting foregroundDeletion";
        check(&[two, "b <a!"], "a", &["delete b Foreground"]);
        check(&[two, "b <a! deleting foregroundDeletion"], "a", &["patch a {\"finalizers\":[]"]);
        let three = [two, "b <c!", "c <a! deleting foregroundDeletion"];
        check(&three, "a", &[]);
        check(&three, "c", &["delete b Foreground"]);
        let all = [two, "b <c! deleting foregroundDeletion", "c <a! deleting foregroundDeletion", "d <a!"];
        check(&all, "c", &["patch c {\"finalizers\":[]"]);
        check(&all, "a", &["delete d Foreground"]);
        check(&["a <a! deleting foregroundDeletion"], "a", &["patch a {\"finalizers\":[]"]);
    }

    #[test]
    fn orphaning_lets_dependents_live() {
        check(&["a deleting orphan", "b <a"], "a", &["patch b {\"ownerReferences\":[]"]);
        check(&["a deleting orphan"], "a", &["patch a {\"finalizers\":[]"]);
    }

    #[test]
    fn an_owner_in_another_namespace_does_not_count() {
        let mut owner = item("a");
        owner.meta.namespace = "y".into();
        let graph = Graph::new([owner, item("b <a")]);
        assert_eq!(plan(&graph, "b").writes.len(), 1);
    }

    #[test]
    fn only_what_decisions_rest_on_is_news() {
        let later = |text: &str| ObjectMeta { resource_version: "2".into(), ..item(text).meta };
        let mut graph = Graph::new([item("a"), item("b <a")]);
        let mut labelled = later("b <a");
        labelled.labels.insert("k".into(), "v".into());
        assert!(graph.renew(&labelled));
        assert_eq!(graph.get("b").map(|item| item.target.resource_version.as_str()), Some("2"));
        for news in ["b", "b <a!", "b <c", "b <a deleting", "b <a orphan", "c"] {
            assert!(!graph.renew(&later(news)), "{news}");
        }
    }

    #[test]
    fn removing_an_owner_names_its_dependents() {
        let mut graph = Graph::new([item("a"), item("b <a")]);
        assert_eq!(graph.remove("a"), ["b"]);
        assert!(graph.candidates().contains(&"b".to_owned()));
    }
}
