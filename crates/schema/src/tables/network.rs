//! Cells of services, endpoints and the networking groups.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cells::{Context, NONE, UNSET};
use super::workload::selector_text;
use crate::walk;

const SHOWN: usize = 3;

/// The first three of a list, and how many more there are.
fn shortened(items: &[String], separator: &str) -> String {
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(separator);
    match items.len() {
        0 => NONE.into(),
        n if n > SHOWN => format!("{shown} + {} more...", n - SHOWN),
        _ => shown,
    }
}

/// Services and endpoints.
pub(super) fn service(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Type" => context.text("spec.type").into(),
        "Cluster-IP" => context.text_or("spec.clusterIP", NONE),
        "External-IP" => external_address(context).into(),
        "Port(s)" => service_ports(context).into(),
        "Selector" => selector_text(context.value("spec.selector")).into(),
        "Endpoints" => endpoints(context).into(),
        _ => return None,
    })
}

fn external_address(context: &Context<'_>) -> String {
    let listed: Vec<&str> = context.items("spec.externalIPs").iter().filter_map(Value::as_str).collect();
    let joined = |addresses: &[&str], otherwise: &str| match addresses {
        [] => otherwise.to_owned(),
        some => some.join(","),
    };
    match context.text("spec.type") {
        "ExternalName" => context.text("spec.externalName").into(),
        "LoadBalancer" => {
            let mut addresses = ingress_addresses(context);
            addresses.extend(listed);
            joined(&addresses, "<pending>")
        }
        "ClusterIP" | "NodePort" => joined(&listed, NONE),
        _ => super::age::UNKNOWN.into(),
    }
}

/// Where a load balancer listens, sorted.
fn ingress_addresses<'a>(context: &Context<'a>) -> Vec<&'a str> {
    let address = |ingress: &'a Value| match walk::text(ingress, &["ip"]) {
        "" => walk::text(ingress, &["hostname"]),
        ip => ip,
    };
    let ingress = context.items("status.loadBalancer.ingress").iter();
    let addresses: BTreeSet<&str> = ingress.map(address).filter(|address| !address.is_empty()).collect();
    addresses.into_iter().collect()
}

fn service_ports(context: &Context<'_>) -> String {
    let port = |port: &Value| {
        let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or_default();
        let protocol = walk::text(port, &["protocol"]);
        match number("nodePort") {
            0 => format!("{}/{protocol}", number("port")),
            node_port => format!("{}:{node_port}/{protocol}", number("port")),
        }
    };
    let ports: Vec<String> = context.items("spec.ports").iter().map(port).collect();
    if ports.is_empty() { NONE.into() } else { ports.join(",") }
}

fn endpoints(context: &Context<'_>) -> String {
    let mut all = Vec::new();
    for subset in context.items("subsets") {
        let ips: Vec<&str> =
            walk::items(subset, &["addresses"]).iter().map(|address| walk::text(address, &["ip"])).collect();
        let ports = walk::items(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(ips.iter().map(|ip| (*ip).to_owned()));
        }
        for port in ports {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
            let bracketed =
                |ip: &&str| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") };
            all.extend(ips.iter().map(bracketed));
        }
    }
    // Addresses that are not ready are not shown, and no addresses are not the same as no subsets.
    if all.is_empty() && context.count("subsets") > 0 { String::new() } else { shortened(&all, ",") }
}

/// `networking.k8s.io` and `discovery.k8s.io`.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match (context.kind.plural.as_str(), column) {
        ("ingressclasses", "Controller") => context.text("spec.controller").into(),
        ("ingressclasses", "Parameters") => parameters(context).into(),
        ("ingresses", "Class") => context.text_or("spec.ingressClassName", NONE),
        ("ingresses", "Hosts") => ingress_hosts(context).into(),
        ("ingresses", "Address") => ingress_addresses(context).join(",").into(),
        ("ingresses", "Ports") => if context.count("spec.tls") > 0 { "80, 443" } else { "80" }.into(),
        ("ipaddresses", "ParentRef") => parent(context).into(),
        ("networkpolicies", "Pod-Selector") => selector_text(context.value("spec.podSelector")).into(),
        ("servicecidrs", "CIDRs") => texts(context.items("spec.cidrs")).join(",").into(),
        ("endpointslices", "AddressType") => context.text("addressType").into(),
        ("endpointslices", "Ports") => slice_ports(context).into(),
        ("endpointslices", "Endpoints") => {
            let addresses: Vec<String> = context
                .items("endpoints")
                .iter()
                .flat_map(|endpoint| texts(walk::items(endpoint, &["addresses"])))
                .collect();
            if addresses.is_empty() { UNSET.into() } else { shortened(&addresses, ",").into() }
        }
        _ => return None,
    })
}

fn texts(items: &[Value]) -> Vec<String> {
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn parameters(context: &Context<'_>) -> String {
    let (kind, name) = (context.text("spec.parameters.kind"), context.text("spec.parameters.name"));
    match (context.text("spec.parameters.apiGroup"), name) {
        (_, "") => NONE.into(),
        ("", name) => format!("{kind}/{name}"),
        (group, name) => format!("{kind}.{group}/{name}"),
    }
}

fn parent(context: &Context<'_>) -> String {
    let part = |name: &str| context.text(&format!("spec.parentRef.{name}"));
    if context.value("spec.parentRef").is_none() {
        return NONE.into();
    }
    let resource = match part("group") {
        "" => part("resource").to_lowercase(),
        group => format!("{}.{group}", part("resource")).to_lowercase(),
    };
    let parts = [resource.as_str(), part("namespace"), part("name")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn ingress_hosts(context: &Context<'_>) -> String {
    let rules = context.items("spec.rules").iter();
    let hosts: Vec<String> =
        rules.map(|rule| walk::text(rule, &["host"])).filter(|host| !host.is_empty()).map(str::to_owned).collect();
    if hosts.is_empty() { "*".into() } else { shortened(&hosts, ",") }
}

fn slice_ports(context: &Context<'_>) -> String {
    let ports: Vec<String> = context
        .items("ports")
        .iter()
        .map(|port| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => match walk::text(port, &["name"]) {
                "" => "*".to_owned(),
                name => name.to_owned(),
            },
        })
        .collect();
    if ports.is_empty() { UNSET.into() } else { shortened(&ports, ",") }
}
