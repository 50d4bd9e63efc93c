//! Policies in CEL that change objects, and policies that look at what is sent to subresources.

use serde_json::{Value, json};

use crate::harness::{Cluster, config_map, deployment, pod};

const BASE: &str = "/apis/admissionregistration.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn steps(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn rules(group: &str, resource: &str) -> Value {
    let operations = json!(["CREATE", "UPDATE"]);
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": operations, "resources": [resource]}]})
}

fn policy(name: &str, constraints: Value, mutations: &[Value]) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"matchConstraints": constraints, "reinvocationPolicy": "Never", "mutations": mutations},
    })
}

/// A policy that mutates, and a binding.
async fn in_force(cluster: &Cluster, policy: Value, binding: Value) {
    let mut spec = binding;
    spec["policyName"] = policy["metadata"]["name"].clone();
    let binding = json!({"metadata": policy["metadata"], "spec": spec});
    cluster.ok(&format!("POST {BASE}/mutatingadmissionpolicies"), policy).await;
    cluster.ok(&format!("POST {BASE}/mutatingadmissionpolicybindings"), binding).await;
}

#[tokio::test]
async fn configurations_are_merged_by_the_keys_of_lists() {
    let cluster = Cluster::new().await;
    let sidecar = r#"Object{
        metadata: Object.metadata{labels: {"by": "policy", ?"none": optional.none()}},
        spec: Object.spec{
            containers: [Object.spec.containers{name: "sidecar", image: "proxy:" + variables.tag}],
            ?priorityClassName: object.metadata.name == "never" ? optional.of("x") : optional.none()
        }
    }"#;
    let mut sidecars = policy("sidecars", rules("", "pods"), &[apply(sidecar)]);
    sidecars["spec"]["variables"] = json!([{"name": "tag", "expression": "string(1 + 1)"}]);
    sidecars["spec"]["matchConditions"] = json!([
        {"name": "once", "expression": "!object.spec.containers.exists(c, c.name == 'sidecar')"},
    ]);
    in_force(&cluster, sidecars, json!({})).await;
    let made = cluster.create("pods", "default", pod("p")).await;
    let names: Vec<&Value> = made["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["main", "sidecar"]);
    assert_eq!(made["spec"]["containers"][1]["image"], "proxy:2");
    assert_eq!(made["spec"]["containers"][1]["imagePullPolicy"], "IfNotPresent", "defaults come after");
    assert_eq!(made["metadata"]["labels"], json!({"app": "p", "by": "policy"}));
}

#[tokio::test]
async fn steps_follow_each_other_and_parameters_are_given() {
    let cluster = Cluster::new().await;
    let first = r#"[
        JSONPatch{op: "test", path: "/metadata/name", value: object.metadata.name},
        JSONPatch{op: "add", path: "/metadata/labels", value: {"a": "b"}},
        JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.com/a"), value: params.data.say},
    ]"#;
    let second = r#"[JSONPatch{op: "add", path: "/data/count", value: string(size(object.data))}]"#;
    let mut tagged = policy("tagged", rules("", "configmaps"), &[steps(first), steps(second)]);
    tagged["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    tagged["spec"]["matchConditions"] = json!([{"name": "not-itself", "expression": "object.metadata.name != 'say'"}]);
    tagged["spec"]["failurePolicy"] = "Fail".into();
    let mut words = config_map("say");
    words["data"] = json!({"say": "hello"});
    cluster.create("configmaps", "default", words).await;
    in_force(&cluster, tagged, json!({"paramRef": {"name": "say", "parameterNotFoundAction": "Deny"}})).await;
    let made = cluster.create("configmaps", "default", config_map("m")).await;
    assert_eq!(made["data"], json!({"key": "value", "count": "1"}));
    assert_eq!(made["metadata"]["labels"], json!({"a": "b", "example.com/a": "hello"}));
    cluster.ok("DELETE /api/v1/namespaces/default/configmaps/say", Value::Null).await;
    let (code, message) = cluster.refused("POST /api/v1/namespaces/default/configmaps", config_map("n")).await;
    assert_eq!((code, message.contains("no params found")), (403, true), "{message}");
}

