//! What placement depends on, kept up to date change by change: sums per node, counts of pods per place. It never looks at
//! all pods to answer for one, except once for a rule that was never asked about before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isopod_types::names::{COMPUTE_TYPE, COMPUTE_TYPE_FARGATE};
use isopod_types::node::{Node, Taint};
use isopod_types::{Key, ObjectMeta};

use super::info::{Labels, PodInfo, Selection, Term, Wish};
use super::ports::UsedPorts;
use super::resources::Resources;

/// Rules whose counts are kept; beyond it all are forgotten and counted anew when asked for.
const COUNTERS_MAX: usize = 1024;
/// Node labels whose places are kept.
const TOPOLOGIES_MAX: usize = 64;

/// A number that stands for a node while it has an object or pods.
pub type Slot = usize;

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Metadata of its object; the name alone while there is none.
    pub meta: ObjectMeta,
    /// Whether its object exists.
    pub exists: bool,
    /// What pods may have.
    pub allocatable: Resources,
    /// How many pods it may have.
    pub pods_max: i64,
    /// Sizes of its images by name.
    pub images: BTreeMap<String, i64>,
    /// Its pods.
    pub pods: BTreeMap<Key, Arc<PodInfo>>,
    /// The sum of what they ask for.
    pub requested: Resources,
    /// The sum of what they count with when nodes are compared.
    pub scored: (i64, i64),
    /// The node's ports that they hold.
    pub ports: UsedPorts,
    class: String,
}

impl NodeInfo {
    /// A pod comes, or goes when `sign` is -1.
    pub fn change(&mut self, pod: &Arc<PodInfo>, sign: i64) {
        self.requested.add(&pod.requested, sign);
        self.scored = (self.scored.0 + sign * pod.scored.0, self.scored.1 + sign * pod.scored.1);
        if sign > 0 {
            self.ports.add(&pod.ports);
            self.pods.insert(pod.key.clone(), pod.clone());
        } else {
            self.ports.remove(&pod.ports);
            self.pods.remove(&pod.key);
        }
    }
}

/// Nodes that treat all pods alike as far as taints go.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// Their taints.
    pub taints: Vec<Taint>,
    /// Whether new pods are kept away.
    pub unschedulable: bool,
    /// The nodes.
    pub slots: BTreeSet<Slot>,
}

/// The places that a node label makes: a number for each value.
#[derive(Clone, Debug, Default)]
struct Topology {
    key: String,
    values: BTreeMap<String, u32>,
    of_slot: Vec<Option<u32>>,
}

impl Topology {
    fn place(&mut self, slot: Slot, labels: Option<&Labels>) {
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, None);
        }
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.of_slot[slot] = labels
            .and_then(|labels| labels.get(&self.key))
            .map(|value| *self.values.entry(value.clone()).or_insert(next));
    }
}

/// How many pods that a rule is about are on each node.
#[derive(Clone, Debug)]
struct Counter {
    selections: Vec<Selection>,
    /// Ending pods do not count.
    living_only: bool,
    by_slot: Vec<u32>,
}

/// How many pods with one and the same rule about others are on each node.
#[derive(Clone, Debug)]
pub struct TermGroup {
    /// The rule.
    pub term: Term,
    /// Pods by node.
    pub by_slot: BTreeMap<Slot, u32>,
}

/// What placement depends on.
#[derive(Clone, Debug, Default)]
pub struct Index {
    nodes: Vec<NodeInfo>,
    by_name: BTreeMap<String, Slot>,
    free: Vec<Slot>,
    classes: BTreeMap<String, Class>,
    placed: BTreeMap<Key, Slot>,
    nominated: BTreeMap<Key, (Slot, Arc<PodInfo>)>,
    namespaces: BTreeMap<String, Labels>,
    topologies: Vec<Topology>,
    counters: BTreeMap<String, Counter>,
    terms: BTreeMap<String, TermGroup>,
    image_nodes: BTreeMap<String, usize>,
    claim_users: BTreeMap<Key, BTreeSet<Key>>,
    existing: usize,
}

fn class_name(node: &Node) -> String {
    let taints = node.spec.taints.iter().map(|taint| format!("{}={}:{};", taint.key, taint.value, taint.effect));
    format!("{}{}", if node.spec.unschedulable { "!" } else { "" }, taints.collect::<String>())
}

