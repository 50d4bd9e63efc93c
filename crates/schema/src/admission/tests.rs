//! Requests against rules, conditions, answers and policies.

use serde_json::{Value, json};

use super::*;
use crate::table::Table;

const NULL: Value = Value::Null;

fn kind(group: &str, version: &str, plural: &str) -> &'static Kind {
    Table::builtin().resource(group, version, plural).unwrap()
}

fn request<'a>(operation: &'static str, kinds: Vec<&'a Kind>, subresource: &'a str, namespace: &'a str) -> Request<'a> {
    Request { operation, kinds, subresource, sent: None, namespace, name: "x", user: &NULL, dry_run: false, uid: "u" }
}

fn rule(groups: &str, versions: &str, resources: &str, operations: &str) -> Value {
    json!({"apiGroups": [groups], "apiVersions": [versions], "resources": [resources], "operations": [operations], "scope": "*"})
}

#[test]
fn rules_match_requests() {
    let (pods, nodes, deployments) =
        (kind("", "v1", "pods"), kind("", "v1", "nodes"), kind("apps", "v1", "deployments"));
    let (old, new) =
        (kind("autoscaling", "v1", "horizontalpodautoscalers"), kind("autoscaling", "v2", "horizontalpodautoscalers"));
    let check = |rule: Value, more: Value, request: &Request<'_>, expected: Option<&str>| {
        let mut hook = json!({"rules": [rule]});
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({"metadata": {"labels": {"a": "b"}}});
        let namespace = json!({"metadata": {"labels": {"in": "yes"}}});
        let objects = Objects { object: &object, old: &NULL, namespace: &namespace };
        let found = Matching::read(&hook).find(request, &objects).map(|kind| kind.version.as_str());
        assert_eq!(found, expected, "{hook} for {request:?}");
    };
    let create = request("CREATE", vec![pods], "", "n");
    check(rule("", "v1", "pods", "CREATE"), json!({}), &create, Some("v1"));
    check(rule("*", "*", "*", "*"), json!({}), &create, Some("v1"));
    check(rule("", "v1", "pods", "UPDATE"), json!({}), &create, None);
    check(rule("apps", "v1", "pods", "CREATE"), json!({}), &create, None);
    for (pattern, matches) in
        [("pods", false), ("*", false), ("pods/*", true), ("*/*", true), ("*/exec", true), ("pods/log", false)]
    {
        let connect = request("CONNECT", vec![pods], "exec", "n");
        check(rule("", "v1", pattern, "CONNECT"), json!({}), &connect, matches.then_some("v1"));
    }
    let cluster =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"], "operations": ["*"], "scope": "Cluster"});
    check(cluster.clone(), json!({}), &create, None);
    check(
        cluster,
        json!({"namespaceSelector": {"matchLabels": {"in": "no"}}}),
        &request("CREATE", vec![nodes], "", ""),
        Some("v1"),
    );
    let everything = || rule("*", "*", "*", "*");
    check(everything(), json!({"namespaceSelector": {"matchLabels": {"in": "no"}}}), &create, None);
    check(everything(), json!({"namespaceSelector": {"matchLabels": {"in": "yes"}}}), &create, Some("v1"));
    check(everything(), json!({"objectSelector": {"matchLabels": {"a": "c"}}}), &create, None);
    check(
        everything(),
        json!({"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
        &create,
        Some("v1"),
    );
    let scaler = request("UPDATE", vec![old, new], "", "n");
    check(rule("autoscaling", "v2", "*", "*"), json!({}), &scaler, Some("v2"));
    check(rule("autoscaling", "v2", "*", "*"), json!({"matchPolicy": "Exact"}), &scaler, None);
    let own = request("CREATE", vec![kind(GROUP, "v1", "validatingwebhookconfigurations")], "", "");
    check(everything(), json!({}), &own, None);
    check(everything(), json!({}), &request("CREATE", vec![deployments], "scale", "n"), None);
}

fn hook(more: Value) -> Webhook {
    let mut hook = json!({"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule("*", "*", "*", "*")],
        "clientConfig": {"url": "https://x/"}});
    hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Webhook::read_all(&json!({"webhooks": [hook]})).remove(0)
}

#[test]
fn conditions_decide() {
    let (pods, object) = (kind("", "v1", "pods"), json!({"metadata": {"name": "x"}, "n": 1}));
    let objects = Objects { object: &object, old: &NULL, namespace: &NULL };
    let request = request("CREATE", vec![pods], "", "n");
    let wants = |policy: &str, conditions: &[&str]| {
        let conditions: Vec<Value> = conditions.iter().map(|text| json!({"name": "c", "expression": text})).collect();
        let hook = hook(json!({"failurePolicy": policy, "matchConditions": conditions}));
        hook.wants(&request, pods, &objects).map_err(|status| (status.code, status.message))
    };
    assert_eq!(wants("Fail", &[]), Ok(true));
    assert_eq!(wants("Fail", &["object.n == 1", "request.operation == 'CREATE'", "oldObject == null"]), Ok(true));
    assert_eq!(wants("Fail", &["object.missing == 1", "object.n == 2"]), Ok(false));
    assert_eq!(wants("Ignore", &["object.missing == 1"]), Ok(false));
    let (code, message) = wants("Fail", &["object.missing == 1"]).unwrap_err();
    assert_eq!((code, message.contains("resulted in error: no such key: missing")), (403, true), "{message}");
    let dry = Request { dry_run: true, ..request.clone() };
    let refused = hook(json!({"sideEffects": "Some"})).wants(&dry, pods, &objects).unwrap_err();
    assert_eq!(refused.message, "admission webhook \"a.b.c\" does not support dry run");
}

#[test]
fn answers_are_read() {
    let review = |response: Value| {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
    };
    let check = |body: &str, expected: Result<&str, &str>| {
        let found = hook(json!({})).read_answer(body.as_bytes(), "u", true);
        let found = found.map(|answer| {
            answer
                .refusal
                .map_or_else(|| format!("{:?}", answer.patch), |status| format!("{} {}", status.code, status.message))
        });
        let (text, part) = match (&found, &expected) {
            (Ok(text), Ok(part)) | (Err(text), Err(part)) => (text, part),
            _ => panic!("{body}: {found:?}"),
        };
        assert!(text.contains(part), "{body}: {text}");
    };
    check(&review(json!({"uid": "u", "allowed": true})), Ok("None"));
    check(
        &review(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "W10="})),
        Ok("Some(Array []"),
    );
    check(
        &review(json!({"uid": "u", "allowed": false})),
        Ok("400 admission webhook \"a.b.c\" denied the request without explanation"),
    );
    check(
        &review(json!({"uid": "u", "allowed": false, "status": {"message": "no", "code": 403}})),
        Ok("403 admission webhook \"a.b.c\" denied the request: no"),
    );
    check(&review(json!({"uid": "v", "allowed": true})), Err("expected response.uid=\"u\", got \"v\""));
    check(&review(NULL), Err("webhook response was absent"));
    check(&review(json!({"uid": "u", "allowed": true, "patch": "W10="})), Err("but not response.patchType"));
    check("{}", Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got , Kind="));
    check("garbage", Err("couldn't decode"));
}

