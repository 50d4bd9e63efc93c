//! Field labels: the values that field selectors compare (facts, section 1.13).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::table::Kind;
use crate::walk;

/// The field label can be used in a selector of this kind.
pub fn is_selectable(kind: &Kind, label: &str) -> bool {
    label == "metadata.name"
        || (kind.namespaced && label == "metadata.namespace")
        || kind.field_labels.iter().any(|known| known == label)
}

/// The 400 text for a label that cannot be used. Kinds with labels of their own have words of their own.
pub fn unsupported_text(kind: &Kind, label: &str) -> String {
    match kind.plural.as_str() {
        "resourceslices" => {
            format!("field label not supported for {}, Kind={}: {label}", kind.api_version(), kind.kind)
        }
        _ if kind.field_labels.is_empty() && kind.custom.is_none() => {
            format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("field label not supported: {label}"),
    }
}

/// All field labels of an object with their values; absent fields are empty texts.
pub fn selectable(kind: &Kind, object: &Value) -> BTreeMap<String, String> {
    let mut fields =
        BTreeMap::from([("metadata.name".to_owned(), walk::text(object, &["metadata", "name"]).to_owned())]);
    if kind.namespaced {
        fields.insert("metadata.namespace".into(), walk::text(object, &["metadata", "namespace"]).to_owned());
    }
    for label in &kind.field_labels {
        fields.insert(label.clone(), field(kind, object, label));
    }
    fields
}

/// One field label of an object.
fn field(kind: &Kind, object: &Value, label: &str) -> String {
    if kind.custom.is_some() {
        return path(object, label);
    }
    match (kind.plural.as_str(), label) {
        ("pods", "spec.host") => path(object, "spec.nodeName"),
        ("pods", "spec.hostNetwork") => flag(object, "spec.hostNetwork"),
        ("nodes", "spec.unschedulable") => flag(object, "spec.unschedulable"),
        ("pods", "status.podIPs") => pod_addresses(object),
        ("replicationcontrollers", "status.replicas") => number(object, "status.replicas"),
        ("jobs", "status.successful") => number(object, "status.succeeded"),
        ("events", "source") => {
            let component = path(object, "source.component");
            if component.is_empty() { path(object, "reportingComponent") } else { component }
        }
        _ if kind.group == "events.k8s.io" => event_field(object, label),
        _ => path(object, label),
    }
}

/// `events.k8s.io` names some fields differently from the core group; the labels are the core group's as well.
fn event_field(object: &Value, label: &str) -> String {
    match label {
        "reportingComponent" => path(object, "reportingController"),
        _ => match label.strip_prefix("involvedObject.") {
            Some(rest) => path(object, &format!("regarding.{rest}")),
            None => path(object, label),
        },
    }
}

fn path(object: &Value, label: &str) -> String {
    match label.split('.').try_fold(object, |value, name| value.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn flag(object: &Value, label: &str) -> String {
    if path(object, label) == "true" { "true".into() } else { "false".into() }
}

fn number(object: &Value, label: &str) -> String {
    let text = path(object, label);
    if text.is_empty() { "0".into() } else { text }
}

fn pod_addresses(object: &Value) -> String {
    let addresses = walk::items(object, &["status", "podIPs"]);
    addresses.iter().map(|address| walk::text(address, &["ip"])).collect::<Vec<_>>().join(",")
}
