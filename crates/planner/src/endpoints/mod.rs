//! Endpoints: which pods a Service leads to, as EndpointSlices and in the older form; and slices for Endpoints that a user
//! wrote.
//!
//! Source: behaviour of upstream's endpoint, endpoint slice and mirroring controllers.

use std::collections::BTreeMap;

use isopod_types::network::{Endpoint, EndpointConditions, EndpointPort, TargetRef};
use isopod_types::node::{Node, Service, ServicePort};
use isopod_types::pod::Pod;
use isopod_types::probe::PortRef;

pub mod legacy;
pub mod mirroring;
mod packing;
pub mod slices;
#[cfg(test)]
mod tests;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const NO_ADDRESS: &str = "None";

/// Endpoints by the ports that they have in common.
pub(crate) type Groups = BTreeMap<Vec<EndpointPort>, Vec<Endpoint>>;

/// Whether pods stand behind the Service by their labels.
pub fn selects(service: &Service) -> bool {
    !service.spec.selector.is_empty() && service.spec.type_ != "ExternalName"
}

/// Whether a pod stands behind a Service that has a selector.
pub fn is_behind(service: &Service, pod: &Pod) -> bool {
    let labels = &pod.metadata.labels;
    selects(service) && service.spec.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The endpoints of a Service. `node` finds the node of a pod.
fn of<'a>(service: &Service, pods: &[&Pod], node: &dyn Fn(&str) -> Option<&'a Node>) -> Groups {
    let mut groups = Groups::new();
    for pod in pods.iter().filter(|pod| is_behind(service, pod) && !pod.status.pod_ip.is_empty() && !pod.is_terminal())
    {
        groups.entry(ports(service, pod)).or_default().push(endpoint(service, pod, node(&pod.spec.node_name)));
    }
    groups.values_mut().for_each(|endpoints| endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses)));
    groups
}

fn endpoint(service: &Service, pod: &Pod, node: Option<&Node>) -> Endpoint {
    let serving = pod.ready_since().is_some();
    let terminating = pod.metadata.is_deleting();
    let ready = service.spec.publish_not_ready_addresses || serving && !terminating;
    let meta = &pod.metadata;
    let named = pod.spec.subdomain.as_deref() == Some(&*service.metadata.name);
    Endpoint {
        addresses: vec![pod.status.pod_ip.clone()],
        conditions: EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) },
        hostname: pod.spec.hostname.clone().filter(|hostname| named && !hostname.is_empty()),
        node_name: Some(pod.spec.node_name.clone()).filter(|name| !name.is_empty()),
        target_ref: Some(TargetRef {
            kind: "Pod".into(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        }),
        zone: node.and_then(|node| node.metadata.labels.get(ZONE)).cloned(),
    }
}

/// A Service's ports at a pod. One whose name the pod does not know is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = service.spec.ports.iter().filter_map(|port| at_pod(port, pod)).collect();
    ports.sort();
    ports
}

fn at_pod(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = protocol(&port.protocol);
    let number = match &port.target_port {
        PortRef::Number(0) => port.port,
        PortRef::Number(number) => *number,
        PortRef::Name(name) => {
            let sidecars = pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
            let mut known = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
            known.find(|known| known.name == *name && self::protocol(&known.protocol) == protocol)?.container_port
        }
    };
    Some(EndpointPort {
        name: port.name.clone(),
        port: Some(number),
        protocol: protocol.to_owned(),
        app_protocol: port.app_protocol.clone(),
    })
}

fn protocol(given: &str) -> &str {
    if given.is_empty() { "TCP" } else { given }
}

/// Labels that a Service hands down, without those that say who manages what.
fn handed_down(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = [SERVICE_NAME, MANAGED_BY, HEADLESS, legacy::MANAGED_BY];
    let kept = labels.iter().filter(|(key, _)| !own.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}