impl Index {
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.existing
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.existing == 0
    }

    /// Number of nodes that are not made for one pod each.
    pub fn workers(&self) -> usize {
        let own = |class: &&Class| {
            class.taints.iter().any(|taint| taint.key == COMPUTE_TYPE && taint.value == COMPUTE_TYPE_FARGATE)
        };
        self.existing - self.classes.values().filter(own).map(|class| class.slots.len()).sum::<usize>()
    }

    /// A node.
    pub fn node(&self, slot: Slot) -> &NodeInfo {
        &self.nodes[slot]
    }

    /// The number of a node that exists.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied().filter(|slot| self.nodes[*slot].exists)
    }

    /// Nodes that exist, by taints.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.values()
    }

    /// The class of a node.
    pub fn class(&self, slot: Slot) -> Option<&Class> {
        self.classes.get(&self.nodes[slot].class)
    }

    /// Labels of namespaces.
    pub fn namespaces(&self) -> &BTreeMap<String, Labels> {
        &self.namespaces
    }

    /// Rules of placed pods about others.
    pub fn terms(&self) -> impl Iterator<Item = &TermGroup> {
        self.terms.values()
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.image_nodes.get(name).copied().unwrap_or(0)
    }

    fn slot_for(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or(self.nodes.len());
        let meta = ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() };
        let info = NodeInfo { meta, ..NodeInfo::default() };
        if slot == self.nodes.len() {
            self.nodes.push(info)
        } else {
            self.nodes[slot] = info
        }
        self.by_name.insert(name.to_owned(), slot);
        slot
    }

    /// Gives a node's number back when nothing is left of it.
    fn release(&mut self, slot: Slot) {
        let node = &self.nodes[slot];
        if !node.exists && node.pods.is_empty() && !self.nominated.values().any(|(at, _)| *at == slot) {
            self.by_name.remove(&node.meta.name);
            self.free.push(slot);
        }
    }

    fn unclass(&mut self, slot: Slot) {
        let name = std::mem::take(&mut self.nodes[slot].class);
        if let Some(class) = self.classes.get_mut(&name) {
            class.slots.remove(&slot);
            if class.slots.is_empty() {
                self.classes.remove(&name);
            }
        }
    }

    fn count_images(&mut self, slot: Slot, comes: bool) {
        for name in self.nodes[slot].images.keys() {
            let count = self.image_nodes.entry(name.clone()).or_default();
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.image_nodes.remove(name);
            }
        }
    }

    /// A node came or changed.
    pub fn put_node(&mut self, node: &Node) {
        let slot = self.slot_for(&node.metadata.name);
        self.unclass(slot);
        self.count_images(slot, false);
        let class = class_name(node);
        let entry = self.classes.entry(class.clone()).or_insert_with(|| Class {
            taints: node.spec.taints.clone(),
            unschedulable: node.spec.unschedulable,
            slots: BTreeSet::new(),
        });
        entry.slots.insert(slot);
        self.existing += usize::from(!self.nodes[slot].exists);
        let info = &mut self.nodes[slot];
        (info.class, info.exists) = (class, true);
        info.meta = ObjectMeta {
            name: node.metadata.name.clone(),
            labels: node.metadata.labels.clone(),
            ..ObjectMeta::default()
        };
        info.allocatable = Resources::of(&node.status.allocatable);
        let pods = node.status.allocatable.get("pods").copied().unwrap_or_default();
        info.pods_max = i64::try_from(pods.units_ceil()).unwrap_or(i64::MAX);
        let images = node.status.images.iter();
        info.images =
            images.flat_map(|image| image.names.iter().map(|name| (name.clone(), image.size_bytes))).collect();
        self.count_images(slot, true);
        let labels = &self.nodes[slot].meta.labels;
        self.topologies.iter_mut().for_each(|topology| topology.place(slot, Some(labels)));
    }

    /// A node went; its pods stay until they go themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        self.unclass(slot);
        self.count_images(slot, false);
        self.nodes[slot].exists = false;
        self.nodes[slot].images.clear();
        self.existing -= 1;
        self.topologies.iter_mut().for_each(|topology| topology.place(slot, None));
        self.release(slot);
    }

    /// A pod is on a node, or is about to be.
    pub fn put_pod(&mut self, info: &Arc<PodInfo>, node: &str) {
        self.remove_pod(&info.key);
        let slot = self.slot_for(node);
        self.placed.insert(info.key.clone(), slot);
        for claim in info.claims.iter().map(|claim| Key::new(&*info.key.namespace, &**claim)) {
            self.claim_users.entry(claim).or_default().insert(info.key.clone());
        }
        self.nodes[slot].change(info, 1);
        self.count(info, slot, true);
    }

    /// A pod is on no node any more.
    pub fn remove_pod(&mut self, key: &Key) {
        let Some(slot) = self.placed.remove(key) else { return };
        if let Some(info) = self.nodes[slot].pods.get(key).cloned() {
            self.nodes[slot].change(&info, -1);
            self.count(&info, slot, false);
            info.claims.iter().for_each(|claim| self.forget_user(&Key::new(&*key.namespace, &**claim), key));
        }
        self.release(slot);
    }

    fn forget_user(&mut self, claim: &Key, pod: &Key) {
        if let Some(users) = self.claim_users.get_mut(claim) {
            users.remove(pod);
            if users.is_empty() {
                self.claim_users.remove(claim);
            }
        }
    }

    /// The placed pods that use a claim.
    pub fn users(&self, claim: &Key) -> impl Iterator<Item = &Key> {
        self.claim_users.get(claim).into_iter().flatten()
    }

    /// The state of a pod that is on a node.
    pub fn placed(&self, key: &Key) -> Option<(&str, &Arc<PodInfo>)> {
        let node = &self.nodes[*self.placed.get(key)?];
        Some((node.meta.name.as_str(), node.pods.get(key)?))
    }

    fn count(&mut self, info: &Arc<PodInfo>, slot: Slot, comes: bool) {
        for counter in self.counters.values_mut() {
            if counted(counter, info, &self.namespaces) {
                adjust(&mut counter.by_slot, slot, comes);
            }
        }
        for term in &info.terms {
            let name = format!("{term:?}");
            let group = || TermGroup { term: term.clone(), by_slot: BTreeMap::new() };
            let group = self.terms.entry(name.clone()).or_insert_with(group);
            let count = group.by_slot.entry(slot).or_default();
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                group.by_slot.remove(&slot);
            }
            if group.by_slot.is_empty() {
                self.terms.remove(&name);
            }
        }
    }

    /// Room is being made for a pod on a node.
    pub fn nominate(&mut self, info: &Arc<PodInfo>, node: &str) {
        self.withdraw(&info.key);
        let slot = self.slot_for(node);
        self.nominated.insert(info.key.clone(), (slot, info.clone()));
    }

    /// No room is being made for a pod any more.
    pub fn withdraw(&mut self, key: &Key) {
        if let Some((slot, _)) = self.nominated.remove(key) {
            self.release(slot);
        }
    }

    /// The node on which room is made for a pod.
    pub fn nomination(&self, key: &Key) -> Option<Slot> {
        self.nominated.get(key).map(|(slot, _)| *slot)
    }

    /// Pods for which room is made on a node.
    pub fn nominated_on(&self, slot: Slot) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.values().filter(move |(at, _)| *at == slot).map(|(_, info)| info)
    }

    /// Whether room is made for any pod anywhere.
    pub fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// A namespace came, changed or went.
    pub fn put_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        let before = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        if before.as_ref() != labels {
            self.counters.retain(|_, counter| !counter.selections.iter().any(Selection::reads_namespaces));
        }
    }

    /// Forgets what was kept for rules that may not be asked about again, when it is much.
    pub fn trim(&mut self) {
        if self.counters.len() > COUNTERS_MAX {
            self.counters.clear();
        }
        if self.topologies.len() > TOPOLOGIES_MAX {
            self.topologies.clear();
        }
    }

    /// The number of a topology; valid until the next `trim`.
    pub fn topology(&mut self, key: &str) -> usize {
        if let Some(found) = self.topologies.iter().position(|topology| topology.key == key) {
            return found;
        }
        let mut topology = Topology { key: key.to_owned(), ..Topology::default() };
        for (slot, node) in self.nodes.iter().enumerate() {
            topology.place(slot, node.exists.then_some(&node.meta.labels));
        }
        self.topologies.push(topology);
        self.topologies.len() - 1
    }

    /// Whether a topology is that of a node label.
    pub fn is_topology(&self, topology: usize, key: &str) -> bool {
        self.topologies[topology].key == key
    }

    /// The place of a node in a topology.
    pub fn place(&self, topology: usize, slot: Slot) -> Option<u32> {
        self.topologies[topology].of_slot.get(slot).copied().flatten()
    }

    /// Number of places of a topology that ever were.
    pub fn places(&self, topology: usize) -> usize {
        self.topologies[topology].values.len()
    }

    /// How many pods that all of these rules are about are on each node.
    pub fn counts(&mut self, selections: &[Selection], living_only: bool) -> &[u32] {
        let name = format!("{living_only} {selections:?}");
        if !self.counters.contains_key(&name) {
            let mut counter = Counter { selections: selections.to_vec(), living_only, by_slot: Vec::new() };
            for (slot, node) in self.nodes.iter().enumerate() {
                let matching = node.pods.values().filter(|info| counted(&counter, info, &self.namespaces)).count();
                if matching > 0 {
                    counter.by_slot.resize(slot + 1, 0);
                    counter.by_slot[slot] = u32::try_from(matching).unwrap_or(u32::MAX);
                }
            }
            self.counters.insert(name.clone(), counter);
        }
        self.counters.get(&name).map_or(&[], |counter| &counter.by_slot)
    }
}

fn counted(counter: &Counter, info: &PodInfo, namespaces: &BTreeMap<String, Labels>) -> bool {
    !(counter.living_only && info.is_deleting) && counter.selections.iter().all(|one| one.holds(info, namespaces))
}

fn adjust(counts: &mut Vec<u32>, slot: Slot, comes: bool) {
    if counts.len() <= slot {
        counts.resize(slot + 1, 0);
    }
    counts[slot] = if comes { counts[slot] + 1 } else { counts[slot].saturating_sub(1) };
}

/// Whether a rule of placed pods keeps others away.
pub fn keeps_away(group: &TermGroup) -> bool {
    group.term.wish == Wish::MustBeAway
}
