//! NodeRestriction: a node agent touches its own node, its pods, their tokens and its lease, nothing else. What it may read
//! is the authorizer's.

use serde_json::Value;

use super::{Denied, Facts, Operation, Request, forbidden, items, text};

const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";
/// Says that a pod is of the node's own making, which the API only shows.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that say what a node may be trusted with; it must not give them to itself.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own domains that an agent may set, besides those of [`AGENT_DOMAINS`].
const AGENT_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const AGENT_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// What an agent may change of a claim's status.
const CLAIM_FIELDS: [&str; 4] = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];

/// Name of the node whose agent asks.
fn node_of<'a>(request: &Request<'a>) -> Option<&'a str> {
    let is_node = request.groups.iter().any(|group| group == NODES);
    request.user.strip_prefix(PREFIX).filter(|_| is_node)
}

/// Lets everybody else pass.
pub(super) fn restrict(object: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    let Some(node) = node_of(request) else { return Ok(Vec::new()) };
    match (request.group, request.resource, request.subresource) {
        ("", "nodes", _) => own_node(object, request, node)?,
        ("", "pods", "") => own_pod(object, request, node, facts)?,
        ("", "pods", "status") => status_of_own_pod(object, request, node)?,
        ("", "pods", "eviction") => own_eviction(object, request, node, facts)?,
        ("", "pods", "binding") | ("", "pods", "ephemeralcontainers") | ("", "pods", "resize") => {
            let subresource = request.subresource;
            return forbidden(format!(
                "unexpected pod subresource {subresource:?}, only 'status' and 'eviction' are allowed"
            ));
        }
        ("", "serviceaccounts", "token") => token_of_own_pod(object, request, node, facts)?,
        ("", "persistentvolumeclaims", subresource) => status_of_claim(object, request, node, subresource)?,
        ("coordination.k8s.io", "leases", _) if request.namespace != "kube-node-lease" || request.name != node => {
            return forbidden(format!("node {node:?} can only access its own lease in namespace \"kube-node-lease\""));
        }
        ("storage.k8s.io", "csinodes", _) if request.name != node => {
            return forbidden("can only access CSINode with the same name as the requesting node");
        }
        ("resource.k8s.io", "resourceslices", _) => own_slice(object, request, node)?,
        _ => {}
    }
    Ok(Vec::new())
}

fn own_node(object: &Value, request: &Request<'_>, node: &str) -> Result<(), Denied> {
    if request.name != node {
        return forbidden(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    if request.operation == Operation::Delete {
        return Ok(());
    }
    let null = Value::Null;
    let old = request.old.unwrap_or(&null);
    let changed = forbidden_labels(&object["metadata"]["labels"], &old["metadata"]["labels"]);
    if !changed.is_empty() {
        return forbidden(format!("is not allowed to modify labels: {}", changed.join(", ")));
    }
    if request.operation == Operation::Create {
        return Ok(());
    }
    for (what, part, field) in [("taints", "spec", "taints"), ("ownerReferences", "metadata", "ownerReferences")] {
        if object[part][field] != old[part][field] {
            return forbidden(format!("node {node:?} is not allowed to modify {what}"));
        }
    }
    Ok(())
}

/// Labels that differ and that are not for a node agent to say.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let keys =
        |labels: &Value| labels.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let mut keys = [keys(new), keys(old)].concat();
    keys.sort();
    keys.dedup();
    keys.retain(|key| new.get(key) != old.get(key) && !is_for_agents(key));
    keys
}

fn is_for_agents(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let is_in = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let is_official = is_in("kubernetes.io") || is_in("k8s.io");
    !is_in(RESTRICTED)
        && (!is_official || AGENT_LABELS.contains(&label) || AGENT_DOMAINS.iter().any(|domain| is_in(domain)))
}

fn is_on(pod: &Value, node: &str) -> bool {
    text(&pod["spec"], "nodeName") == node
}

fn own_pod(object: &Value, request: &Request<'_>, node: &str, facts: &dyn Facts) -> Result<(), Denied> {
    match request.operation {
        Operation::Create => mirror(object, node, facts),
        Operation::Delete if request.old.is_some_and(|pod| is_on(pod, node)) => Ok(()),
        Operation::Delete => forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        other => forbidden(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            other.as_str()
        )),
    }
}

