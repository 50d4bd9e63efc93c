//! Scopes: which objects a quota is about.

use serde_json::Value;

use super::usage::counted_by;

/// The quota counts this object.
pub(super) fn covers(quota: &Value, resource: &str, object: &Value) -> bool {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    let counts = hard.into_iter().any(|(name, _)| counted_by(name) == resource);
    let plain = quota["spec"]["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let selected = quota["spec"]["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    counts
        && plain.into_iter().all(|scope| is_in(scope, resource, object, &Value::Null))
        && selected.into_iter().all(|term| {
            let scope = term["scopeName"].as_str().unwrap_or_default();
            is_in(scope, resource, object, term)
        })
}

/// The object is in a scope. A term of a selector says more; without one the scope alone is meant.
fn is_in(scope: &str, resource: &str, object: &Value, term: &Value) -> bool {
    let spec = &object["spec"];
    match (scope, resource) {
        ("Terminating", "pods") => has_deadline(spec),
        ("NotTerminating", "pods") => !has_deadline(spec),
        ("BestEffort", "pods") => is_best_effort(spec),
        ("NotBestEffort", "pods") => !is_best_effort(spec),
        ("PriorityClass", "pods") => chosen(term, spec["priorityClassName"].as_str()),
        ("CrossNamespacePodAffinity", "pods") => crosses_namespaces(&spec["affinity"]),
        ("VolumeAttributesClass", "persistentvolumeclaims") => chosen(term, spec["volumeAttributesClassName"].as_str()),
        _ => false,
    }
}

fn has_deadline(spec: &Value) -> bool {
    spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// Nothing is asked for by any container.
fn is_best_effort(spec: &Value) -> bool {
    let containers = ["containers", "initContainers"].into_iter().filter_map(|list| spec[list].as_array()).flatten();
    let resources = containers.map(|container| &container["resources"]).chain([&spec["resources"]]);
    resources.into_iter().all(|resources| {
        ["requests", "limits"].iter().all(|which| ["cpu", "memory"].iter().all(|name| resources[which][name].is_null()))
    })
}

/// A name satisfies the operator of a term.
fn chosen(term: &Value, name: Option<&str>) -> bool {
    let name = name.filter(|name| !name.is_empty());
    let listed = || term["values"].as_array().into_iter().flatten().any(|value| value.as_str() == name);
    match term["operator"].as_str() {
        Some("In") => name.is_some() && listed(),
        Some("NotIn") => !(name.is_some() && listed()),
        Some("DoesNotExist") => name.is_none(),
        _ => name.is_some(),
    }
}

/// A term of (anti-)affinity looks at pods of other namespaces.
fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|list| !list.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().map(|kind| &affinity[kind]).any(|kind| {
        let required = kind["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = kind["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(crosses)
            || preferred.into_iter().flatten().any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}
