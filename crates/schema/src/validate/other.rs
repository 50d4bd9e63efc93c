//! Rules for the remaining kinds: policies, autoscalers, leases, ingresses, priority classes.

use serde_json::Value;

use super::{Errors, FieldError, extension, network, signing, workload};
use crate::admission;
use crate::names;
use crate::table::Kind;
use crate::walk;

const MAX_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
const MAX_ENDPOINTS: usize = 1000;

pub(super) fn check(kind: &Kind, object: &Value, errors: &mut Errors) {
    match kind.plural.as_str() {
        "poddisruptionbudgets" => disruption_budget(object, errors),
        "horizontalpodautoscalers" => autoscaler(object, errors),
        "priorityclasses" => priority_class(object, errors),
        "leases" => lease(object, errors),
        "ingresses" => ingress(object, errors),
        "apiservices" => extension::check(object, errors),
        "certificatesigningrequests" => signing::check(object, errors),
        "endpointslices" => {
            let endpoints = walk::items(object, &["endpoints"]).len();
            if endpoints > MAX_ENDPOINTS {
                errors.push(FieldError::too_many("endpoints", endpoints, MAX_ENDPOINTS));
            }
        }
        "events" => event(object, errors),
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => webhooks(object, errors),
        _ => {}
    }
    if kind.group == "networking.k8s.io" {
        network::check(kind, object, errors);
    }
    if kind.group == admission::GROUP {
        admission::check(kind, object).into_iter().for_each(|error| errors.push(error));
    }
}

fn disruption_budget(object: &Value, errors: &mut Errors) {
    let value = |name: &str| walk::at(object, &["spec", name]);
    if value("minAvailable").is_some() && value("maxUnavailable").is_some() {
        let text = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid("spec", object["spec"].clone(), text));
    }
    for name in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = value(name) {
            workload::portion(value, &format!("spec.{name}"), errors);
        }
    }
}

fn autoscaler(object: &Value, errors: &mut Errors) {
    let number = |name: &str| walk::at(object, &["spec", name]).and_then(Value::as_i64);
    let (min, max) = (number("minReplicas").unwrap_or(1), number("maxReplicas").unwrap_or_default());
    if min < 1 {
        errors.push(FieldError::invalid("spec.minReplicas", min, "must be greater than or equal to 1"));
    }
    if number("maxReplicas").is_none_or(|max| max == 0) {
        errors.push(FieldError::required("spec.maxReplicas", "must be set and greater than 0"));
    } else if max < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than or equal to 1"));
    }
    let version = walk::text(object, &["spec", "scaleTargetRef", "apiVersion"]);
    if version.split_once('/').is_none_or(|(group, _)| group.is_empty()) {
        let text = "apiVersion must specify API group";
        errors.push(FieldError::invalid("spec.scaleTargetRef.apiVersion", version, text));
    }
    if max < min {
        errors.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than or equal to `minReplicas`"));
    }
}

fn priority_class(object: &Value, errors: &mut Errors) {
    let name = walk::text(object, &["metadata", "name"]);
    let value = object.get("value").and_then(Value::as_i64).unwrap_or_default();
    let system = ["system-node-critical", "system-cluster-critical"].contains(&name);
    if name.starts_with(SYSTEM_PREFIX) && !system {
        let text = format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only");
        errors.push(FieldError::forbidden("metadata.name", text));
    }
    if value > MAX_PRIORITY && !system {
        let text = format!("maximum allowed value of a user defined priority is {MAX_PRIORITY}");
        errors.push(FieldError::forbidden("value", text));
    }
}

fn lease(object: &Value, errors: &mut Errors) {
    if let Some(seconds) = walk::at(object, &["spec", "leaseDurationSeconds"]).and_then(Value::as_i64)
        && seconds <= 0
    {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    if let Some(transitions) = walk::at(object, &["spec", "leaseTransitions"]).and_then(Value::as_i64)
        && transitions < 0
    {
        errors.push(FieldError::invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"));
    }
}

fn ingress(object: &Value, errors: &mut Errors) {
    let rules = walk::items(object, &["spec", "rules"]);
    if rules.is_empty() && walk::at(object, &["spec", "defaultBackend"]).is_none() {
        errors.push(FieldError::invalid(
            "spec",
            object["spec"].clone(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    for (at, rule) in rules.iter().enumerate() {
        for (number, path) in walk::items(rule, &["http", "paths"]).iter().enumerate() {
            ingress_path(path, &format!("spec.rules[{at}].http.paths[{number}]"), errors);
        }
    }
}

fn ingress_path(entry: &Value, path: &str, errors: &mut Errors) {
    let text = walk::text(entry, &["path"]);
    if ["Exact", "Prefix"].contains(&walk::text(entry, &["pathType"])) && !text.starts_with('/') {
        errors.push(FieldError::invalid(format!("{path}.path"), text, "must be an absolute path"));
    }
}

/// An event lives in the namespace of what it is about, cluster-scoped things in `default` or `kube-system`.
fn event(object: &Value, errors: &mut Errors) {
    let namespace = walk::text(object, &["metadata", "namespace"]);
    let about = match walk::text(object, &["involvedObject", "namespace"]) {
        "" => walk::text(object, &["regarding", "namespace"]),
        namespace => namespace,
    };
    let fine = if about.is_empty() { ["default", "kube-system"].contains(&namespace) } else { about == namespace };
    if !fine {
        errors.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
}

fn webhooks(object: &Value, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (at, hook) in walk::items(object, &["webhooks"]).iter().enumerate() {
        let path = format!("webhooks[{at}]");
        let name = walk::text(hook, &["name"]);
        let wrong = if name.is_empty() { Vec::new() } else { names::subdomain(name) };
        let is_sound = wrong.is_empty();
        errors.invalid_all(&format!("{path}.name"), name, wrong);
        if is_sound && !name.is_empty() && name.split('.').count() < 3 {
            let text = "should be a domain with at least three segments separated by dots";
            errors.push(FieldError::invalid(format!("{path}.name"), name, text));
        }
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        if walk::items(hook, &["admissionReviewVersions"]).is_empty() {
            let text = "must specify one of v1, v1beta1";
            errors.push(FieldError::required(format!("{path}.admissionReviewVersions"), text));
        }
    }
}
