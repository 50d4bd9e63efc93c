//! Endpoints into slices of at most a hundred, with as few changes as will do: what is in a slice stays there, what is new fills
//! slices up, and only what is left makes new ones.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::network::{Endpoint, EndpointPort, EndpointSlice};
use isopod_types::{Key, Object, OwnerReference};
use serde_json::{Value, json};

use super::Groups;
use crate::plan::{Plan, Target, Write};

/// Most endpoints of a slice, upstream's default.
pub(super) const ENDPOINTS_MAX: usize = 100;

/// What all slices of a Service have in common.
pub(super) struct Wanted {
    pub(super) namespace: String,
    /// What their names begin with.
    pub(super) prefix: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) owner: OwnerReference,
    pub(super) address_type: &'static str,
}

/// Writes that bring the slices there are to the endpoints wanted. A Service without any has one empty slice.
pub(super) fn pack(wanted: &Wanted, groups: &Groups, existing: &[&EndpointSlice]) -> Plan {
    let mut plan = Plan::nothing();
    let empty = Groups::from([(Vec::new(), Vec::new())]);
    let groups = if groups.is_empty() { &empty } else { groups };
    let mut kept = BTreeSet::new();
    for (ports, endpoints) in groups {
        let of_group = existing.iter().copied().filter(|slice| {
            let same = sorted(&slice.ports) == *ports && slice.address_type == wanted.address_type;
            // The one empty slice may be any.
            (same || endpoints.is_empty()) && !slice.metadata.is_deleting()
        });
        group(wanted, ports, endpoints, of_group.collect(), &mut kept, &mut plan);
    }
    for slice in existing.iter().filter(|slice| !kept.contains(&slice.metadata.uid)) {
        plan.push(Write::Delete {
            target: Target { resource_version: String::new(), ..Target::of::<EndpointSlice>(&slice.metadata) },
            propagation: None,
            grace_period_seconds: None,
        });
    }
    plan
}

fn sorted(ports: &[EndpointPort]) -> Vec<EndpointPort> {
    let mut ports = ports.to_vec();
    ports.sort();
    ports
}

fn group(
    wanted: &Wanted,
    ports: &[EndpointPort],
    endpoints: &[Endpoint],
    slices: Vec<&EndpointSlice>,
    kept: &mut BTreeSet<String>,
    plan: &mut Plan,
) {
    let mut left: BTreeMap<&Vec<String>, &Endpoint> = endpoints.iter().map(|one| (&one.addresses, one)).collect();
    let mut contents: Vec<(&EndpointSlice, Vec<&Endpoint>)> = slices
        .into_iter()
        .map(|slice| (slice, slice.endpoints.iter().filter_map(|one| left.remove(&one.addresses)).collect()))
        .collect();
    // Fuller slices first, so that the others may become empty.
    contents.sort_by_key(|(slice, content)| (std::cmp::Reverse(content.len()), slice.metadata.name.clone()));
    let mut left = left.into_values();
    let is_first = |at: usize| at == 0;
    for (at, (slice, mut content)) in contents.into_iter().enumerate() {
        let room = ENDPOINTS_MAX.saturating_sub(content.len());
        if !content.is_empty() || is_first(at) {
            content.extend(left.by_ref().take(room));
        }
        if !content.is_empty() || endpoints.is_empty() && is_first(at) {
            kept.insert(slice.metadata.uid.clone());
            plan.writes.extend(changed(wanted, ports, slice, &content));
        }
    }
    let left: Vec<&Endpoint> = left.collect();
    if endpoints.is_empty() && kept.is_empty() {
        plan.push(new(wanted, ports, &[]));
    }
    plan.writes.extend(left.chunks(ENDPOINTS_MAX).map(|content| new(wanted, ports, content)));
}

fn changed(wanted: &Wanted, ports: &[EndpointPort], slice: &EndpointSlice, content: &[&Endpoint]) -> Option<Write> {
    let same_labels = wanted.labels.iter().all(|(key, value)| slice.metadata.labels.get(key) == Some(value))
        && slice.metadata.labels.len() == wanted.labels.len();
    let same = slice.endpoints.iter().eq(content.iter().copied()) && sorted(&slice.ports) == *ports;
    if same && same_labels {
        return None;
    }
    let mut labels = json!(wanted.labels);
    for gone in slice.metadata.labels.keys().filter(|key| !wanted.labels.contains_key(*key)) {
        labels[gone] = Value::Null;
    }
    let patch = json!({"metadata": {"labels": labels}, "endpoints": content, "ports": ports});
    Some(Write::Patch { target: Target::of::<EndpointSlice>(&slice.metadata), subresource: "", patch })
}

fn new(wanted: &Wanted, ports: &[EndpointPort], content: &[&Endpoint]) -> Write {
    let object = json!({
        "apiVersion": EndpointSlice::api_version(), "kind": EndpointSlice::KIND,
        "metadata": {
            "generateName": format!("{}-", wanted.prefix), "namespace": wanted.namespace,
            "labels": wanted.labels, "ownerReferences": [wanted.owner],
        },
        "addressType": wanted.address_type, "endpoints": content, "ports": ports,
    });
    let target = Target::named::<EndpointSlice>(Key::new(&*wanted.namespace, ""));
    Write::Create { target, object, tolerate_existing: false }
}
