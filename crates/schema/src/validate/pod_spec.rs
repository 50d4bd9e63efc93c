//! Rules for a pod's spec, alone or in a template.

use std::collections::BTreeSet;

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
            if !taken.insert(key.clone()) {
                errors.push(FieldError::duplicate(format!("{path}.containers[{at}].ports[{number}].hostPort"), key));
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
}

fn node_fields(spec: &Value, path: &str, errors: &mut Errors) {
    metadata::labels(spec.get("nodeSelector"), &format!("{path}.nodeSelector"), errors);
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
    for (at, alias) in walk::items(spec, &["hostAliases"]).iter().enumerate() {
        for (number, name) in walk::items(alias, &["hostnames"]).iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&format!("{path}.hostAliases[{at}].hostnames[{number}]"), name, names::subdomain(name));
        }
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
        if ["", "Equal"].contains(&text("operator")) {
            errors.invalid_all(&format!("{path}.operator"), text("value"), names::label_value(text("value")));
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
    for (at, option) in walk::items(spec, &["dnsConfig", "options"]).iter().enumerate() {
        if walk::text(option, &["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path_of_config}.options[{at}]"), "must not be empty"));
        }
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
