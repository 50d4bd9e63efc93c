//! Requests to the Kubernetes API as values: planner writes in, HTTP requests out. Sends nothing.

use http::{Method, Request};
use isopod_planner::{Target, Write};
use serde_json::{Value, json};

/// Field manager of everything the controllers write.
const MANAGER: &str = "isopod-controllers";

/// The path of an object, or of its collection when it has no name.
pub(crate) fn path(target: &Target) -> String {
    let mut path = if target.group.is_empty() {
        format!("/api/{}", target.version)
    } else {
        format!("/apis/{}", target.api_version())
    };
    if !target.key.namespace.is_empty() {
        path = format!("{path}/namespaces/{}", target.key.namespace);
    }
    path = format!("{path}/{}", target.plural);
    if target.key.name.is_empty() { path } else { format!("{path}/{}", target.key.name) }
}

fn collection(target: &Target) -> String {
    let mut target = target.clone();
    target.key.name.clear();
    path(&target)
}

fn request(method: Method, uri: String, content_type: &str, body: &Value) -> Option<Request<Vec<u8>>> {
    let builder = Request::builder().method(method).uri(uri).header("content-type", content_type);
    builder.body(body.to_string().into_bytes()).ok()
}

/// A GET of an object.
pub(crate) fn get(target: &Target) -> Option<Request<Vec<u8>>> {
    Request::builder().uri(path(target)).body(Vec::new()).ok()
}

/// A POST of an object into a collection path.
pub(crate) fn post(collection: &str, object: &Value) -> Option<Request<Vec<u8>>> {
    request(Method::POST, format!("{collection}?fieldManager={MANAGER}"), "application/json", object)
}

/// A merge patch of a path.
pub(crate) fn merge_patch(path: &str, patch: &Value) -> Option<Request<Vec<u8>>> {
    request(Method::PATCH, format!("{path}?fieldManager={MANAGER}"), "application/merge-patch+json", patch)
}

/// A DELETE of everything of one kind in a namespace.
pub(crate) fn delete_collection(path: &str) -> Option<Request<Vec<u8>>> {
    request(Method::DELETE, path.into(), "application/json", &json!({}))
}

/// The request that carries out a write; none for events, which the recorder forms.
pub(crate) fn of(write: &Write) -> Option<Request<Vec<u8>>> {
    match write {
        Write::Create { target, object, .. } => post(&collection(target), object),
        Write::Patch { target, subresource, patch } => {
            merge_patch(&with(target, subresource), &preconditioned(target, patch))
        }
        Write::Delete { target, propagation, grace_period_seconds } => {
            let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
            if !target.uid.is_empty() {
                options["preconditions"] = json!({"uid": target.uid});
            }
            if let Some(propagation) = propagation {
                options["propagationPolicy"] = json!(propagation);
            }
            if let Some(seconds) = grace_period_seconds {
                options["gracePeriodSeconds"] = json!(seconds);
            }
            request(Method::DELETE, path(target), "application/json", &options)
        }
        Write::Evict { target } => {
            let key = &target.key;
            let metadata = json!({"name": key.name, "namespace": key.namespace});
            let options = json!({"preconditions": {"uid": target.uid}});
            let body =
                json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options});
            request(Method::POST, format!("{}/eviction", path(target)), "application/json", &body)
        }
        Write::Bind { target, node, annotations } => bind(target, node, annotations),
        Write::FinalizeNamespace { target } => {
            let name = &target.key.name;
            let metadata = json!({"name": name, "resourceVersion": target.resource_version});
            let body =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": {"finalizers": []}});
            request(Method::PUT, format!("{}/finalize", path(target)), "application/json", &body)
        }
        Write::Read { path } => Request::builder().uri(path).body(Vec::new()).ok(),
        Write::Event { .. } => None,
    }
}

fn with(target: &Target, subresource: &str) -> String {
    if subresource.is_empty() { path(target) } else { format!("{}/{subresource}", path(target)) }
}

/// The patch with the revision it was based on.
fn preconditioned(target: &Target, patch: &Value) -> Value {
    let mut patch = patch.clone();
    if !target.resource_version.is_empty() {
        patch["metadata"]["resourceVersion"] = json!(target.resource_version);
    }
    if !target.uid.is_empty() {
        patch["metadata"]["uid"] = json!(target.uid);
    }
    patch
}

fn bind(target: &Target, node: &str, annotations: &[(String, String)]) -> Option<Request<Vec<u8>>> {
    let key = &target.key;
    let annotations: serde_json::Map<String, Value> = annotations.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let metadata = json!({"name": key.name, "namespace": key.namespace, "uid": target.uid, "annotations": annotations});
    let to = json!({"apiVersion": "v1", "kind": "Node", "name": node});
    let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": to});
    request(Method::POST, format!("{}/binding", path(target)), "application/json", &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::Key;
    use isopod_types::pod::Pod;
    use isopod_types::workload::ReplicaSet;

    fn check(write: &Write, method: &str, uri: &str, body: &str) {
        let request = of(write).unwrap();
        assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), (method, uri));
        let text = String::from_utf8(request.into_body()).unwrap();
        assert!(text.contains(body), "{text}");
    }

    #[test]
    fn writes_become_requests() {
        let mut pod = Target::named::<Pod>(Key::new("x", "p"));
        (pod.uid, pod.resource_version) = ("u".into(), "7".into());
        let patch = Write::Patch { target: pod.clone(), subresource: "status", patch: json!({"status": {}}) };
        check(
            &patch,
            "PATCH",
            "/api/v1/namespaces/x/pods/p/status?fieldManager=isopod-controllers",
            "\"resourceVersion\":\"7\"",
        );
        let delete = Write::Delete { target: pod.clone(), propagation: Some("Background"), grace_period_seconds: None };
        check(&delete, "DELETE", "/api/v1/namespaces/x/pods/p", "\"preconditions\":{\"uid\":\"u\"}");
        let bind = Write::Bind { target: pod, node: "n".into(), annotations: vec![("a".into(), "b".into())] };
        check(&bind, "POST", "/api/v1/namespaces/x/pods/p/binding", "\"annotations\":{\"a\":\"b\"}");
        let set = Target::named::<ReplicaSet>(Key::new("x", "r"));
        let create = Write::Create { target: set, object: json!({"a": 1}), tolerate_existing: false };
        check(&create, "POST", "/apis/apps/v1/namespaces/x/replicasets?fieldManager=isopod-controllers", "{\"a\":1}");
    }
}
