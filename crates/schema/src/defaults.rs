//! Defaults that the server fills in (facts, section 3), on decoding, after each patch and on reading from the store.
//!
//! Idempotent. Never allocates addresses or names; that is the registry's business. Constants stand in [`constants`], what
//! depends on other fields in the functions beside it.

mod constants;
mod dormant;
mod pod;
mod service;
mod workload;
mod written;

use serde_json::{Map, Value, json};

use crate::facts::{Shape, TypeId, TypeSet};
use crate::quantity;
use crate::table::Kind;

type Object = Map<String, Value>;

/// Fills in the defaults of a kind.
pub fn apply(kind: &Kind, object: &mut Value) {
    if let Some(custom) = &kind.custom {
        return crate::crd::apply_defaults(custom, object);
    }
    let Some(map) = object.as_object_mut() else { return };
    by_kind(kind, map);
    object_defaults(kind.types(), kind.root, map);
}

/// Defaults that hold for a kind only, not wherever its parts are embedded.
fn by_kind(kind: &Kind, object: &mut Object) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => pod::pod(object),
        ("", "Namespace") => namespace(object),
        ("", "Secret") => secret(object),
        ("", "Node") => node(object),
        ("", "ServiceAccount") => account(object),
        ("", "ReplicationController") => workload::replication_controller(object),
        ("batch", "Job") => workload::job(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        _ => {}
    }
}

/// Walks an object of a known type.
fn object_defaults(set: &TypeSet, id: TypeId, object: &mut Object) {
    let ty = set.get(id);
    constants::apply(ty, object);
    by_type(&ty.name, object);
    dormant::apply(ty, object);
    written::apply(ty, object);
    for (name, value) in object.iter_mut() {
        if let Some(field) = ty.field(name) {
            value_defaults(set, &field.shape, value);
        }
    }
}

fn value_defaults(set: &TypeSet, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Object(id), Value::Object(object)) => object_defaults(set, *id, object),
        (Shape::List(item), Value::Array(items)) if is_deep(item) => {
            items.iter_mut().for_each(|value| value_defaults(set, item, value));
        }
        (Shape::Map(item), Value::Object(map)) if is_deep(item) => {
            map.values_mut().for_each(|value| value_defaults(set, item, value));
        }
        (Shape::Quantity, Value::String(text)) if text.ends_with(['n', 'u']) => {
            *text = quantity::canonical_milli(text).unwrap_or_else(|| text.clone());
        }
        _ => {}
    }
}

fn is_deep(shape: &Shape) -> bool {
    matches!(shape, Shape::Object(_) | Shape::List(_) | Shape::Map(_) | Shape::Quantity)
}

