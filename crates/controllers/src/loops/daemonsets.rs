//! DaemonSets.

use isopod_planner::Plan;
use isopod_planner::daemonset::{World, concerns, plan, revision_name, takes_daemons};
use isopod_types::node::Node;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::members::{candidates, owners, revisions};
use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const DAEMON_SETS: Loop = Loop { name: "daemonset", touched, decide };

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::DaemonSet(change) => vec![change.key()],
        Changed::Pod(change) => {
            change.sides().flat_map(|pod| owners(&cache.daemon_sets, pod, |set| &set.spec.selector)).collect()
        }
        Changed::ControllerRevision(change) => {
            change.sides().flat_map(|one| owners(&cache.daemon_sets, one, |set| &set.spec.selector)).collect()
        }
        Changed::Node(change) if concerns(change.before.as_ref(), change.after.as_ref()) => {
            cache.daemon_sets.all().map(Object::key).collect()
        }
        _ => Vec::new(),
    }
}

fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(set) = cache.daemon_sets.get(key) else {
        state.failures.remove(key);
        return Plan::nothing();
    };
    let pods = candidates(&cache.pods, &set.metadata);
    let revisions = revisions(cache, &set.metadata, revision_name(set));
    let nodes: Vec<&Node> = cache.nodes.all().filter(|node| takes_daemons(node)).collect();
    let failures = state.failures.entry(key.clone()).or_default();
    plan(World { set, pods: &pods, revisions: &revisions, nodes: &nodes, now }, failures)
}
