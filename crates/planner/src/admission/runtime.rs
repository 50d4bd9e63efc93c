//! What a pod's RuntimeClass adds to it: what the runtime itself costs, and where the runtime is. It knows no handlers; whether
//! a node has one is the node's business.

use serde_json::{Map, Value};

use super::{Denied, Facts, Request, array, forbidden, object};
use crate::amounts::amounts;

const CLASSES: &str = "runtimeclasses.node.k8s.io";

/// The class that the pod names.
fn class(pod: &Value, facts: &dyn Facts) -> Result<Option<std::sync::Arc<Value>>, Denied> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    match facts.get(CLASSES, "", name) {
        None => forbidden(format!("pod rejected: RuntimeClass {name:?} not found")),
        found => Ok(found),
    }
}

/// Writes the class's overhead, node labels and tolerations into a new pod.
pub(super) fn fill_in(pod: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    if !request.creates("", "pods") {
        return Ok(false);
    }
    let Some(class) = class(pod, facts)? else { return Ok(false) };
    let (overhead, scheduling) = (&class["overhead"]["podFixed"], &class["scheduling"]);
    let spec = object(pod, "spec");
    if overhead.is_object() {
        if !amounts(&spec["overhead"]).is_empty() {
            agree(&spec["overhead"], overhead)?;
        }
        spec["overhead"] = overhead.clone();
    }
    if let Some(wanted) = scheduling["nodeSelector"].as_object() {
        add_selector(object(pod, "spec"), wanted)?;
    }
    let wanted = scheduling["tolerations"].as_array().into_iter().flatten();
    if let Some(tolerations) = array(object(pod, "spec"), "tolerations") {
        let missing: Vec<Value> = wanted.filter(|toleration| !tolerations.contains(toleration)).cloned().collect();
        tolerations.extend(missing);
    }
    Ok(true)
}

fn agree(given: &Value, defined: &Value) -> Result<(), Denied> {
    if amounts(given) == amounts(defined) {
        return Ok(());
    }
    forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
}

fn add_selector(spec: &mut Value, wanted: &Map<String, Value>) -> Result<(), Denied> {
    let selector = object(spec, "nodeSelector");
    for (key, value) in wanted {
        let given = &selector[key];
        if !given.is_null() && given != value {
            let [class, pod] = [value, given].map(|value| value.as_str().unwrap_or_default());
            let lead = format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {class}");
            return forbidden(format!("{lead}; pod.spec.nodeSelector[{key}] = {pod}"));
        }
        selector[key] = value.clone();
    }
    Ok(())
}

/// Holds a new pod to what its class says, whatever other admission has made of it.
pub(super) fn check(pod: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    if !request.creates("", "pods") {
        return Ok(Vec::new());
    }
    let class = class(pod, facts)?;
    match class.as_ref().map(|class| &class["overhead"]["podFixed"]).filter(|overhead| overhead.is_object()) {
        Some(overhead) => agree(&pod["spec"]["overhead"], overhead).map(|()| Vec::new()),
        None if pod["spec"]["overhead"].is_object() => {
            forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        }
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{Cluster, request};
    use super::*;

    fn admit(spec: Value) -> Result<Value, String> {
        let toleration = json!({"key": "vm", "operator": "Exists"});
        let full = json!({
            "metadata": {"name": "full"}, "handler": "h", "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [toleration]},
        });
        let bare = json!({"metadata": {"name": "bare"}, "handler": "h"});
        let cluster = Cluster::default().with(CLASSES, full).with(CLASSES, bare);
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let line = request("CREATE pods default/p");
        let admitted = fill_in(&mut pod, &line, &cluster).and_then(|_| check(&pod, &line, &cluster));
        admitted.map(|_| pod["spec"].take()).map_err(|denied| denied.to_string())
    }

    #[test]
    fn a_class_says_what_a_pod_costs_and_where_it_may_be() {
        let toleration = json!({"key": "vm", "operator": "Exists"});
        let other = json!({"key": "x"});
        let whole = |tolerations: Value| {
            json!({
                "runtimeClassName": "full", "overhead": {"cpu": "250m"}, "nodeSelector": {"vm": "yes"}, "tolerations": tolerations,
            })
        };
        for (spec, expected) in [
            (json!({}), json!({})),
            (json!({"runtimeClassName": "bare"}), json!({"runtimeClassName": "bare", "tolerations": []})),
            (json!({"runtimeClassName": "full"}), whole(json!([toleration]))),
            (json!({"runtimeClassName": "full", "overhead": {"cpu": "0.25"}}), whole(json!([toleration]))),
            (json!({"runtimeClassName": "full", "tolerations": [toleration]}), whole(json!([toleration]))),
            (json!({"runtimeClassName": "full", "tolerations": [other]}), whole(json!([other, toleration]))),
        ] {
            assert_eq!(admit(spec.clone()), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn what_contradicts_the_class_is_refused() {
        for (spec, text) in [
            (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
            (json!({"runtimeClassName": "full", "overhead": {"cpu": "1"}}), "Pod's Overhead doesn't match"),
            (json!({"runtimeClassName": "bare", "overhead": {"cpu": "1"}}), "without corresponding RuntimeClass"),
            (json!({"overhead": {"cpu": "1"}}), "without corresponding RuntimeClass"),
            (
                json!({"runtimeClassName": "full", "nodeSelector": {"vm": "no"}}),
                "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
            ),
        ] {
            let error = admit(spec).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