#[tokio::test]
async fn what_fails_is_handled_by_policy() {
    let cluster = Cluster::new().await;
    let table = [
        (apply("Object{spec: Object.spec{nothing: 1}}"), ".spec.nothing: field not declared in schema"),
        (
            apply("Object{spec: Object.spec{selector: Object.spec.selector{}}}"),
            "may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        (apply("Object{spec: Object.spec{replicas: object.spec.nothing}}"), "no such key: nothing"),
        (
            apply("Object{spec: Object.spec{replicas: ip('10.0.0.1').family() == 4 ? type(1) : type(2)}}"),
            "has no form in an object",
        ),
        (steps("[JSONPatch{op: 'remove', path: '/not/there'}]"), "JSON Patch: "),
        (steps("[JSONPatch{op: 'replace', path: '/spec/replicas', value: 'many'}]"), "made no valid object"),
    ];
    for (number, (mutation, part)) in table.into_iter().enumerate() {
        let name = format!("p-{number}");
        in_force(&cluster, policy(&name, rules("apps", "deployments"), &[mutation]), json!({})).await;
        let path = "POST /apis/apps/v1/namespaces/default/deployments";
        let (code, message) = cluster.refused(path, deployment("d", 1)).await;
        let lead = format!("policy '{name}' with binding '{name}' denied request: ");
        assert_eq!((code, message.contains(&lead), message.contains(part)), (403, true, true), "{message}");
        let lenient = json!({"spec": {"failurePolicy": "Ignore"}});
        cluster.ok(&format!("PATCH {BASE}/mutatingadmissionpolicies/{name}"), lenient).await;
        cluster.ok(&format!("{path}?dryRun=All"), deployment("d", 1)).await;
    }
}

#[tokio::test]
async fn bad_policies_are_refused_by_path() {
    let cluster = Cluster::new().await;
    let refused = [
        (apply(""), "spec.mutations[0].applyConfiguration.expression: Required value"),
        (
            apply("Object{spec: Object.status{}}"),
            "expected type of field 'spec' is 'Object.spec' but provided type is 'Object.status'",
        ),
        (apply("Other{}"), "undeclared reference to 'Other'"),
        (apply("Object{spec: }"), "Syntax error"),
        (apply("1"), "must evaluate to map"),
        (steps("[JSONPatch{what: 'x'}]"), "undefined field 'what'"),
        (steps("JSONPatch{}"), "must evaluate to list"),
        (json!({"patchType": "Magic"}), "spec.mutations[0].patchType: Unsupported value: \"Magic\""),
    ];
    let path = format!("POST {BASE}/mutatingadmissionpolicies");
    for (mutation, part) in refused {
        let (code, message) = cluster.refused(&path, policy("p", rules("", "pods"), &[mutation])).await;
        assert_eq!((code, message.contains(part)), (422, true), "{message}");
    }
    let (_, message) = cluster.refused(&path, policy("p", rules("", "pods"), &[])).await;
    assert!(message.contains("mutations must contain at least one item"), "{message}");
    let mut never = policy("p", rules("", "pods"), &[apply("Object{}")]);
    never["spec"]["reinvocationPolicy"] = "Sometimes".into();
    let (_, message) = cluster.refused(&path, never).await;
    assert!(message.contains("spec.reinvocationPolicy: Unsupported value"), "{message}");
    // Policies that only validate make no objects.
    let rule = json!({"expression": "Object{} == object"});
    let validating =
        json!({"metadata": {"name": "v"}, "spec": {"matchConstraints": rules("", "pods"), "validations": [rule]}});
    let (_, message) = cluster.refused(&format!("POST {BASE}/validatingadmissionpolicies"), validating).await;
    assert!(message.contains("undeclared reference to 'Object'"), "{message}");
}

#[tokio::test]
async fn policies_want_to_see_what_others_changed() {
    let cluster = Cluster::new().await;
    let count = r#"Object{metadata: Object.metadata{annotations: {"count": string(size(object.metadata.labels))}}}"#;
    let mut counting = policy("a-count", rules("", "configmaps"), &[apply(count)]);
    counting["spec"]["reinvocationPolicy"] = "IfNeeded".into();
    in_force(&cluster, counting, json!({})).await;
    let label = r#"Object{metadata: Object.metadata{labels: {"b": "c"}}}"#;
    in_force(&cluster, policy("b-label", rules("", "configmaps"), &[apply(label)]), json!({})).await;
    let mut map = config_map("m");
    map["metadata"]["labels"] = json!({"a": "b"});
    let made = cluster.create("configmaps", "default", map).await;
    assert_eq!(made["metadata"]["annotations"]["count"], "2");
}

#[tokio::test]
async fn what_is_sent_to_subresources_is_shown() {
    let cluster = Cluster::new().await;
    let rule =
        json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["*/*"]});
    let says = [
        ("Binding", "object.target.name != 'bad'"),
        ("Eviction", "object.apiVersion != 'policy/v1' || request.name != 'p'"),
        ("TokenRequest", "object.spec.expirationSeconds != 700"),
    ];
    let validations: Vec<Value> = says
        .iter()
        .map(|(kind, rule)| json!({"expression": format!("request.kind.kind != '{kind}' || ({rule})"), "message": format!("no {kind}")}))
        .collect();
    let watching = json!({"metadata": {"name": "w"}, "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": validations}});
    cluster.ok(&format!("POST {BASE}/validatingadmissionpolicies"), watching).await;
    let binding = json!({"metadata": {"name": "w"}, "spec": {"policyName": "w", "validationActions": ["Deny"]}});
    cluster.ok(&format!("POST {BASE}/validatingadmissionpolicybindings"), binding).await;
    cluster.create("pods", "default", pod("p")).await;
    let target = |name: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": name}});
    let token = |seconds: i64| json!({"spec": {"expirationSeconds": seconds}});
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let table = [
        (format!("POST {PODS}/p/binding"), target("bad"), "no Binding"),
        (format!("POST {PODS}/p/eviction"), json!({"metadata": {"name": "p"}}), "no Eviction"),
        (format!("POST {tokens}"), token(700), "no TokenRequest"),
    ];
    for (line, body, part) in table {
        let (code, message) = cluster.refused(&line, body).await;
        assert_eq!((code, message.contains(part)), (422, true), "{line}: {message}");
    }
    cluster.ok(&format!("POST {PODS}/p/binding"), target("good")).await;
    cluster.ok(&format!("POST {tokens}"), token(800)).await;
}

