//! StatefulSets.

use isopod_planner::Plan;
use isopod_planner::statefulset::{World, owns_claim, plan, revision_name};
use isopod_types::storage::PersistentVolumeClaim;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::members::{candidates, owners, revisions};
use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const STATEFUL_SETS: Loop = Loop { name: "statefulset", touched, decide };

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::StatefulSet(change) => vec![change.key()],
        Changed::Pod(change) => {
            change.sides().flat_map(|pod| owners(&cache.stateful_sets, pod, |set| &set.spec.selector)).collect()
        }
        Changed::ControllerRevision(change) => {
            change.sides().flat_map(|one| owners(&cache.stateful_sets, one, |set| &set.spec.selector)).collect()
        }
        Changed::PersistentVolumeClaim(change) => sets_of_claim(cache, &change.key()),
        _ => Vec::new(),
    }
}

fn sets_of_claim(cache: &Cache, claim: &Key) -> Vec<Key> {
    let sets = cache.stateful_sets.of_namespace(&claim.namespace);
    sets.filter(|set| owns_claim(set, &claim.name)).map(Object::key).collect()
}

fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(set) = cache.stateful_sets.get(key) else { return Plan::nothing() };
    let pods = candidates(&cache.pods, &set.metadata);
    let revisions = revisions(cache, &set.metadata, revision_name(set));
    let claims: Vec<&PersistentVolumeClaim> = if set.spec.volume_claim_templates.is_empty() {
        Vec::new()
    } else {
        cache.claims.of_namespace(&key.namespace).filter(|claim| owns_claim(set, &claim.metadata.name)).collect()
    };
    plan(World { set, pods: &pods, revisions: &revisions, claims: &claims, now })
}
