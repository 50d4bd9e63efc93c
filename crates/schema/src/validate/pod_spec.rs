//! Rules for a pod's spec, alone or in a template.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::container::{self, Class};
use super::{Errors, FieldError, ephemeral, metadata, resize, volume};
use crate::names;
use crate::walk;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

pub(super) fn check(spec: &Value, path: &str, errors: &mut Errors) {
    let volumes = volume::check(walk::items(spec, &["volumes"]), &format!("{path}.volumes"), errors);
    let pod = container::Pod { volumes };
    if walk::items(spec, &["containers"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    let classes =
        [("containers", Class::Main), ("initContainers", Class::Init), ("ephemeralContainers", Class::Ephemeral)];
    for (list, class) in classes {
        for (at, container) in walk::items(spec, &[list]).iter().enumerate() {
            let path = format!("{path}.{list}[{at}]");
            container::check(container, &path, class, &pod, errors);
            if class != Class::Ephemeral {
                resize::policies(container, &path, walk::text(spec, &["restartPolicy"]), errors);
            }
            let name = walk::text(container, &["name"]);
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
    }
    ephemeral::targets(spec, path, errors);
    host_ports(spec, path, errors);
    numbers(spec, path, errors);
    node_fields(spec, path, errors);
    names_and_addresses(spec, path, errors);
    tolerations(walk::items(spec, &["tolerations"]), &format!("{path}.tolerations"), errors);
    spread(walk::items(spec, &["topologySpreadConstraints"]), &format!("{path}.topologySpreadConstraints"), errors);
    dns(spec, path, errors);
    if let Some(context) = spec.get("securityContext") {
        container::security_context(context, &format!("{path}.securityContext"), errors);
        sysctls(context, &format!("{path}.securityContext"), errors);
    }
    if let Some(resources) = spec.get("resources") {
        container::resources(resources, &format!("{path}.resources"), errors);
    }
}

/// Two containers may not ask for one host port with overlapping addresses.
fn host_ports(spec: &Value, path: &str, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (at, container) in walk::items(spec, &["containers"]).iter().enumerate() {
        for (number, port) in walk::items(container, &["ports"]).iter().enumerate() {
            let Some(host_port) = port.get("hostPort").and_then(Value::as_i64).filter(|port| *port > 0) else {
                continue;
            };
            let key = format!("{}/{}/{host_port}", walk::text(port, &["protocol"]), walk::text(port, &["hostIP"]));
            if !taken.insert(key) {
                errors.push(FieldError::duplicate(
                    format!("{path}.containers[{at}].ports[{number}].hostPort"),
                    host_port,
                ));
            }
        }
    }
}

fn numbers(spec: &Value, path: &str, errors: &mut Errors) {
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let text = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(format!("{path}.activeDeadlineSeconds"), seconds, text));
    }
    errors.non_negative(spec, "terminationGracePeriodSeconds", path);
}

fn node_fields(spec: &Value, path: &str, errors: &mut Errors) {
    metadata::labels(spec.get("nodeSelector"), &format!("{path}.nodeSelector"), errors);
    let terms = walk::items(
        spec,
        &["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"],
    );
    for (at, term) in terms.iter().enumerate() {
        let lead = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        for (number, expression) in walk::items(term, &["matchExpressions"]).iter().enumerate() {
            node_expression(expression, &format!("{path}.{lead}[{at}].matchExpressions[{number}]"), errors);
        }
    }
}

fn node_expression(expression: &Value, path: &str, errors: &mut Errors) {
    let values = walk::items(expression, &["values"]);
    let path_of_values = format!("{path}.values");
    match walk::text(expression, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            let text = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(path_of_values, text));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(path_of_values, text));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let text = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(path_of_values, text));
        }
        _ => {}
    }
    let key = walk::text(expression, &["key"]);
    if !key.is_empty() {
        errors.invalid_all(&format!("{path}.key"), key, names::qualified(key));
    }
}

/// What is wrong with a text.
type Rule = fn(&str) -> Vec<String>;

