//! What several fields of a type must be together: selectors, networking, volumes and storage.

use serde_json::Value;

use super::address::is_within;
use super::{MAX_PORT, Object, PORT, Together, as_text, is_empty};
use crate::names;
use crate::validate::container::port_name;
use crate::validate::{Errors, FieldError, metadata};

/// Types without `io.k8s.api.`.
pub(super) const ROWS: &[(&str, Together)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector", label_selector),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement", label_requirement),
    ("core.v1.NodeSelectorTerm", node_term),
    ("networking.v1.IngressBackend", ingress_backend),
    ("networking.v1.IngressRule", ingress_rule),
    ("networking.v1.IngressClassParametersReference", class_parameters),
    ("networking.v1.NetworkPolicySpec", policy_types),
    ("networking.v1.NetworkPolicyPort", policy_port),
    ("networking.v1.NetworkPolicyPeer", policy_peer),
    ("networking.v1.IPBlock", block),
    ("discovery.v1.EndpointSlice", slice),
    ("core.v1.EndpointAddress", endpoint_address),
    ("core.v1.CSIPersistentVolumeSource", secret_references),
    ("core.v1.PersistentVolumeSpec", volume),
    ("core.v1.Volume", one_volume),
    ("core.v1.NFSVolumeSource", server_path),
    ("core.v1.PodAffinityTerm", affinity_term),
    ("core.v1.TopologySpreadConstraint", spread),
    ("core.v1.ObjectFieldSelector", field_path),
    ("core.v1.AppArmorProfile", app_armor),
    ("core.v1.ServiceSpec", service),
    ("storage.v1.VolumeAttachmentSource", attachment),
    ("storage.v1.CSINodeDriver", node_driver),
    ("resource.v1.DeviceRequest", device_request),
    ("batch.v1.JobSpec", job),
];

fn label_selector(object: &Object, path: &str, errors: &mut Errors) -> bool {
    metadata::labels(object.get("matchLabels"), &format!("{path}.matchLabels"), errors);
    true
}

fn values(object: &Object) -> &[Value] {
    object.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Values that the operator asks for, or does not.
fn operator(object: &Object, path: &str, numbers: bool, errors: &mut Errors) {
    let (operator, list, at) = (as_text(object.get("operator")), values(object), format!("{path}.values"));
    match operator {
        "In" | "NotIn" if list.is_empty() => {
            errors.push(FieldError::required(at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !list.is_empty() => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at, text));
        }
        "Gt" | "Lt" if numbers && list.len() != 1 => {
            let text = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at, text));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if numbers => {}
        other => {
            errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator"));
        }
    }
}

fn label_requirement(object: &Object, path: &str, errors: &mut Errors) -> bool {
    operator(object, path, false, errors);
    let key = as_text(object.get("key"));
    errors.invalid_all(&format!("{path}.key"), key, names::qualified(key));
    label_values(object, path, errors);
    false
}

fn label_values(object: &Object, path: &str, errors: &mut Errors) {
    for (at, value) in values(object).iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_all(&format!("{path}.values[{at}]"), value, names::label_value(value));
    }
}

/// Expressions are about labels, fields about the name alone.
fn node_term(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let items =
        |name: &str| object.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    for (at, expression) in items("matchExpressions").enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        operator(expression, &path, true, errors);
        let key = as_text(expression.get("key"));
        errors.invalid_all(&format!("{path}.key"), key, names::qualified(key));
        if ["In", "NotIn"].contains(&as_text(expression.get("operator"))) {
            label_values(expression, &path, errors);
        }
    }
    for (at, field) in items("matchFields").enumerate() {
        field_requirement(field, &format!("{path}.matchFields[{at}]"), errors);
    }
    true
}

fn field_requirement(field: &Object, path: &str, errors: &mut Errors) {
    match (as_text(field.get("operator")), values(field)) {
        ("In" | "NotIn", [_]) => {}
        ("In" | "NotIn", _) => {
            let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(format!("{path}.values"), text));
        }
        (other, _) => {
            errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator"));
        }
    }
    let key = as_text(field.get("key"));
    if key != "metadata.name" {
        errors.push(FieldError::invalid(format!("{path}.key"), key, "not a valid field selector key"));
        return;
    }
    for (at, name) in values(field).iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_all(&format!("{path}.values[{at}]"), name, names::subdomain(name));
    }
}

