//! Rules for Services. Whether addresses and node ports are free is for the allocators.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::container::port_name;
use super::{Errors, FieldError, metadata};
use crate::names;
use crate::walk;

const MAX_PORT: i64 = 65_535;
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) fn check(service: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let ty = walk::text(spec, &["type"]);
    let headless = walk::text(spec, &["clusterIP"]) == "None";
    let list = walk::items(spec, &["ports"]);
    if list.is_empty() && !headless && ty != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    ports(list, ty, errors);
    metadata::labels(spec.get("selector"), "spec.selector", errors);
    by_type(spec, ty, headless, errors);
    affinity(spec, errors);
    addresses(spec, errors);
    health_check_port(spec, old.and_then(|old| old.get("spec")), errors);
    if let Some(old) = old {
        changes(spec, old.get("spec").unwrap_or(&Value::Null), errors);
    }
}

fn in_range(number: i64, path: String, errors: &mut Errors) {
    if !(1..=MAX_PORT).contains(&number) {
        errors.push(FieldError::invalid(path, number, "must be between 1 and 65535, inclusive"));
    }
}

fn ports(list: &[Value], ty: &str, errors: &mut Errors) {
    let (mut names_seen, mut ports_seen) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in list.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        let name = walk::text(port, &["name"]);
        match name {
            "" if list.len() > 1 => errors.push(FieldError::required(format!("{path}.name"), "")),
            "" => {}
            name => {
                errors.invalid_all(&format!("{path}.name"), name, names::label(name));
                if !names_seen.insert(name) {
                    errors.push(FieldError::duplicate(format!("{path}.name"), name));
                }
            }
        }
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        in_range(number, format!("{path}.port"), errors);
        match port.get("targetPort") {
            Some(Value::String(name)) => errors.invalid_all(&format!("{path}.targetPort"), name, port_name(name)),
            Some(target) => in_range(target.as_i64().unwrap_or_default(), format!("{path}.targetPort"), errors),
            None => {}
        }
        if !ports_seen.insert((number, walk::text(port, &["protocol"]))) {
            errors.push(FieldError::duplicate(path.clone(), port.clone()));
        }
        let node_port = port.get("nodePort").and_then(Value::as_i64).unwrap_or_default();
        if node_port != 0 && ty == "ClusterIP" {
            let text = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(format!("{path}.nodePort"), text));
        }
    }
}

fn by_type(spec: &Value, ty: &str, headless: bool, errors: &mut Errors) {
    let text = |name: &str| walk::text(spec, &[name]);
    if ty == "ExternalName" {
        if !text("clusterIP").is_empty() {
            errors.push(FieldError::forbidden("spec.clusterIP", "may not be set when type is 'ExternalName'"));
        }
        match text("externalName").trim_end_matches('.') {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => errors.invalid_all("spec.externalName", text("externalName"), names::subdomain(name)),
        }
    } else if headless && ty != "ClusterIP" {
        let rule = "may not be set to 'None' for NodePort and LoadBalancer services";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", rule));
    }
    let external = ["NodePort", "LoadBalancer"].contains(&ty) || !walk::items(spec, &["externalIPs"]).is_empty();
    if !text("externalTrafficPolicy").is_empty() && !external {
        let rule = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", text("externalTrafficPolicy"), rule));
    }
    if ty != "LoadBalancer" {
        for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            if spec.get(field).is_some() {
                let text = "may only be used when `type` is 'LoadBalancer'";
                errors.push(FieldError::forbidden(format!("spec.{field}"), text));
            }
        }
    }
}

fn affinity(spec: &Value, errors: &mut Errors) {
    let seconds = walk::at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = seconds
        && !(1..=MAX_AFFINITY_SECONDS).contains(&seconds)
    {
        let rule = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, rule));
    }
}

fn addresses(spec: &Value, errors: &mut Errors) {
    let rule = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    let is_ip = |text: &str| text.parse::<IpAddr>().is_ok();
    let cluster_ip = walk::text(spec, &["clusterIP"]);
    if !["", "None"].contains(&cluster_ip) && !is_ip(cluster_ip) {
        errors.push(FieldError::invalid("spec.clusterIPs[0]", cluster_ip, rule));
    }
    for (at, address) in walk::items(spec, &["externalIPs"]).iter().filter_map(Value::as_str).enumerate() {
        if !is_ip(address) {
            errors.push(FieldError::invalid(format!("spec.externalIPs[{at}]"), address, rule));
        }
    }
}

/// A node's health is asked for only by load balancers that keep traffic on the node where it arrives.
fn health_check_port(spec: &Value, before: Option<&Value>, errors: &mut Errors) {
    let port = |spec: &Value| spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or_default();
    let needs = |spec: &Value| {
        walk::text(spec, &["type"]) == "LoadBalancer" && walk::text(spec, &["externalTrafficPolicy"]) == "Local"
    };
    if port(spec) != 0 && !needs(spec) {
        let rule = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", port(spec), rule));
    }
    if let Some(before) = before
        && needs(spec)
        && needs(before)
        && port(spec) != port(before)
    {
        errors.push(FieldError::invalid("spec.healthCheckNodePort", port(spec), "field is immutable"));
    }
}

/// The cluster address stays for as long as there is one.
fn changes(spec: &Value, before: &Value, errors: &mut Errors) {
    let external = |spec: &Value| walk::text(spec, &["type"]) == "ExternalName";
    let (new, old) = (walk::text(spec, &["clusterIP"]), walk::text(before, &["clusterIP"]));
    if !external(spec) && !external(before) && !old.is_empty() && new != old {
        errors.push(FieldError::invalid("spec.clusterIPs[0]", new, "may not change once set"));
    }
    let family = |spec: &'_ Value| walk::items(spec, &["ipFamilies"]).first().cloned();
    if !external(spec) && family(before).is_some() && family(spec).is_some() && family(spec) != family(before) {
        let text = "may not change once set";
        errors.push(FieldError::invalid("spec.ipFamilies[0]", family(spec).unwrap_or_default(), text));
    }
}
