//! Endpoints of Services: slices, the older form, and slices for what users wrote.

use isopod_planner::Plan;
use isopod_planner::endpoints::{is_behind, legacy, mirroring, slices};
use isopod_types::Key;
use isopod_types::network::EndpointSlice;
use isopod_types::node::{Node, Service};
use isopod_types::pod::Pod;
use isopod_types::workload::LabelSelector;
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Change, Changed};

pub(super) const SLICES: Loop = Loop { name: "endpointslice", touched: touched_slices, decide: decide_slices };
pub(super) const LEGACY: Loop = Loop { name: "endpoint", touched: touched_legacy, decide: decide_legacy };
pub(super) const MIRRORING: Loop =
    Loop { name: "endpointslicemirroring", touched: touched_mirrors, decide: decide_mirrors };

/// The Services that a pod stands or stood behind, when anything that endpoints say of it changed.
fn services_of(cache: &Cache, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(before), Some(after)) = (&change.before, &change.after)
        && said(before) == said(after)
    {
        return Vec::new();
    }
    let Some(pod) = change.sides().next() else { return Vec::new() };
    let services = cache.services.of_namespace(&pod.metadata.namespace);
    let behind = services.filter(|service| change.sides().any(|pod| is_behind(service, pod)));
    behind.map(isopod_types::Object::key).collect()
}

/// What endpoints say of a pod.
fn said(pod: &Pod) -> impl PartialEq {
    let meta = &pod.metadata;
    let status = &pod.status;
    let ready = pod.ready_since().is_some();
    (meta.uid.clone(), meta.labels.clone(), status.pod_ip.clone(), ready, meta.is_deleting(), pod.is_terminal())
}

fn touched_slices(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Service(change) => vec![change.key()],
        Changed::Pod(change) => services_of(cache, change),
        Changed::EndpointSlice(change) => {
            change.sides().filter(|one| slices::is_ours(one)).filter_map(of_slice).collect()
        }
        _ => Vec::new(),
    }
}

fn of_slice(slice: &EndpointSlice) -> Option<Key> {
    Some(Key::new(&*slice.metadata.namespace, slices::service_of(slice)?))
}

fn touched_legacy(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Service(change) => vec![change.key()],
        Changed::Pod(change) => services_of(cache, change),
        Changed::Endpoints(change) => vec![change.key()],
        _ => Vec::new(),
    }
}

fn touched_mirrors(_: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Service(change) => vec![change.key()],
        Changed::Endpoints(change) => vec![change.key()],
        Changed::EndpointSlice(change) => {
            change.sides().filter(|one| mirroring::is_ours(one)).filter_map(of_slice).collect()
        }
        _ => Vec::new(),
    }
}

fn pods_behind<'a>(state: &'a State, service: &'a Service) -> Vec<&'a Pod> {
    let selector = LabelSelector { match_labels: service.spec.selector.clone(), ..LabelSelector::default() };
    state.labelled.select(&state.cache, &service.metadata.namespace, &selector)
}

fn node<'a>(cache: &'a Cache) -> impl Fn(&str) -> Option<&'a Node> {
    |name| cache.nodes.get(&Key::cluster(name))
}

fn decide_slices(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(service) = cache.services.get(key) else { return Plan::nothing() };
    let mine: Vec<&EndpointSlice> = cache.endpoint_slices.owned_by(&service.metadata.uid).collect();
    slices::plan(service, &pods_behind(state, service), &mine, &node(cache))
}

fn decide_legacy(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let cache = &state.cache;
    let existing = cache.endpoints.get(key);
    match cache.services.get(key) {
        Some(service) => legacy::plan(service, &pods_behind(state, service), existing, &node(cache)),
        None => existing.map(legacy::without_service).unwrap_or_default(),
    }
}

fn decide_mirrors(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    let cache = &state.cache;
    let Some(endpoints) = cache.endpoints.get(key) else { return Plan::nothing() };
    let mine: Vec<&EndpointSlice> = cache.endpoint_slices.owned_by(&endpoints.metadata.uid).collect();
    mirroring::plan(endpoints, cache.services.get(key), &mine)
}
