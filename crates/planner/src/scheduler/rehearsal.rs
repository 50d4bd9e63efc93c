//! What the scheduler would do if nodes or pods came or went: the same index and the same filters, on a copy. Nothing that
//! happens here is written anywhere.

use std::sync::Arc;

use isopod_types::node::Node;
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};

use super::filters::Cycle;
use super::index::{Index, Slot};
use super::info::PodInfo;
use super::messages::Why;
use super::resources::Resources;
use super::volumes::Storage;
use super::{Scheduler, scores};

/// A copy of what the scheduler knows, to try things out on.
#[derive(Clone, Debug)]
pub struct Rehearsal<'a> {
    index: Index,
    storage: Storage<'a>,
}

impl Scheduler {
    /// A copy to try things out on. Its cost is that of a copy of the index: a pointer for every pod.
    pub fn rehearsal<'a>(&self, storage: Storage<'a>) -> Rehearsal<'a> {
        Rehearsal { index: self.index.clone(), storage }
    }
}

impl Rehearsal<'_> {
    /// A node comes, or changes.
    pub fn put_node(&mut self, node: &Node) {
        self.index.put_node(node);
    }

    /// A node goes, and its pods with it.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.index.slot(name) else { return };
        let pods: Vec<Key> = self.index.node(slot).pods.keys().cloned().collect();
        pods.iter().for_each(|pod| self.index.remove_pod(pod));
        self.index.remove_node(name);
    }

    /// A pod comes to a node, whether it fits or not.
    pub fn put_pod(&mut self, pod: &Pod, node: &str) {
        self.index.put_pod(&Arc::new(PodInfo::of(pod)), node);
    }

    /// Puts a pod where the scheduler would put it among all nodes. Returns the node.
    pub fn place(&mut self, pod: &Pod) -> Option<String> {
        let info = self.taken_up(pod);
        let cycle = Cycle::new(&mut self.index, pod, &info, self.storage).ok()?;
        let survey = cycle.survey(&self.index);
        let slot = scores::best(&self.index, &cycle, &survey.feasible)?;
        Some(self.put(&info, slot))
    }

    /// Puts a pod on the first of these nodes that does. Returns the node.
    ///
    /// # Errors
    /// Why the last of them does not do, a phrase for each reason.
    pub fn place_first(&mut self, pod: &Pod, nodes: &[String]) -> Result<String, Vec<String>> {
        let info = self.taken_up(pod);
        let cycle = Cycle::new(&mut self.index, pod, &info, self.storage).map_err(|cause| vec![cause])?;
        let mut reasons = Vec::new();
        for slot in nodes.iter().filter_map(|node| self.index.slot(node)) {
            reasons = cycle.reasons(&self.index, slot);
            if reasons.is_empty() {
                return Ok(self.put(&info, slot));
            }
        }
        Err(reasons.iter().map(Why::to_string).collect())
    }

    /// What is asked for of a node, and what it has for pods.
    pub fn load(&self, node: &str) -> Option<(&Resources, &Resources)> {
        let node = self.index.node(self.index.slot(node)?);
        Some((&node.requested, &node.allocatable))
    }

    /// A pod as it is placed: from nowhere.
    fn taken_up(&mut self, pod: &Pod) -> Arc<PodInfo> {
        let key = pod.key();
        self.index.withdraw(&key);
        self.index.remove_pod(&key);
        Arc::new(PodInfo::of(pod))
    }

    fn put(&mut self, info: &Arc<PodInfo>, slot: Slot) -> String {
        let name = self.index.node(slot).meta.name.clone();
        self.index.put_pod(info, &name);
        name
    }
}
