//! What one object uses, by the names that quotas have for it.

use serde_json::Value;

use crate::amounts::{Amount, Amounts, amounts, of_pod};

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Kinds that quotas count under their plain name as well.
const PLAIN: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourceclaims",
    "resourcequotas",
    "secrets",
    "services",
];

/// The kind of object that a name of a quota counts.
pub(super) fn counted_by(name: &str) -> &str {
    if let Some(resource) = name.strip_prefix("count/") {
        return resource;
    }
    match name {
        "requests.storage" | "persistentvolumeclaims" => "persistentvolumeclaims",
        "services.loadbalancers" | "services.nodeports" => "services",
        name if name.contains(STORAGE_CLASS) => "persistentvolumeclaims",
        name if PLAIN.contains(&name) => name,
        _ => "pods",
    }
}

/// What an object uses. `resource` is as in `deployments.apps`.
pub fn usage(resource: &str, object: &Value) -> Amounts {
    let mut used = Amounts::from([(format!("count/{resource}"), Amount::count(1))]);
    if PLAIN.contains(&resource) {
        used.insert(resource.into(), Amount::count(1));
    }
    match resource {
        "pods" => used.extend(of_running(object)),
        "services" => used.extend(of_service(&object["spec"])),
        "persistentvolumeclaims" => used.extend(of_claim(object)),
        _ => {}
    }
    used
}

/// A pod that has ended uses nothing any more but its place among the objects.
fn of_running(pod: &Value) -> Amounts {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return Amounts::new();
    }
    let (requests, limits) = (of_pod(&pod["spec"], "requests"), of_pod(&pod["spec"], "limits"));
    let mut used = named(requests, limits);
    used.insert("pods".into(), Amount::count(1));
    used
}

/// What a container or pod asks for by itself.
pub(super) fn of_resources(resources: &Value) -> Amounts {
    named(amounts(&resources["requests"]), amounts(&resources["limits"]))
}

fn named(requests: Amounts, limits: Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        // Requests of what every node has may be limited under the bare name.
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

fn of_service(spec: &Value) -> Amounts {
    let ports = spec["ports"].as_array().map_or(0, Vec::len) as i128;
    let balances = spec["type"] == "LoadBalancer";
    let has_node_ports =
        spec["type"] == "NodePort" || (balances && spec["allocateLoadBalancerNodePorts"] != Value::Bool(false));
    Amounts::from([
        ("services.loadbalancers".into(), Amount::count(i128::from(balances))),
        ("services.nodeports".into(), Amount::count(if has_node_ports { ports } else { 0 })),
    ])
}

fn of_claim(claim: &Value) -> Amounts {
    let mut used = Amounts::new();
    let storage = Amount::of(&claim["spec"]["resources"]["requests"]["storage"]);
    if let Some(storage) = storage {
        used.insert("requests.storage".into(), storage);
    }
    let beta = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = beta.as_str().or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    if !class.is_empty() {
        used.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), Amount::count(1));
        if let Some(storage) = storage {
            used.insert(format!("{class}{STORAGE_CLASS}requests.storage"), storage);
        }
    }
    used
}
