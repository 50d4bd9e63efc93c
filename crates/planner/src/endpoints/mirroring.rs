//! EndpointSlices for Endpoints that a user wrote, for a Service without a selector.

use std::collections::BTreeMap;

use isopod_types::network::{
    Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, Endpoints, TargetRef,
};
use isopod_types::node::Service;
use isopod_types::{Object, OwnerReference};

use super::packing::{Wanted, pack};
use super::{Groups, MANAGED_BY, SERVICE_NAME, handed_down, legacy};
use crate::plan::{Plan, Target, Write};

/// Who manages these slices.
pub const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are used as a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Most endpoints of a subset that are mirrored, upstream's default.
const SUBSET_MAX: usize = 1000;

/// Whether a slice is one of these.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER)
}

fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    let no_selector = service.is_some_and(|service| service.spec.selector.is_empty());
    let skipped = meta.labels.get(SKIP).map(String::as_str) == Some("true");
    let managed = meta.labels.get(legacy::MANAGED_BY).map(String::as_str) == Some(legacy::CONTROLLER);
    no_selector && !skipped && !managed && !meta.annotations.contains_key(LEADER) && !meta.is_deleting()
}

/// Decides about the slices of one Endpoints object, given those that it owns.
pub fn plan(endpoints: &Endpoints, service: Option<&Service>, slices: &[&EndpointSlice]) -> Plan {
    let mine: Vec<&EndpointSlice> = slices.iter().copied().filter(|slice| is_ours(slice)).collect();
    if !is_mirrored(endpoints, service) {
        let delete = |slice: &&EndpointSlice| Write::Delete {
            target: Target::of::<EndpointSlice>(&slice.metadata),
            propagation: None,
            grace_period_seconds: None,
        };
        return Plan { writes: mine.iter().map(delete).collect(), again_at: None };
    }
    let meta = &endpoints.metadata;
    let mut labels = handed_down(&meta.labels);
    labels.insert(SERVICE_NAME.into(), meta.name.clone());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    let wanted = Wanted {
        namespace: meta.namespace.clone(),
        prefix: meta.name.clone(),
        labels,
        owner: OwnerReference::controller(&Endpoints::api_version(), Endpoints::KIND, meta),
        address_type: "IPv4",
    };
    pack(&wanted, &groups(endpoints), &mine)
}

fn groups(endpoints: &Endpoints) -> Groups {
    let mut groups: Groups = BTreeMap::new();
    for subset in &endpoints.subsets {
        let mut ports: Vec<EndpointPort> = subset.ports.iter().map(port).collect();
        ports.sort();
        let ready = subset.addresses.iter().map(|address| endpoint(address, true));
        let not_ready = subset.not_ready_addresses.iter().map(|address| endpoint(address, false));
        let v4 = |one: &Endpoint| one.addresses.iter().all(|address| address.parse::<std::net::Ipv4Addr>().is_ok());
        let all = ready.chain(not_ready).filter(v4).take(SUBSET_MAX);
        groups.entry(ports).or_default().extend(all);
    }
    groups.values_mut().for_each(|endpoints| endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses)));
    groups
}

fn port(port: &isopod_types::network::SubsetPort) -> EndpointPort {
    let protocol = if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() };
    EndpointPort { name: port.name.clone(), port: Some(port.port), protocol, app_protocol: port.app_protocol.clone() }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    let target = address.target_ref.as_ref().map(|fields| {
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        TargetRef { kind: field("kind"), namespace: field("namespace"), name: field("name"), uid: field("uid") }
    });
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
        hostname: Some(address.hostname.clone()).filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: target,
        zone: None,
    }
}