#[test]
fn policies_judge() {
    let deployments = kind("apps", "v1", "deployments");
    let object = json!({"metadata": {"name": "x"}, "spec": {"replicas": 7}});
    let namespace = json!({"metadata": {"labels": {"max": "3"}}});
    let objects = Objects { object: &object, old: &NULL, namespace: &namespace };
    let request = request("CREATE", vec![deployments], "", "n");
    let check = |spec: Value, params: Value, expected: &[&str]| {
        let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule("apps", "v1", "deployments", "*")]}}});
        policy["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        assert_eq!(policy::check(&policy), vec![], "{spec}");
        let policy = Policy::read(&policy);
        assert!(policy.concerns(&request, &objects).is_some());
        let found = policy.opinion(&request, deployments, &objects, &params).verdicts;
        let found: Vec<&str> = found.iter().map(|verdict| verdict.message.as_str()).collect();
        assert_eq!(found, expected, "{spec}");
    };
    check(json!({"validations": [{"expression": "object.spec.replicas <= 7"}]}), NULL, &[]);
    check(
        json!({"validations": [{"expression": "object.spec.replicas <= 5"}]}),
        NULL,
        &["failed expression: object.spec.replicas <= 5"],
    );
    let message = json!([{"expression": "object.spec.replicas <= params.max", "messageExpression": "'at most ' + string(params.max)"}]);
    let kind = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    check(json!({"paramKind": kind, "validations": message}), json!({"max": 5}), &["at most 5"]);
    let variables = json!([{"name": "max", "expression": "int(namespaceObject.metadata.labels['max'])"}, {"name": "twice", "expression": "variables.max * 2"}]);
    check(
        json!({"variables": variables, "validations": [{"expression": "object.spec.replicas < variables.twice", "message": "many"}]}),
        NULL,
        &["many"],
    );
    let broken = json!([{"expression": "object.spec.missing > 1"}]);
    check(
        json!({"validations": broken}),
        NULL,
        &["expression 'object.spec.missing > 1' resulted in error: no such key: missing"],
    );
    check(json!({"failurePolicy": "Ignore", "validations": broken}), NULL, &[]);
    let condition = json!([{"name": "c", "expression": "request.namespace == 'other'"}]);
    check(json!({"matchConditions": condition, "validations": [{"expression": "false"}]}), NULL, &[]);
    let bad = json!({"spec": {"matchConstraints": {"resourceRules": [{}]}, "validations": [{"expression": "object.x ==="}, {"expression": "params.x"}]}});
    let paths: Vec<String> = policy::check(&bad).into_iter().map(|error| error.to_string()).collect();
    assert!(
        paths[0].starts_with("spec.validations[0].expression: Invalid value")
            && paths[1].contains("undeclared reference to 'params'"),
        "{paths:?}"
    );
}
