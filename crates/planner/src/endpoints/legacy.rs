//! The Endpoints object of a Service: all of its endpoints in one, for clients that do not read slices.

use std::collections::BTreeMap;

use isopod_types::network::{Endpoint, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, SubsetPort};
use isopod_types::node::{Node, Service};
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use serde_json::{Value, json};

use super::{HEADLESS, NO_ADDRESS, handed_down, of, selects};
use crate::plan::{Plan, Target, Write};

/// Label that says who manages such an object.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Who manages these.
pub const CONTROLLER: &str = "endpoint-controller";
/// Annotation of an object that holds only some of the endpoints.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses of one object, upstream's limit.
const ADDRESSES_MAX: usize = 1000;

/// Decides about the Endpoints of one Service.
pub fn plan<'a>(
    service: &Service,
    pods: &[&Pod],
    existing: Option<&Endpoints>,
    node: &dyn Fn(&str) -> Option<&'a Node>,
) -> Plan {
    let mut plan = Plan::nothing();
    if service.metadata.is_deleting() || !selects(service) {
        return plan;
    }
    let (subsets, truncated) = subsets(&of(service, pods, node));
    let mut labels = handed_down(&service.metadata.labels);
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    if service.spec.cluster_ip == NO_ADDRESS {
        labels.insert(HEADLESS.into(), String::new());
    }
    match existing {
        None => plan.push(new(service, &subsets, &labels, truncated)),
        Some(existing) => plan.writes.extend(changed(existing, &subsets, &labels, truncated)),
    }
    plan
}

/// The Service of these Endpoints is gone.
pub fn without_service(existing: &Endpoints) -> Plan {
    let mut plan = Plan::nothing();
    if existing.metadata.labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER) {
        let target = Target::of::<Endpoints>(&existing.metadata);
        plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
    }
    plan
}

fn subsets(groups: &super::Groups) -> (Vec<EndpointSubset>, bool) {
    let mut left = ADDRESSES_MAX;
    let total: usize = groups.values().map(Vec::len).sum();
    let mut subsets = Vec::new();
    for (ports, endpoints) in groups {
        let is_ready = |endpoint: &&&Endpoint| endpoint.conditions.ready == Some(true);
        let (ready, not_ready): (Vec<&Endpoint>, Vec<&Endpoint>) = endpoints.iter().partition(|one| is_ready(&one));
        let mut take = |endpoints: Vec<&Endpoint>| -> Vec<EndpointAddress> {
            let taken: Vec<_> = endpoints.into_iter().take(left).map(address).collect();
            left -= taken.len();
            taken
        };
        let subset = EndpointSubset {
            addresses: take(ready),
            not_ready_addresses: take(not_ready),
            ports: ports.iter().map(port).collect(),
        };
        if !subset.addresses.is_empty() || !subset.not_ready_addresses.is_empty() {
            subsets.push(subset);
        }
    }
    (subsets, total > ADDRESSES_MAX)
}

fn address(endpoint: &Endpoint) -> EndpointAddress {
    let target = endpoint.target_ref.as_ref().map(|target| {
        let fields =
            [("kind", &target.kind), ("namespace", &target.namespace), ("name", &target.name), ("uid", &target.uid)];
        fields.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect::<BTreeMap<_, _>>()
    });
    EndpointAddress {
        ip: endpoint.addresses.first().cloned().unwrap_or_default(),
        hostname: endpoint.hostname.clone().unwrap_or_default(),
        node_name: endpoint.node_name.clone(),
        target_ref: target,
    }
}

fn port(port: &EndpointPort) -> SubsetPort {
    let EndpointPort { name, port, protocol, app_protocol } = port.clone();
    SubsetPort { name, port: port.unwrap_or(0), protocol, app_protocol }
}

fn annotations(truncated: bool) -> Value {
    json!({OVER_CAPACITY: truncated.then_some("truncated")})
}

fn new(service: &Service, subsets: &[EndpointSubset], labels: &BTreeMap<String, String>, truncated: bool) -> Write {
    let meta = &service.metadata;
    let mut metadata = json!({"name": meta.name, "namespace": meta.namespace, "labels": labels});
    if truncated {
        metadata["annotations"] = annotations(true);
    }
    let object = json!({"apiVersion": "v1", "kind": Endpoints::KIND, "metadata": metadata, "subsets": subsets});
    let target = Target::named::<Endpoints>(Key::new(&*meta.namespace, &*meta.name));
    Write::Create { target, object, tolerate_existing: true }
}

fn changed(
    existing: &Endpoints,
    subsets: &[EndpointSubset],
    labels: &BTreeMap<String, String>,
    truncated: bool,
) -> Option<Write> {
    let meta = &existing.metadata;
    let is_truncated = meta.annotations.contains_key(OVER_CAPACITY);
    if existing.subsets == subsets && meta.labels == *labels && is_truncated == truncated {
        return None;
    }
    let mut patch = json!({"metadata": {"labels": labels}, "subsets": subsets});
    for gone in meta.labels.keys().filter(|key| !labels.contains_key(*key)) {
        patch["metadata"]["labels"][gone] = Value::Null;
    }
    if is_truncated != truncated {
        patch["metadata"]["annotations"] = annotations(truncated);
    }
    Some(Write::Patch { target: Target::of::<Endpoints>(meta), subresource: "", patch })
}