/// A new pod of an agent shows what the node runs anyway: it is bound to the node, owned by it, and leads to nothing.
fn mirror(pod: &Value, node: &str, facts: &dyn Facts) -> Result<(), Denied> {
    if pod["metadata"]["annotations"][MIRROR].is_null() {
        return forbidden(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !is_on(pod, node) {
        return forbidden(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let own = |owner: &Value| {
        owner["apiVersion"] == "v1"
            && owner["kind"] == "Node"
            && owner["name"] == node
            && owner["controller"] == true
            && owner["blockOwnerDeletion"] != true
            && facts.get("nodes", "", node).is_some_and(|found| found["metadata"]["uid"] == owner["uid"])
    };
    if !matches!(items(&pod["metadata"], "ownerReferences"), [owner] if own(owner)) {
        return forbidden(format!(
            "node {node:?} can only create pods with a single controller owner reference set to itself, \
             with its UID and without blockOwnerDeletion"
        ));
    }
    match reference(&pod["spec"]) {
        Some(what) => forbidden(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// What a pod would open the door to.
fn reference(spec: &Value) -> Option<&'static str> {
    let source = |source: &Value| {
        let kinds = [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("serviceAccountToken", "serviceaccounts"),
            ("ephemeral", "persistentvolumeclaims"),
        ];
        kinds.into_iter().find(|(field, _)| source[*field].is_object()).map(|(_, what)| what)
    };
    let of_volume =
        |volume: &Value| source(volume).or_else(|| items(&volume["projected"], "sources").iter().find_map(source));
    let of_container = |container: &Value| {
        let from = items(container, "envFrom").iter().map(|from| (&from["secretRef"], &from["configMapRef"]));
        let value = items(container, "env").iter().map(|variable| &variable["valueFrom"]);
        let value = value.map(|from| (&from["secretKeyRef"], &from["configMapKeyRef"]));
        from.chain(value).find_map(|(secret, map)| match (secret.is_object(), map.is_object()) {
            (true, _) => Some("secrets"),
            (_, true) => Some("configmaps"),
            _ => None,
        })
    };
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    if !items(spec, "imagePullSecrets").is_empty() {
        return Some("secrets");
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    let of_containers = || containers.iter().flat_map(|list| items(spec, list)).find_map(of_container);
    items(spec, "volumes").iter().find_map(of_volume).or_else(of_containers)
}

fn status_of_own_pod(object: &Value, request: &Request<'_>, node: &str) -> Result<(), Denied> {
    let null = Value::Null;
    let old = request.old.unwrap_or(&null);
    if !is_on(old, node) {
        return forbidden(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if object["metadata"]["labels"] != old["metadata"]["labels"] {
        return forbidden(format!("node {node:?} cannot update labels through pod status"));
    }
    for field in ["resourceClaimStatuses", "extendedResourceClaimStatus"] {
        if object["status"][field] != old["status"][field] {
            return forbidden(format!("node {node:?} cannot update {field} of pods"));
        }
    }
    Ok(())
}

fn own_eviction(body: &Value, request: &Request<'_>, node: &str, facts: &dyn Facts) -> Result<(), Denied> {
    let name = if request.name.is_empty() { text(&body["metadata"], "name") } else { request.name };
    match facts.get("pods", request.namespace, name) {
        Some(pod) if !is_on(&pod, node) => {
            forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        // One that is not there is missed by who evicts it.
        _ => Ok(()),
    }
}

/// A token for a pod of the node, for an audience that the pod names.
fn token_of_own_pod(body: &Value, request: &Request<'_>, node: &str, facts: &dyn Facts) -> Result<(), Denied> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let bound = &body["spec"]["boundObjectRef"];
    let (name, uid) = (text(bound, "name"), text(bound, "uid"));
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
        return forbidden("node requested token not bound to a pod");
    }
    if uid.is_empty() {
        return forbidden("node requested token with a pod binding without a uid");
    }
    let Some(pod) = facts.get("pods", request.namespace, name) else {
        return forbidden(format!("pod {name:?} not found"));
    };
    if text(&pod["metadata"], "uid") != uid {
        return forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if !is_on(&pod, node) {
        return forbidden("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match items(&body["spec"], "audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return forbidden("node may only request 0 or 1 audiences"),
    };
    match names_audience(&pod, audience, facts) {
        true => Ok(()),
        false => forbidden(format!("audience {audience:?} not found in pod spec volume")),
    }
}

/// A volume of the pod is a token for the audience, or its driver wants one.
fn names_audience(pod: &Value, audience: &str, facts: &dyn Facts) -> bool {
    let projects = |volume: &Value| {
        let tokens = items(&volume["projected"], "sources").iter().map(|source| &source["serviceAccountToken"]);
        tokens.filter(|token| token.is_object()).any(|token| text(token, "audience") == audience)
    };
    let driver_wants = |volume: &Value| {
        let driver = text(&volume["csi"], "driver");
        let driver = Some(driver).filter(|driver| !driver.is_empty());
        driver.and_then(|driver| facts.get("csidrivers.storage.k8s.io", "", driver)).is_some_and(|driver| {
            items(&driver["spec"], "tokenRequests").iter().any(|wanted| text(wanted, "audience") == audience)
        })
    };
    items(&pod["spec"], "volumes").iter().any(|volume| projects(volume) || driver_wants(volume))
}

fn status_of_claim(object: &Value, request: &Request<'_>, node: &str, subresource: &str) -> Result<(), Denied> {
    if subresource != "status" || request.operation != Operation::Update {
        return forbidden("may only update PVC status");
    }
    let others = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(status) = claim["status"].as_object_mut() {
            status.retain(|field, _| !CLAIM_FIELDS.contains(&field.as_str()));
        }
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.retain(|field, _| field != "managedFields" && field != "resourceVersion");
        }
        claim
    };
    if request.old.is_some_and(|old| others(old) != others(object)) {
        return forbidden(format!(
            "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
        ));
    }
    Ok(())
}

fn own_slice(object: &Value, request: &Request<'_>, node: &str) -> Result<(), Denied> {
    let is_own = |slice: &Value| text(&slice["spec"], "nodeName") == node;
    match request.operation {
        Operation::Create if !is_own(object) => {
            forbidden("can only create ResourceSlice with the same NodeName as the requesting node")
        }
        Operation::Update | Operation::Delete if !request.old.is_some_and(is_own) => {
            forbidden("can only change ResourceSlice with the same NodeName as the requesting node")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Cluster, request};
    use super::*;
    use serde_json::json;

    fn cluster() -> Cluster {
        let pod = |name: &str, node: &str| {
            json!({
                "metadata": {"name": name, "namespace": "n", "uid": format!("u-{name}")},
                "spec": {"nodeName": node, "volumes": [
                    {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"audience": "vault"}}]}},
                    {"csi": {"driver": "d"}},
                ]},
            })
        };
        let driver = json!({"metadata": {"name": "d"}, "spec": {"tokenRequests": [{"audience": "storage"}]}});
        Cluster::default()
            .with("nodes", json!({"metadata": {"name": "a", "uid": "u-a"}}))
            .with("pods", pod("mine", "a"))
            .with("pods", pod("other", "b"))
            .with("csidrivers.storage.k8s.io", driver)
    }

    /// A request of the agent of node `a`; `part` of the refusal, if any. Nobody else is held to it.
    fn check(line: &str, object: &Value, old: Option<&Value>, part: Option<&str>) {
        let groups = [NODES.to_owned()];
        let asked = Request { user: "system:node:a", groups: &groups, old, ..request(line) };
        let found = restrict(object, &asked, &cluster()).err().map(|error| error.to_string());
        match part {
            None => assert_eq!(found, None, "{line}: {object}"),
            Some(part) => assert!(found.as_ref().is_some_and(|found| found.contains(part)), "{line}: {found:?}"),
        }
        assert!(restrict(object, &request(line), &cluster()).is_ok(), "others: {line}");
    }

    #[test]
    fn agents_keep_to_their_own() {
        let mine = json!({"spec": {"nodeName": "a"}});
        let other = json!({"spec": {"nodeName": "b"}});
        let claimed = json!({"spec": {"nodeName": "a"}, "status": {"resourceClaimStatuses": [{"name": "x"}]}});
        let labelled = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "a"}});
        let claim = |status: Value| json!({"spec": {"volumeName": "v"}, "status": status});
        let table = [
            ("UPDATE pods/status n/p", mine.clone(), Some(mine.clone()), None),
            ("UPDATE pods/status n/p", other.clone(), Some(other.clone()), Some("only update pod status")),
            ("UPDATE pods/status n/p", labelled, Some(mine.clone()), Some("cannot update labels")),
            ("UPDATE pods/status n/p", claimed, Some(mine.clone()), Some("resourceClaimStatuses")),
            ("UPDATE pods n/p", mine.clone(), Some(mine.clone()), Some("can only create and delete mirror pods")),
            ("UPDATE pods/resize n/p", mine.clone(), Some(mine.clone()), Some("unexpected pod subresource \"resize\"")),
            ("DELETE pods n/p", Value::Null, Some(mine.clone()), None),
            ("DELETE pods n/p", Value::Null, Some(other.clone()), Some("only delete pods")),
            ("CREATE pods/eviction n/mine", json!({}), None, None),
            ("CREATE pods/eviction n/other", json!({}), None, Some("only evict pods with spec.nodeName")),
            ("UPDATE coordination.k8s.io:leases kube-node-lease/a", json!({}), None, None),
            ("CREATE coordination.k8s.io:leases kube-node-lease/b", json!({}), None, Some("its own lease")),
            ("CREATE storage.k8s.io:csinodes a", json!({}), None, None),
            ("CREATE storage.k8s.io:csinodes b", json!({}), None, Some("can only access CSINode")),
            ("CREATE resource.k8s.io:resourceslices s", mine.clone(), None, None),
            ("CREATE resource.k8s.io:resourceslices s", other.clone(), None, Some("can only create ResourceSlice")),
            (
                "DELETE resource.k8s.io:resourceslices s",
                Value::Null,
                Some(other),
                Some("can only change ResourceSlice"),
            ),
            (
                "UPDATE persistentvolumeclaims n/c",
                claim(json!({})),
                Some(claim(json!({}))),
                Some("only update PVC status"),
            ),
            ("UPDATE persistentvolumeclaims/status n/c", claim(json!({"capacity": {}})), Some(claim(json!({}))), None),
            (
                "UPDATE persistentvolumeclaims/status n/c",
                claim(json!({"phase": "Lost"})),
                Some(claim(json!({}))),
                Some("fields other than status.capacity"),
            ),
            ("CREATE configmaps n/p", json!({}), None, None),
        ];
        for (line, object, old, part) in table {
            check(line, &object, old.as_ref(), part);
        }
    }

    #[test]
    fn what_agents_may_say_of_their_node() {
        let labels = |labels: Value| json!({"metadata": {"labels": labels}});
        let zone = labels(json!({"topology.kubernetes.io/zone": "z"}));
        let table = [
            ("CREATE nodes a", json!({}), None, None),
            ("UPDATE nodes b", json!({}), Some(json!({})), Some("not allowed to modify node \"b\"")),
            ("CREATE nodes a", zone.clone(), None, None),
            ("UPDATE nodes a", json!({}), Some(zone), None),
            ("CREATE nodes a", labels(json!({"own.example.com/x": "y", "role": "z"})), None, None),
            ("CREATE nodes a", labels(json!({"custom.node.kubernetes.io/x": "y"})), None, None),
            (
                "CREATE nodes a",
                labels(json!({"x.node-restriction.kubernetes.io/y": "z"})),
                None,
                Some("x.node-restriction"),
            ),
            (
                "CREATE nodes a",
                labels(json!({"node-role.kubernetes.io/master": ""})),
                None,
                Some("modify labels: node-role.kubernetes.io/master"),
            ),
            (
                "UPDATE nodes/status a",
                json!({}),
                Some(labels(json!({"node-role.kubernetes.io/infra": ""}))),
                Some("modify labels: node-role.kubernetes.io/infra"),
            ),
            ("UPDATE nodes/status a", json!({"spec": {"taints": []}}), Some(json!({})), Some("modify taints")),
            (
                "UPDATE nodes a",
                json!({"metadata": {"ownerReferences": [{}]}}),
                Some(json!({})),
                Some("modify ownerReferences"),
            ),
        ];
        for (line, object, old, part) in table {
            check(line, &object, old.as_ref(), part);
        }
    }

    #[test]
    fn mirrors_show_what_the_node_runs_and_lead_nowhere() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u-a", "controller": true});
        let good = json!({
            "metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": [owner]}, "spec": {"nodeName": "a"},
        });
        check("CREATE pods n/p", &good, None, None);
        check("CREATE pods n/p", &json!({"spec": {"nodeName": "a"}}), None, Some("can only create mirror pods"));
        let token = json!([{"projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}}]);
        let env = json!([{"env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]);
        let table = [
            ("/spec/nodeName", json!("b"), "spec.nodeName set to itself"),
            ("/metadata/ownerReferences", json!([]), "single controller owner reference"),
            ("/metadata/ownerReferences/0/uid", json!("u-b"), "single controller owner reference"),
            ("/metadata/ownerReferences/0/name", json!("b"), "single controller owner reference"),
            ("/metadata/ownerReferences/0/controller", json!(false), "single controller owner reference"),
            ("/spec", json!({"nodeName": "a", "serviceAccountName": "x"}), "that reference serviceaccounts"),
            ("/spec", json!({"nodeName": "a", "volumes": [{"secret": {}}]}), "that reference secrets"),
            ("/spec", json!({"nodeName": "a", "volumes": [{"configMap": {}}]}), "that reference configmaps"),
            ("/spec", json!({"nodeName": "a", "volumes": token}), "that reference serviceaccounts"),
            ("/spec", json!({"nodeName": "a", "initContainers": env}), "that reference secrets"),
            ("/spec", json!({"nodeName": "a", "imagePullSecrets": [{"name": "x"}]}), "that reference secrets"),
        ];
        for (path, value, part) in table {
            let mut pod = good.clone();
            *pod.pointer_mut(path).unwrap() = value;
            check("CREATE pods n/p", &pod, None, Some(part));
        }
    }

    #[test]
    fn tokens_are_for_pods_of_the_node() {
        let bound = |name: &str, uid: &str, audiences: Value| {
            let object = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
            json!({"spec": {"boundObjectRef": object, "audiences": audiences}})
        };
        let table = [
            (bound("mine", "u-mine", json!([])), None),
            (bound("mine", "u-mine", json!(["vault"])), None),
            (bound("mine", "u-mine", json!(["storage"])), None),
            (bound("mine", "u-mine", json!(["bank"])), Some("audience \"bank\" not found in pod spec volume")),
            (bound("mine", "u-mine", json!(["vault", "storage"])), Some("0 or 1 audiences")),
            (bound("mine", "u-old", json!([])), Some("does not match the UID in record")),
            (bound("mine", "", json!([])), Some("without a uid")),
            (bound("other", "u-other", json!([])), Some("scheduled on a different node")),
            (bound("gone", "u-gone", json!([])), Some("not found")),
            (json!({"spec": {}}), Some("not bound to a pod")),
        ];
        for (body, part) in table {
            check("CREATE serviceaccounts/token n/default", &body, None, part);
        }
    }
}