fn ingress_backend(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let wrong = |text: &str| FieldError::invalid(path, "", text);
    match (object.get("service"), object.get("resource")) {
        (Some(_), Some(_)) => errors.push(wrong("cannot set both resource and service backends")),
        (None, None) => errors.push(wrong("resource or service backend is required")),
        (Some(service), None) => return service_port(service, path, errors),
        (None, Some(resource)) => {
            for (field, check) in [("kind", names::path_segment as super::Check), ("name", names::path_segment)] {
                let (path, text) = (format!("{path}.resource.{field}"), as_text(resource.get(field)));
                // A name is asked for by the schema.
                if text.is_empty() && field == "kind" {
                    errors.push(FieldError::required(path.clone(), ""));
                }
                errors.invalid_all(&path, text, check(text));
            }
            if let Some(group) = resource.get("apiGroup").and_then(Value::as_str) {
                errors.invalid_all(&format!("{path}.resource.apiGroup"), group, names::subdomain(group));
            }
            return true;
        }
    }
    false
}

/// A port by name or by number.
fn service_port(service: &Value, path: &str, errors: &mut Errors) -> bool {
    let name = as_text(service.get("port").and_then(|port| port.get("name")));
    let number = service.get("port").and_then(|port| port.get("number")).and_then(Value::as_i64).unwrap_or_default();
    match (name, number) {
        ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
        ("", number) if !(1..=MAX_PORT).contains(&number) => {
            errors.push(FieldError::invalid(format!("{path}.service.port.number"), number, PORT));
        }
        ("", _) => {}
        (name, 0) => errors.invalid_all(&format!("{path}.service.port.name"), name, port_name(name)),
        _ => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
    }
    true
}

fn ingress_rule(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let host = as_text(object.get("host"));
    let at = format!("{path}.host");
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(at, host, "must be a DNS name, not an IP address"));
    } else if !host.is_empty() {
        errors.invalid_all(&at, host, super::text::host(host));
    }
    true
}

fn class_parameters(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let at = format!("{path}.namespace");
    match (as_text(object.get("scope")), object.get("namespace")) {
        ("Cluster", Some(_)) => errors.push(FieldError::forbidden(at, "`parameters.scope` is set to 'Cluster'")),
        ("Namespace", None) => errors.push(FieldError::required(at, "`parameters.scope` is set to 'Namespace'")),
        _ => {}
    }
    true
}

