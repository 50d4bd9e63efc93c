//! Classes that are chosen for who names none: of storage and of ingress.

use std::cmp::Reverse;
use std::sync::Arc;

use isopod_types::Quantity;
use serde_json::{Value, json};

use super::{Denied, Facts, Operation, Request, forbidden, object, text};

const STORAGE_DEFAULTS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS_DEFAULTS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

/// The class that one of these annotations makes the default: the newest, then the first by name.
fn default_class(classes: &[Arc<Value>], annotations: &[&str]) -> Option<String> {
    let is_default =
        |class: &&Arc<Value>| annotations.iter().any(|name| class["metadata"]["annotations"][*name] == "true");
    let order = |class: &&Arc<Value>| {
        let metadata = &class["metadata"];
        (Reverse(text(metadata, "creationTimestamp").to_owned()), text(metadata, "name").to_owned())
    };
    let found = classes.iter().filter(is_default).min_by_key(order)?;
    Some(text(&found["metadata"], "name").to_owned())
}

/// A claim without a class gets the default one; an empty name means none is wanted.
pub(super) fn add_storage_class(claim: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    let named = !claim["spec"]["storageClassName"].is_null()
        || !claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].is_null();
    if !request.creates("", "persistentvolumeclaims") || named {
        return Ok(false);
    }
    let class = default_class(&facts.list("storageclasses.storage.k8s.io", ""), &STORAGE_DEFAULTS);
    let Some(class) = class else { return Ok(false) };
    object(claim, "spec")["storageClassName"] = json!(class);
    Ok(true)
}

/// A claim may ask for more only when it has a volume, and one of a class whose volumes may grow.
pub(super) fn check_size(claim: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    let Some(old) = request.old.filter(|_| request.is("", "persistentvolumeclaims")) else { return Ok(Vec::new()) };
    let asked = |claim: &Value| text(&claim["spec"]["resources"]["requests"], "storage").parse::<Quantity>().ok();
    if request.operation != Operation::Update || asked(claim) <= asked(old) {
        return Ok(Vec::new());
    }
    if text(&old["status"], "phase") != "Bound" {
        return forbidden("Only bound persistent volume claims can be expanded");
    }
    let class = text(&old["spec"], "storageClassName");
    let class = facts.get("storageclasses.storage.k8s.io", "", class);
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(Vec::new());
    }
    forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

/// The same for an ingress.
pub(super) fn add_ingress_class(ingress: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    let named = !ingress["spec"]["ingressClassName"].is_null()
        || !ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
    if !request.creates("networking.k8s.io", "ingresses") || named {
        return Ok(false);
    }
    let class = default_class(&facts.list("ingressclasses.networking.k8s.io", ""), &INGRESS_DEFAULTS);
    let Some(class) = class else { return Ok(false) };
    object(ingress, "spec")["ingressClassName"] = json!(class);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Cluster, request};
    use super::*;

    #[test]
    fn the_newest_default_is_chosen_for_who_names_none() {
        let class = |name: &str, time: &str, default: &str| {
            let annotations = json!({"storageclass.kubernetes.io/is-default-class": default});
            json!({"metadata": {"name": name, "creationTimestamp": time, "annotations": annotations}})
        };
        let facts = [("old", "2026-01-01", "true"), ("new", "2026-02-01", "true"), ("no", "2026-03-01", "false")]
            .into_iter()
            .fold(Cluster::default(), |facts, (name, time, default)| {
                facts.with("storageclasses.storage.k8s.io", class(name, time, default))
            });
        for (spec, expected) in [
            (json!({}), json!("new")),
            (json!({"storageClassName": ""}), json!("")),
            (json!({"storageClassName": "mine"}), json!("mine")),
        ] {
            let mut claim = json!({"metadata": {}, "spec": spec});
            let added = add_storage_class(&mut claim, &request("CREATE persistentvolumeclaims n/c"), &facts);
            assert_eq!((added, &claim["spec"]["storageClassName"]), (Ok(spec == json!({})), &expected));
        }
    }

    #[test]
    fn claims_grow_when_their_class_lets_them() {
        let class = |name: &str, grows: Value| json!({"metadata": {"name": name}, "allowVolumeExpansion": grows});
        let classes = [class("grows", json!(true)), class("not", json!(false)), class("silent", Value::Null)];
        let facts = classes
            .into_iter()
            .fold(Cluster::default(), |facts, class| facts.with("storageclasses.storage.k8s.io", class));
        let claim = |class: &str, phase: &str, size: &str| {
            let spec = json!({"storageClassName": class, "resources": {"requests": {"storage": size}}});
            json!({"metadata": {"name": "c"}, "spec": spec, "status": {"phase": phase}})
        };
        let refused = Some("only dynamically provisioned pvc");
        for (class, phase, size, expected) in [
            ("grows", "Bound", "2Gi", None),
            ("grows", "Bound", "1024Mi", None),
            ("not", "Bound", "1Gi", None),
            ("grows", "Pending", "2Gi", Some("Only bound persistent volume claims")),
            ("not", "Bound", "2Gi", refused),
            ("silent", "Bound", "2Gi", refused),
            ("gone", "Bound", "2Gi", refused),
            ("", "Bound", "2Gi", refused),
        ] {
            let old = claim(class, phase, "1Gi");
            let asked = Request { old: Some(&old), ..request("UPDATE persistentvolumeclaims n/c") };
            let found = check_size(&claim(class, phase, size), &asked, &facts).map_err(|denied| denied.to_string());
            match expected {
                None => assert_eq!(found, Ok(Vec::new()), "{class} {phase} {size}"),
                Some(words) => assert!(found.unwrap_err().starts_with(words), "{class} {phase} {size}"),
            }
        }
    }
}
