//! Defaults of workloads that depend on other fields.

use serde_json::{Value, json};

use super::{Object, child, put, text};

const BACKOFF_LIMIT: i64 = 6;
const QUARTER: &str = "25%";

pub(super) fn deployment(spec: &mut Object) {
    let Some(strategy) = child(spec, "strategy") else { return };
    put(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = child(strategy, "rollingUpdate")
    {
        put(rolling, "maxUnavailable", QUARTER);
        put(rolling, "maxSurge", QUARTER);
    }
}

pub(super) fn daemon_set(spec: &mut Object) {
    let Some(strategy) = child(spec, "updateStrategy") else { return };
    put(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = child(strategy, "rollingUpdate")
    {
        put(rolling, "maxUnavailable", 1);
        put(rolling, "maxSurge", 0);
    }
}

pub(super) fn stateful_set(spec: &mut Object) {
    if let Some(strategy) = child(spec, "updateStrategy") {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            put(rolling, "partition", 0);
        }
    }
    if let Some(retention) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        put(retention, "whenDeleted", "Retain");
        put(retention, "whenScaled", "Retain");
    }
}

/// Selector and labels come from the template when absent.
pub(super) fn replication_controller(object: &mut Object) {
    labels_from_template(object);
    let labels = template_labels(object);
    if let (Some(labels), Some(spec)) = (labels, object.get_mut("spec").and_then(Value::as_object_mut)) {
        put(spec, "selector", labels);
    }
}

/// A Job's own; the templates of CronJobs are filled in when they become jobs.
pub(super) fn job(object: &mut Object) {
    labels_from_template(object);
    if let Some(spec) = child(object, "spec") {
        job_spec(spec);
    }
}

fn template_labels(object: &Object) -> Option<Value> {
    object.get("spec")?.get("template")?.get("metadata")?.get("labels").cloned()
}

fn labels_from_template(object: &mut Object) {
    if let (Some(labels), Some(metadata)) = (template_labels(object), child(object, "metadata")) {
        put(metadata, "labels", labels);
    }
}

fn job_spec(spec: &mut Object) {
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    put(spec, "manualSelector", false);
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        put(spec, "completions", 1);
    }
    put(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    put(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { BACKOFF_LIMIT });
    let failed_only = spec.contains_key("podFailurePolicy");
    put(spec, "podReplacementPolicy", if failed_only { "Failed" } else { "TerminatingOrFailed" });
}

pub(super) fn autoscaler(spec: &mut Object) {
    put(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
    );
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    if let Some(up) = child(behavior, "scaleUp") {
        put(up, "stabilizationWindowSeconds", 0);
        put(up, "selectPolicy", "Max");
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        put(up, "policies", json!([pods, {"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        put(down, "selectPolicy", "Max");
        put(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}
