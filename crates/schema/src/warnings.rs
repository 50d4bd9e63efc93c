//! What a client is warned of about an object that is valid all the same: fields and labels that are on their way out, that do
//! nothing, or that hide each other.
//!
//! Source: what Kubernetes 1.36 answers with a `Warning` header; the texts are its own, since users search for them.

mod pod;

use serde_json::Value;

use crate::table::Kind;
use crate::walk;
use crate::{names, quantity};

const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Labels of nodes, with what is said of who selects by them.
const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];
/// Kinds of volumes that are on their way out or gone.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What every request to a kind that is on its way out is answered with besides.
pub fn deprecation(kind: &Kind) -> Option<&str> {
    if let Some(custom) = &kind.custom {
        return custom.deprecation.as_deref();
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        _ => None,
    }
}

/// Warnings about a new object (`old` is none) or one whose spec changed.
pub fn of(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    match (kind.group.as_str(), kind.plural.as_str()) {
        // Nobody who changes a pod wrote it.
        ("", "pods") if old.is_none() => {
            label_as_name(object, &mut found);
            pod::check(object, "", &mut found);
        }
        ("", "replicationcontrollers") | ("apps", "deployments" | "replicasets") => {
            if old.is_none() {
                label_as_name(object, &mut found);
            }
            pod::check(&object["spec"]["template"], "spec.template.", &mut found);
        }
        ("apps", "daemonsets") => pod::check(&object["spec"]["template"], "spec.template.", &mut found),
        ("apps", "statefulsets") => stateful(object, &mut found),
        ("", "podtemplates") => pod::check(&object["template"], "template.", &mut found),
        ("batch", "jobs" | "cronjobs") => {
            if old.is_none() {
                label_as_name(object, &mut found);
            }
            let is_job = kind.plural == "jobs";
            let (spec, path) = if is_job {
                (&object["spec"], "spec")
            } else {
                (&object["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")
            };
            job(spec, path, &mut found);
        }
        ("", "services") => service(object, &mut found),
        ("", "persistentvolumes") => volume(object, &mut found),
        ("", "persistentvolumeclaims") => {
            old_class(object, &mut found);
            claim(&object["spec"], "spec", &mut found);
        }
        ("networking.k8s.io", "ingresses") if old.is_none() => ingress(object, &mut found),
        ("node.k8s.io", "runtimeclasses") => {
            for (_, why) in node_labels(&object["scheduling"]["nodeSelector"]) {
                found.push(format!("scheduling.nodeSelector: {why}"));
            }
        }
        _ => {}
    }
    found
}

fn label_as_name(object: &Value, found: &mut Vec<String>) {
    let wrong = names::label(walk::text(object, &["metadata", "name"]));
    if !wrong.is_empty() {
        let wrong = wrong.join(" ");
        found.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label \
             is recommended: [{wrong}]"
        ));
    }
}

/// What is said of a label of nodes.
fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, why)| *why)
}

/// The labels of a selector that something is said of.
fn node_labels(selector: &Value) -> impl Iterator<Item = (&String, &'static str)> {
    selector.as_object().into_iter().flatten().filter_map(|(key, _)| Some((key, node_label(key)?)))
}

/// The expressions of a term that selects nodes.
fn node_term(term: &Value, path: &str, found: &mut Vec<String>) {
    for (at, expression) in walk::items(term, &["matchExpressions"]).iter().enumerate() {
        let key = walk::text(expression, &["key"]);
        if let Some(why) = node_label(key) {
            found.push(format!("{path}.matchExpressions[{at}].key: {key} is {why}"));
        }
    }
}

/// Bytes come whole.
fn fractional(list: &Value, resource: &str, path: &str, found: &mut Vec<String>) {
    let text = walk::text(list, &[resource]);
    if quantity::is_fractional(text) {
        found.push(format!("{path}[{resource}]: fractional byte value {text:?} is invalid, must be an integer"));
    }
}

fn claim(spec: &Value, path: &str, found: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        fractional(&spec["resources"][list], "storage", &format!("{path}.resources.{list}"), found);
    }
}

fn old_class(object: &Value, found: &mut Vec<String>) {
    if !object["metadata"]["annotations"][STORAGE_CLASS].is_null() {
        let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        found.push(format!("metadata.annotations[{STORAGE_CLASS}]: {why}"));
    }
}

fn stateful(object: &Value, found: &mut Vec<String>) {
    pod::check(&object["spec"]["template"], "spec.template.", found);
    for (at, template) in walk::items(object, &["spec", "volumeClaimTemplates"]).iter().enumerate() {
        claim(&template["spec"], &format!("spec.volumeClaimTemplates[{at}]"), found);
    }
    if object["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0) {
        let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
        found.push(format!("spec.revisionHistoryLimit: {why}"));
    }
}

fn job(spec: &Value, path: &str, found: &mut Vec<String>) {
    let number = |field: &str| spec[field].as_i64().unwrap_or(0);
    if spec["completionMode"] == "Indexed" && number("completions") > 100_000 && number("parallelism") > 10_000 {
        found.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    pod::check(&spec["template"], &format!("{path}.template."), found);
}

fn service(object: &Value, found: &mut Vec<String>) {
    let spec = &object["spec"];
    let text = |field: &str| walk::text(spec, &[field]);
    let has_external = !walk::items(spec, &["externalIPs"]).is_empty();
    let is_headless = text("type") == "ClusterIP" && text("clusterIP") == "None";
    let is_external_name = text("type") == "ExternalName";
    if !object["metadata"]["annotations"]["service.kubernetes.io/topology-aware-hints"].is_null() {
        found.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .into(),
        );
    }
    let said = [
        (is_headless && !text("loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services"),
        (is_headless && has_external, "spec.externalIPs is ignored for headless services"),
        (is_headless && text("sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services"),
        (
            has_external && !is_headless && !is_external_name,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (is_external_name && has_external, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            !is_external_name && !text("externalName").is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            text("trafficDistribution") == "PreferClose",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ];
    found.extend(said.into_iter().filter(|(is_so, _)| *is_so).map(|(_, why)| why.to_owned()));
}

fn volume(object: &Value, found: &mut Vec<String>) {
    let spec = &object["spec"];
    old_class(object, found);
    if !object["metadata"]["annotations"]["volume.beta.kubernetes.io/mount-options"].is_null() {
        let why = "deprecated since v1.31; use \"mountOptions\" attribute instead";
        found.push(format!("metadata.annotations[volume.beta.kubernetes.io/mount-options]: {why}"));
    }
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        found.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach \
             is to use dynamic provisioning."
                .into(),
        );
    }
    let path = "spec.nodeAffinity.required.nodeSelectorTerms";
    for (at, term) in walk::items(spec, &["nodeAffinity", "required", "nodeSelectorTerms"]).iter().enumerate() {
        node_term(term, &format!("{path}[{at}]"), found);
    }
    for (name, why) in OLD_VOLUMES.iter().filter(|(name, _)| spec[*name].is_object()) {
        found.push(format!("spec.{name}: {why}"));
    }
}

fn ingress(object: &Value, found: &mut Vec<String>) {
    let by_annotation = !object["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
    if by_annotation && object["spec"]["ingressClassName"].is_null() {
        let text =
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
        found.push(text.into());
    }
}

#[cfg(test)]
mod tests;
