//! What a node agent may do because of the pods that are bound to its node (upstream's Node authorizer): it reads the
//! secrets, configuration, claims and accounts of those pods and of no others. What all agents may do is a table.

use std::collections::BTreeSet;
use std::sync::Arc;

use isopod_store::{Entry, ListQuery};
use serde_json::Value;

use crate::authz::{Attributes, Rule};
use crate::codec;
use crate::server::ApiServer;
use crate::strategy::{meta, text};
use crate::user::UserInfo;

const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";
const READ: &str = "get list watch";

/// `groups | resources | verbs`, for every node agent. Which nodes and pods it may change is decided by admission.
const RIGHTS: [(&str, &str, &str); 13] = [
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
    ("", "services", READ),
    ("", "nodes", "create get list watch update patch"),
    ("", "nodes/status", "update patch"),
    ("", "events", "create update patch"),
    ("events.k8s.io", "events", "create update patch"),
    ("", "pods", "get list watch create delete"),
    ("", "pods/status", "update patch"),
    ("", "pods/eviction", "create"),
    ("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
    ("node.k8s.io", "runtimeclasses", READ),
    ("storage.k8s.io", "csidrivers", READ),
];

/// What a pod refers to.
#[derive(Debug, Default)]
pub(crate) struct References {
    node: String,
    /// `RESOURCE/NAMESPACE/NAME`.
    objects: BTreeSet<String>,
}

/// The node of a node agent.
fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|node| !node.is_empty() && user.is_in(NODES))
}

/// Why a node agent may not, for its refusal; none for others.
pub(crate) fn refusal(user: &UserInfo, asked: &Attributes) -> Option<String> {
    let node = node_of(user)?;
    let by_pods = matches!(
        asked.resource.as_str(),
        "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes" | "serviceaccounts"
    );
    by_pods.then(|| match asked.name.as_str() {
        "" => "can only read resources of this type by name".to_owned(),
        _ => format!("no relationship found between node '{node}' and this object"),
    })
}

/// The user is a node agent and may do it as such.
pub(crate) fn allows(server: &ApiServer, user: &UserInfo, asked: &Attributes) -> bool {
    let Some(node) = node_of(user) else { return false };
    if !asked.is_resource() {
        return false;
    }
    let reads = matches!(asked.verb.as_str(), "get" | "list" | "watch") && asked.subresource.is_empty();
    match (asked.group.as_str(), asked.resource.as_str()) {
        ("", resource @ ("secrets" | "configmaps" | "persistentvolumeclaims")) => {
            reads && of_pods(server, node, resource, &asked.namespace, &asked.name)
        }
        ("", "persistentvolumes") => reads && volume(server, node, &asked.name),
        ("", "serviceaccounts") => {
            let is_token = asked.subresource == "token" && asked.verb == "create";
            let gets = asked.subresource.is_empty() && asked.verb == "get";
            (is_token || gets) && of_pods(server, node, "serviceaccounts", &asked.namespace, &asked.name)
        }
        ("coordination.k8s.io", "leases") => {
            let is_own = asked.name == node || asked.verb == "create" && asked.name.is_empty();
            let verbs = ["get", "create", "update", "patch", "delete"];
            asked.namespace == "kube-node-lease" && is_own && verbs.contains(&asked.verb.as_str())
        }
        ("storage.k8s.io", "csinodes") => asked.name == node || asked.verb == "create" && asked.name.is_empty(),
        _ => RIGHTS.iter().any(|right| rule(right).allows(asked)),
    }
}

fn rule((group, resources, verbs): &(&str, &str, &str)) -> Rule {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Rule { groups: vec![(*group).to_owned()], resources: words(resources), verbs: words(verbs), ..Rule::default() }
}

fn pods(server: &ApiServer) -> Vec<Arc<Entry>> {
    let query = ListQuery { prefix: "pods/".into(), ..ListQuery::default() };
    server.store.list(&query).map(|list| list.entries).unwrap_or_default()
}

fn of_pods(server: &ApiServer, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let wanted = format!("{resource}/{namespace}/{name}");
    pods(server).iter().any(|entry| {
        let references = references(entry);
        references.node == node && references.objects.contains(&wanted)
    })
}

/// A volume is a claim's that a pod of the node refers to.
fn volume(server: &ApiServer, node: &str, name: &str) -> bool {
    let Some(entry) = server.store.get(&format!("persistentvolumes/{name}")) else { return false };
    let Ok(volume) = codec::decode(&entry.value) else { return false };
    let claim = |field: &str| text(&volume, &["spec", "claimRef", field]);
    of_pods(server, node, "persistentvolumeclaims", claim("namespace"), claim("name"))
}

fn references(entry: &Entry) -> Arc<References> {
    let read = || Arc::new(codec::decode(&entry.value).map(|pod| References::of(&pod)).unwrap_or_default());
    Arc::clone(codec::derived(entry).references.get_or_init(read))
}

fn items<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

/// Sources of volumes that name a secret with which they are mounted.
const WITH_SECRETS: [(&str, &str); 8] = [
    ("azureFile", ""),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
];

impl References {
    fn of(pod: &Value) -> Self {
        let mut references = Self { node: text(pod, &["spec", "nodeName"]).into(), ..Self::default() };
        let namespace = meta(pod, "namespace");
        let spec = &pod["spec"];
        let mut add = |resource: &str, name: &str| {
            if !name.is_empty() {
                references.objects.insert(format!("{resource}/{namespace}/{name}"));
            }
        };
        let account = text(spec, &["serviceAccountName"]);
        add("serviceaccounts", if account.is_empty() { "default" } else { account });
        items(spec, "imagePullSecrets").for_each(|secret| add("secrets", text(secret, &["name"])));
        for container in
            ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|list| items(spec, list))
        {
            for source in items(container, "envFrom") {
                add("secrets", text(source, &["secretRef", "name"]));
                add("configmaps", text(source, &["configMapRef", "name"]));
            }
            for variable in items(container, "env") {
                add("secrets", text(variable, &["valueFrom", "secretKeyRef", "name"]));
                add("configmaps", text(variable, &["valueFrom", "configMapKeyRef", "name"]));
            }
        }
        for volume in items(spec, "volumes") {
            add("secrets", text(volume, &["secret", "secretName"]));
            add("secrets", text(volume, &["azureFile", "secretName"]));
            for (source, field) in WITH_SECRETS {
                add("secrets", text(volume, &[source, field, "name"]));
            }
            add("configmaps", text(volume, &["configMap", "name"]));
            add("persistentvolumeclaims", text(volume, &["persistentVolumeClaim", "claimName"]));
            if volume["ephemeral"].is_object() {
                add("persistentvolumeclaims", &format!("{}-{}", meta(pod, "name"), text(volume, &["name"])));
            }
            for source in items(&volume["projected"], "sources") {
                add("secrets", text(source, &["secret", "name"]));
                add("configmaps", text(source, &["configMap", "name"]));
            }
        }
        references
    }
}
