//! The roles and bindings that every cluster has, as a table. `core` stands for the core API group.

use serde_json::{Value, json};

use crate::rbac::RBAC_GROUP;

/// `groups | resources | verbs`.
type RuleText = &'static str;

const READ: &str = "get list watch";

/// What a namespace's viewer sees.
const VIEWED: [(&str, &str); 8] = [
    (
        "core",
        "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims \
         persistentvolumeclaims/status pods pods/log pods/status replicationcontrollers replicationcontrollers/scale \
         replicationcontrollers/status resourcequotas resourcequotas/status serviceaccounts services services/status",
    ),
    (
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
         replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    ("discovery.k8s.io", "endpointslices"),
    ("metrics.k8s.io", "pods"),
];

const EDITED: [(&str, &str); 7] = [
    (
        "core",
        "configmaps events persistentvolumeclaims pods pods/attach pods/eviction pods/exec pods/portforward pods/proxy \
         replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    (
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("networking.k8s.io", "ingresses networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("discovery.k8s.io", "endpointslices"),
];

const WRITE: &str = "create delete deletecollection patch update";
const EDIT_MORE: [RuleText; 4] = [
    "core | secrets pods/attach pods/exec pods/portforward pods/proxy services/proxy | get list watch",
    "core | serviceaccounts | impersonate",
    "core | serviceaccounts/token | create",
    "core | replicationcontrollers/scale | get",
];
const ADMIN_MORE: [RuleText; 2] = [
    "rbac.authorization.k8s.io | roles rolebindings | create delete deletecollection get list patch update watch",
    "authorization.k8s.io | localsubjectaccessreviews | create",
];

const CONTROLLERS: [RuleText; 1] = ["* | * | get list watch create update patch delete deletecollection"];

const HOST_AGENT: [RuleText; 11] = [
    "core | nodes nodes/status | get list watch create update patch delete",
    "core | pods | get list watch patch update delete",
    "core | pods/status | get patch update",
    "core events.k8s.io | events | create patch update",
    "core | configmaps secrets serviceaccounts services endpoints namespaces persistentvolumeclaims persistentvolumes | get list watch",
    "core | persistentvolumes | patch update",
    "core | persistentvolumeclaims/status | patch update",
    "core | serviceaccounts/token | create",
    "discovery.k8s.io networking.k8s.io node.k8s.io storage.k8s.io vpcresources.k8s.aws | * | get list watch",
    "coordination.k8s.io | leases | get list watch create update patch delete",
    "isopod.dev | * | get list watch create update patch delete",
];

const NODE: [RuleText; 10] = [
    "authentication.k8s.io | tokenreviews | create",
    "authorization.k8s.io | localsubjectaccessreviews subjectaccessreviews | create",
    "core | services | get list watch",
    "core | nodes | create get list watch update patch",
    "core | nodes/status | update patch",
    "core | events | create update patch",
    "core | pods | get list watch create delete",
    "core | pods/status pods/eviction | create update patch",
    "core | configmaps secrets persistentvolumeclaims persistentvolumes | get list watch",
    "coordination.k8s.io | leases | get create update patch delete",
];

/// The API server's own signers.
const SIGNER: [RuleText; 3] = [
    "certificates.k8s.io | certificatesigningrequests | get list watch",
    "certificates.k8s.io | certificatesigningrequests/approval certificatesigningrequests/status | update",
    "certificates.k8s.io | signers | approve sign",
];

const BASIC_USER: [RuleText; 2] = [
    "authorization.k8s.io | selfsubjectaccessreviews selfsubjectrulesreviews | create",
    "authentication.k8s.io | selfsubjectreviews | create",
];

const DISCOVERY_PATHS: &str =
    "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/";
const PUBLIC_PATHS: &str = "/healthz /livez /readyz /version /version/";
const ISSUER_PATHS: &str =
    "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/";

/// Role and the subjects it is given to: `Group:NAME` or `User:NAME`.
const BINDINGS: [(&str, &str); 10] = [
    ("cluster-admin", "Group:system:masters"),
    ("system:discovery", "Group:system:authenticated"),
    ("system:basic-user", "Group:system:authenticated"),
    ("system:public-info-viewer", "Group:system:authenticated Group:system:unauthenticated"),
    ("system:service-account-issuer-discovery", "Group:system:serviceaccounts"),
    ("system:isopod:controllers", "User:system:isopod:controllers Group:system:isopod:controllers"),
    ("system:isopod:host-agent", "User:system:isopod:host-agent Group:system:isopod:host-agents"),
    ("system:isopod:signer", "User:system:isopod:signer"),
    ("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "Group:system:nodes"),
    ("system:node", ""),
];

/// All roles and bindings.
pub(super) fn all() -> Vec<Value> {
    let roles = [
        ("cluster-admin", vec![rule("* | * | *"), path_rule("*", "*")]),
        ("system:discovery", vec![path_rule(DISCOVERY_PATHS, "get")]),
        ("system:basic-user", BASIC_USER.into_iter().map(rule).collect()),
        ("system:public-info-viewer", vec![path_rule(PUBLIC_PATHS, "get")]),
        ("system:service-account-issuer-discovery", vec![path_rule(ISSUER_PATHS, "get")]),
        ("system:node", NODE.into_iter().map(rule).collect()),
        (
            "system:auth-delegator",
            vec![
                rule("authentication.k8s.io | tokenreviews | create"),
                rule("authorization.k8s.io | subjectaccessreviews | create"),
            ],
        ),
        ("system:isopod:signer", SIGNER.into_iter().map(rule).collect()),
        (
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            vec![rule("certificates.k8s.io | certificatesigningrequests/nodeclient | create")],
        ),
        (
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            vec![rule("certificates.k8s.io | certificatesigningrequests/selfnodeclient | create")],
        ),
        ("system:isopod:controllers", CONTROLLERS.into_iter().map(rule).collect()),
        ("system:isopod:host-agent", HOST_AGENT.into_iter().map(rule).collect()),
    ];
    let bindings = BINDINGS.into_iter().filter(|(_, subjects)| !subjects.is_empty());
    let roles = roles.into_iter().map(|(name, rules)| object("ClusterRole", name, json!({"rules": rules})));
    let bindings = bindings.map(|(role, subjects)| binding(role, subjects));
    roles.chain(aggregated()).chain(bindings).chain([reader_role()]).collect()
}

/// The roles for users, with the roles that they consist of. Each has what the one before it has, and whoever brings a
/// kind adds to them with a label.
fn aggregated() -> Vec<Value> {
    let admin: Vec<Value> = ADMIN_MORE.into_iter().map(rule).collect();
    // In the order in which the parts' names would bring them together.
    let edits = [edit(), view()].concat();
    let parts = [
        ("view", view(), view(), "edit"),
        ("edit", edit(), edits.clone(), "admin"),
        ("admin", admin.clone(), [edits, admin].concat(), ""),
    ];
    let mut roles = Vec::new();
    for (name, rules, whole, next) in parts {
        let label = |name: &str| format!("{RBAC_GROUP}/aggregate-to-{name}");
        let mut part = object("ClusterRole", &format!("system:aggregate-to-{name}"), json!({"rules": rules}));
        part["metadata"]["labels"][label(name)] = "true".into();
        let selectors = json!({"clusterRoleSelectors": [{"matchLabels": {label(name): "true"}}]});
        let mut role = object("ClusterRole", name, json!({"aggregationRule": selectors, "rules": whole}));
        if !next.is_empty() {
            role["metadata"]["labels"][label(next)] = "true".into();
        }
        roles.extend([part, role]);
    }
    roles
}

fn view() -> Vec<Value> {
    VIEWED.iter().map(|(group, resources)| rule_of(group, resources, READ)).collect()
}

fn edit() -> Vec<Value> {
    let written = EDITED.iter().map(|(group, resources)| rule_of(group, resources, WRITE));
    written.chain(EDIT_MORE.into_iter().map(rule)).collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().map(|word| if word == "core" { "" } else { word }).collect()
}

fn rule(text: RuleText) -> Value {
    let mut parts = text.split('|').map(str::trim);
    let mut next = || parts.next().unwrap_or_default();
    let (groups, resources, verbs) = (next(), next(), next());
    rule_of(groups, resources, verbs)
}

fn rule_of(groups: &str, resources: &str, verbs: &str) -> Value {
    json!({"apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs)})
}

fn path_rule(paths: &str, verbs: &str) -> Value {
    json!({"nonResourceURLs": words(paths), "verbs": words(verbs)})
}

fn object(kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"), "kind": kind,
        "metadata": {
            "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    object
}

fn binding(role: &str, subjects: &str) -> Value {
    let subject = |text: &str| {
        let (kind, name) = text.split_once(':').unwrap_or(("User", text));
        json!({"kind": kind, "name": name, "apiGroup": RBAC_GROUP})
    };
    let subjects: Vec<Value> = subjects.split_whitespace().map(subject).collect();
    let role_ref = json!({"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role});
    object("ClusterRoleBinding", role, json!({"subjects": subjects, "roleRef": role_ref}))
}

/// Lets extension API servers read how to authenticate their callers.
fn reader_role() -> Value {
    let mut rule = rule("core | configmaps | get list watch");
    rule["resourceNames"] = json!(["extension-apiserver-authentication"]);
    let mut role = object("Role", "extension-apiserver-authentication-reader", json!({"rules": [rule]}));
    role["metadata"]["namespace"] = "kube-system".into();
    role
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_has_its_role() {
        let all = all();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let roles: Vec<String> = all.iter().filter(|object| object["kind"] == "ClusterRole").map(name).collect();
        for binding in all.iter().filter(|object| object["kind"] == "ClusterRoleBinding") {
            let role = binding["roleRef"]["name"].as_str().unwrap();
            assert!(roles.iter().any(|name| name == role), "{role}");
            assert!(!binding["subjects"].as_array().unwrap().is_empty());
        }
        assert_eq!(rule("core apps | pods | get")["apiGroups"], json!(["", "apps"]));
    }
}
