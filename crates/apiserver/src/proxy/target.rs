//! Where a proxied request goes: read off the objects, refused for addresses that nobody may reach through a proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use isopod_planner::admission::Facts;
use isopod_schema::Status;
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::trust;
use crate::admission::Stored;
use crate::codec;
use crate::context::Context;
use crate::create;
use crate::forward::Destination;
use crate::strategy::text;

/// Where a request goes.
pub(super) enum Place {
    /// To another server.
    Server(Target),
    /// To the agent of the node with this name, which serves no HTTP of its own.
    Agent(String),
}

/// Another server, and how it is named in its own links.
pub(super) struct Target {
    pub(super) destination: Destination,
    pub(super) host: String,
}

/// `[SCHEME:]NAME[:PORT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id<'a> {
    is_secure: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let is_known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        is_known.then_some(Self { is_secure: scheme == "https", name, port })
    }
}

/// # Errors
/// 400 for a name or an address that is none, 404, 503 when nothing is ready.
pub(super) fn find(context: &Context<'_>) -> Result<Place, Status> {
    let asked = context.info.name.as_str();
    let kind = context.kind.plural.as_str();
    let id = Id::parse(asked).ok_or_else(|| Status::bad_request(format!("invalid {kind} request {asked:?}")))?;
    match kind {
        "pods" => pod(context, id).map(Place::Server),
        "services" => service(context, id).map(Place::Server),
        _ => node(context, id),
    }
}

fn object(context: &Context<'_>, name: &str) -> Result<Value, Status> {
    codec::decode(&context.entry(name)?.value)
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn number(text: &str) -> Result<u16, Status> {
    let refuse = || Status::bad_request(format!("invalid port {text:?}: must be a number from 1 to 65535"));
    text.parse().ok().filter(|port| *port > 0).ok_or_else(refuse)
}

/// Addresses that lead to this host itself, to its neighbours on the link, or to many.
fn may_be_reached(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
}

fn target(address: &str, port: u16, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Target, Status> {
    let address = address.parse().ok().filter(|address| may_be_reached(*address));
    let address: IpAddr = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let destination = Destination {
        address: SocketAddr::new(address, port),
        tls: tls.map(|config| (config, ServerName::IpAddress(address.into()))),
    };
    let is_usual = port == if destination.tls.is_some() { 443 } else { 80 };
    let host = if is_usual { address.to_string() } else { destination.address.to_string() };
    Ok(Target { destination, host })
}

/// Nobody vouches for the certificates of pods.
fn any(is_secure: bool) -> Option<Arc<rustls::ClientConfig>> {
    is_secure.then(trust::any)
}

fn pod(context: &Context<'_>, id: Id<'_>) -> Result<Target, Status> {
    let pod = object(context, id.name)?;
    let declared = || {
        let containers = items(&pod["spec"], "containers").iter();
        let port =
            containers.flat_map(|container| items(container, "ports")).find_map(|port| port_of(&port["containerPort"]));
        port.unwrap_or(if id.is_secure { 443 } else { 80 })
    };
    let port = if id.port.is_empty() { declared() } else { number(id.port)? };
    target(text(&pod, &["status", "podIP"]), port, any(id.is_secure))
}

fn port_of(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// A ready pod behind the port of a Service, any of them.
fn service(context: &Context<'_>, id: Id<'_>) -> Result<Target, Status> {
    let service = object(context, id.name)?;
    let port_name = match id.port.parse::<u64>() {
        Ok(wanted) => {
            let found = items(&service["spec"], "ports").iter().find(|port| port["port"] == wanted);
            let missing = || Status::unavailable(format!("no service port {wanted} found for service {:?}", id.name));
            text(found.ok_or_else(missing)?, &["name"]).to_owned()
        }
        Err(_) => id.port.to_owned(),
    };
    let facts = Stored(&context.server.store);
    let slices = facts.list("endpointslices.discovery.k8s.io", context.namespace());
    let mut places = Vec::new();
    for slice in &slices {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] == id.name {
            let port = items(slice, "ports").iter().find(|port| text(port, &["name"]) == port_name);
            let Some(port) = port.and_then(|port| port_of(&port["port"])) else { continue };
            let ready = items(slice, "endpoints").iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
            places.extend(ready.filter_map(|endpoint| Some((address_of(&facts, context, endpoint)?, port))));
        }
    }
    let none = || Status::unavailable(format!("no endpoints available for service {:?}", context.info.name));
    let at = usize::from(create::random()[0]) % places.len().max(1);
    let (address, port) = places.get(at).ok_or_else(none)?;
    target(address, *port, any(id.is_secure))
}

/// The address of an endpoint that is a pod and the pod's own.
fn address_of(facts: &Stored<'_>, context: &Context<'_>, endpoint: &Value) -> Option<String> {
    let address = items(endpoint, "addresses").first()?.as_str()?;
    let target = &endpoint["targetRef"];
    let namespace = text(target, &["namespace"]);
    let is_near = namespace.is_empty() || namespace == context.namespace();
    let pod = facts.get("pods", context.namespace(), text(target, &["name"]))?;
    let own = text(&pod, &["status", "podIP"]) == address
        || items(&pod["status"], "podIPs").iter().any(|own| own["ip"] == address);
    (target["kind"] == "Pod" && is_near && own).then(|| address.to_owned())
}

/// A node's agent, where its node says that it listens, with a certificate of this cluster.
fn node(context: &Context<'_>, id: Id<'_>) -> Result<Place, Status> {
    let node = object(context, id.name)?;
    let listens = port_of(&node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]);
    let Some(port) = listens else { return Ok(Place::Agent(id.name.to_owned())) };
    if !id.port.is_empty() && number(id.port)? != port {
        return Err(Status::bad_request(format!("node {:?} can be reached at port {port} only", id.name)));
    }
    let addresses = items(&node["status"], "addresses").iter();
    let internal =
        addresses.filter(|address| address["type"] == "InternalIP").find_map(|found| found["address"].as_str());
    target(internal.unwrap_or_default(), port, Some(trust::cluster(&context.server)?)).map(Place::Server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let id = |is_secure, name, port| Some(Id { is_secure, name, port });
        let table = [
            ("a", id(false, "a", "")),
            ("a:80", id(false, "a", "80")),
            ("https:a:", id(true, "a", "")),
            ("http:a:web", id(false, "a", "web")),
            ("ftp:a:1", None),
            ("a:b:c:d", None),
            (":80", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(Id::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_near_is_not_reached() {
        let table = [
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("::ffff:127.0.0.1", false),
            ("", false),
            ("localhost", false),
        ];
        for (address, expected) in table {
            assert_eq!(target(address, 80, None).is_ok(), expected, "{address}");
        }
    }
}
