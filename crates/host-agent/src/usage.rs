//! What nodes and their containers use: asked of their guests when somebody wants to know.

use std::collections::BTreeMap;

use isopod_guest_api as api;

use crate::actor::Face;
use crate::agent::HostAgent;
use crate::convert::container_id;
use crate::lodging::shared_id;
use crate::streams::StreamError;

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its name.
    pub container: String,
    /// What its guest says.
    pub stats: api::ContainerStats,
}

/// A node and its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// What its guest says.
    pub machine: api::StatsResponse,
    /// The running containers of its pods.
    pub containers: Vec<ContainerStats>,
}

impl HostAgent {
    /// What a node of this host uses.
    ///
    /// # Errors
    /// [`StreamError`] when none of its pods runs here, or its guest does not answer.
    pub async fn usage(&self, node: &str) -> Result<NodeStats, StreamError> {
        let faces = self.context.of_node(node);
        let none = || StreamError::Refused(format!("no machine of node {node:?} runs on this host"));
        let stats = match self.context.worker(node) {
            Some(worker) => worker.machine().ok_or_else(none)?.stats().await?,
            None => faces.iter().find_map(|face| face.machine.clone()).ok_or_else(none)?.stats().await?,
        };
        let by_id: BTreeMap<&str, &api::ContainerStats> =
            stats.containers.iter().map(|container| (container.id.as_str(), container)).collect();
        let containers = faces.iter().flat_map(|face| named(face, &by_id)).collect();
        Ok(NodeStats { containers, machine: stats })
    }
}

/// The running containers of a pod, by the ids they have in their guest.
fn named(face: &Face, by_id: &BTreeMap<&str, &api::ContainerStats>) -> Vec<ContainerStats> {
    let meta = &face.pod.metadata;
    let running = face.runs.iter().filter(|(_, (_, is_running))| *is_running);
    let found = running.filter_map(|(name, (starts, _))| {
        let id = container_id(name, starts.saturating_sub(1));
        let stats = by_id.get(id.as_str()).or_else(|| by_id.get(shared_id(&meta.uid, &id).as_str()))?;
        Some(ContainerStats {
            namespace: meta.namespace.clone(),
            pod: meta.name.clone(),
            container: name.clone(),
            stats: (*stats).clone(),
        })
    });
    found.collect()
}
