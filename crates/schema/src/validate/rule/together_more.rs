//! What several fields of a type must be together: scaling, priority and fairness, admission, devices.

use serde_json::Value;

use super::{Object, Together, as_text, is_empty};
use crate::validate::{ErrorType, Errors, FieldError};

/// Types without `io.k8s.api.`.
pub(super) const ROWS: &[(&str, Together)] = &[
    ("autoscaling.v2.HPAScalingRules", scaling_rules),
    ("autoscaling.v2.MetricSpec", metric),
    ("autoscaling.v2.MetricTarget", metric_target),
    // Upstream leaves the selector of a metric to who serves it.
    ("autoscaling.v2.MetricIdentifier", |_, _, _| false),
    ("flowcontrol.v1.Subject", flow_subject),
    ("flowcontrol.v1.FlowDistinguisherMethod", distinguisher),
    ("flowcontrol.v1.ResourcePolicyRule", verbs),
    ("flowcontrol.v1.NonResourcePolicyRule", verbs),
    ("flowcontrol.v1.PriorityLevelConfigurationSpec", priority_level),
    ("flowcontrol.v1.LimitResponse", limit_response),
    ("flowcontrol.v1.QueuingConfiguration", queues),
    ("admissionregistration.v1.RuleWithOperations", rule_texts),
    ("admissionregistration.v1.NamedRuleWithOperations", rule_texts),
    ("admissionregistration.v1.ValidatingWebhook", review_versions),
    ("admissionregistration.v1.MutatingWebhook", review_versions),
    ("resource.v1.DeviceConstraint", constraint),
    ("resource.v1.ResourceSliceSpec", slice_nodes),
];

/// An empty list of policies is none at all.
fn scaling_rules(object: &Object, path: &str, errors: &mut Errors) -> bool {
    if is_empty(object.get("policies")) {
        errors.push(FieldError::required(format!("{path}.policies"), "must specify at least one Policy"));
    }
    true
}

/// Types of metrics and the fields that hold them.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn metric(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let ty = as_text(object.get("type"));
    let at = format!("{path}.type");
    if ty.is_empty() {
        errors.push(FieldError::required(at.clone(), "must specify a metric source type"));
    }
    let Some((_, wanted)) = METRICS.iter().find(|(name, _)| *name == ty) else {
        // Told twice, as upstream does.
        let known = METRICS.map(|(name, _)| name);
        errors.push(super::unsupported(&at, ty, &known));
        errors.push(super::unsupported(&at, ty, &known));
        return true;
    };
    if !object.contains_key(*wanted) {
        let text = "must populate information for the given metric source";
        errors.push(FieldError::required(format!("{path}.{wanted}"), text));
    }
    for (_, other) in METRICS.iter().filter(|(_, field)| field != wanted && object.contains_key(*field)) {
        let text = "must populate the given metric source only";
        errors.push(FieldError::forbidden(format!("{path}.{other}"), text));
    }
    target(object, wanted, path, errors);
    true
}

/// What the target of a kind of metric must have.
fn target(object: &Object, source: &str, path: &str, errors: &mut Errors) {
    let Some(source_value) = object.get(source) else { return };
    let empty = Value::Null;
    let target = source_value.get("target").unwrap_or(&empty);
    let path = format!("{path}.{source}.target");
    let has = |field: &str| target.get(field).is_some();
    let (value, average, utilization) = (has("value"), has("averageValue"), has("averageUtilization"));
    let missing = match source {
        "pods" if !average => ("averageValue", "must specify a positive target averageValue"),
        "object" if !value && !average => ("averageValue", "must set either a target value or averageValue"),
        "external" if !value && !average => {
            ("averageValue", "must set either a target value for metric or a per-pod target")
        }
        "resource" | "containerResource" if !average && !utilization => {
            ("averageUtilization", "must set either a target raw value or a target utilization")
        }
        _ => return,
    };
    errors.push(FieldError::required(format!("{path}.{}", missing.0), missing.1));
}

