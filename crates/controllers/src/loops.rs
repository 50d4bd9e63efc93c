//! The loops: which keys a change touches, and which planner function decides about a key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use isopod_planner::fargate::{self, Unplaced, World};
use isopod_planner::profiles::explain_no_match;
use isopod_planner::{Plan, Target, deployment, garbage, namespaces, replicaset};
use isopod_types::names::{
    COMPUTE_TYPE, COMPUTE_TYPE_FARGATE, DEFAULT_SCHEDULER, HOST_LABEL, NODE_POD_ANNOTATION, ROOT_CA_CONFIG_MAP,
};
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use isopod_types::workload::ReplicaSet;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use crate::cache::{Cache, Change, Changed};
use crate::graph::Metadata;
use crate::queue::Work;

pub(crate) const DEPLOYMENT: &str = "deployment";
pub(crate) const REPLICA_SET: &str = "replicaset";
pub(crate) const NAMESPACE: &str = "namespace";
pub(crate) const NAMESPACE_END: &str = "namespace-end";
pub(crate) const GARBAGE: &str = "garbage";
pub(crate) const SCHEDULE: &str = "fargate-scheduler";
pub(crate) const UNMATCHED: &str = "unmatched-pod";
pub(crate) const NODE: &str = "fargate-node";

/// Everything decisions are made from.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) metadata: Metadata,
    /// The cluster's CA, PEM.
    pub(crate) ca_pem: String,
    /// The address given last, per subnet.
    pub(crate) cursors: BTreeMap<String, Ipv4Addr>,
}

fn work(name: &'static str, key: Key) -> Work {
    Work { name, key }
}

/// Work on an object of the garbage graph; the UID stands for the key.
pub(crate) fn garbage_work(uid: String) -> Work {
    work(GARBAGE, Key::cluster(uid))
}

/// The work that a change of an object calls for.
pub(crate) fn touched(state: &State, changed: &Changed) -> BTreeSet<Work> {
    let cache = &state.cache;
    match changed {
        Changed::Pod(change) => touched_by_pod(cache, change),
        Changed::ReplicaSet(change) => touched_by_set(cache, change),
        Changed::Deployment(change) => [work(DEPLOYMENT, change.key())].into(),
        Changed::Namespace(change) => [work(NAMESPACE, change.key()), work(NAMESPACE_END, change.key())].into(),
        Changed::ServiceAccount(change) => [work(NAMESPACE, Key::cluster(change.key().namespace))].into(),
        Changed::ConfigMap(change) => [work(NAMESPACE, Key::cluster(change.key().namespace))].into(),
        Changed::Node(change) => {
            let mut found = if change.after.is_none() { waiting(cache) } else { BTreeSet::new() };
            found.insert(work(NODE, change.key()));
            found
        }
        Changed::Host(change) => {
            let key = change.key();
            let on_host = cache.nodes.all().filter(|node| node.metadata.labels.get(HOST_LABEL) == Some(&key.name));
            waiting(cache).into_iter().chain(on_host.map(|node| work(NODE, node.key()))).collect()
        }
        Changed::FargateProfile(change) => waiting_after(cache, "Fargate profile", &change.key()),
        Changed::Cluster(change) => waiting_after(cache, "cluster", &change.key()),
    }
}

fn waiting_after(cache: &Cache, what: &str, key: &Key) -> BTreeSet<Work> {
    tracing::debug!(what, %key, "changed: waiting pods are looked at anew");
    waiting(cache)
}

fn waiting(cache: &Cache) -> BTreeSet<Work> {
    cache.pods.all().flat_map(pod_scheduling).collect()
}

/// Which scheduler is to look at a pod.
fn pod_scheduling(pod: &Pod) -> Option<Work> {
    if fargate::is_waiting(pod) {
        return Some(work(SCHEDULE, pod.key()));
    }
    is_unmatched(pod).then(|| work(UNMATCHED, pod.key()))
}

fn is_unmatched(pod: &Pod) -> bool {
    pod.spec.scheduler_name == DEFAULT_SCHEDULER && pod.spec.node_name.is_empty() && pod.is_active()
}

fn touched_by_pod(cache: &Cache, change: &Change<Pod>) -> BTreeSet<Work> {
    let mut found: BTreeSet<Work> = change.after.iter().flat_map(pod_scheduling).collect();
    for pod in change.sides() {
        match pod.metadata.controller() {
            Some(owner) if owner.kind == ReplicaSet::KIND => {
                let key = Key::new(&*pod.metadata.namespace, &*owner.name);
                let set = cache.replica_sets.get(&key).and_then(|set| set.metadata.controller());
                if let Some(deployment) = set.filter(|_| change.after.is_none()) {
                    found.insert(work(DEPLOYMENT, Key::new(&*pod.metadata.namespace, &*deployment.name)));
                }
                found.insert(work(REPLICA_SET, key));
            }
            Some(_) => {}
            None => found.extend(sets_selecting(cache, pod)),
        }
        if !pod.spec.node_name.is_empty() {
            found.insert(work(NODE, Key::cluster(&*pod.spec.node_name)));
        }
    }
    found
}

fn sets_selecting(cache: &Cache, pod: &Pod) -> Vec<Work> {
    let sets = cache.replica_sets.of_namespace(&pod.metadata.namespace);
    let selecting = sets.filter(|set| set.spec.selector.matches(&pod.metadata.labels));
    selecting.map(|set| work(REPLICA_SET, set.key())).collect()
}

