//! Where a webhook is: its URL, or an address behind its Service. This server is outside of the cluster's network, so
//! that a ready endpoint is preferred to the Service's own address.

use http::Uri;
use isopod_planner::admission::Facts;
use isopod_schema::admission::Target;
use serde_json::Value;

use super::call::Place;
use super::facts::Stored;
use crate::strategy::text;

/// # Errors
/// Why there is no such place.
pub(crate) fn find(facts: &Stored<'_>, target: &Target) -> Result<Place, String> {
    match target {
        Target::Url(url) => of_url(url),
        Target::Service { namespace, name, path, port } => {
            let server_name = format!("{name}.{namespace}.svc");
            let url = format!("https://{server_name}:{port}/{}", path.trim_start_matches('/'));
            let found = behind(facts, namespace, name, *port).map_err(|why| format!("Post {url:?}: {why}"));
            found.map(|(host, port)| Place { host, port, server_name, url })
        }
    }
}

/// The place that a URL names.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of_url(url: &str) -> Result<Place, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{url:?} names no host"))?.to_owned();
    let server_name = host.trim_matches(['[', ']']).to_owned();
    Ok(Place { server_name, port: uri.port_u16().unwrap_or(443), host, url: url.to_owned() })
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Address and port behind a port of a Service.
///
/// # Errors
/// What there is none of.
pub(crate) fn behind(facts: &Stored<'_>, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let service = facts.get("services", namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Ok((text(spec, &["externalName"]).to_owned(), port));
    }
    let found = list(spec, "ports").iter().find(|found| found["port"] == port);
    let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = text(found, &["name"]);
    if let Some(place) = ready_endpoint(facts, namespace, name, port_name) {
        return Ok(place);
    }
    match text(spec, &["clusterIP"]) {
        "" | "None" => Err(format!("no endpoints available for service {name:?}")),
        address => Ok((address.to_owned(), port)),
    }
}

/// A ready endpoint of a port, by the port's name.
pub(crate) fn ready_endpoint(
    facts: &Stored<'_>,
    namespace: &str,
    name: &str,
    port_name: &str,
) -> Option<(String, u16)> {
    let slices = facts.list("endpointslices.discovery.k8s.io", namespace);
    let own = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name);
    let of_slice = |slice: &Value| {
        let port = list(slice, "ports").iter().find(|port| text(port, &["name"]) == port_name)?;
        let ready = list(slice, "endpoints").iter().find(|endpoint| endpoint["conditions"]["ready"] != false)?;
        Some((list(ready, "addresses").first()?.as_str()?.to_owned(), number(&port["port"])?))
    };
    own.map(|slice| of_slice(slice)).find_map(|found| found).or_else(|| {
        let endpoints = facts.get("endpoints", namespace, name)?;
        list(&endpoints, "subsets").iter().find_map(|subset| {
            let port = list(subset, "ports").iter().find(|port| text(port, &["name"]) == port_name)?;
            Some((text(list(subset, "addresses").first()?, &["ip"]).to_owned(), number(&port["port"])?))
        })
    })
}

fn number(port: &Value) -> Option<u16> {
    port.as_u64().and_then(|port| u16::try_from(port).ok())
}
