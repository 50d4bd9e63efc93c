//! Claims and volumes: binding, making, protection, and the claims of ephemeral volumes.

use std::collections::BTreeMap;

use isopod_planner::persistent_volumes::claims::{self, Users, World};
use isopod_planner::persistent_volumes::{ephemeral, provisioning, volumes};
use isopod_planner::scheduler::claims_of;
use isopod_planner::{Plan, Write};
use isopod_types::pod::Pod;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim};
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const CLAIMS: Loop = Loop { name: "persistent-volume-claim", touched: touched_claims, decide: decide_claim };
pub(super) const VOLUMES: Loop = Loop { name: "persistent-volume", touched: touched_volumes, decide: decide_volume };
pub(super) const EPHEMERAL: Loop = Loop { name: "ephemeral-volume", touched: touched_pods, decide: decide_ephemeral };

/// What was said last about each claim: a claim that waits is looked at often, but says why only once.
pub(crate) type Said = BTreeMap<Key, String>;

fn pending(cache: &Cache) -> Vec<Key> {
    cache.claims.all().filter(|claim| claim.status.phase == "Pending").map(Object::key).collect()
}

fn touched_claims(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::PersistentVolumeClaim(change) => vec![change.key()],
        Changed::PersistentVolume(change) => {
            let owners = change.sides().filter_map(|volume| volume.spec.claim_ref.as_ref());
            let mut keys: Vec<Key> = owners.map(|owner| Key::new(&*owner.namespace, &*owner.name)).collect();
            if change.after.as_ref().is_some_and(|volume| volume.status.phase == "Available") {
                keys.extend(pending(cache));
            }
            keys
        }
        Changed::StorageClass(_) | Changed::Host(_) => pending(cache),
        Changed::Pod(change) => change.sides().flat_map(claim_keys).collect(),
        _ => Vec::new(),
    }
}

fn claim_keys(pod: &Pod) -> Vec<Key> {
    claims_of(pod).into_iter().map(|name| Key::new(&*pod.metadata.namespace, name)).collect()
}

fn touched_volumes(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::PersistentVolume(change) => vec![change.key()],
        Changed::PersistentVolumeClaim(change) => change.sides().flat_map(claims::volume_keys).collect(),
        Changed::Host(change) => {
            let host = change.key().name;
            let on_host = |volume: &&PersistentVolume| provisioning::host_of(volume) == Some(&*host);
            cache.volumes.all().filter(on_host).map(Object::key).collect()
        }
        _ => Vec::new(),
    }
}

fn touched_pods(_: &Cache, changed: &Changed) -> Vec<Key> {
    let has_some = |pod: &&Pod| pod.spec.volumes.iter().any(|volume| volume.other.contains_key("ephemeral"));
    match changed {
        Changed::Pod(change) => change.after.iter().filter(has_some).map(Object::key).collect(),
        Changed::PersistentVolumeClaim(change) if change.after.is_none() => {
            let owners = change.sides().filter_map(|claim| Some((claim, claim.metadata.controller()?)));
            let pods = owners.filter(|(_, owner)| owner.kind == Pod::KIND);
            pods.map(|(claim, owner)| Key::new(&*claim.metadata.namespace, &*owner.name)).collect()
        }
        _ => Vec::new(),
    }
}

/// A pod without a node that names a claim.
fn waiting_user<'a>(cache: &'a Cache, claim: &'a PersistentVolumeClaim) -> Option<&'a str> {
    let mut waiting = cache.pods.of_namespace(&claim.metadata.namespace).filter(|pod| {
        pod.spec.node_name.is_empty() && pod.is_active() && claims_of(pod).contains(&claim.metadata.name)
    });
    waiting.next().map(|pod| pod.metadata.name.as_str())
}

fn decide_claim(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(claim) = cache.claims.get(key) else {
        state.said.remove(key);
        return Plan::nothing();
    };
    let waiting = (claim.status.phase == "Pending").then(|| waiting_user(cache, claim)).flatten();
    let users = Users { in_use: state.scheduling.uses(key), waiting };
    let world = World {
        volumes: cache.volumes.map(),
        classes: cache.classes.map(),
        nodes: cache.nodes.map(),
        hosts: cache.hosts.map(),
    };
    let mut plan = claims::plan(claim, users, world, now);
    say_once(&mut state.said, key, &mut plan);
    plan
}

fn say_once(said: &mut Said, key: &Key, plan: &mut Plan) {
    plan.writes.retain(|write| match write {
        Write::Event { reason, .. } => {
            said.insert(key.clone(), reason.message.clone()).as_ref() != Some(&reason.message)
        }
        _ => true,
    });
}

fn decide_volume(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(volume) = cache.volumes.get(key) else { return Plan::nothing() };
    let reference = volume.spec.claim_ref.as_ref();
    let claim = reference.and_then(|claim| cache.claims.get(&Key::new(&*claim.namespace, &*claim.name)));
    volumes::plan(volume, claim, &|host| cache.hosts.get(&Key::cluster(host)).is_some(), now)
}

fn decide_ephemeral(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(pod) = cache.pods.get(key) else { return Plan::nothing() };
    ephemeral::plan(pod, &|claim| cache.claims.get(claim).is_some())
}