fn touched_by_set(cache: &Cache, change: &Change<ReplicaSet>) -> BTreeSet<Work> {
    let mut found = BTreeSet::from([work(REPLICA_SET, change.key())]);
    for set in change.sides() {
        match set.metadata.controller() {
            Some(owner) => {
                found.insert(work(DEPLOYMENT, Key::new(&*set.metadata.namespace, &*owner.name)));
            }
            None => {
                let all = cache.deployments.of_namespace(&set.metadata.namespace);
                let selecting = all.filter(|deployment| deployment.spec.selector.matches(&set.metadata.labels));
                found.extend(selecting.map(|deployment| work(DEPLOYMENT, deployment.key())));
            }
        }
    }
    found
}

/// Decides about one piece of work.
pub(crate) fn decide(state: &mut State, work: &Work, now: Timestamp) -> Plan {
    let cache = &state.cache;
    match work.name {
        DEPLOYMENT => decide_deployment(cache, &work.key, now),
        REPLICA_SET => decide_replica_set(cache, &work.key, now),
        NAMESPACE => decide_namespace(cache, &work.key, &state.ca_pem),
        NAMESPACE_END => {
            let namespace = cache.namespaces.get(&work.key);
            let left = || state.metadata.left_in(&work.key.name);
            namespace.filter(|n| n.metadata.is_deleting()).map(|n| namespaces::finish(n, &left())).unwrap_or_default()
        }
        GARBAGE => garbage::plan(&state.metadata.graph, &work.key.name),
        SCHEDULE => schedule(state, &work.key, now),
        UNMATCHED => decide_unmatched(cache, &work.key, now),
        NODE => decide_node(cache, &work.key),
        _ => Plan::nothing(),
    }
}

fn decide_deployment(cache: &Cache, key: &Key, now: Timestamp) -> Plan {
    let Some(deployment) = cache.deployments.get(key) else { return Plan::nothing() };
    let owned = cache.replica_sets.owned_by(&deployment.metadata.uid);
    let sets: Vec<&ReplicaSet> = owned.chain(cache.replica_sets.orphans(&key.namespace)).collect();
    let pods: Vec<&Pod> = sets.iter().flat_map(|set| cache.pods.owned_by(&set.metadata.uid)).collect();
    deployment::plan(deployment, &sets, &pods, now)
}

fn decide_replica_set(cache: &Cache, key: &Key, now: Timestamp) -> Plan {
    let Some(set) = cache.replica_sets.get(key) else { return Plan::nothing() };
    let owned = cache.pods.owned_by(&set.metadata.uid);
    let pods: Vec<&Pod> = owned.chain(cache.pods.orphans(&key.namespace)).collect();
    replicaset::plan(set, &pods, now)
}

fn decide_namespace(cache: &Cache, key: &Key, ca_pem: &str) -> Plan {
    let Some(namespace) = cache.namespaces.get(key) else { return Plan::nothing() };
    let account = cache.service_accounts.get(&Key::new(&*key.name, "default"));
    let root_ca = cache.config_maps.get(&Key::new(&*key.name, ROOT_CA_CONFIG_MAP));
    namespaces::furnish(namespace, account, root_ca, ca_pem)
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
    for write in &plan.writes {
        if let isopod_planner::Write::Create { target, object, .. } = write
            && target.kind == Node::KIND
        {
            state.cache.put(Node::KIND, object);
        }
    }
    plan
}

/// Says why a pod that no profile matched is not running; only while the cluster has no worker nodes.
fn decide_unmatched(cache: &Cache, key: &Key, now: Timestamp) -> Plan {
    let Some(pod) = cache.pods.get(key).filter(|pod| is_unmatched(pod)) else { return Plan::nothing() };
    let is_worker =
        |node: &Node| node.metadata.labels.get(COMPUTE_TYPE).map(String::as_str) != Some(COMPUTE_TYPE_FARGATE);
    if cache.nodes.all().any(is_worker) {
        return Plan::nothing();
    }
    let profiles: Vec<_> = cache.profiles.all().cloned().collect();
    let cause = explain_no_match(&profiles, &pod.metadata.namespace, &pod.metadata.labels);
    let message = format!("no nodes available to schedule pods: {cause}, and the cluster has no worker nodes");
    fargate::unplaced_plan(pod, &Unplaced { reason: "Unschedulable", message }, DEFAULT_SCHEDULER, now)
}

fn decide_node(cache: &Cache, key: &Key) -> Plan {
    let Some(node) = cache.nodes.get(key) else { return Plan::nothing() };
    let pod = node.metadata.annotations.get(NODE_POD_ANNOTATION).and_then(|text| text.split_once('/'));
    let pod = pod.and_then(|(namespace, name)| cache.pods.get(&Key::new(namespace, name)));
    let host = node.metadata.labels.get(HOST_LABEL).map(|name| Key::cluster(&**name));
    let host_exists = host.is_some_and(|host| cache.hosts.get(&host).is_some());
    // A node that only stands in the cache for a write under way has no UID yet.
    if node.metadata.uid.is_empty() { Plan::nothing() } else { fargate::node_fate(node, pod, host_exists) }
}

/// The node that was put into the cache for a write that failed.
pub(crate) fn assumed_node(target: &Target) -> Option<&Key> {
    (target.kind == Node::KIND).then_some(&target.key)
}
