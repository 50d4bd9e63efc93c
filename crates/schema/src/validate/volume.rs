//! Rules for volumes of pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::container::relative_path;
use super::{Errors, FieldError};
use crate::names;
use crate::walk;

const MAX_MODE: i64 = 0o777;

/// Checks the volumes and returns their names.
pub(super) fn check<'a>(volumes: &'a [Value], path: &str, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (at, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let name = walk::text(volume, &["name"]);
        if !name.is_empty() {
            errors.invalid_all(&format!("{path}.name"), name, names::label(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let sources: Vec<(&String, &Value)> =
            volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name").collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(path, "must specify a volume type")),
            [(kind, source), more @ ..] => {
                self::source(kind, source, &format!("{path}.{kind}"), errors);
                for (kind, _) in more {
                    let text = "may not specify more than 1 volume type";
                    errors.push(FieldError::forbidden(format!("{path}.{kind}"), text));
                }
            }
        }
    }
    seen
}

fn source(kind: &str, source: &Value, path: &str, errors: &mut Errors) {
    match kind {
        "secret" => {
            named(source, "secretName", path, errors);
            files(source, path, errors);
        }
        "configMap" => {
            named(source, "name", path, errors);
            files(source, path, errors);
        }
        "downwardAPI" => files(source, path, errors),
        "projected" => {
            mode(source, "defaultMode", path, errors);
            projected(walk::items(source, &["sources"]), &format!("{path}.sources"), errors);
        }
        "persistentVolumeClaim" => named(source, "claimName", path, errors),
        "hostPath" if walk::text(source, &["path"]).split('/').any(|part| part == "..") => {
            let given = walk::text(source, &["path"]);
            errors.push(FieldError::invalid(format!("{path}.path"), given, "must not contain '..'"));
        }
        _ => {}
    }
}

fn named(source: &Value, field: &str, path: &str, errors: &mut Errors) {
    let path = format!("{path}.{field}");
    // The schema already asks for required texts; these two are optional there.
    if walk::text(source, &[field]).is_empty() && field != "claimName" {
        errors.push(FieldError::required(path, ""));
    }
}

fn mode(holder: &Value, field: &str, path: &str, errors: &mut Errors) {
    if let Some(mode) = holder.get(field).and_then(Value::as_i64)
        && !(0..=MAX_MODE).contains(&mode)
    {
        let text = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(format!("{path}.{field}"), mode, text));
    }
}

fn files(source: &Value, path: &str, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    for (at, item) in walk::items(source, &["items"]).iter().enumerate() {
        let path = format!("{path}.items[{at}]");
        mode(item, "mode", &path, errors);
        relative_path(walk::text(item, &["path"]), &format!("{path}.path"), errors);
    }
}

fn projected(sources: &[Value], path: &str, errors: &mut Errors) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    for (at, source) in sources.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let given: Vec<&&str> = KINDS.iter().filter(|kind| source.get(**kind).is_some()).collect();
        match given.as_slice() {
            [] => {}
            [kind] => {
                let holder = &source[**kind];
                if ["secret", "configMap"].contains(*kind) {
                    named(holder, "name", &format!("{path}.{kind}"), errors);
                }
                files(holder, &format!("{path}.{kind}"), errors);
                relative_path(walk::text(holder, &["path"]), &format!("{path}.{kind}.path"), errors);
            }
            _ => errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type per source")),
        }
    }
}
