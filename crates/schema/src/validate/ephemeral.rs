//! Rules for ephemeral containers: what they may say, and that a list of them only grows (facts, section 1.14). It never looks at what
//! other containers may say.

use serde_json::Value;

use super::{Errors, FieldError, pod_spec};
use crate::walk;

/// What an ephemeral container may say. Whatever else is set is refused, fields to come included.
const ALLOWED: [&str; 17] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

const REFUSED: &str = "cannot be set for an Ephemeral Container";

/// The annotation of pods that a kubelet made of a file.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Rules that only ephemeral containers have.
pub(super) fn check(container: &Value, path: &str, errors: &mut Errors) {
    for (name, value) in container.as_object().into_iter().flatten() {
        if !ALLOWED.contains(&name.as_str()) && !is_unset(value) {
            errors.push(FieldError::forbidden(format!("{path}.{name}"), REFUSED));
        }
    }
    for (at, mount) in walk::items(container, &["volumeMounts"]).iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !walk::text(mount, &[field]).is_empty() {
                errors.push(FieldError::forbidden(format!("{path}.volumeMounts[{at}].{field}"), REFUSED));
            }
        }
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_unset),
        _ => false,
    }
}

/// Whose processes an ephemeral container is to see must be a container of the pod that is none itself.
pub(super) fn targets(spec: &Value, path: &str, errors: &mut Errors) {
    let others = ["containers", "initContainers"].map(|list| walk::items(spec, &[list]));
    for (at, container) in walk::items(spec, &["ephemeralContainers"]).iter().enumerate() {
        let target = walk::text(container, &["targetContainerName"]);
        let is_there = others.iter().any(|list| list.iter().any(|other| walk::text(other, &["name"]) == target));
        if !target.is_empty() && !is_there {
            errors.push(FieldError::not_found(format!("{path}.ephemeralContainers[{at}].targetContainerName"), target));
        }
    }
}

/// A change through the subresource. Everything but the list was taken from the old pod before.
pub(super) fn update(pod: &Value, old: &Value, errors: &mut Errors) {
    if old["metadata"]["annotations"].get(MIRROR).is_some() {
        errors.list = vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
        return;
    }
    pod_spec::check(&pod["spec"], "spec", errors);
    let list = |pod: &'_ Value| walk::items(pod, &["spec", "ephemeralContainers"]).to_vec();
    let new = list(pod);
    for before in list(old) {
        let name = walk::text(&before, &["name"]);
        let refuse = match new.iter().find(|container| walk::text(container, &["name"]) == name) {
            None => "removed",
            Some(now) if *now != before => "changed",
            Some(_) => continue,
        };
        let text = format!("existing ephemeral containers {name:?} may not be {refuse}\n");
        errors.push(FieldError::forbidden("spec.ephemeralContainers", text));
    }
}
