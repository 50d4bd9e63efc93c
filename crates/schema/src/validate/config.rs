//! Rules for ConfigMaps, Secrets, nodes, claims and quotas.

use base64::Engine as _;
use isopod_types::Quantity;
use serde_json::Value;

use super::{Errors, FieldError, limits};
use crate::names;
use crate::table::Kind;
use crate::walk;

/// Most bytes of all values together.
const MAX_DATA_BYTES: usize = 1024 * 1024;

/// What is wrong with a key of a ConfigMap or Secret.
fn key_problems(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if key.len() > names::MAX_SUBDOMAIN_LENGTH {
        wrong.push(format!("must be no more than {} characters", names::MAX_SUBDOMAIN_LENGTH));
    }
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        wrong.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into());
    }
    match key {
        "." => wrong.push("must not be '.'".into()),
        ".." => wrong.push("must not be '..'".into()),
        _ if key.starts_with("..") => wrong.push("must not start with '..'".into()),
        _ => {}
    }
    wrong
}

/// Bytes of a value; base64 counts decoded.
fn size(field: &str, value: &Value, is_secret: bool) -> usize {
    let text = value.as_str().unwrap_or_default();
    if is_secret || field == "binaryData" { text.len() / 4 * 3 } else { text.len() }
}

pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let is_secret = kind.plural == "secrets";
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{field}[{key}]");
            errors.invalid_all(&path, key, key_problems(key));
            if field == "binaryData" && walk::at(object, &["data", key]).is_some() {
                let text = "duplicate of key present in data";
                errors.push(FieldError::invalid(path, key.as_str(), text));
            }
            bytes += size(field, value, is_secret);
        }
    }
    if bytes > MAX_DATA_BYTES {
        errors.push(FieldError::too_long(if is_secret { "data" } else { "" }, MAX_DATA_BYTES));
    }
    if is_secret {
        secret(object, errors);
    }
    if let Some(old) = old {
        frozen(object, old, errors);
    }
}

/// `immutable: true` freezes the data and itself.
fn frozen(object: &Value, old: &Value, errors: &mut Errors) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    let text = "field is immutable when `immutable` is set";
    for field in ["immutable", "data", "binaryData"] {
        if object.get(field) != old.get(field) {
            errors.push(FieldError::forbidden(field, text));
        }
    }
}

/// Keys that a type of Secret needs.
fn secret(object: &Value, errors: &mut Errors) {
    let has = |key: &str| walk::at(object, &["data", key]).is_some();
    let mut need = |key: &str| {
        if !has(key) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    match walk::text(object, &["type"]) {
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/dockercfg" => docker(object, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(object, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.push(FieldError::required("data[username]", ""));
            errors.push(FieldError::required("data[password]", ""));
        }
        "kubernetes.io/service-account-token"
            if walk::at(object, &["metadata", "annotations", "kubernetes.io/service-account.name"]).is_none() =>
        {
            errors.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
        }
        _ => {}
    }
}

fn docker(object: &Value, key: &str, errors: &mut Errors) {
    let Some(text) = walk::at(object, &["data", key]).and_then(Value::as_str) else {
        errors.push(FieldError::required(format!("data[{key}]"), ""));
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        errors.push(FieldError::invalid(format!("data[{key}]"), "<secret contents redacted>", error.to_string()));
    }
}

/// Taints are unique by key and effect.
pub(super) fn node(object: &Value, errors: &mut Errors) {
    let taints = walk::items(object, &["spec", "taints"]);
    for (at, taint) in taints.iter().enumerate() {
        let text = |taint: &'_ Value, field: &str| walk::text(taint, &[field]).to_owned();
        // Upstream looks for taints in the metadata.
        let path = format!("metadata.taints[{at}]");
        errors.invalid_all(&format!("{path}.key"), &text(taint, "key"), names::qualified(&text(taint, "key")));
        errors.invalid_all(&format!("{path}.value"), &text(taint, "value"), names::label_value(&text(taint, "value")));
        if text(taint, "effect").is_empty() {
            errors.push(FieldError::required(format!("{path}.effect"), ""));
        }
        let same =
            |other: &&Value| text(other, "key") == text(taint, "key") && text(other, "effect") == text(taint, "effect");
        if taints[..at].iter().any(|other| same(&other)) {
            errors.push(FieldError::duplicate(path, taint.clone()));
        }
    }
}

fn not_negative(list: Option<&Value>, path: &str, errors: &mut Errors) {
    for (name, quantity) in list.and_then(Value::as_object).into_iter().flatten() {
        let amount = quantity.as_str().and_then(|text| text.parse::<Quantity>().ok());
        if amount.is_some_and(|amount| amount < Quantity::ZERO) {
            let text = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("{path}[{name}]"), quantity.clone(), text));
        }
    }
}

/// Claims, quotas and limit ranges.
pub(super) fn resources(kind: &Kind, object: &Value, errors: &mut Errors) {
    match kind.plural.as_str() {
        "resourcequotas" => {
            not_negative(walk::at(object, &["spec", "hard"]), "spec.hard", errors);
            limits::quota(object, errors);
        }
        "limitranges" => {
            limits::limit_range(object, errors);
            for (at, item) in walk::items(object, &["spec", "limits"]).iter().enumerate() {
                for field in ["min", "max", "default", "defaultRequest"] {
                    not_negative(item.get(field), &format!("spec.limits[{at}].{field}"), errors);
                }
            }
        }
        _ => claim(object, errors),
    }
}

fn claim(object: &Value, errors: &mut Errors) {
    let modes = walk::items(object, &["spec", "accessModes"]);
    if modes.is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let text = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden("spec.accessModes", text));
    }
    let storage = walk::text(object, &["spec", "resources", "requests", "storage"]);
    match storage.parse::<Quantity>() {
        Err(_) => errors.push(FieldError::required("spec.resources[storage]", "")),
        Ok(amount) if amount <= Quantity::ZERO => {
            errors.push(FieldError::invalid("spec.resources[storage]", storage, "must be greater than zero"));
        }
        Ok(_) => {}
    }
}
