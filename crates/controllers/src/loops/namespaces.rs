//! What every namespace holds, how it ends, and the collection of what nobody owns any more.

use isopod_planner::{Plan, garbage, namespaces};
use isopod_types::Key;
use isopod_types::names::ROOT_CA_CONFIG_MAP;
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

/// Name of the loop that ends namespaces; changes of metadata call for it too.
pub(crate) const NAMESPACE_END: &str = "namespace-end";
/// Name of the garbage collector; it looks at UIDs, when the graph says so.
pub(crate) const GARBAGE: &str = "garbage";

pub(super) const FURNISHING: Loop = Loop { name: "namespace", touched: touched_furniture, decide: furnish };
pub(super) const END: Loop = Loop { name: NAMESPACE_END, touched: touched_end, decide: end };
pub(super) const COLLECTION: Loop = Loop { name: GARBAGE, touched: |_, _| Vec::new(), decide: collect };

fn touched_furniture(_: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Namespace(change) => vec![change.key()],
        Changed::ServiceAccount(change) => vec![Key::cluster(change.key().namespace)],
        Changed::ConfigMap(change) => vec![Key::cluster(change.key().namespace)],
        _ => Vec::new(),
    }
}

fn furnish(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(namespace) = cache.namespaces.get(key) else { return Plan::nothing() };
    let account = cache.service_accounts.get(&Key::new(&*key.name, "default"));
    let root_ca = cache.config_maps.get(&Key::new(&*key.name, ROOT_CA_CONFIG_MAP));
    namespaces::furnish(namespace, account, root_ca, &state.ca_pem)
}

fn touched_end(_: &Cache, changed: &Changed) -> Vec<Key> {
    if let Changed::Namespace(change) = changed { vec![change.key()] } else { Vec::new() }
}

fn end(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let ending = state.cache.namespaces.get(key).filter(|namespace| namespace.metadata.is_deleting());
    ending.map(|namespace| namespaces::finish(namespace, &state.metadata.left_in(&key.name), now)).unwrap_or_default()
}

fn collect(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    garbage::plan(&state.metadata.graph, &key.name)
}
