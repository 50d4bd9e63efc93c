//! Pods of Fargate profiles: a node for each, and its end.

use isopod_planner::Plan;
use isopod_planner::fargate::{self, World};
use isopod_types::names::{HOST_LABEL, NODE_POD_ANNOTATION};
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Change, Changed};

pub(super) const SCHEDULING: Loop = Loop { name: "fargate-scheduler", touched: waiting, decide: schedule };
pub(super) const NODES: Loop = Loop { name: "fargate-node", touched: touched_nodes, decide: decide_node };

/// The waiting pods: the one that changed, or all when room or rules changed.
fn waiting(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Pod(change) => change.after.iter().filter(|pod| fargate::is_waiting(pod)).map(Object::key).collect(),
        Changed::Node(Change { after: None, .. })
        | Changed::Host(_)
        | Changed::FargateProfile(_)
        | Changed::Cluster(_) => cache.pods.all().filter(|pod| fargate::is_waiting(pod)).map(Object::key).collect(),
        _ => Vec::new(),
    }
}

/// Places a pod, and puts its node into the cache at once so that the next pod sees it.
fn schedule(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(pod) = cache.pods.get(key).filter(|pod| fargate::is_waiting(pod)) else { return Plan::nothing() };
    let Some(cluster) = cache.clusters.all().next() else { return Plan::nothing() };
    let world = World {
        cluster: &cluster.spec,
        profiles: cache.profiles.all().collect(),
        hosts: cache.hosts.all().collect(),
        nodes: cache.nodes.all().collect(),
        cursors: &state.cursors,
    };
    let (plan, placement) = fargate::schedule(pod, &world, now);
    if let Some(placement) = placement {
        state.cursors.insert(placement.subnet, placement.address);
    }
    super::assume_nodes(&mut state.cache, &plan);
    plan
}

fn touched_nodes(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Node(change) => vec![change.key()],
        Changed::Pod(change) => {
            let bound = change.sides().filter(|pod| !pod.spec.node_name.is_empty());
            bound.map(|pod| Key::cluster(&*pod.spec.node_name)).collect()
        }
        Changed::Host(change) => {
            let host = change.key().name;
            let on_host = cache.nodes.all().filter(|node| node.metadata.labels.get(HOST_LABEL) == Some(&host));
            on_host.map(Object::key).collect()
        }
        _ => Vec::new(),
    }
}

fn decide_node(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let cache = &state.cache;
    // A node that only stands in the cache for a write under way has no UID yet.
    let Some(node) = cache.nodes.get(key).filter(|node| !node.metadata.uid.is_empty()) else { return Plan::nothing() };
    let pod = node.metadata.annotations.get(NODE_POD_ANNOTATION).and_then(|text| text.split_once('/'));
    let pod = pod.and_then(|(namespace, name)| cache.pods.get(&Key::new(namespace, name)));
    let host = node.metadata.labels.get(HOST_LABEL).map(|name| Key::cluster(&**name));
    let host_exists = host.is_some_and(|host| cache.hosts.get(&host).is_some());
    fargate::node_fate(node, pod, host_exists)
}
