//! Rules for limit ranges and quotas: numbers that fit each other, and scopes that fit what is counted.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::Quantity;
use serde_json::Value;

use super::{Errors, FieldError};
use crate::walk;

/// Amounts by resource.
type Amounts<'v> = BTreeMap<&'v str, (&'v str, Quantity)>;

const PODS: [&str; 1] = ["pods"];
const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// What else a quota may count under a name of its own.
const OTHERS: [&str; 9] = [
    "ephemeral-storage",
    "requests.ephemeral-storage",
    "limits.ephemeral-storage",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "services.nodeports",
];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes of which no pod is in both.
const EXCLUSIVE: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

// === limit ranges ===

pub(super) fn limit_range(object: &Value, errors: &mut Errors) {
    for (at, limit) in walk::items(object, &["spec", "limits"]).iter().enumerate() {
        let path = format!("spec.limits[{at}]");
        let is_pod = limit["type"] == "Pod";
        for field in ["default", "defaultRequest"] {
            if is_pod && limit[field].as_object().is_some_and(|list| !list.is_empty()) {
                errors.push(FieldError::forbidden(
                    format!("{path}.{field}"),
                    "may not be specified when `type` is 'Pod'",
                ));
            }
        }
        let bounds_storage = ["min", "max"].iter().any(|field| !limit[*field]["storage"].is_null());
        if limit["type"] == "PersistentVolumeClaim" && !bounds_storage {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(format!("{path}.limits"), why));
        }
        let amounts =
            |field: &str| if is_pod && field.starts_with("default") { Amounts::new() } else { amounts(&limit[field]) };
        let [min, max, default, request, ratio] =
            ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"].map(amounts);
        // Lower, its name, upper, its name; and the field at which it is said.
        let orders = [
            (&min, "min value", &max, "max value", "min"),
            (&min, "min value", &request, "default request value", "defaultRequest"),
            (&request, "default request value", &max, "max value", "defaultRequest"),
            (&request, "default request value", &default, "default limit value", "defaultRequest"),
            (&min, "min value", &default, "default value", "default"),
            (&default, "default value", &max, "max value", "default"),
        ];
        for (low, low_name, high, high_name, field) in orders {
            for (name, (low_text, low)) in low {
                let Some((high_text, _)) = high.get(name).filter(|(_, high)| low > high) else { continue };
                let why = format!("{low_name} {low_text} is greater than {high_name} {high_text}");
                errors.push(FieldError::invalid(format!("{path}.{field}[{name}]"), *low_text, why));
            }
        }
        ratios(&ratio, (&min, &max), &path, errors);
    }
}

fn amounts(list: &Value) -> Amounts<'_> {
    let mut found = Amounts::new();
    for (name, text) in list.as_object().into_iter().flatten() {
        if let Some(text) = text.as_str()
            && let Ok(amount) = text.parse()
        {
            found.insert(name, (text, amount));
        }
    }
    found
}

fn ratios(ratios: &Amounts<'_>, (min, max): (&Amounts<'_>, &Amounts<'_>), path: &str, errors: &mut Errors) {
    for (name, (text, ratio)) in ratios {
        let path = format!("{path}.maxLimitRequestRatio[{name}]");
        if ratio.milli() < 1000 {
            errors.push(FieldError::invalid(&path, *text, format!("ratio {text} is less than 1")));
        }
        if let (Some((_, min)), Some((_, max))) = (min.get(name), max.get(name))
            && min.milli() > 0
            // Without division: ratio > max / min.
            && ratio.milli().saturating_mul(min.milli()) > max.milli().saturating_mul(1000)
        {
            let largest = decimal(max.milli(), min.milli());
            errors.push(FieldError::invalid(&path, *text, format!("ratio {text} is greater than max/min = {largest}")));
        }
    }
}

