//! Kinds that begin with something nobody asked for (facts, section 3, rows "on create"), and fields that are
//! allocated once. Pure; Service addresses are chosen in [`crate::addresses`].

use isopod_schema::{Kind, crd, qos};
use serde_json::{Map, Value, json};

use super::{meta, metadata};

const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Creating an object of the kind adds more than system fields to it.
pub(super) fn adds(kind: &Kind) -> bool {
    kind.custom.is_none() && kind.has_status_subresource()
        || kind.group.is_empty() && kind.plural == "persistentvolumes"
}

/// Initial status and what else is derived at creation. `uid` is the new object's.
pub(super) fn apply(kind: &Kind, object: &mut Value, uid: &str) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => pod(object),
        ("", "namespaces") => namespace(object),
        ("", "persistentvolumes" | "persistentvolumeclaims") => object["status"] = json!({"phase": "Pending"}),
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        ("apps", "replicasets") | ("", "replicationcontrollers") => object["status"] = json!({"replicas": 0}),
        ("apps", "deployments" | "statefulsets") => object["status"] = json!({}),
        ("apps", "daemonsets") => {
            object["status"] = json!({});
            let said = template_generation(object).max(1);
            set_template_generation(object, said);
        }
        ("batch", "jobs") => job(object, uid),
        (crd::GROUP, crd::PLURAL) => definition(object),
        _ => {}
    }
    reforce(kind, object);
}

/// Counts the templates of a DaemonSet. Deprecated, but upstream goes on counting.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &Value) -> i64 {
    set["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut Value, generation: i64) {
    if !set["metadata"]["annotations"].is_object() {
        metadata(set).insert("annotations".into(), json!({}));
    }
    set["metadata"]["annotations"][TEMPLATE_GENERATION] = generation.to_string().into();
}

/// A definition is held until its objects are gone.
fn definition(object: &mut Value) {
    object["status"] = json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
    let finalizers = metadata(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|list| !list.iter().any(|name| name == crd::CLEANUP_FINALIZER))
    {
        list.push(crd::CLEANUP_FINALIZER.into());
    }
}

/// A version that objects are stored in from now on is remembered for as long as some may be.
fn remember_stored(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let Some(stored) = versions.into_iter().find(|version| version["storage"] == true) else { return };
    let name = stored["name"].clone();
    if !definition["status"]["storedVersions"].is_array() {
        definition["status"]["storedVersions"] = json!([]);
    }
    if let Some(list) = definition["status"]["storedVersions"].as_array_mut().filter(|list| !list.contains(&name)) {
        list.push(name);
    }
}

/// The label that names a namespace cannot be taken away; nor what a definition has to remember.
pub(super) fn reforce(kind: &Kind, object: &mut Value) {
    if kind.is(crd::GROUP, crd::PLURAL) {
        remember_stored(object);
    }
    if kind.is("", "namespaces") {
        let name = meta(object, "name").to_owned();
        if !object["metadata"]["labels"].is_object() {
            metadata(object).insert("labels".into(), Value::Object(Map::new()));
        }
        object["metadata"]["labels"][NAMESPACE_LABEL] = name.into();
    }
}

fn namespace(object: &mut Value) {
    object["spec"] = json!({"finalizers": ["kubernetes"]});
    object["status"] = json!({"phase": "Active"});
}

fn pod(object: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(&object["spec"])});
    if object["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        status["conditions"] =
            json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message}]);
    }
    object["status"] = status;
}