fn names_and_addresses(spec: &Value, path: &str, errors: &mut Errors) {
    let fields: [(&str, Rule); 6] = [
        ("nodeName", names::subdomain),
        ("serviceAccountName", names::subdomain),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ];
    for (field, rule) in fields {
        let text = walk::text(spec, &[field]);
        if !text.is_empty() {
            errors.invalid_all(&format!("{path}.{field}"), text, rule(text));
        }
    }
    let scheduler = walk::text(spec, &["schedulerName"]);
    if !scheduler.is_empty() {
        errors.invalid_all(&format!("{path}.schedulerName"), scheduler, names::subdomain(scheduler));
    }
    for (at, alias) in walk::items(spec, &["hostAliases"]).iter().enumerate() {
        ip(walk::text(alias, &["ip"]), &format!("{path}.hostAliases[{at}].ip"), errors);
        for (number, name) in walk::items(alias, &["hostnames"]).iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&format!("{path}.hostAliases[{at}].hostnames[{number}]"), name, names::subdomain(name));
        }
    }
}

fn ip(text: &str, path: &str, errors: &mut Errors) {
    if !text.is_empty() && text.parse::<IpAddr>().is_err() {
        let rule = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, text, rule));
    }
}

pub(super) fn tolerations(list: &[Value], path: &str, errors: &mut Errors) {
    for (at, toleration) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let text = |name: &str| walk::text(toleration, &[name]);
        if !text("key").is_empty() {
            errors.invalid_all(&format!("{path}.key"), text("key"), names::qualified(text("key")));
        } else if text("operator") != "Exists" {
            let rule = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(format!("{path}.operator"), text("operator"), rule));
        }
        if text("operator") == "Exists" && !text("value").is_empty() {
            let rule = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(format!("{path}.operator"), toleration.clone(), rule));
        }
        if toleration.get("tolerationSeconds").is_some() && text("effect") != "NoExecute" {
            let rule = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(format!("{path}.effect"), text("effect"), rule));
        }
    }
}

fn spread(list: &[Value], path: &str, errors: &mut Errors) {
    for (at, constraint) in list.iter().enumerate() {
        let skew = constraint.get("maxSkew").and_then(Value::as_i64).unwrap_or_default();
        if skew <= 0 {
            errors.push(FieldError::invalid(format!("{path}[{at}].maxSkew"), skew, "must be greater than zero"));
        }
    }
}

fn dns(spec: &Value, path: &str, errors: &mut Errors) {
    let servers = walk::items(spec, &["dnsConfig", "nameservers"]);
    let path_of_config = format!("{path}.dnsConfig");
    if walk::text(spec, &["dnsPolicy"]) == "None" && servers.is_empty() {
        let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path_of_config}.nameservers"), text));
    }
    for (field, list, most) in [
        ("nameservers", servers, MAX_NAMESERVERS),
        ("searches", walk::items(spec, &["dnsConfig", "searches"]), MAX_SEARCHES),
    ] {
        if list.len() > most {
            let text = format!("must not have more than {most} {field}");
            errors.push(FieldError::invalid(format!("{path_of_config}.{field}"), list.to_vec(), text));
        }
    }
    for (at, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        ip(server, &format!("{path_of_config}.nameservers[{at}]"), errors);
    }
}

fn sysctls(context: &Value, path: &str, errors: &mut Errors) {
    let segment = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().last()];
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        ends.iter().all(|end| end.is_some_and(alphanumeric))
            && part.bytes().all(|byte| alphanumeric(byte) || b"-_".contains(&byte))
    };
    let mut seen = BTreeSet::new();
    for (at, sysctl) in walk::items(context, &["sysctls"]).iter().enumerate() {
        let name = walk::text(sysctl, &["name"]);
        let path = format!("{path}.sysctls[{at}].name");
        if name.is_empty() {
            continue;
        }
        if !name.split(['.', '/']).all(segment) {
            let rule = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(path, name, rule));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}
