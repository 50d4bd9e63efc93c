//! Deployments, ReplicaSets and ReplicationControllers.

use isopod_planner::replicaset::{Around, Keeper};
use isopod_planner::{Plan, deployment, replicaset};
use isopod_types::pod::Pod;
use isopod_types::workload::ReplicaSet;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::members::{candidates, owners};
use super::{Loop, State};
use crate::cache::{Cache, Changed};
use crate::queue::Work;

pub(super) const DEPLOYMENTS: Loop =
    Loop { name: "deployment", touched: touched_deployments, decide: decide_deployment };
pub(super) const REPLICA_SETS: Loop = Loop { name: SETS, touched: touched_sets, decide: decide_set };
pub(super) const REPLICATION_CONTROLLERS: Loop =
    Loop { name: CONTROLLERS, touched: touched_controllers, decide: decide_controller };

const SETS: &str = "replicaset";
const CONTROLLERS: &str = "replicationcontroller";

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
    owners(&cache.deployments, set, |deployment| &deployment.spec.selector)
}

fn touched_sets(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::ReplicaSet(change) => vec![change.key()],
        Changed::Pod(change) => {
            change.sides().flat_map(|pod| owners(&cache.replica_sets, pod, |set| &set.spec.selector)).collect()
        }
        _ => Vec::new(),
    }
}

fn touched_controllers(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::ReplicationController(change) => vec![change.key()],
        Changed::Pod(change) => change
            .sides()
            .flat_map(|pod| owners(&cache.replication_controllers, pod, |one| &one.spec.selector))
            .collect(),
        _ => Vec::new(),
    }
}

fn decide_deployment(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(deployment) = cache.deployments.get(key) else { return Plan::nothing() };
    let owned = cache.replica_sets.owned_by(&deployment.metadata.uid);
    let mut sets: Vec<&ReplicaSet> = owned.chain(cache.replica_sets.orphans(&key.namespace)).collect();
    // A stranger's set may have the name that the next one would get.
    let next = cache.replica_sets.get(&Key::new(&*key.namespace, deployment::new_set_name(deployment)));
    if let Some(next) = next.filter(|next| sets.iter().all(|set| set.metadata.uid != next.metadata.uid)) {
        sets.push(next);
    }
    let pods: Vec<&Pod> = sets.iter().flat_map(|set| cache.pods.owned_by(&set.metadata.uid)).collect();
    deployment::plan(deployment, &sets, &pods, now)
}

fn decide_set(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let Some(set) = state.cache.replica_sets.get(key) else { return Plan::nothing() };
    let owner = set.metadata.controller();
    let sets = owner.into_iter().flat_map(|owner| state.cache.replica_sets.owned_by(&owner.uid));
    decide_keeper(state, set, SETS, sets.map(|set| set.metadata.uid.as_str()), now)
}

fn decide_controller(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let Some(controller) = state.cache.replication_controllers.get(key) else { return Plan::nothing() };
    decide_keeper(state, controller, CONTROLLERS, [controller.metadata.uid.as_str()].into_iter(), now)
}

fn decide_keeper<'a, K: Keeper>(
    state: &'a State,
    set: &'a K,
    name: &'static str,
    sets: impl Iterator<Item = &'a str>,
    now: Timestamp,
) -> Plan {
    let pods = candidates(&state.cache.pods, set.meta());
    // Siblings matter only where there is a choice of what to delete.
    let is_too_many = i64::try_from(pods.len()).is_ok_and(|found| found > set.spec().replicas);
    let siblings: Vec<&Pod> =
        if is_too_many { sets.flat_map(|uid| state.cache.pods.owned_by(uid)).collect() } else { Vec::new() };
    let refusal = state.refusals.get(&Work { name, key: set.key() }).map(String::as_str);
    replicaset::plan(set, Around { pods: &pods, siblings: &siblings, refusal, now })
}
