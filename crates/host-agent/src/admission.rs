//! Which pods of this host's nodes are taken in, in the order in which they came, as the planner says. It keeps what each pod has of
//! its node, from what the API says and nothing else: actors may lag behind.

use std::collections::BTreeMap;

use isopod_planner::pod::admit::{Rejection, Share, admit};
use isopod_types::node::Node;
use isopod_types::pod::{Pod, ResourceList};

use crate::api::Api;

/// What pods have of nodes of many.
#[derive(Default)]
pub(crate) struct Admission {
    /// Nodes of many as they were last seen, by name.
    nodes: BTreeMap<String, Node>,
    /// Pods that were taken in and have not ended, by node and UID.
    shares: BTreeMap<String, BTreeMap<String, Share>>,
}

impl Admission {
    /// A node as it is now, with what this agent says pods may have of it.
    pub(crate) fn node(&mut self, node: &Node, allocatable: ResourceList) {
        let mut node = node.clone();
        node.status.allocatable.extend(allocatable);
        self.nodes.insert(node.metadata.name.clone(), node);
    }

    /// A node is gone, and its pods with it.
    pub(crate) fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
        self.shares.remove(name);
    }

    /// A pod that was taken in, as it is now.
    pub(crate) fn keep(&mut self, pod: &Pod) {
        let (node, uid) = (&pod.spec.node_name, &pod.metadata.uid);
        if pod.is_terminal() {
            return self.forget(node, uid);
        }
        if self.nodes.contains_key(node) {
            self.shares.entry(node.clone()).or_default().insert(uid.clone(), Share::of(pod));
        }
    }

    /// A pod that has an actor may have changed; one that was not taken in has nothing.
    pub(crate) fn change(&mut self, pod: &Pod) {
        if self.shares.get(&pod.spec.node_name).is_some_and(|pods| pods.contains_key(&pod.metadata.uid)) {
            self.keep(pod);
        }
    }

    /// A pod is gone.
    pub(crate) fn forget(&mut self, node: &str, uid: &str) {
        if let Some(pods) = self.shares.get_mut(node) {
            pods.remove(uid);
        }
    }

    /// These are all pods that there are.
    pub(crate) fn retain(&mut self, listed: impl Fn(&str) -> bool) {
        self.shares.values_mut().for_each(|pods| pods.retain(|uid, _| listed(uid)));
    }

    /// Takes a pod in, or says why not. What speaks against it may have changed on the node a moment ago: it is looked at anew then.
    pub(crate) async fn admit(&mut self, pod: &Pod, api: &Api) -> Option<Rejection> {
        let name = &pod.spec.node_name;
        let mut rejection = self.against(pod);
        if rejection.is_some()
            && let Ok(Some(node)) = api.find::<Node>(&format!("/api/v1/nodes/{name}")).await
        {
            let allocatable = self.nodes.get(name).map(|known| known.status.allocatable.clone()).unwrap_or_default();
            self.node(&node, allocatable);
            rejection = self.against(pod);
        }
        if rejection.is_none() {
            self.keep(pod);
        }
        rejection
    }

    fn against(&self, pod: &Pod) -> Option<Rejection> {
        let all = self.shares.get(&pod.spec.node_name).into_iter().flatten();
        let others = all.filter(|(uid, _)| **uid != pod.metadata.uid).map(|(_, share)| share);
        admit(pod, self.nodes.get(&pod.spec.node_name)?, others).err()
    }
}