#[tokio::test]
async fn what_is_sent_to_subresources_is_changed() {
    let cluster = Cluster::new().await;
    let rule = |resource: &str| {
        let operations = json!(["CREATE", "UPDATE"]);
        json!({"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": [resource]}]})
    };
    let policies = [
        ("bindings", "pods/binding", apply("Object{metadata: Object.metadata{labels: {'by': 'policy'}}}")),
        ("evictions", "pods/eviction", apply("Object{deleteOptions: Object.deleteOptions{gracePeriodSeconds: 7}}")),
        ("tokens", "serviceaccounts/token", steps("[JSONPatch{op: 'add', path: '/spec/audiences', value: ['a']}]")),
        (
            "scales",
            "deployments/scale",
            steps("[JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.replicas * 2}]"),
        ),
    ];
    for (name, resource, mutation) in policies {
        in_force(&cluster, policy(name, rule(resource), &[mutation]), json!({})).await;
    }
    cluster.create("pods", "default", pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    cluster.ok(&format!("POST {PODS}/p/binding"), binding).await;
    let bound = cluster.ok(&format!("GET {PODS}/p"), Value::Null).await;
    assert_eq!((&bound["metadata"]["labels"]["by"], &bound["spec"]["nodeName"]), (&json!("policy"), &json!("n")));
    cluster.ok(&format!("POST {PODS}/p/eviction"), json!({"metadata": {"name": "p"}})).await;
    let evicted = cluster.ok(&format!("GET {PODS}/p"), Value::Null).await;
    assert_eq!(evicted["metadata"]["deletionGracePeriodSeconds"], 7);
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let token = cluster.ok(&format!("POST {account}/token"), json!({})).await;
    assert_eq!((&token["spec"]["audiences"], &token["spec"]["expirationSeconds"]), (&json!(["a"]), &json!(3600)));
    cluster.create("apps/v1/deployments", "default", deployment("d", 1)).await;
    let scale = "/apis/apps/v1/namespaces/default/deployments/d/scale";
    let scaled = cluster.ok(&format!("PATCH {scale}"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(scaled["spec"]["replicas"], 6);
}

#[tokio::test]
async fn tokens_are_of_the_account_that_is_named() {
    let cluster = Cluster::new().await;
    let line = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    let table = [
        (json!({"name": "other"}), 422, "metadata.name: Invalid value: \"other\": must match the service account name"),
        (json!({"namespace": "other"}), 422, "metadata.namespace: Invalid value: \"other\": must match"),
        (json!({"uid": "other"}), 409, "the UID in the token request (other) does not match the UID of"),
    ];
    for (metadata, code, part) in table {
        let (found, message) = cluster.refused(line, json!({"metadata": metadata})).await;
        assert_eq!((found, message.contains(part)), (code, true), "{message}");
    }
}

#[tokio::test]
async fn questions_are_admitted_too() {
    let cluster = Cluster::new().await;
    let constraints = rules("authorization.k8s.io", "selfsubjectaccessreviews");
    let validations =
        json!([{"expression": "object.spec.resourceAttributes.resource != 'secrets'", "message": "do not ask"}]);
    let policy =
        json!({"metadata": {"name": "q"}, "spec": {"matchConstraints": constraints, "validations": validations}});
    cluster.ok(&format!("POST {BASE}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "q"}, "spec": {"policyName": "q", "validationActions": ["Deny"]}});
    cluster.ok(&format!("POST {BASE}/validatingadmissionpolicybindings"), binding).await;
    let about = |resource: &str| json!({"spec": {"resourceAttributes": {"verb": "get", "resource": resource}}});
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(cluster.ok(line, about("pods")).await["status"]["allowed"], true);
    let (code, message) = cluster.refused(line, about("secrets")).await;
    assert_eq!((code, message.contains("do not ask")), (422, true), "{message}");
}
