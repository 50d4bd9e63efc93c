//! Decoding of request bodies.

use isopod_schema::decode::{self, Format};
use serde_json::{Value, json};

use crate::kind;

#[test]
fn documents_are_normalised() {
    fn check(path: &str, body: Value, expected: Value) {
        let decoded = decode::json(kind(path).root(), body.to_string().as_bytes()).expect("decodes");
        assert_eq!(decoded.problems, []);
        assert_eq!(decoded.value, expected);
        assert_eq!(decode::value(kind(path).root(), body).expect("decodes").value, expected);
    }
    check(
        "pods",
        json!({"metadata": {"creationTimestamp": null, "labels": {"a": null}, "name": ""}, "spec": {"containers": [
            {"name": "c", "args": [], "env": [{"name": "X", "value": ""}], "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
             "stdin": false, "ports": [{"containerPort": 80, "hostPort": 0}]}],
            "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}]}, "status": {}}),
        json!({"metadata": {"labels": {"a": ""}}, "spec": {"containers": [
            {"name": "c", "env": [{"name": "X"}], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
             "ports": [{"containerPort": 80}]}],
            "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}]}, "status": {}}),
    );
    check(
        "coordination.k8s.io/v1/leases",
        json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05.9+01:00"}, "spec": {"renewTime": "2026-01-02T03:04:05.5Z"}}),
        json!({"metadata": {"creationTimestamp": "2026-01-02T02:04:05Z"}, "spec": {"renewTime": "2026-01-02T03:04:05.500000Z"}}),
    );
    check("secrets", json!({"data": {"a": "aGk=\n"}}), json!({"data": {"a": "aGk="}}));
    check(
        "apiextensions.k8s.io/v1/customresourcedefinitions",
        json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"items": {"type": "string"}, "default": null}}}]}}),
        json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"items": {"type": "string"}, "default": null}}}]}}),
    );
}

#[test]
fn problems_are_named_with_their_path() {
    fn check(path: &str, body: &str, expected: &str) {
        let decoded = decode::json(kind(path).root(), body.as_bytes()).expect("decodes");
        assert_eq!(decoded.problems_text(), expected);
    }
    check(
        "pods",
        r#"{"spec":{"containers":[{"name":"a"},{"imagee":"x","name":"b"}]}}"#,
        r#"unknown field "spec.containers[1].imagee""#,
    );
    check(
        "apps/v1/deployments",
        r#"{"spec":{"replicas":1,"replicas":2},"bogus":{"x":[1]}}"#,
        r#"duplicate field "spec.replicas", unknown field "bogus""#,
    );
    check("configmaps", r#"{"data":{"a":"1","a":"2"}}"#, r#"duplicate field "data.a""#);
    check("pods", r#"{"metadata":{"Labels":{}}}"#, r#"unknown field "metadata.Labels""#);
}

#[test]
fn wrong_values_are_refused_in_upstreams_words() {
    fn check(path: &str, body: &str, expected: &str) {
        let error = decode::object(kind(path), Format::Json, body.as_bytes()).expect_err("refused");
        assert_eq!((error.code, error.message.as_str()), (400, expected));
    }
    let deployment = r#"Deployment in version "v1" cannot be handled as a Deployment: "#;
    let apps = "apps/v1/deployments";
    check(
        apps,
        r#"{"spec":{"replicas":"1"}}"#,
        &format!(
            "{deployment}json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        ),
    );
    check(
        apps,
        r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"value":1}]}]}}}}"#,
        &format!(
            "{deployment}json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
        ),
    );
    check(
        apps,
        r#"{"spec":{"replicas":1.5}}"#,
        &format!(
            "{deployment}json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
        ),
    );
    check(
        apps,
        r#"{"spec":{"replicas":9999999999}}"#,
        &format!(
            "{deployment}json: cannot unmarshal number 9999999999 into Go struct field DeploymentSpec.spec.replicas of type int32"
        ),
    );
    check(apps, "[]", &format!("{deployment}json: cannot unmarshal array into Go value of type v1.Deployment"));
    check(
        apps,
        r#"{"apiVersion":"v1","kind":"Deployment"}"#,
        "the API version in the data (v1) does not match the expected API version (apps/v1)",
    );
    check(
        "pods",
        r#"{"apiVersion":"v1","kind":"Service","spec":{"ports":[],"containers":1}}"#,
        r#"Service in version "v1" cannot be handled as a Pod: the kind in the data (Service) does not match the expected kind (Pod)"#,
    );
    check(
        "pods",
        r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
        &format!(r#"Pod in version "v1" cannot be handled as a Pod: {}"#, isopod_schema::quantity::INVALID),
    );
    check(
        "secrets",
        r#"{"data":{"a":"%%"}}"#,
        r#"Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0"#,
    );
    check(
        "pods",
        r#"{"metadata":{"creationTimestamp":"today"}}"#,
        r#"Pod in version "v1" cannot be handled as a Pod: parsing time "today" as "2006-01-02T15:04:05Z07:00": cannot parse "today" as "2006""#,
    );
    check(
        "pods",
        r#"{"spec": "#,
        r#"Pod in version "v1" cannot be handled as a Pod: invalid JSON: EOF while parsing a value at line 1 column 9"#,
    );
}

