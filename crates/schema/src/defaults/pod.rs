//! Defaults of pods, containers and volumes that depend on other fields.

use serde_json::{Map, Value};

use super::{Object, child, put, text};

/// Defaults of a Pod that templates do not get.
pub(super) fn pod(object: &mut Object) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    put(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                requests_from_limits(container);
                if host_network {
                    host_ports(container);
                }
            }
        }
    }
}

/// A limit without a request is the request.
fn requests_from_limits(container: &mut Object) {
    let limits = container.get("resources").and_then(|resources| resources.get("limits")).cloned();
    if let (Some(Value::Object(limits)), Some(resources)) = (limits, child(container, "resources"))
        && let Some(requests) = child(resources, "requests")
    {
        limits.into_iter().for_each(|(name, quantity)| put(requests, &name, quantity));
    }
}

/// On the host's network a port is a host port.
fn host_ports(container: &mut Object) {
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut()
            && let Some(number) = port.get("containerPort").cloned()
        {
            put(port, "hostPort", number);
        }
    }
}

/// Defaults of every container.
pub(super) fn container(object: &mut Object) {
    if !object.contains_key("imagePullPolicy") {
        let policy = pull_policy(text(object, "image"));
        object.insert("imagePullPolicy".into(), policy.into());
    }
}

/// `Always` for the tag `latest` or none, unless a digest fixes the image.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let tag = name.split_once(':').map(|(_, tag)| tag);
    if !image.contains('@') && matches!(tag, None | Some("latest")) { "Always" } else { "IfNotPresent" }
}

/// Defaults of a volume made from an image.
pub(super) fn image_volume(object: &mut Object) {
    if !object.contains_key("pullPolicy") {
        let policy = pull_policy(text(object, "reference"));
        object.insert("pullPolicy".into(), policy.into());
    }
}

/// A volume without a source is an empty directory.
pub(super) fn volume(object: &mut Object) {
    if object.keys().all(|key| key == "name") {
        object.insert("emptyDir".into(), Map::new().into());
    }
}
