//! Rules for roles and role bindings. Whether the writer may grant what is in them is for the authorizer.

use serde_json::Value;

use super::{Errors, FieldError};
use crate::names;
use crate::table::Kind;
use crate::walk;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn check(kind: &Kind, object: &Value, errors: &mut Errors) {
    match kind.plural.as_str() {
        "roles" | "clusterroles" => rules(object, kind.namespaced, errors),
        _ => binding(object, kind.namespaced, errors),
    }
}

fn rules(object: &Value, namespaced: bool, errors: &mut Errors) {
    for (at, rule) in walk::items(object, &["rules"]).iter().enumerate() {
        let path = format!("rules[{at}]");
        let empty = |field: &str| walk::items(rule, &[field]).is_empty();
        if empty("verbs") {
            errors.push(FieldError::required(format!("{path}.verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            if namespaced {
                let text = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    text,
                ));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    text,
                ));
            }
            continue;
        }
        if empty("apiGroups") {
            let text = "resource rules must supply at least one api group";
            errors.push(FieldError::required(format!("{path}.apiGroups"), text));
        }
        if empty("resources") {
            let text = "resource rules must supply at least one resource";
            errors.push(FieldError::required(format!("{path}.resources"), text));
        }
    }
}

fn binding(object: &Value, namespaced: bool, errors: &mut Errors) {
    let role = |field: &str| walk::text(object, &["roleRef", field]);
    if role("apiGroup") != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", role("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role("kind")) {
        errors.push(super::rule::unsupported("roleRef.kind", role("kind"), kinds));
    }
    if !role("name").is_empty() {
        errors.invalid_all("roleRef.name", role("name"), names::path_segment(role("name")));
    }
    for (at, subject) in walk::items(object, &["subjects"]).iter().enumerate() {
        self::subject(subject, &format!("subjects[{at}]"), namespaced, errors);
    }
}

fn subject(subject: &Value, path: &str, namespaced: bool, errors: &mut Errors) {
    let text = |field: &str| walk::text(subject, &[field]);
    match text("kind") {
        "ServiceAccount" => {
            if !text("name").is_empty() {
                errors.invalid_all(&format!("{path}.name"), text("name"), names::subdomain(text("name")));
            }
            if !text("apiGroup").is_empty() {
                errors.push(FieldError::not_supported(format!("{path}.apiGroup"), text("apiGroup"), &[""]));
            }
            if !namespaced && text("namespace").is_empty() {
                errors.push(FieldError::required(format!("{path}.namespace"), ""));
            }
        }
        "User" | "Group" if text("apiGroup") != GROUP => {
            errors.push(FieldError::not_supported(format!("{path}.apiGroup"), text("apiGroup"), &[GROUP]));
        }
        // What kinds there are, the rows say.
        _ => {}
    }
}
