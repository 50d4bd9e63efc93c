//! Rules for `metadata`, the same for all kinds except for the form of names.

use serde_json::{Map, Value};

use super::{Errors, FieldError, IMMUTABLE};
use crate::crd;
use crate::names;
use crate::table::Kind;
use crate::walk;

const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;
const MAX_CRON_JOB_NAME: usize = 52;

pub(super) fn create(kind: &Kind, object: &Value, errors: &mut Errors) {
    check(kind, object, errors);
    let name = walk::text(object, &["metadata", "name"]);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        errors.invalid_all("metadata.name", name, name_problems(kind, object, name));
    }
}

pub(super) fn update(kind: &Kind, object: &Value, old: &Value, errors: &mut Errors) {
    check(kind, object, errors);
    let fields = ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in fields {
        let path = ["metadata", field];
        let (new, before) = (walk::at(object, &path), walk::at(old, &path));
        if new != before {
            let shown = new.cloned().unwrap_or_else(|| before.map_or(Value::Null, |_| "".into()));
            errors.push(FieldError::invalid(format!("metadata.{field}"), shown, IMMUTABLE));
        }
    }
    finalizers_while_deleting(object, old, errors);
}

fn finalizers_while_deleting(object: &Value, old: &Value, errors: &mut Errors) {
    if walk::at(old, &["metadata", "deletionTimestamp"]).is_none() {
        return;
    }
    let before = walk::items(old, &["metadata", "finalizers"]);
    let added: Vec<String> = walk::items(object, &["metadata", "finalizers"])
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(Value::to_string)
        .collect();
    if !added.is_empty() {
        let lead = "no new finalizers can be added if the object is being deleted, found new finalizers";
        errors.push(FieldError::forbidden("metadata.finalizers", format!("{lead} []string{{{}}}", added.join(", "))));
    }
}

fn check(kind: &Kind, object: &Value, errors: &mut Errors) {
    let namespace = walk::text(object, &["metadata", "namespace"]);
    if kind.namespaced && namespace.is_empty() {
        errors.push(FieldError::required("metadata.namespace", ""));
    } else if kind.namespaced {
        errors.invalid_all("metadata.namespace", namespace, names::label(namespace));
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    let Some(metadata) = object.get("metadata") else { return };
    labels(metadata.get("labels"), "metadata.labels", errors);
    annotations(metadata.get("annotations"), "metadata.annotations", errors);
    owners(walk::items(metadata, &["ownerReferences"]), errors);
    for finalizer in walk::items(metadata, &["finalizers"]).iter().filter_map(Value::as_str) {
        errors.invalid_all("metadata.finalizers", finalizer, names::qualified(finalizer));
    }
    if kind.custom.is_none() && kind.group != crd::GROUP {
        kubernetes_finalizers(walk::items(metadata, &["finalizers"]), errors);
    }
}

/// Finalizers without a domain are Kubernetes' own.
fn kubernetes_finalizers(list: &[Value], errors: &mut Errors) {
    for (at, finalizer) in list.iter().filter_map(Value::as_str).enumerate() {
        if !finalizer.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{at}]"), finalizer, text));
        }
    }
}

fn pairs(map: Option<&Value>) -> impl Iterator<Item = (&String, &str)> {
    let map = map.and_then(Value::as_object).into_iter().flat_map(Map::iter);
    map.map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

/// Keys and values of labels.
pub(super) fn labels(map: Option<&Value>, path: &str, errors: &mut Errors) {
    for (key, value) in pairs(map) {
        errors.invalid_all(path, key, names::qualified(key));
        errors.invalid_all(path, value, names::label_value(value));
    }
}

/// Keys and total size of annotations.
pub(super) fn annotations(map: Option<&Value>, path: &str, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in pairs(map) {
        errors.invalid_all(path, key, names::qualified(&key.to_ascii_lowercase()));
        bytes += key.len() + value.len();
    }
    if bytes > MAX_ANNOTATIONS_BYTES {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS_BYTES));
    }
}

fn owners(references: &[Value], errors: &mut Errors) {
    let mut controller: Option<&str> = None;
    for reference in references {
        let path = "metadata.ownerReferences";
        for field in ["apiVersion", "kind", "name", "uid"] {
            if walk::text(reference, &[field]).is_empty() {
                let lead = if field == "apiVersion" { "version " } else { "" };
                errors.push(FieldError::invalid(format!("{path}.{field}"), "", format!("{lead}must not be empty")));
            }
        }
        let name = walk::text(reference, &["name"]);
        if reference.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                let text = "Only one reference can have Controller set to true. Found \"true\" in references for";
                errors.push(FieldError::invalid(path, reference.clone(), format!("{text} {first} and {name}")));
            }
            controller = Some(name);
        }
    }
}

/// What is wrong with the name of an object of this kind.
fn name_problems(kind: &Kind, object: &Value, name: &str) -> Vec<String> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces" | "services") | ("apps", "statefulsets") => names::label(name),
        ("rbac.authorization.k8s.io", _) | (_, "events") => names::path_segment(name),
        ("networking.k8s.io", "ipaddresses") => ip_name(name),
        ("batch", "cronjobs") if name.len() > MAX_CRON_JOB_NAME => {
            vec![format!("must be no more than {MAX_CRON_JOB_NAME} characters")]
        }
        ("apiextensions.k8s.io", _) => {
            composed(object, name, ["names.plural", "group"], "spec.names.plural+\".\"+spec.group")
        }
        ("apiregistration.k8s.io", _) => {
            composed(object, name, ["version", "group"], "`spec.version+\".\"+spec.group`")
        }
        _ => names::subdomain(name),
    }
}

fn ip_name(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        Ok(address) => vec![format!("must be in canonical form ({:?})", address.to_string())],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// Names that repeat two fields of the spec.
fn composed(object: &Value, name: &str, parts: [&str; 2], rule: &str) -> Vec<String> {
    let part = |path: &str| {
        let mut keys = vec!["spec"];
        keys.extend(path.split('.'));
        walk::text(object, &keys)
    };
    let expected = format!("{}.{}", part(parts[0]), part(parts[1]));
    if name == expected { Vec::new() } else { vec![format!("must be {rule}: {expected:?}")] }
}
