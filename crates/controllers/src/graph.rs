//! Metadata of every object in the cluster, for garbage collection and the end of namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use isopod_planner::Target;
use isopod_planner::garbage::{Graph, Item};
use isopod_planner::namespaces::Leftover;
use isopod_types::{Key, ObjectMeta};
use serde_json::Value;

use crate::gone::Gone;

/// One kind that the API serves and whose objects can be listed, watched and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
}

impl Served {
    /// The kind that a definition makes, once it is established. Names live as long as the program; one that comes
    /// again is the same text.
    pub(crate) fn of_definition(definition: &Value) -> Option<Self> {
        let conditions = definition["status"]["conditions"].as_array()?;
        conditions.iter().find(|found| found["type"] == "Established" && found["status"] == "True")?;
        let versions = definition["spec"]["versions"].as_array()?;
        let served = || versions.iter().filter(|version| version["served"] == true);
        let version = served().find(|version| version["storage"] == true).or_else(|| served().next())?;
        Some(Self {
            group: interned(definition["spec"]["group"].as_str()?),
            version: interned(version["name"].as_str()?),
            kind: interned(definition["status"]["acceptedNames"]["kind"].as_str()?),
            plural: interned(definition["status"]["acceptedNames"]["plural"].as_str()?),
            namespaced: definition["spec"]["scope"] == "Namespaced",
        })
    }

    pub(crate) fn target(&self, meta: &ObjectMeta) -> Target {
        Target {
            group: self.group,
            version: self.version,
            kind: self.kind,
            plural: self.plural,
            key: meta.key(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        }
    }
}

static INTERNED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// One copy of each text for as long as the program runs.
pub(crate) fn interned(text: &str) -> &'static str {
    let mut known = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(text) {
        return found;
    }
    let kept: &'static str = text.to_owned().leak();
    known.insert(kept);
    kept
}

/// The kept copy of a text, if there is one. What users write is not kept for ever.
fn already_interned(text: &str) -> Option<&'static str> {
    INTERNED.lock().unwrap_or_else(PoisonError::into_inner).get(text).copied()
}

/// The graph, with objects by namespace.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) graph: Graph,
    by_namespace: BTreeMap<String, BTreeSet<String>>,
    uids: BTreeMap<(&'static str, &'static str, Key), String>,
    gone: Gone,
}

impl Metadata {
    /// Puts an object's metadata in. Returns the UIDs whose fate may change: its own, and those of its owners, also of those
    /// that it has lost: they may wait for nothing else.
    pub(crate) fn put(&mut self, served: &Served, meta: &ObjectMeta) -> Vec<String> {
        if self.graph.renew(meta) {
            return Vec::new();
        }
        if self.graph.get(&meta.uid).is_none() && self.gone.contains(&meta.uid) {
            return Vec::new();
        }
        let identity = (served.group, served.kind, meta.key());
        let revision = |meta: &ObjectMeta| meta.resource_version.parse::<u64>().unwrap_or(0);
        let known = self.uids.get(&identity).and_then(|uid| self.graph.get(uid));
        if known.is_some_and(|known| known.meta.uid != meta.uid && revision(&known.meta) > revision(meta)) {
            return Vec::new();
        }
        let mut touched = match self.uids.insert(identity, meta.uid.clone()) {
            Some(old) if old != meta.uid => self.forget(&old),
            _ => Vec::new(),
        };
        touched.push(meta.uid.clone());
        let lost = self.graph.get(&meta.uid).into_iter().flat_map(|known| &known.meta.owner_references);
        touched.extend(lost.map(|owner| owner.uid.clone()));
        touched.extend(meta.owner_references.iter().map(|owner| owner.uid.clone()));
        if !meta.namespace.is_empty() {
            self.by_namespace.entry(meta.namespace.clone()).or_default().insert(meta.uid.clone());
        }
        // Nothing that is decided here goes by these.
        let meta = ObjectMeta { labels: BTreeMap::new(), annotations: BTreeMap::new(), ..meta.clone() };
        self.graph.insert(Item { target: served.target(&meta), meta });
        touched
    }

    /// Takes an object out. Returns the UIDs whose fate may change: its dependents' and its owners'.
    pub(crate) fn remove(&mut self, served: &Served, key: &Key) -> Vec<String> {
        let uid = self.uids.remove(&(served.group, served.kind, key.clone()));
        uid.map(|uid| self.forget(&uid)).unwrap_or_default()
    }