/// A job selects its pods by its own UID unless told otherwise.
fn job(object: &mut Value, uid: &str) {
    object["status"] = json!({});
    let name = meta(object, "name").to_owned();
    let spec = &mut object["spec"];
    if spec["manualSelector"] == true {
        return;
    }
    if !spec["selector"]["matchLabels"].is_object() {
        spec["selector"]["matchLabels"] = json!({});
    }
    spec["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.into();
    let labels = &mut metadata(&mut spec["template"]).entry("labels").or_insert_with(|| json!({}));
    for prefix in ["", "batch.kubernetes.io/"] {
        labels[format!("{prefix}controller-uid")] = uid.into();
        labels[format!("{prefix}job-name")] = name.as_str().into();
    }
}

/// An update that leaves allocated fields out keeps them; one that changes the type loses what only the old type has.
pub(super) fn keep_allocated(kind: &Kind, object: &mut Value, old: &Value) {
    if kind.is("apps", "daemonsets") {
        let changed = object["spec"]["template"] != old["spec"]["template"];
        return set_template_generation(object, template_generation(old) + i64::from(changed));
    }
    if !kind.is("", "services") {
        return;
    }
    drop_type_dependent(object, old);
    if object["spec"]["type"] == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let absent = object["spec"][field].is_null() || object["spec"][field] == "";
        if absent && let Some(value) = old["spec"].get(field) {
            object["spec"][field] = value.clone();
        }
    }
    if matches!(object["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        keep_node_ports(object, old);
    }
    let health = "healthCheckNodePort";
    let is_local = object["spec"]["type"] == "LoadBalancer" && object["spec"]["externalTrafficPolicy"] == "Local";
    if is_local
        && object["spec"][health].as_u64().unwrap_or(0) == 0
        && let Some(port) = old["spec"].get(health)
    {
        object["spec"][health] = port.clone();
    }
}

/// Fields that the new type does not have go when they still are what they were; new ones are left to validation.
fn drop_type_dependent(object: &mut Value, old: &Value) {
    let (spec, before) = (&mut object["spec"], &old["spec"]);
    let dropped: &[&str] = match spec["type"].as_str() {
        Some("LoadBalancer") => &[],
        Some("NodePort") => &["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"],
        Some("ExternalName") => &[
            "allocateLoadBalancerNodePorts",
            "loadBalancerClass",
            "healthCheckNodePort",
            "externalTrafficPolicy",
            "internalTrafficPolicy",
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
        ],
        _ => &["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort", "externalTrafficPolicy"],
    };
    let Some(fields) = spec.as_object_mut() else { return };
    let is_local = fields.get("externalTrafficPolicy").is_some_and(|policy| policy == "Local");
    let health = if is_local { None } else { Some("healthCheckNodePort") };
    for field in dropped.iter().copied().chain(health) {
        if fields.get(field) == before.get(field) {
            fields.shift_remove(field);
        }
    }
    if !matches!(fields.get("type").and_then(Value::as_str), Some("NodePort" | "LoadBalancer")) {
        drop_node_ports(fields, before);
    }
}

fn drop_node_ports(spec: &mut Map<String, Value>, before: &Value) {
    let previous = before["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        let number = port.get("nodePort");
        if number.is_some() && previous.iter().any(|candidate| candidate.get("nodePort") == number) {
            port.shift_remove("nodePort");
        }
    }
}

fn keep_node_ports(object: &mut Value, old: &Value) {
    let previous = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let ports = object["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        let same = |candidate: &&Value| candidate["port"] == port["port"] && candidate["protocol"] == port["protocol"];
        if port["nodePort"].as_u64().unwrap_or(0) == 0
            && let Some(number) = previous.iter().find(same).and_then(|found| found.get("nodePort"))
        {
            port["nodePort"] = number.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not brought into the stored form again must not have been changed.
    #[test]
    fn kinds_that_begin_with_something_are_known() {
        for kind in isopod_schema::Table::builtin().kinds().filter(|kind| kind.is_stored() && !adds(kind)) {
            let object = json!({"metadata": {"name": "x", "namespace": "y"}, "spec": {"template": {}}});
            let mut applied = object.clone();
            apply(kind, &mut applied, "u");
            assert_eq!(applied, object, "{}", kind.plural);
        }
    }

    #[test]
    fn quality_of_service() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let table = [
            (json!([{}]), "BestEffort"),
            (json!([{"resources": {"limits": full, "requests": {"cpu": "1000m", "memory": "1024Mi"}}}]), "Guaranteed"),
            (json!([{"resources": {"limits": full}}]), "Guaranteed"),
            (json!([{"resources": {"limits": full, "requests": {"cpu": "500m"}}}]), "Burstable"),
            (json!([{"resources": {"limits": full}}, {}]), "Burstable"),
            (json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
            (json!([{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]), "BestEffort"),
        ];
        for (containers, expected) in table {
            assert_eq!(qos::class(&json!({"containers": containers})), expected, "{containers}");
        }
    }
}
