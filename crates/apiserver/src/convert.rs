//! Kinds that are served in two versions but stored in one: `events.k8s.io/v1 Event` is stored as the core group's,
//! `autoscaling/v1 HorizontalPodAutoscaler` as `autoscaling/v2`. Also versions of custom kinds. Pure; everything else is
//! stored as it is served.

use std::sync::Arc;

use isopod_schema::{Kind, Table, decode, defaults};
use serde_json::{Map, Value, json};

/// Field of `events.k8s.io/v1`, field of `v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Metrics of an autoscaler that version 1 cannot say.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pair {
    Events,
    Autoscalers,
}

fn pair(kind: &Kind) -> Option<Pair> {
    if kind.is("events.k8s.io", "events") {
        return Some(Pair::Events);
    }
    (kind.is("autoscaling", "horizontalpodautoscalers") && kind.version == "v1").then_some(Pair::Autoscalers)
}

/// Stored bytes are not what is served: another kind, or a custom one, whose schema may have changed since.
pub(crate) fn is_needed(kind: &Kind) -> bool {
    kind.custom.is_some() || pair(kind).is_some()
}

/// The kind that objects of this kind are stored as. All versions of a custom kind share one place.
pub(crate) fn stored_kind(kind: &Arc<Kind>) -> &Arc<Kind> {
    let stored = match pair(kind) {
        None => None,
        Some(Pair::Events) => Table::builtin().resource("", "v1", "events"),
        Some(Pair::Autoscalers) => Table::builtin().resource("autoscaling", "v2", "horizontalpodautoscalers"),
    };
    stored.unwrap_or(kind)
}

/// The field label of the stored kind that means the same as this one.
pub(crate) fn stored_label(kind: &Kind, label: String) -> String {
    let (first, rest) = label.split_once('.').map_or((&*label, None), |(first, rest)| (first, Some(rest)));
    let known = EVENT_FIELDS.iter().find(|(new, _)| *new == first).filter(|_| pair(kind) == Some(Pair::Events));
    match (known, rest) {
        (None, _) => label,
        (Some((_, core)), None) => (*core).to_owned(),
        (Some((_, core)), Some(rest)) => format!("{core}.{rest}"),
    }
}

/// From the stored form to the served one.
pub(crate) fn from_stored(kind: &Kind, object: Value) -> Value {
    match pair(kind) {
        None if kind.custom.is_some() => custom_from_stored(kind, object),
        None => object,
        Some(Pair::Events) => rename(object, "events.k8s.io/v1", |name| {
            EVENT_FIELDS.iter().find(|(_, core)| *core == name).map(|(new, _)| *new)
        }),
        Some(Pair::Autoscalers) => autoscaler_v1(object),
    }
}

/// From the served form to the stored one.
pub(crate) fn to_stored(kind: &Kind, object: Value) -> Value {
    match pair(kind) {
        None => {
            let mut object = object;
            object["apiVersion"] = kind.stored_api_version().into();
            object
        }
        Some(Pair::Events) => {
            rename(object, "v1", |name| EVENT_FIELDS.iter().find(|(new, _)| *new == name).map(|(_, core)| *core))
        }
        Some(Pair::Autoscalers) => autoscaler_v2(object),
    }
}

/// Versions differ in name only; what the schema of this one does not know goes, what it defaults comes.
fn custom_from_stored(kind: &Kind, mut object: Value) -> Value {
    object["apiVersion"] = kind.api_version().into();
    let mut object = match decode::value(kind.root(), object.clone()) {
        Ok(decoded) => decoded.value,
        Err(error) => {
            tracing::error!(kind = kind.kind, %error, "a stored custom object does not decode; it is shown as it is");
            object
        }
    };
    defaults::apply(kind, &mut object);
    object
}

fn rename(object: Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = object else { return object };
    let renamed = |key: String| name(&key).map_or(key, str::to_owned);
    let mut renamed: Map<String, Value> = fields.into_iter().map(|(key, value)| (renamed(key), value)).collect();
    renamed.insert("apiVersion".into(), api_version.into());
    renamed.into()
}

fn is_cpu(metric: &Value) -> bool {
    metric["resource"]["name"] == "cpu" && metric["resource"]["target"]["type"] == "Utilization"
}

/// The CPU goal becomes a field, other metrics an annotation, as upstream does.
fn autoscaler_v1(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v1".into();
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    let metrics = spec.shift_remove("metrics").and_then(|metrics| metrics.as_array().cloned()).unwrap_or_default();
    if let Some(cpu) = metrics.iter().find(|metric| is_cpu(metric)) {
        let goal = cpu["resource"]["target"]["averageUtilization"].clone();
        spec.insert("targetCPUUtilizationPercentage".into(), goal);
    }
    let others: Vec<&Value> = metrics.iter().filter(|metric| !is_cpu(metric)).collect();
    if !others.is_empty() {
        object["metadata"]["annotations"][METRICS_ANNOTATION] = json!(others).to_string().into();
    }
    object
}

fn autoscaler_v2(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v2".into();
    let annotations = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut);
    let kept = annotations.and_then(|annotations| annotations.shift_remove(METRICS_ANNOTATION));
    let mut metrics: Vec<Value> = kept.and_then(|text| serde_json::from_str(text.as_str()?).ok()).unwrap_or_default();
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    if let Some(goal) = spec.shift_remove("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": goal});
        metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_survive_the_way_there_and_back() {
        let kind = Table::builtin().resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        for metrics in [json!([cpu]), json!([cpu, memory])] {
            let stored = json!({"apiVersion": "autoscaling/v2", "metadata": {"annotations": {}}, "spec": {"maxReplicas": 3, "metrics": metrics}});
            let served = from_stored(kind, stored.clone());
            assert_eq!(served["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
            assert_eq!(to_stored(kind, served), stored);
        }
    }
}