fn policy_types(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let list = object.get("policyTypes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let at = format!("{path}.policyTypes");
    if list.len() > 2 {
        errors.push(FieldError::invalid(at, list.to_vec(), "may not specify more than two policyTypes"));
        return true;
    }
    for (number, text) in list.iter().filter_map(Value::as_str).enumerate() {
        if !["Ingress", "Egress"].contains(&text) {
            errors.push(super::unsupported(&format!("{at}[{number}]"), text, &["Ingress", "Egress"]));
        }
    }
    true
}

fn policy_port(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let Some(end) = object.get("endPort").and_then(Value::as_i64) else { return true };
    let at = format!("{path}.endPort");
    match object.get("port") {
        None => errors.push(FieldError::invalid(at, end, "may not be specified when `port` is not specified")),
        Some(Value::String(_)) => {
            errors.push(FieldError::invalid(at, end, "may not be specified when `port` is non-numeric"));
        }
        Some(port) => {
            let port = port.as_i64().unwrap_or_default();
            if end < port {
                errors.push(FieldError::invalid(at.clone(), port, "must be greater than or equal to `port`"));
            }
            if !(1..=MAX_PORT).contains(&end) {
                errors.push(FieldError::invalid(at, end, PORT));
            }
        }
    }
    true
}

fn policy_peer(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let selects = object.contains_key("podSelector") || object.contains_key("namespaceSelector");
    match (object.contains_key("ipBlock"), selects) {
        (true, true) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        (false, false) => errors.push(FieldError::required(path, "must specify a peer")),
        _ => {}
    }
    true
}

fn block(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let cidr = as_text(object.get("cidr"));
    for (at, except) in super::texts(object.get("except")) {
        if !is_within(except, cidr) {
            errors.push(FieldError::invalid(
                format!("{path}.except[{at}]"),
                except,
                "must be a strict subset of `cidr`",
            ));
        }
    }
    true
}

/// Addresses are of the slice's type.
fn slice(object: &Object, _path: &str, errors: &mut Errors) -> bool {
    let ty = as_text(object.get("addressType"));
    let endpoints = object.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    for (number, endpoint) in endpoints.enumerate() {
        for (at, address) in super::texts(endpoint.get("addresses")) {
            let path = format!("endpoints[{number}].addresses[{at}]");
            let parsed = address.parse::<std::net::IpAddr>();
            let text = match (ty, parsed) {
                ("FQDN", _) => {
                    errors.invalid_all(&path, address, names::subdomain(address));
                    continue;
                }
                ("IPv4" | "IPv6", Err(_)) => {
                    errors.invalid_all(&path, address, super::address::ip(address));
                    continue;
                }
                ("IPv4", Ok(address)) if address.is_ipv6() => "must be an IPv4 address",
                ("IPv6", Ok(address)) if address.is_ipv4() => "must be an IPv6 address",
                _ => continue,
            };
            errors.push(FieldError::invalid(path, address, text));
        }
    }
    true
}

fn endpoint_address(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let ip = as_text(object.get("ip"));
    if ip.parse::<std::net::IpAddr>().is_err() {
        let path = format!("{path}.ip");
        errors.invalid_all(&path, ip, super::address::ip(ip));
        errors.push(FieldError::invalid(path, ip, "must be a valid IP address"));
        return false;
    }
    true
}

/// Secrets of a driver are named with their namespace.
fn secret_references(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let fields =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    for field in fields {
        let Some(reference) = object.get(field) else { continue };
        for (part, check) in [("name", names::subdomain as super::Check), ("namespace", names::label)] {
            let (path, text) = (format!("{path}.{field}.{part}"), as_text(reference.get(part)));
            if text.is_empty() {
                errors.push(FieldError::required(path, ""));
            } else {
                errors.invalid_all(&path, text, check(text));
            }
        }
    }
    true
}

/// The volumes there are, by the field that has one; Portworx and flocker among them, as long as the API has them.
pub(in crate::validate) const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Exactly one volume, with a size, where nodes can reach it.
fn volume(object: &Object, path: &str, errors: &mut Errors) -> bool {
    capacity(object.get("capacity"), &format!("{path}.capacity"), errors);
    let given: Vec<&&str> = SOURCES.iter().filter(|name| object.contains_key(**name)).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a volume type")),
        [_, more @ ..] => {
            for name in more {
                errors.push(FieldError::forbidden(format!("{path}.{name}"), "may not specify more than 1 volume type"));
            }
        }
    }
    if object.contains_key("local") && !object.contains_key("nodeAffinity") {
        errors.push(FieldError::required(format!("{path}.nodeAffinity"), "Local volume requires node affinity"));
    }
    if object.contains_key("volumeAttributesClassName") && !object.contains_key("csi") {
        let text = "has to be specified when using volumeAttributesClassName";
        errors.push(FieldError::required(format!("{path}.csi"), text));
    }
    true
}

fn capacity(capacity: Option<&Value>, path: &str, errors: &mut Errors) {
    let Some(storage) = capacity.and_then(|capacity| capacity.get("storage")).map(|value| as_text(Some(value))) else {
        if is_empty(capacity) {
            errors.push(FieldError::required(path, ""));
        }
        let shown = capacity.cloned().unwrap_or_default();
        let detail = "supported values: \"storage\"";
        let error = FieldError::new(crate::validate::ErrorType::NotSupported, path, detail);
        errors.push(FieldError { value: Some(shown), ..error });
        return;
    };
    if storage.parse::<isopod_types::Quantity>().is_ok_and(|amount| amount <= isopod_types::Quantity::ZERO) {
        errors.push(FieldError::invalid(format!("{path}[storage]"), storage, "must be greater than zero"));
    }
}

fn attachment(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (object.contains_key("inlineVolumeSpec"), object.get("persistentVolumeName")) {
        (true, Some(_)) => errors.push(FieldError::forbidden(path, text)),
        (false, None) => errors.push(FieldError::required(path, text)),
        (false, Some(name)) => {
            let (at, name) = (format!("{path}.persistentVolumeName"), as_text(Some(name)));
            if name.is_empty() {
                errors.push(FieldError::required(at.clone(), "must specify non empty persistentVolumeName"));
            }
            errors.invalid_all(&at, name, names::subdomain(name));
        }
        (true, None) => {}
    }
    false
}

/// Keys of a topology are label keys, each once; upstream shows them at the driver.
fn node_driver(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    for (_, key) in super::texts(object.get("topologyKeys")) {
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(path, key));
        }
        errors.invalid_all(path, key, names::qualified(key));
    }
    true
}

