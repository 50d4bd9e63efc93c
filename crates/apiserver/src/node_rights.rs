//! What a node agent may do (upstream's Node authorizer): it reads its own node, the pods that are bound to it, and the
//! secrets, configuration, claims and accounts of those pods, and no others. What all agents may do is a table.

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

/// `groups | resources | verbs`, for every node agent, of kinds that are not looked at more closely.
const RIGHTS: [(&str, &str, &str); 8] = [
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
    ("", "services", READ),
    ("", "events", "create update patch"),
    ("events.k8s.io", "events", "create update patch"),
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
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|node| !node.is_empty() && user.is_in(NODES))
}

/// What a node agent may do as such, or why it may not; none for others.
pub(crate) fn decide(server: &ApiServer, user: &UserInfo, asked: &Attributes) -> Option<Result<(), String>> {
    let node = node_of(user)?;
    Some(if asked.is_resource() { resource(server, node, asked) } else { Err(String::new()) })
}

fn resource(server: &ApiServer, node: &str, asked: &Attributes) -> Result<(), String> {
    match (asked.group.as_str(), asked.resource.as_str()) {
        ("", "secrets" | "configmaps") => {
            demand(is_reading(asked), "can only read resources of this type")?;
            demand(asked.subresource.is_empty(), "cannot read subresource")?;
            demand(!asked.namespace.is_empty(), "can only read namespaced object of this type")?;
            related(node, asked, |name| of_pods(server, node, &asked.resource, &asked.namespace, name))
        }
        ("", "persistentvolumeclaims") if asked.subresource == "status" => {
            demand(matches!(asked.verb.as_str(), "update" | "patch"), "can only get/update/patch this type")?;
            related(node, asked, |name| of_pods(server, node, &asked.resource, &asked.namespace, name))
        }
        ("", "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims") => {
            gets(asked)?;
            related(node, asked, |name| of_pods(server, node, &asked.resource, &asked.namespace, name))
        }
        ("", "persistentvolumes") => {
            gets(asked)?;
            related(node, asked, |name| volume(server, node, name))
        }
        ("storage.k8s.io", "volumeattachments") => {
            gets(asked)?;
            related(node, asked, |name| is_of_node(server, "volumeattachments.storage.k8s.io", name, node))
        }
        ("", "serviceaccounts") => account(server, node, asked),
        ("coordination.k8s.io", "leases") => {
            let place = "can only access leases in the \"kube-node-lease\" system namespace";
            demand(asked.namespace == "kube-node-lease", place)?;
            own_name(node, asked, "node lease")
        }
        ("storage.k8s.io", "csinodes") => {
            demand(asked.subresource.is_empty(), "cannot authorize CSINode subresources")?;
            own_name(node, asked, "CSINode")
        }
        ("resource.k8s.io", "resourceslices") => slice(server, node, asked),
        ("", "nodes") => own_node(node, asked),
        ("", "pods") => own_pods(server, node, asked),
        _ => demand(RIGHTS.iter().any(|right| rule(right).allows(asked)), ""),
    }
}

fn demand(is_so: bool, otherwise: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn is_reading(asked: &Attributes) -> bool {
    matches!(asked.verb.as_str(), "get" | "list" | "watch")
}

fn gets(asked: &Attributes) -> Result<(), String> {
    demand(asked.verb == "get", "can only get individual resources of this type")?;
    demand(asked.subresource.is_empty(), "cannot get subresource")
}

/// The named object has to do with the node.
fn related(node: &str, asked: &Attributes, has_to_do: impl FnOnce(&str) -> bool) -> Result<(), String> {
    demand(!asked.name.is_empty(), "No Object name found")?;
    demand(has_to_do(&asked.name), &format!("no relationship found between node '{node}' and this object"))
}

fn account(server: &ApiServer, node: &str, asked: &Attributes) -> Result<(), String> {
    let creates_token = asked.verb == "create" && asked.subresource == "token" && !asked.name.is_empty();
    let is_got = asked.verb == "get" && asked.subresource.is_empty();
    demand(creates_token || is_got, "can only create tokens for individual service accounts")?;
    related(node, asked, |name| of_pods(server, node, "serviceaccounts", &asked.namespace, name))
}

/// Objects that are named as their node is; the name of a new one is admission's to see.
fn own_name(node: &str, asked: &Attributes, what: &str) -> Result<(), String> {
    let verbs = ["get", "create", "update", "patch", "delete"];
    demand(verbs.contains(&asked.verb.as_str()), &format!("can only get, create, update, patch, or delete a {what}"))?;
    let other = format!("can only access {what} with the same name as the requesting node");
    demand(asked.verb == "create" || asked.name == node, &other)
}

fn slice(server: &ApiServer, node: &str, asked: &Attributes) -> Result<(), String> {
    demand(asked.subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
    match asked.verb.as_str() {
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" => {
            related(node, asked, |name| is_of_node(server, "resourceslices.resource.k8s.io", name, node))
        }
        _ => demand(
            asked.selects("spec.nodeName", node),
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        ),
    }
}

fn own_node(node: &str, asked: &Attributes) -> Result<(), String> {
    match (asked.subresource.as_str(), asked.verb.as_str()) {
        // Admission sees to it that it is its own.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match asked.name.as_str() {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => Err(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => Err(String::new()),
    }
}

fn own_pods(server: &ApiServer, node: &str, asked: &Attributes) -> Result<(), String> {
    let is_here = |name: &str| {
        let entry = server.store.get(&format!("pods/{}/{name}", asked.namespace));
        entry.is_some_and(|entry| references(&entry).node == node)
    };
    match (asked.subresource.as_str(), asked.verb.as_str()) {
        // Which pods is admission's to see.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        ("", "list" | "watch") if asked.selects("spec.nodeName", node) => Ok(()),
        ("", "list" | "watch") if asked.name.is_empty() => {
            Err("can only list/watch pods with spec.nodeName field selector".into())
        }
        ("", "get" | "list" | "watch") => related(node, asked, is_here),
        _ => Err(String::new()),
    }
}

/// The object says in its spec that it is the node's.
fn is_of_node(server: &ApiServer, resource: &str, name: &str, node: &str) -> bool {
    let entry = server.store.get(&format!("{resource}/{name}"));
    let object = entry.and_then(|entry| codec::decode(&entry.value).ok());
    object.is_some_and(|object| text(&object, &["spec", "nodeName"]) == node)
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
        // A node makes these itself: they must not give it anything.
        if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
            return references;
        }
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
        for claim in items(spec, "resourceClaims").chain(items(&pod["status"], "resourceClaimStatuses")) {
            add("resourceclaims", text(claim, &["resourceClaimName"]));
        }
        add("resourceclaims", text(pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"]));
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
