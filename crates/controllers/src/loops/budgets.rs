//! PodDisruptionBudgets.

use std::collections::BTreeMap;

use isopod_planner::autoscaling::{Answers, scale_path};
use isopod_planner::disruption::{Scale, plan, stale_at, take_back};
use isopod_planner::{Plan, Write};
use isopod_types::pod::Pod;
use isopod_types::{Key, Object, ObjectMeta, OwnerReference};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Change, Changed};
use crate::queue::Work;

pub(super) const BUDGETS: Loop = Loop { name: "disruption-budget", touched, decide };

pub(super) const STALE: Loop = Loop { name: "stale-disruption", touched: touched_stale, decide: decide_stale };

fn touched_stale(_: &Cache, changed: &Changed) -> Vec<Key> {
    let Changed::Pod(change) = changed else { return Vec::new() };
    change.after.iter().filter(|pod| stale_at(pod).is_some()).map(Object::key).collect()
}

fn decide_stale(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    state.cache.pods.get(key).map(|pod| take_back(pod, now)).unwrap_or_default()
}

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::PodDisruptionBudget(change) => vec![change.key()],
        Changed::Pod(change) if matters(change) => change.sides().flat_map(|pod| selecting(cache, pod)).collect(),
        Changed::Deployment(change) => rescaled(cache, change, |one| one.spec.replicas),
        Changed::ReplicaSet(change) => rescaled(cache, change, |one| one.spec.replicas),
        Changed::StatefulSet(change) => rescaled(cache, change, |one| one.spec.replicas),
        Changed::ReplicationController(change) => rescaled(cache, change, |one| one.spec.replicas),
        _ => Vec::new(),
    }
}

/// Whether a budget sees a difference.
fn matters(change: &Change<Pod>) -> bool {
    let seen = |pod: &Pod| {
        let owner = pod.metadata.controller().map(|owner| owner.uid.clone());
        (pod.metadata.labels.clone(), pod.metadata.is_deleting(), pod.ready_since().is_some(), owner)
    };
    change.before.as_ref().map(seen) != change.after.as_ref().map(seen)
}

fn selecting(cache: &Cache, pod: &Pod) -> Vec<Key> {
    let all = cache.budgets.of_namespace(&pod.metadata.namespace);
    let selects = |selector: &isopod_types::workload::LabelSelector| selector.matches(&pod.metadata.labels);
    all.filter(|budget| budget.spec.selector.as_ref().is_some_and(selects)).map(Object::key).collect()
}

/// Budgets of a namespace in which somebody wants another number of pods now.
fn rescaled<K: Object>(cache: &Cache, change: &Change<K>, replicas: impl Fn(&K) -> i64) -> Vec<Key> {
    if change.before.as_ref().map(&replicas) == change.after.as_ref().map(&replicas) {
        return Vec::new();
    }
    cache.budgets.of_namespace(&change.key().namespace).map(Object::key).collect()
}

/// How many pods the controller of a pod wants, as far as the cache knows.
fn known_scale(cache: &Cache, namespace: &str, owner: &OwnerReference) -> Option<Scale> {
    let key = Key::new(namespace, &*owner.name);
    let scale = |meta: &ObjectMeta, replicas: i64| Scale { uid: meta.uid.clone(), replicas };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let set = cache.replica_sets.get(&key)?;
            let deployment = set.metadata.controller().filter(|owner| owner.kind == "Deployment");
            let deployment = deployment.and_then(|owner| cache.deployments.get(&Key::new(namespace, &*owner.name)));
            Some(deployment.map_or_else(
                || scale(&set.metadata, set.spec.replicas),
                |deployment| scale(&deployment.metadata, deployment.spec.replicas),
            ))
        }
        "ReplicationController" => {
            cache.replication_controllers.get(&key).map(|one| scale(&one.metadata, one.spec.replicas))
        }
        "StatefulSet" => cache.stateful_sets.get(&key).map(|one| scale(&one.metadata, one.spec.replicas)),
        _ => None,
    }
}

fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let work = Work { name: BUDGETS.name, key: key.clone() };
    let answers = state.answers.remove(&work).unwrap_or_default();
    let Some(budget) = state.cache.budgets.get(key) else { return Plan::nothing() };
    let select = |selector| state.labelled.select(&state.cache, &key.namespace, selector);
    let pods = budget.spec.selector.as_ref().map(select).unwrap_or_default();
    let (scales, questions) = scales(state, key, &pods, &answers);
    if questions.is_empty() {
        return plan(budget, &pods, &scales, now);
    }
    state.answers.insert(work, answers);
    Plan { writes: questions.into_iter().map(|path| Write::Read { path }).collect(), again_at: None }
}

/// Scales by the UID of the pods' controllers, and where to ask for those of kinds that are not watched.
fn scales(state: &State, key: &Key, pods: &[&Pod], answers: &Answers) -> (BTreeMap<String, Scale>, Vec<String>) {
    let owners: BTreeMap<&str, &OwnerReference> =
        pods.iter().filter_map(|pod| pod.metadata.controller()).map(|owner| (owner.uid.as_str(), owner)).collect();
    let (mut scales, mut questions) = (BTreeMap::new(), Vec::new());
    for (uid, owner) in owners {
        if let Some(scale) = known_scale(&state.cache, &key.namespace, owner) {
            scales.insert(uid.to_owned(), scale);
            continue;
        }
        let Some(path) = state.metadata.graph.get(uid).map(|item| scale_path(&item.target)) else { continue };
        match answers.get(&path) {
            None => questions.push(path),
            Some(Ok(found)) => {
                let replicas = found["spec"]["replicas"].as_i64().unwrap_or(0);
                scales.insert(uid.to_owned(), Scale { uid: uid.to_owned(), replicas });
            }
            Some(Err(_)) => {}
        }
    }
    (scales, questions)
}