fn device_request(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let lead = "exactly one of `exactly` or `firstAvailable` is required";
    match (object.contains_key("exactly"), !is_empty(object.get("firstAvailable"))) {
        (false, false) => errors.push(FieldError::required(path, lead)),
        (true, true) => {
            errors.push(FieldError::invalid(path, Value::Null, format!("{lead}, but multiple fields are set")));
            return false;
        }
        _ => {}
    }
    true
}

/// What only indexed jobs have, and what asks for a limit per index.
fn job(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let indexed = as_text(object.get("completionMode")) == "Indexed";
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if let Some(value) = object.get(field).filter(|_| !indexed) {
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                value.clone(),
                "requires indexed completion mode",
            ));
        }
    }
    if object.contains_key("maxFailedIndexes") && !object.contains_key("backoffLimitPerIndex") {
        let text = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(format!("{path}.backoffLimitPerIndex"), text));
    }
    let number = |name: &str| object.get(name).and_then(Value::as_i64);
    if let (Some(most), Some(completions)) = (number("maxFailedIndexes"), number("completions"))
        && indexed
        && most > completions
    {
        let text = "must be less than or equal to completions";
        errors.push(FieldError::invalid(format!("{path}.maxFailedIndexes"), most, text));
    }
    true
}

/// Of several kinds of volume in one, only that they are several is said.
fn one_volume(object: &Object, _path: &str, _errors: &mut Errors) -> bool {
    object.len() <= 2
}

fn server_path(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let text = as_text(object.get("path"));
    if !text.starts_with('/') {
        errors.push(FieldError::invalid(format!("{path}.path"), text, "must be an absolute path"));
    }
    true
}

/// Keys of labels that are read from the pod need a selector to join; upstream tells of namespaces in the singular.
fn affinity_term(object: &Object, path: &str, errors: &mut Errors) -> bool {
    for (_, namespace) in super::texts(object.get("namespaces")) {
        errors.invalid_all(&format!("{path}.namespace"), namespace, names::label(namespace));
    }
    keys_need_selector(object, path, &["matchLabelKeys", "mismatchLabelKeys"], errors);
    true
}

fn keys_need_selector(object: &Object, path: &str, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        if !is_empty(object.get(*field)) && !object.contains_key("labelSelector") {
            let text = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), text));
        }
    }
}

fn spread(object: &Object, path: &str, errors: &mut Errors) -> bool {
    keys_need_selector(object, path, &["matchLabelKeys"], errors);
    let otherwise = as_text(object.get("whenUnsatisfiable"));
    if let Some(domains) = object.get("minDomains").filter(|_| otherwise != "DoNotSchedule") {
        let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {otherwise}");
        errors.push(FieldError::invalid(format!("{path}.minDomains"), domains.clone(), text));
    }
    true
}

/// Labels of pods' fields, without those of maps.
const POD_FIELDS: [&str; 15] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

/// A field of the pod, or one of its labels or annotations.
fn field_path(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let (version, text) = (as_text(object.get("apiVersion")), as_text(object.get("fieldPath")));
    if text.is_empty() {
        return true;
    }
    let plain = text.split_once("['").filter(|(_, key)| key.ends_with("']")).map_or(text, |(name, _)| name);
    let wrong = if version != "v1" {
        format!("unsupported pod version: {version}")
    } else if !POD_FIELDS.contains(&plain) {
        format!("field label not supported: {text}")
    } else {
        return true;
    };
    let wrong = format!("error converting fieldPath: {wrong}");
    errors.push(FieldError::invalid(format!("{path}.fieldPath"), text, wrong));
    true
}

fn app_armor(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let at = format!("{path}.localhostProfile");
    match (as_text(object.get("type")), object.get("localhostProfile")) {
        ("Localhost", profile) if is_empty(profile) => {
            errors.push(FieldError::required(at, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", _) | (_, None) => {}
        (_, Some(profile)) => {
            let text = "can only be set when AppArmor type is Localhost";
            errors.push(FieldError::invalid(at, profile.clone(), text));
        }
    }
    true
}

/// Ranges that a load balancer serves; upstream spells the field as in Go.
fn service(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let path = format!("{path}.LoadBalancerSourceRanges");
    for (at, range) in super::texts(object.get("loadBalancerSourceRanges")) {
        errors.invalid_all(&format!("{path}[{at}]"), range, super::address::cidr(range.trim()));
    }
    let given = !is_empty(object.get("loadBalancerSourceRanges"));
    if given && as_text(object.get("type")) != "LoadBalancer" {
        errors.push(FieldError::forbidden(path, "may only be used when `type` is 'LoadBalancer'"));
    }
    true
}
