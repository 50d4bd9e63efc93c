//! Node groups.

use isopod_planner::Plan;
use isopod_planner::nodegroups::{self, World};
use isopod_types::Key;
use isopod_types::names::{DRAINING_ANNOTATION, NODEGROUP_LABEL};
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const NODE_GROUPS: Loop = Loop { name: "nodegroup", touched, decide };

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::NodeGroup(change) => vec![change.key()],
        Changed::Node(change) => change.sides().filter_map(group_of).collect(),
        // What leaves a node that is to go may have been the last.
        Changed::Pod(change) => change.sides().filter_map(|pod| draining_group(cache, pod)).collect(),
        Changed::Host(_) | Changed::Cluster(_) => cache.node_groups.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn group_of(node: &Node) -> Option<Key> {
    node.metadata.labels.get(NODEGROUP_LABEL).map(|name| Key::cluster(&**name))
}

fn draining_group(cache: &Cache, pod: &Pod) -> Option<Key> {
    let node = cache.nodes.get(&Key::cluster(&*pod.spec.node_name))?;
    node.metadata.annotations.contains_key(DRAINING_ANNOTATION).then(|| group_of(node))?
}

/// Decides, and puts new nodes into the cache at once so that the next group does not take the same room.
fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(group) = cache.node_groups.get(key) else { return Plan::nothing() };
    let Some(cluster) = cache.clusters.all().next() else { return Plan::nothing() };
    let pods_on = |node: &str| -> Vec<&Pod> { state.placed.on(node).filter_map(|key| cache.pods.get(key)).collect() };
    let world = World {
        cluster: &cluster.spec,
        hosts: cache.hosts.all().collect(),
        nodes: cache.nodes.all().collect(),
        pods_on: &pods_on,
    };
    let plan = nodegroups::plan(group, &world, now);
    super::assume_nodes(&mut state.cache, &plan);
    plan
}
