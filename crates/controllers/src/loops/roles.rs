//! Aggregated ClusterRoles.

use isopod_planner::{Plan, roles};
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const AGGREGATION: Loop = Loop { name: "clusterrole-aggregation", touched, decide };

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    let Changed::ClusterRole(change) = changed else { return Vec::new() };
    let selecting =
        cache.cluster_roles.all().filter(|role| change.sides().any(|part| roles::selects(role, part.meta())));
    let own = change.after.iter().filter(|role| role.aggregation_rule.is_some());
    own.chain(selecting).map(Object::key).collect()
}

fn decide(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let all = &state.cache.cluster_roles;
    all.get(key).map(|role| roles::plan(role, all.all())).unwrap_or_default()
}