fn metric_target(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let ty = as_text(object.get("type"));
    let at = format!("{path}.type");
    if ty.is_empty() {
        errors.push(FieldError::required(at.clone(), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&ty) {
        errors.push(FieldError::invalid(at, ty, "must be either Utilization, Value, or AverageValue"));
    }
    true
}

/// The one field that the kind of the subject names.
fn flow_subject(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let kind = as_text(object.get("kind"));
    let mut fine = true;
    for (name, field) in [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")] {
        let at = format!("{path}.{field}");
        match (kind == name, object.contains_key(field)) {
            (true, false) => {
                errors.push(FieldError::required(at, format!("{field} is required when subject kind is '{name}'")));
            }
            (false, true) if ["User", "Group", "ServiceAccount"].contains(&kind) => {
                let text = format!("{field} is forbidden when subject kind is not '{name}'");
                errors.push(FieldError::forbidden(at, text));
                fine = false;
            }
            _ => {}
        }
    }
    fine
}

fn distinguisher(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let ty = as_text(object.get("type"));
    if !["ByNamespace", "ByUser"].contains(&ty) {
        let detail = "supported values: \"ByNamespace\", \"ByUser\"";
        let error = FieldError::new(ErrorType::NotSupported, format!("{path}.type"), detail);
        errors.push(FieldError { value: Some(serde_json::json!({"Type": ty})), ..error });
    }
    false
}

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn verbs(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let list: Vec<&str> = super::texts(object.get("verbs")).map(|(_, verb)| verb).collect();
    let unknown = list.iter().any(|verb| !VERBS.contains(verb));
    if unknown && !list.contains(&"*") {
        let known: Vec<String> = VERBS.iter().map(|verb| format!("{verb:?}")).collect();
        let detail = format!("supported values: {}", known.join(", "));
        let error = FieldError::new(ErrorType::NotSupported, format!("{path}.verbs"), detail);
        errors.push(FieldError { value: Some(list.into()), ..error });
    }
    true
}

fn priority_level(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let has = |field: &str| object.contains_key(field);
    match as_text(object.get("type")) {
        "Limited" => {
            if !has("limited") {
                errors.push(FieldError::required(format!("{path}.limited"), "must not be empty when type is Limited"));
            }
            if has("exempt") {
                errors.push(FieldError::forbidden(format!("{path}.exempt"), "must be nil if the type is Limited"));
            }
        }
        "Exempt" if has("limited") => {
            errors.push(FieldError::forbidden(format!("{path}.limited"), "must be nil if the type is not Limited"));
        }
        _ => {}
    }
    true
}

fn limit_response(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let at = format!("{path}.queuing");
    match (as_text(object.get("type")), object.contains_key("queuing")) {
        ("Queue", false) => {
            let text = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(at, text));
        }
        ("Reject", true) => {
            let text = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(at, text));
        }
        _ => {}
    }
    true
}

fn queues(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let number = |name: &str| object.get(name).and_then(Value::as_i64).unwrap_or_default();
    let (queues, hand) = (number("queues"), number("handSize"));
    if hand > queues {
        let text = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(format!("{path}.handSize"), hand, text));
    }
    true
}

/// Versions and resources are never empty texts.
fn rule_texts(object: &Object, path: &str, errors: &mut Errors) -> bool {
    for field in ["apiVersions", "resources"] {
        for (at, _) in super::texts(object.get(field)).filter(|(_, text)| text.is_empty()) {
            errors.push(FieldError::required(format!("{path}.{field}[{at}]"), ""));
        }
    }
    true
}

fn review_versions(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let list: Vec<&str> = super::texts(object.get("admissionReviewVersions")).map(|(_, text)| text).collect();
    let path = format!("{path}.admissionReviewVersions");
    if !list.is_empty() && !list.iter().any(|version| ["v1", "v1beta1"].contains(version)) {
        let text = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(path.clone(), list.clone(), text));
    }
    for (at, version) in list.iter().enumerate().filter(|(at, version)| list[..*at].contains(version)) {
        errors.push(FieldError::invalid(format!("{path}[{at}]"), *version, "duplicate version"));
    }
    true
}

fn constraint(object: &Object, path: &str, errors: &mut Errors) -> bool {
    if object.contains_key("matchAttribute") == object.contains_key("distinctAttribute") {
        let text =
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.push(FieldError::required(path, text));
    }
    true
}

/// Devices are of one node, of some, of all, or each says of which.
fn slice_nodes(object: &Object, path: &str, errors: &mut Errors) -> bool {
    let fields = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given = fields.iter().filter(|field| {
        object
            .get(**field)
            .is_some_and(|value| !matches!(value, Value::Bool(false)) && !value.as_str().is_some_and(str::is_empty))
    });
    let lead = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.count() {
        1 => {}
        0 => errors.push(FieldError::required(path, lead)),
        _ => errors.push(FieldError::invalid(path, Value::Null, format!("{lead}, but multiple fields are set"))),
    }
    true
}
