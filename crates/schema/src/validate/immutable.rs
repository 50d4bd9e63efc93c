//! Fields that may not change, as a table.

use isopod_types::Quantity;
use serde_json::Value;

use super::{Errors, FieldError, network};
use crate::table::Kind;
use crate::walk;

/// Group, plural, dotted paths.
const IMMUTABLE: [(&str, &str, &[&str]); 22] = [
    ("apps", "deployments", &["spec.selector"]),
    ("apps", "replicasets", &["spec.selector"]),
    ("apps", "daemonsets", &["spec.selector"]),
    ("apps", "controllerrevisions", &["data"]),
    (
        "batch",
        "jobs",
        &[
            "spec.selector",
            "spec.completionMode",
            "spec.podFailurePolicy",
            "spec.backoffLimitPerIndex",
            "spec.managedBy",
            "spec.successPolicy",
        ],
    ),
    ("", "secrets", &["type"]),
    ("", "services", &["spec.loadBalancerClass"]),
    ("", "resourcequotas", &["spec.scopes"]),
    ("rbac.authorization.k8s.io", "rolebindings", &["roleRef"]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &["roleRef"]),
    ("networking.k8s.io", "ingressclasses", &["spec.controller"]),
    ("scheduling.k8s.io", "priorityclasses", &["value", "preemptionPolicy"]),
    ("storage.k8s.io", "storageclasses", &["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"]),
    ("storage.k8s.io", "volumeattributesclasses", &["driverName", "parameters"]),
    ("storage.k8s.io", "volumeattachments", &["spec"]),
    ("discovery.k8s.io", "endpointslices", &["addressType"]),
    ("node.k8s.io", "runtimeclasses", &["handler"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["spec"]),
    ("networking.k8s.io", "ipaddresses", &["spec"]),
    ("resource.k8s.io", "resourceclaims", &["spec"]),
    ("resource.k8s.io", "resourceclaimtemplates", &["spec"]),
    ("resource.k8s.io", "resourceslices", &["spec.nodeName", "spec.driver", "spec.pool.name"]),
];

/// What may change of a StatefulSet's spec.
const STATEFUL_SET_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn check(kind: &Kind, object: &Value, old: &Value, errors: &mut Errors) {
    let row = IMMUTABLE.iter().find(|(group, plural, _)| kind.is(group, plural));
    for path in row.map(|row| row.2).unwrap_or_default() {
        // A load balancer class may be given up together with the type.
        if *path != "spec.loadBalancerClass" || walk::text(object, &["spec", "type"]) == "LoadBalancer" {
            immutable_if_set(kind, object, old, path, errors);
        }
    }
    if kind.is("apps", "statefulsets") {
        stateful_set(object, old, errors);
    }
    if kind.is("networking.k8s.io", "servicecidrs") {
        network::range_changes(object, old, errors);
    }
    if kind.is("", "nodes") {
        set_once(object, old, "spec.providerID", errors);
        set_once(object, old, "spec.podCIDR", errors);
    }
    if kind.is("", "persistentvolumes") {
        volume(object, old, errors);
    }
    if kind.is("", "persistentvolumeclaims") {
        claim(object, old, errors);
    }
}

/// Load balancer classes may be set on a Service that becomes a load balancer.
fn immutable_if_set(kind: &Kind, object: &Value, old: &Value, path: &str, errors: &mut Errors) {
    let was_other_type = kind.is("", "services") && walk::text(old, &["spec", "type"]) != "LoadBalancer";
    if !was_other_type {
        errors.immutable(object, old, path);
    }
}

fn set_once(object: &Value, old: &Value, path: &str, errors: &mut Errors) {
    let keys: Vec<&str> = path.split('.').collect();
    let before = walk::text(old, &keys);
    if !before.is_empty() && before != walk::text(object, &keys) {
        let name = path.trim_start_matches("spec.");
        // Ranges are compared as the list they are.
        let path = path.replace("podCIDR", "podCIDRs");
        let text = format!("node updates may not change {name} except from \"\" to valid");
        errors.push(FieldError::forbidden(path, text));
    }
}

/// What a volume is made of stays; so does who reaches it, once that is said.
fn volume(object: &Value, old: &Value, errors: &mut Errors) {
    let sources = |volume: &Value| {
        let names = super::rule::VOLUME_SOURCES.iter();
        names.map(|name| volume["spec"].get(*name).cloned()).collect::<Vec<_>>()
    };
    if sources(object) != sources(old) {
        errors.push(FieldError::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    errors.immutable(object, old, "spec.volumeMode");
    if old["spec"].get("nodeAffinity").is_some() {
        errors.immutable(object, old, "spec.nodeAffinity");
    }
}

/// The value without some of its keys.
pub(super) fn without(value: Option<&Value>, keys: &[&str]) -> Option<Value> {
    let mut value = value?.clone();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
    Some(value)
}

fn stateful_set(object: &Value, old: &Value, errors: &mut Errors) {
    if without(object.get("spec"), &STATEFUL_SET_MUTABLE) != without(old.get("spec"), &STATEFUL_SET_MUTABLE) {
        let fields = "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds'";
        errors.push(FieldError::forbidden(
            "spec",
            format!("updates to statefulset spec for fields other than {fields} are forbidden"),
        ));
    }
}

fn claim(object: &Value, old: &Value, errors: &mut Errors) {
    let mut mutable = vec!["resources", "volumeAttributesClassName"];
    if walk::text(old, &["spec", "volumeName"]).is_empty() {
        mutable.push("volumeName");
        // A claim from before there was a default class may get it later.
        if old["spec"]["storageClassName"].is_null() {
            mutable.push("storageClassName");
        }
    }
    if without(object.get("spec"), &mutable) != without(old.get("spec"), &mutable) {
        let text =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", text));
    }
    // Less than was asked for is taken back; less than there is, cannot be.
    let size = |claim: &Value, path: [&str; 3]| walk::text(claim, &path).parse::<Quantity>().unwrap_or_default();
    let asked = |claim: &Value| {
        let requests = &claim["spec"]["resources"]["requests"];
        walk::text(requests, &["storage"]).parse::<Quantity>().unwrap_or_default()
    };
    if asked(object) < asked(old) && asked(object) <= size(old, ["status", "capacity", "storage"]) {
        let path = "spec.resources.requests.storage";
        errors.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
    }
}
