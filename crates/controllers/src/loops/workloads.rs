//! Deployments and ReplicaSets.

use isopod_planner::{Plan, deployment, replicaset};
use isopod_types::pod::Pod;
use isopod_types::workload::{Deployment, ReplicaSet};
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Change, Changed};

pub(super) const DEPLOYMENTS: Loop =
    Loop { name: "deployment", touched: touched_deployments, decide: decide_deployment };
pub(super) const REPLICA_SETS: Loop = Loop { name: "replicaset", touched: touched_sets, decide: decide_set };

fn touched_deployments(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Deployment(change) => vec![change.key()],
        Changed::ReplicaSet(change) => change.sides().flat_map(|set| deployments_of(cache, set)).collect(),
        // A rollout that recreates waits for the old pods to be gone.
        Changed::Pod(change) if change.after.is_none() => {
            let pods = change.sides();
            pods.flat_map(|pod| set_of(cache, pod)).flat_map(|set| deployments_of(cache, set)).collect()
        }
        _ => Vec::new(),
    }
}

/// The set that controls a pod.
fn set_of<'a>(cache: &'a Cache, pod: &Pod) -> Option<&'a ReplicaSet> {
    let owner = pod.metadata.controller().filter(|owner| owner.kind == ReplicaSet::KIND)?;
    cache.replica_sets.get(&Key::new(&*pod.metadata.namespace, &*owner.name))
}

/// The deployment that controls a set, or those that may adopt it.
fn deployments_of(cache: &Cache, set: &ReplicaSet) -> Vec<Key> {
    if let Some(owner) = set.metadata.controller() {
        let ours = owner.kind == Deployment::KIND;
        return ours.then(|| Key::new(&*set.metadata.namespace, &*owner.name)).into_iter().collect();
    }
    let all = cache.deployments.of_namespace(&set.metadata.namespace);
    all.filter(|deployment| deployment.spec.selector.matches(&set.metadata.labels)).map(Object::key).collect()
}

fn touched_sets(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::ReplicaSet(change) => vec![change.key()],
        Changed::Pod(change) => sets_of_pod(cache, change),
        _ => Vec::new(),
    }
}

fn sets_of_pod(cache: &Cache, change: &Change<Pod>) -> Vec<Key> {
    let keys = change.sides().flat_map(|pod| match pod.metadata.controller() {
        Some(owner) if owner.kind == ReplicaSet::KIND => vec![Key::new(&*pod.metadata.namespace, &*owner.name)],
        Some(_) => Vec::new(),
        None => sets_selecting(cache, pod),
    });
    keys.collect()
}

fn sets_selecting(cache: &Cache, pod: &Pod) -> Vec<Key> {
    let sets = cache.replica_sets.of_namespace(&pod.metadata.namespace);
    sets.filter(|set| set.spec.selector.matches(&pod.metadata.labels)).map(Object::key).collect()
}

fn decide_deployment(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(deployment) = cache.deployments.get(key) else { return Plan::nothing() };
    let owned = cache.replica_sets.owned_by(&deployment.metadata.uid);
    let sets: Vec<&ReplicaSet> = owned.chain(cache.replica_sets.orphans(&key.namespace)).collect();
    let pods: Vec<&Pod> = sets.iter().flat_map(|set| cache.pods.owned_by(&set.metadata.uid)).collect();
    deployment::plan(deployment, &sets, &pods, now)
}

fn decide_set(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(set) = cache.replica_sets.get(key) else { return Plan::nothing() };
    let owned = cache.pods.owned_by(&set.metadata.uid);
    let pods: Vec<&Pod> = owned.chain(cache.pods.orphans(&key.namespace)).collect();
    replicaset::plan(set, &pods, now)
}
