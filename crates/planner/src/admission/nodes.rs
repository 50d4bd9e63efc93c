//! NodeRestriction: a node agent touches its own node, its pods and its lease, nothing else.

use serde_json::Value;

use super::{Denied, Facts, Operation, Request, forbidden, text};

const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";
/// Labels that say what a node may be trusted with; it must not give them to itself.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Name of the node whose agent asks.
fn node_of<'a>(request: &Request<'a>) -> Option<&'a str> {
    let is_node = request.groups.iter().any(|group| group == NODES);
    request.user.strip_prefix(PREFIX).filter(|_| is_node)
}

/// Lets everybody else pass.
pub(super) fn restrict(object: &Value, request: &Request<'_>, _: &dyn Facts) -> Result<Vec<String>, Denied> {
    let Some(node) = node_of(request) else { return Ok(Vec::new()) };
    match (request.group, request.resource) {
        ("", "nodes") => own_node(object, request, node)?,
        ("", "pods") => own_pod(object, request, node)?,
        ("coordination.k8s.io", "leases") if request.namespace != "kube-node-lease" || request.name != node => {
            return forbidden(format!("node {node:?} can only access its own lease in namespace \"kube-node-lease\""));
        }
        _ => {}
    }
    Ok(Vec::new())
}

fn own_node(object: &Value, request: &Request<'_>, node: &str) -> Result<(), Denied> {
    if request.name != node {
        return forbidden(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    let null = Value::Null;
    let old = request.old.unwrap_or(&null);
    let is_restricted = |key: &str| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        domain == RESTRICTED || domain.ends_with(&format!(".{RESTRICTED}"))
    };
    let changed: Vec<&str> = object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| old["metadata"]["labels"].get(*key) != Some(value) && is_restricted(key))
        .map(|(key, _)| key.as_str())
        .collect();
    if !changed.is_empty() {
        return forbidden(format!("is not allowed to modify labels: {}", changed.join(", ")));
    }
    if request.operation == Operation::Update && object["spec"]["taints"] != old["spec"]["taints"] {
        return forbidden(format!("node {node:?} is not allowed to modify taints"));
    }
    Ok(())
}

fn own_pod(object: &Value, request: &Request<'_>, node: &str) -> Result<(), Denied> {
    let bound = |pod: &Value| text(&pod["spec"], "nodeName") == node;
    match (request.operation, request.subresource) {
        (Operation::Create, "") => {
            let is_mirror = !object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
            if !is_mirror {
                return forbidden(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !bound(object) {
                return forbidden(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
        }
        (Operation::Delete, "") if request.old.is_some_and(|pod| !bound(pod)) => {
            return forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself"));
        }
        (Operation::Update, "status") if request.old.is_some_and(|pod| !bound(pod)) => {
            return forbidden(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        (Operation::Update, "") => {
            return forbidden(format!("node {node:?} is not allowed to update pods"));
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Cluster, request};
    use super::*;
    use serde_json::json;

    #[test]
    fn agents_keep_to_their_own() {
        let mine = json!({"spec": {"nodeName": "a"}});
        let other = json!({"spec": {"nodeName": "b"}});
        let mirror =
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "a"}});
        let labelled = json!({"metadata": {"labels": {"x.node-restriction.kubernetes.io/y": "z"}}});
        let groups = [NODES.to_owned()];
        for (line, object, old, part) in [
            ("CREATE nodes a", json!({}), None, None),
            ("UPDATE nodes b", json!({}), Some(json!({})), Some("not allowed to modify node \"b\"")),
            ("UPDATE nodes a", labelled, Some(json!({})), Some("modify labels: x.node-restriction")),
            ("UPDATE nodes/status a", json!({"spec": {"taints": []}}), Some(json!({})), Some("modify taints")),
            ("CREATE pods n/p", mine.clone(), None, Some("only create mirror pods")),
            ("CREATE pods n/p", mirror, None, None),
            ("UPDATE pods/status n/p", mine.clone(), Some(mine.clone()), None),
            ("UPDATE pods/status n/p", other.clone(), Some(other.clone()), Some("only update pod status")),
            ("DELETE pods n/p", Value::Null, Some(mine), None),
            ("DELETE pods n/p", Value::Null, Some(other), Some("only delete pods")),
            ("UPDATE coordination.k8s.io:leases kube-node-lease/a", json!({}), None, None),
            ("UPDATE coordination.k8s.io:leases kube-node-lease/b", json!({}), None, Some("its own lease")),
            ("CREATE configmaps n/p", json!({}), None, None),
        ] {
            let asked = Request { user: "system:node:a", groups: &groups, old: old.as_ref(), ..request(line) };
            let found = restrict(&object, &asked, &Cluster::default()).err().map(|error| error.to_string());
            match part {
                None => assert_eq!(found, None, "{line}"),
                Some(part) => assert!(found.as_ref().is_some_and(|found| found.contains(part)), "{line}: {found:?}"),
            }
            assert!(restrict(&object, &request(line), &Cluster::default()).is_ok(), "others: {line}");
        }
    }
}