#[test]
fn deep_documents_are_refused() {
    let body = format!("{}{}", r#"{"data":"#, "[".repeat(5_000));
    let error = decode::json(kind("apps/v1/controllerrevisions").root(), body.as_bytes()).expect_err("refused");
    assert!(matches!(error, decode::DecodeError::TooLarge(_)), "{error}");
    let yaml = "a: ".to_owned() + &"[".repeat(5_000);
    decode::untyped(Format::Yaml, yaml.as_bytes()).expect_err("refused");
}

#[test]
fn yaml_reads_as_kubectl_reads_it() {
    let body = b"kind: Pod\nspec:\n  containers:\n  - {name: c, image: x, env: [{name: A, value: \"1\"}]}\n  volumes:\n  - {name: v, secret: {secretName: s, defaultMode: 0644}}\n";
    let decoded = decode::object(kind("pods"), Format::Yaml, body).expect("decodes");
    assert_eq!(decoded.value["spec"]["volumes"][0]["secret"]["defaultMode"], json!(420));
    assert_eq!(decoded.value["apiVersion"], json!("v1"));
    let twice = b"metadata: {}\nmetadata: {}\n";
    let error = decode::object(kind("pods"), Format::Yaml, twice).expect_err("refused");
    let told = r#"error converting YAML to JSON: yaml: unmarshal errors: line 2: key "metadata" already set in map"#;
    assert!(error.message.contains(told), "{error}");
}

#[test]
fn strictness_is_the_callers_choice() {
    let body = br#"{"metadata":{"name":"x"},"foo":1}"#;
    let decoded = decode::object(kind("pods"), Format::Json, body).expect("decodes");
    let error = decoded.clone().strict(kind("pods")).expect_err("refused");
    assert_eq!(
        error.message,
        r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "foo""#
    );
    assert_eq!(decoded.value, json!({"metadata": {"name": "x"}, "apiVersion": "v1", "kind": "Pod"}));
}

#[test]
fn keys_given_twice_are_refused_where_nothing_else_would_tell() {
    let good = json!({"a": [1, -1, 2.5, "x", true, null, {"b": {}}]});
    assert_eq!(decode::unique_json(good.to_string().as_bytes()), Ok(good));
    for (text, part) in [
        (r#"{"a": 1, "a": 1}"#, "key \"a\" already set in map"),
        (r#"{"a": [{"b": {}, "b": {}}]}"#, "key \"b\" already set in map"),
        (r#"{"a": 1} x"#, "trailing"),
        ("{", "EOF"),
    ] {
        let error = decode::unique_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let deep = "[".repeat(200);
    assert!(matches!(decode::unique_json(deep.as_bytes()), Err(decode::DecodeError::TooLarge(_))));
}
