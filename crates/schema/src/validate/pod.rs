//! Rules for pods: creation, and the little that may change afterwards.

use serde_json::{Value, json};

use super::{Errors, FieldError, pod_spec};
use crate::walk;

pub(super) fn create(pod: &Value, errors: &mut Errors) {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    pod_spec::check(spec, "spec", errors);
    if !walk::items(spec, &["ephemeralContainers"]).is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if !walk::items(spec, &["schedulingGates"]).is_empty() && !walk::text(spec, &["nodeName"]).is_empty() {
        errors
            .push(FieldError::forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
}

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn update(pod: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (&pod["spec"], &old["spec"]);
    if spec == before {
        return;
    }
    let earlier = errors.list.len();
    deadline(spec, before, errors);
    tolerations(spec, before, errors);
    gates(spec, before, errors);
    containers(spec, before, errors);
    node_selector(spec, before, errors);
    if errors.list.len() == earlier && masked(spec, before) != masked(before, before) {
        errors.push(FieldError::forbidden("spec", MAY_CHANGE));
    }
}

/// The spec with what may change set to what it was.
fn masked(spec: &Value, before: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    let gated = !walk::items(before, &["schedulingGates"]).is_empty();
    let Some(map) = spec.as_object_mut() else { return spec };
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        map.shift_remove(field);
    }
    if before.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0)
        && map.get("terminationGracePeriodSeconds") == Some(&json!(1))
    {
        map.insert("terminationGracePeriodSeconds".into(), before["terminationGracePeriodSeconds"].clone());
    }
    if gated {
        // Gated pods may add node selectors, and tighten node affinity.
        map.shift_remove("nodeSelector");
        if let Some(affinity) = map.get_mut("affinity").and_then(Value::as_object_mut) {
            affinity.shift_remove("nodeAffinity");
        }
        if map.get("affinity").is_some_and(|affinity| affinity == &json!({})) {
            map.shift_remove("affinity");
        }
    }
    spec
}

/// Gated pods may add to their node selector; what it asked for stays.
fn node_selector(spec: &Value, before: &Value, errors: &mut Errors) {
    let old = before.get("nodeSelector").and_then(Value::as_object).into_iter().flatten();
    let kept = old.into_iter().all(|(key, value)| walk::at(spec, &["nodeSelector", key]) == Some(value));
    if !kept && !walk::items(before, &["schedulingGates"]).is_empty() {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid("spec.nodeSelector", spec["nodeSelector"].clone(), text));
    }
}

fn containers(spec: &Value, before: &Value, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let (new, old) = (walk::items(spec, &[list]), walk::items(before, &[list]));
        if new.len() != old.len() {
            errors.push(FieldError::forbidden("spec", "pod updates may not add or remove containers"));
            return;
        }
        for (at, container) in new.iter().enumerate() {
            if walk::text(container, &["image"]).is_empty() {
                errors.push(FieldError::required(format!("spec.{list}[{at}].image"), ""));
            }
        }
    }
}

fn deadline(spec: &Value, before: &Value, errors: &mut Errors) {
    let seconds = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    let path = "spec.activeDeadlineSeconds";
    match (seconds(spec), seconds(before)) {
        (Some(new), _) if new < 0 => errors.push(FieldError::invalid(path, new, "must be greater than or equal to 0")),
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(path, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(path, Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn tolerations(spec: &Value, before: &Value, errors: &mut Errors) {
    let (new, old) = (walk::items(spec, &["tolerations"]), walk::items(before, &["tolerations"]));
    let same_but_seconds = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"].iter().all(|field| a.get(*field) == b.get(*field))
    };
    if !old.iter().all(|toleration| new.iter().any(|candidate| same_but_seconds(candidate, toleration))) {
        let text = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", text));
    }
    pod_spec::tolerations(new, "spec.tolerations", errors);
}

fn gates(spec: &Value, before: &Value, errors: &mut Errors) {
    let old = walk::items(before, &["schedulingGates"]);
    for (at, gate) in walk::items(spec, &["schedulingGates"]).iter().enumerate() {
        if !old.contains(gate) {
            let text =
                format!("only deletion is allowed, but found new scheduling gate '{}'", walk::text(gate, &["name"]));
            errors.push(FieldError::forbidden(format!("spec.schedulingGates[{at}]"), text));
        }
    }
}

/// Status changes: containers that have ended for good stay ended, the quality of service does not change.
pub(super) fn update_status(pod: &Value, old: &Value, errors: &mut Errors) {
    let class = |pod: &'_ Value| walk::text(pod, &["status", "qosClass"]).to_owned();
    if !class(old).is_empty() && class(pod) != class(old) && walk::at(pod, &["status", "qosClass"]).is_some() {
        errors.push(FieldError::invalid("status.qosClass", class(pod), super::IMMUTABLE));
    }
    let restarts = match walk::text(old, &["spec", "restartPolicy"]) {
        "Never" => None,
        "OnFailure" => Some(0),
        _ => return,
    };
    for (at, status) in walk::items(pod, &["status", "containerStatuses"]).iter().enumerate() {
        let name = walk::text(status, &["name"]);
        let before =
            walk::items(old, &["status", "containerStatuses"]).iter().find(|old| walk::text(old, &["name"]) == name);
        let Some(ended) = before.and_then(|before| walk::at(before, &["state", "terminated"])) else { continue };
        let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
        let may_restart = restarts.is_some() && code != 0;
        if !may_restart && walk::at(status, &["state", "terminated"]).is_none() {
            let text = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(format!("status.containerStatuses[{at}].state"), text));
        }
    }
}