    /// As `remove`, for the one object that is known to be gone for good.
    pub(crate) fn end(&mut self, served: &Served, key: &Key, uid: &str) -> Vec<String> {
        self.gone.add(uid);
        let identity = (served.group, served.kind, key.clone());
        if self.uids.get(&identity).is_some_and(|found| found == uid) { self.remove(served, key) } else { Vec::new() }
    }

    fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(item) = self.graph.get(uid) else { return Vec::new() };
        let mut touched: Vec<String> = item.meta.owner_references.iter().map(|owner| owner.uid.clone()).collect();
        let namespace = item.meta.namespace.clone();
        if let Some(uids) = self.by_namespace.get_mut(&namespace) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_namespace.remove(&namespace);
            }
        }
        touched.extend(self.graph.remove(uid));
        touched
    }

    /// The object of a group, kind and name.
    pub(crate) fn named(&self, group: &str, kind: &str, key: &Key) -> Option<&Item> {
        let uid = self.uids.get(&(already_interned(group)?, already_interned(kind)?, key.clone()))?;
        self.graph.get(uid)
    }

    /// Keys of all objects of a kind.
    pub(crate) fn keys(&self, served: &Served) -> Vec<Key> {
        let of_kind = self.uids.keys().filter(|(group, kind, _)| *group == served.group && *kind == served.kind);
        of_kind.map(|(_, _, key)| key.clone()).collect()
    }

    /// Everything that is left in a namespace.
    pub(crate) fn left_in(&self, namespace: &str) -> Vec<Leftover> {
        let uids = self.by_namespace.get(namespace).into_iter().flatten();
        let leftover = |item: &Item| Leftover {
            target: item.target.clone(),
            is_deleting: item.meta.is_deleting(),
            finalizers: item.meta.finalizers.clone(),
        };
        uids.filter_map(|uid| self.graph.get(uid)).map(leftover).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Served = Served { group: "", version: "v1", kind: "Pod", plural: "pods", namespaced: true };

    fn meta(name: &str, uid: &str) -> ObjectMeta {
        ObjectMeta { name: name.into(), namespace: "x".into(), uid: uid.into(), ..Default::default() }
    }

    #[test]
    fn a_namespace_knows_what_is_left_in_it() {
        let mut all = Metadata::default();
        all.put(&PODS, &meta("a", "1"));
        all.put(&PODS, &meta("a", "2"));
        assert_eq!(all.left_in("x").len(), 1);
        assert_eq!(all.left_in("x")[0].target.uid, "2");
        all.end(&PODS, &Key::new("x", "a"), "1");
        assert_eq!(all.left_in("x").len(), 1, "the end of the one is not the end of the other");
        all.end(&PODS, &Key::new("x", "a"), "2");
        assert!(all.left_in("x").is_empty() && all.keys(&PODS).is_empty());
        all.put(&PODS, &meta("a", "2"));
        assert!(all.left_in("x").is_empty(), "an old answer does not bring it back");
    }

    #[test]
    fn an_owner_hears_of_those_that_leave_it() {
        let mut all = Metadata::default();
        let owned = |owners: &[&str], revision: &str| {
            let owner = |uid: &&str| isopod_types::OwnerReference { uid: (*uid).into(), ..Default::default() };
            let owner_references = owners.iter().map(owner).collect();
            ObjectMeta { owner_references, resource_version: revision.into(), ..meta("a", "1") }
        };
        let touched = |found: Vec<String>| found.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        assert_eq!(touched(all.put(&PODS, &owned(&["o"], "1"))), ["1", "o"]);
        assert_eq!(touched(all.put(&PODS, &owned(&["p"], "2"))), ["1", "o", "p"]);
        assert_eq!(touched(all.put(&PODS, &owned(&[], "3"))), ["1", "p"]);
    }

    #[test]
    fn objects_are_found_by_name_and_strange_kinds_are_not_kept() {
        let mut all = Metadata::default();
        let served = Served { group: interned("example.com"), kind: interned("Tab"), ..PODS };
        all.put(&served, &meta("a", "1"));
        let key = Key::new("x", "a");
        assert_eq!(all.named("example.com", "Tab", &key).map(|item| item.meta.uid.as_str()), Some("1"));
        assert!(all.named("example.com", "NobodysKind", &key).is_none());
        assert!(already_interned("NobodysKind").is_none());
    }
}