/// Defaults that depend on other fields of the same object.
fn by_type(name: &str, object: &mut Object) {
    match name.strip_prefix("io.k8s.api.").unwrap_or(name) {
        "core.v1.Container" | "core.v1.EphemeralContainer" => pod::container(object),
        "core.v1.ImageVolumeSource" => pod::image_volume(object),
        "core.v1.Volume" => pod::volume(object),
        "core.v1.ServiceSpec" => service::spec(object),
        "core.v1.LimitRangeItem" => limit_range_item(object),
        "apps.v1.DeploymentSpec" => workload::deployment(object),
        "apps.v1.DaemonSetSpec" => workload::daemon_set(object),
        "apps.v1.StatefulSetSpec" => workload::stateful_set(object),
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => workload::autoscaler(object),
        "networking.v1.NetworkPolicySpec" => service::network_policy(object),
        "rbac.v1.Subject" => subject(object),
        "flowcontrol.v1.FlowSchemaSpec" => nonzero(object, &[("matchingPrecedence", 1000)]),
        "flowcontrol.v1.QueuingConfiguration" => {
            nonzero(object, &[("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)]);
        }
        "storage.v1.CSIDriverSpec" => put(object, "volumeLifecycleModes", json!(["Persistent"])),
        "core.v1.NodeSpec" => pod_cidrs(object),
        "core.v1.PersistentVolumeClaimSpec" => data_source(object),
        "resource.v1.ExactDeviceRequest" | "resource.v1.DeviceSubRequest" => device_request(object),
        _ => {}
    }
}

/// Inserts when absent.
fn put(object: &mut Object, name: &str, value: impl Into<Value>) {
    if !object.contains_key(name) {
        object.insert(name.to_owned(), value.into());
    }
}

/// The object in a field, made if absent.
fn child<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    object.entry(name).or_insert_with(|| Map::new().into()).as_object_mut()
}

fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn namespace(object: &mut Object) {
    let name = object.get("metadata").and_then(|metadata| metadata.get("name")).cloned();
    if let (Some(name), Some(metadata)) = (name, child(object, "metadata"))
        && let Some(labels) = child(metadata, "labels")
    {
        labels.insert(NAME_LABEL.into(), name);
    }
    if let Some(status) = child(object, "status") {
        put(status, "phase", "Active");
    }
}

/// Merges `stringData` into `data`, which is the only one that is stored.
fn secret(object: &mut Object) {
    use base64::Engine as _;
    put(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object.shift_remove("stringData") else { return };
    let Some(data) = child(object, "data") else { return };
    for (key, value) in plain {
        let bytes = value.as_str().unwrap_or_default();
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes).into());
    }
}

/// Names that follow from the kind, and no conversion.
fn definition(object: &mut Object) {
    let Some(spec) = child(object, "spec") else { return };
    if let Some(names) = child(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            put(names, "singular", kind.to_lowercase());
            put(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        put(conversion, "strategy", "None");
    }
}

/// Secrets of an account are names, and nothing else.
fn account(object: &mut Object) {
    for secret in object.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(secret) = secret.as_object_mut() {
            secret.retain(|key, _| key == "name");
        }
    }
}

fn node(object: &mut Object) {
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(capacity) = status.get("capacity").cloned()
    {
        put(status, "allocatable", capacity);
    }
}

fn limit_range_item(object: &mut Object) {
    if text(object, "type") != "Container" {
        return;
    }
    fill_map(object, "default", "max");
    fill_map(object, "defaultRequest", "default");
    fill_map(object, "defaultRequest", "min");
}

/// Copies the keys that `to` lacks from the map `from`.
fn fill_map(object: &mut Object, to: &str, from: &str) {
    let Some(Value::Object(source)) = object.get(from).cloned() else { return };
    if let Some(target) = child(object, to) {
        source.into_iter().for_each(|(key, value)| put(target, &key, value));
    }
}

/// Numbers for which zero is as good as none.
fn nonzero(object: &mut Object, numbers: &[(&str, i64)]) {
    for (name, number) in numbers {
        if object.get(*name).and_then(Value::as_i64).unwrap_or_default() == 0 {
            object.insert((*name).into(), (*number).into());
        }
    }
}

/// What a volume is made from has two fields, which say the same; the older one knows claims and snapshots only.
fn data_source(object: &mut Object) {
    let known = |source: &Value| {
        let word = |name: &str| source.get(name).and_then(Value::as_str).unwrap_or_default();
        ["/PersistentVolumeClaim", "snapshot.storage.k8s.io/VolumeSnapshot"]
            .contains(&format!("{}/{}", word("apiGroup"), word("kind")).as_str())
    };
    match (object.get("dataSource").cloned(), object.get("dataSourceRef").cloned()) {
        (Some(source), _) if !known(&source) => drop(object.shift_remove("dataSource")),
        (Some(source), None) => drop(object.insert("dataSourceRef".into(), source)),
        (None, Some(source)) if known(&source) && source.get("namespace").is_none() => {
            object.insert("dataSource".into(), source);
        }
        _ => {}
    }
}

/// The first range of a node has a field of its own, which counts.
fn pod_cidrs(object: &mut Object) {
    let first = text(object, "podCIDR").to_owned();
    match object.get_mut("podCIDRs").and_then(Value::as_array_mut).map(|list| list.first_mut()) {
        Some(Some(own)) if !first.is_empty() => *own = first.into(),
        Some(Some(own)) => {
            let own = own.clone();
            object.insert("podCIDR".into(), own);
        }
        _ if !first.is_empty() => drop(object.insert("podCIDRs".into(), json!([first]))),
        _ => {}
    }
}

fn subject(object: &mut Object) {
    if ["User", "Group"].contains(&text(object, "kind")) {
        put(object, "apiGroup", "rbac.authorization.k8s.io");
    }
}

fn device_request(object: &mut Object) {
    put(object, "allocationMode", "ExactCount");
    if text(object, "allocationMode") == "ExactCount" {
        put(object, "count", 1);
    }
}
