//! Rules for changing what the containers of a pod that is there may use (facts, section 1.14). Whether there is room for it is not
//! decided here.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, FieldError, ephemeral, pod_spec};
use crate::{qos, walk};

/// A change through the subresource. Everything but resources and their policy was taken from the old pod before, unless the lists
/// of containers differ.
pub(super) fn update(pod: &Value, old: &Value, errors: &mut Errors) {
    if let Some(why) = not_at_all(pod, old) {
        errors.list = vec![FieldError::forbidden("", why)];
        return;
    }
    pod_spec::check(&pod["spec"], "spec", errors);
    let class = walk::text(old, &["status", "qosClass"]);
    let class = if class.is_empty() { qos::class(&old["spec"]) } else { class };
    if class != qos::class(&pod["spec"]) {
        errors.push(FieldError::invalid("spec", class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        errors.push(FieldError::forbidden("spec", "Pod running on node without support for resize"));
    }
    let before = errors.list.len();
    for list in ["containers", "initContainers"] {
        order(list, pod, old, errors);
    }
    if errors.list.len() == before {
        for list in ["containers", "initContainers"] {
            amounts(list, pod, old, errors);
        }
    }
}

/// How a container comes by other amounts. Containers that run once cannot be started anew for it.
pub(super) fn policies(container: &Value, path: &str, pod_restarts: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, policy) in walk::items(container, &["resizePolicy"]).iter().enumerate() {
        let (resource, restart) = (walk::text(policy, &["resourceName"]), walk::text(policy, &["restartPolicy"]));
        let path = format!("{path}.resizePolicy");
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(format!("{path}[{at}]"), resource));
        }
        for (given, supported) in [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            match given {
                "" => errors.push(FieldError::required(path.as_str(), "")),
                given if supported.contains(&given) => {}
                given => errors.push(FieldError::not_supported(path.as_str(), given, &supported)),
            }
        }
        if pod_restarts == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, why));
        }
    }
}

/// Why pods like this one are not resized at all.
fn not_at_all(pod: &Value, old: &Value) -> Option<&'static str> {
    let has_own = |pod: &Value| {
        let resources = &pod["spec"]["resources"];
        ["requests", "limits"].iter().any(|side| resources[side].as_object().is_some_and(|list| !list.is_empty()))
    };
    if has_own(pod) || has_own(old) {
        return Some("pods with pod-level resources cannot be resized");
    }
    if old["metadata"]["annotations"].get(ephemeral::MIRROR).is_some() {
        return Some("static pods cannot be resized");
    }
    (walk::text(old, &["spec", "os", "name"]) == "windows").then_some("windows pods cannot be resized")
}

/// An agent that can resize says what its containers have.
fn is_supported(pod: &Value) -> bool {
    let mut statuses = walk::items(pod, &["status", "containerStatuses"]).iter();
    let running = statuses.find(|status| walk::at(status, &["state", "running"]).is_some());
    running.is_none_or(|status| status.get("resources").is_some())
}

fn order(list: &str, pod: &Value, old: &Value, errors: &mut Errors) {
    let (new, before) = (walk::items(pod, &["spec", list]), walk::items(old, &["spec", list]));
    if new.len() != before.len() {
        errors.push(FieldError::forbidden("spec", format!("{list} may not be added or removed on resize")));
        return;
    }
    for (at, (now, was)) in new.iter().zip(before).enumerate() {
        if walk::text(now, &["name"]) != walk::text(was, &["name"]) {
            let why = format!("{list} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(format!("spec.{list}[{at}].name"), why));
        }
    }
}

fn amounts(list: &str, pod: &Value, old: &Value, errors: &mut Errors) {
    let (new, before) = (walk::items(pod, &["spec", list]), walk::items(old, &["spec", list]));
    for (at, (now, was)) in new.iter().zip(before).enumerate() {
        let sidecar = list == "containers" || walk::text(was, &["restartPolicy"]) == "Always";
        if !sidecar {
            if now != was {
                errors.push(FieldError::forbidden("spec", "resources for non-sidecar init containers are immutable"));
            }
            continue;
        }
        for side in ["requests", "limits"] {
            let given = was["resources"][side].as_object().into_iter().flatten();
            if given.into_iter().any(|(name, _)| now["resources"][side].get(name).is_none()) {
                let why = format!("resource {side} cannot be removed");
                errors.push(FieldError::forbidden(format!("spec.{list}[{at}].resources.{side}"), why));
            }
        }
        if fixed(now) != fixed(was) {
            let whose = if list == "containers" { "" } else { " for sidecar containers" };
            errors.push(FieldError::forbidden("spec", format!("only cpu and memory resources{whose} are mutable")));
        }
    }
}

/// A container without what a resize may change.
fn fixed(container: &Value) -> Value {
    let mut container = container.clone();
    let Some(fields) = container.as_object_mut() else { return container };
    fields.shift_remove("resizePolicy");
    let mut resources = fields.shift_remove("resources").unwrap_or_default();
    for side in ["requests", "limits"] {
        let Some(list) = resources.get_mut(side).and_then(Value::as_object_mut) else { continue };
        list.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        if list.is_empty() {
            drop(resources.as_object_mut().and_then(|resources| resources.shift_remove(side)));
        }
    }
    if resources.as_object().is_some_and(|resources| !resources.is_empty()) {
        container["resources"] = resources;
    }
    container
}
