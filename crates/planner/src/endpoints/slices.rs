//! EndpointSlices of Services with a selector.

use isopod_types::network::EndpointSlice;
use isopod_types::node::{Node, Service};
use isopod_types::pod::Pod;
use isopod_types::{Object, OwnerReference};

use super::packing::{Wanted, pack};
use super::{HEADLESS, MANAGED_BY, NO_ADDRESS, SERVICE_NAME, handed_down, of, selects};
use crate::plan::Plan;

/// Who manages these slices.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Whether a slice is one of these.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER)
}

/// The Service of a slice.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.get(SERVICE_NAME).map(String::as_str)
}

/// Decides about the slices of one Service, given the pods of its namespace and the slices that it owns.
pub fn plan<'a>(
    service: &Service,
    pods: &[&Pod],
    slices: &[&EndpointSlice],
    node: &dyn Fn(&str) -> Option<&'a Node>,
) -> Plan {
    let mine: Vec<&EndpointSlice> = slices.iter().copied().filter(|slice| is_ours(slice)).collect();
    if service.metadata.is_deleting() || !selects(service) {
        return Plan::nothing();
    }
    let meta = &service.metadata;
    let mut labels = handed_down(&meta.labels);
    labels.insert(SERVICE_NAME.into(), meta.name.clone());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    if service.spec.cluster_ip == NO_ADDRESS {
        labels.insert(HEADLESS.into(), String::new());
    }
    let wanted = Wanted {
        namespace: meta.namespace.clone(),
        prefix: meta.name.clone(),
        labels,
        owner: OwnerReference::controller(&Service::api_version(), Service::KIND, meta),
        address_type: "IPv4",
    };
    pack(&wanted, &of(service, pods, node), &mine)
}