/// A fraction with six digits, as Go prints it.
fn decimal(upper: i128, lower: i128) -> String {
    let millionths = (upper.saturating_mul(2_000_000) / lower + 1) / 2;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

// === quotas ===

pub(super) fn quota(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let hard: Vec<&str> = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let scopes = walk::items(spec, &["scopes"]);
    let names: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
    let whole = Value::from(scopes.to_vec());
    fitting(&names, &hard, "spec.scopes", ("spec.scopes", &whole), &whole, errors);
    let expressions = walk::items(spec, &["scopeSelector", "matchExpressions"]);
    let path = "spec.scopeSelector.matchExpressions";
    let names: Vec<&str> = expressions.iter().map(|one| walk::text(one, &["scopeName"])).collect();
    fitting(&names, &hard, path, (&format!("{path}.scopeName"), &Value::Null), &spec["scopeSelector"], errors);
    expressions.iter().for_each(|expression| selection(expression, path, errors));
}

/// Scopes that there are, that count what is limited, and that do not exclude each other.
fn fitting(
    names: &[&str],
    hard: &[&str],
    path: &str,
    (unknown_path, unknown_value): (&str, &Value),
    value: &Value,
    errors: &mut Errors,
) {
    for name in names {
        if !SCOPES.contains(name) {
            let value = if unknown_value.is_null() { Value::from(*name) } else { unknown_value.clone() };
            errors.push(FieldError::invalid(unknown_path, value, "unsupported scope"));
        }
        for _ in hard.iter().filter(|resource| is_standard(resource) && !counts(name, resource)) {
            errors.push(FieldError::invalid(path, value.clone(), "unsupported scope applied to resource"));
        }
    }
    let names: BTreeSet<&str> = names.iter().copied().collect();
    for _ in EXCLUSIVE.iter().filter(|pair| pair.iter().all(|name| names.contains(name))) {
        errors.push(FieldError::invalid(path, value.clone(), "conflicting scopes"));
    }
}

fn is_standard(resource: &str) -> bool {
    [&PODS[..], &COMPUTE[..], &CLAIMS[..], &OTHERS[..]].iter().any(|list| list.contains(&resource))
}

fn counts(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => PODS.contains(&resource),
        "VolumeAttributesClass" => CLAIMS.contains(&resource),
        scope if SCOPES.contains(&scope) => PODS.contains(&resource) || COMPUTE.contains(&resource),
        _ => true,
    }
}

fn selection(expression: &Value, path: &str, errors: &mut Errors) {
    let (scope, operator) = (walk::text(expression, &["scopeName"]), walk::text(expression, &["operator"]));
    let values = walk::items(expression, &["values"]);
    if SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
        let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                   ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                   ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(format!("{path}.operator"), operator, why));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(format!("{path}.values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(format!("{path}.values"), values.to_vec(), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(FieldError::invalid(format!("{path}.operator"), operator, "not a valid selector operator")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(rule: fn(&Value, &mut Errors), spec: Value, expected: &[&str]) {
        let mut errors = Errors::default();
        rule(&json!({"spec": spec}), &mut errors);
        let found: Vec<String> = errors.list.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{spec}: {found:#?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{spec}: {found}");
        }
    }

    #[test]
    fn bounds_fit_each_other() {
        let limit = |limit: Value| json!({"limits": [limit]});
        let table: [(Value, &[&str]); 9] = [
            (json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "default": {"cpu": "1500m"}}), &[]),
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                &["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
            ),
            (
                json!({"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}}),
                &[
                    "defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
                ],
            ),
            (
                json!({"type": "Container", "default": {"memory": "2Gi"}, "max": {"memory": "1Gi"}}),
                &["default value 2Gi is greater than max value 1Gi"],
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                &["default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (json!({"type": "PersistentVolumeClaim", "min": {"cpu": "1"}}), &["either minimum or maximum storage"]),
            (json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "800m"}}), &["ratio 800m is less than 1"]),
            (
                json!({"type": "Pod", "min": {"cpu": "3"}, "max": {"cpu": "4"}, "maxLimitRequestRatio": {"cpu": "2"}}),
                &["ratio 2 is greater than max/min = 1.333333"],
            ),
            (
                json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "4"}, "maxLimitRequestRatio": {"cpu": "4"}}),
                &[],
            ),
        ];
        for (given, expected) in table {
            check(limit_range, limit(given), expected);
        }
    }

    #[test]
    fn scopes_fit_what_is_counted() {
        let selector =
            |expression: Value| json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [expression]}});
        let table: [(Value, &[&str]); 10] = [
            (json!({"hard": {"pods": "1", "count/x.y": "2"}, "scopes": ["BestEffort"]}), &[]),
            (json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}), &["unsupported scope applied to resource"]),
            (json!({"hard": {"services": "1"}, "scopes": ["Terminating"]}), &["unsupported scope applied to resource"]),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Best"]}),
                &["spec.scopes: Invalid value: [\"Best\"]: unsupported scope"],
            ),
            (json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}), &["conflicting scopes"]),
            (selector(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]})), &[]),
            (selector(json!({"scopeName": "PriorityClass", "operator": "In"})), &["must be at least one value"]),
            (
                selector(json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["x"]})),
                &["must be no value"],
            ),
            (
                selector(json!({"scopeName": "BestEffort", "operator": "DoesNotExist"})),
                &["must be 'Exists' when scope"],
            ),
            (selector(json!({"scopeName": "PriorityClass", "operator": "Is"})), &["not a valid selector operator"]),
        ];
        for (spec, expected) in table {
            check(quota, spec, expected);
        }
    }
}
