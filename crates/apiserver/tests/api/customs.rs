//! Custom kinds: definitions, and their objects in the same pipeline as all others.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Cluster, collection};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// A definition with one version.
pub fn definition(plural: &str, kind: &str, spec: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": {
        "type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
    }}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.stable.example.com")},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [&plural[..2]], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn tabs() -> Value {
    let mut tabs = definition(
        "crontabs",
        "CronTab",
        json!({"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": "^[0-9*/ ]+$"},
            "image": {"type": "string", "default": "busybox"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "port": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "number": {"type": "integer", "default": 80},
                }}},
        }}),
    );
    let version = &mut tabs["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}, "scale": {
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }});
    version["selectableFields"] = json!([{"jsonPath": ".spec.image"}]);
    version["additionalPrinterColumns"] = json!([
        {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    tabs
}

fn tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

/// Waits by a watch until a definition's condition has this status.
async fn until(cluster: &Cluster, name: &str, condition: &str, status: &str) -> Value {
    let line = format!("GET {DEFINITIONS}?watch=1&fieldSelector=metadata.name={name}");
    let mut body = cluster.open(&line, &[], "").await.into_body();
    let seen = async {
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
            let events =
                text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
            for event in events {
                let all = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
                if all.iter().any(|found| found["type"] == condition && found["status"] == status) {
                    return event["object"].clone();
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap()
}

pub async fn define(cluster: &Cluster, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.ok(&format!("POST {DEFINITIONS}"), definition).await;
    until(cluster, &name, "Established", "True").await
}

#[tokio::test]
async fn a_definition_becomes_a_kind() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.ask(&format!("GET {TABS}"), &[], "").await.code, 404);
    let defined = define(&cluster, tabs()).await;
    assert_eq!(defined["status"]["acceptedNames"]["singular"], "crontab");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(defined["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let list = cluster.ok("GET /apis/stable.example.com/v1", Value::Null).await;
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    let groups = cluster.ok("GET /apis", Value::Null).await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "stable.example.com"));
}

#[tokio::test]
async fn objects_are_pruned_and_defaulted() {
    let cluster = Cluster::new().await;
    define(&cluster, tabs()).await;
    let check = async |spec: Value, expected: Value| {
        let made = cluster.ok(&format!("POST {TABS}"), json!({"metadata": {"generateName": "t-"}, "spec": spec})).await;
        assert_eq!(made["spec"], expected);
        assert_eq!((&made["metadata"]["generation"], &made["kind"]), (&json!(1), &json!("CronTab")));
        let name = made["metadata"]["name"].as_str().unwrap();
        assert_eq!(cluster.ok(&format!("GET {TABS}/{name}"), Value::Null).await, made);
    };
    check(json!({"cronSpec": "*", "strange": 1}), json!({"cronSpec": "*", "image": "busybox"})).await;
    check(
        json!({"cronSpec": "*", "image": null, "note": null}),
        json!({"cronSpec": "*", "image": "busybox", "note": null}),
    )
    .await;
    check(
        json!({"cronSpec": "*", "image": "a", "open": {"x": {"y": [1]}}, "port": "http"}),
        json!({"cronSpec": "*", "image": "a", "open": {"x": {"y": [1]}}, "port": "http"}),
    )
    .await;
    check(
        json!({"cronSpec": "*", "image": "a", "ports": [{"name": "p", "other": 1}]}),
        json!({"cronSpec": "*", "image": "a", "ports": [{"name": "p", "number": 80}]}),
    )
    .await;
}

#[tokio::test]
async fn unknown_fields_are_told_or_refused() {
    let cluster = Cluster::new().await;
    define(&cluster, tabs()).await;
    let body = r#"{"metadata":{"name":"x"},"spec":{"cronSpec":"*","cronSpec":"1","strange":1,"open":{"a":1,"a":2}}}"#;
    let strict = cluster.ask(&format!("POST {TABS}?fieldValidation=Strict"), &[], body).await;
    let text = "strict decoding error: duplicate field \"spec.cronSpec\", unknown field \"spec.strange\", \
                duplicate field \"spec.open.a\"";
    assert!(strict.code == 400 && strict.text.contains(&json!(text).to_string()[1..60]), "{}", strict.text);
    let warned = cluster.ask(&format!("POST {TABS}"), &[], body).await;
    assert_eq!((warned.code, warned.headers.get_all("warning").iter().count()), (201, 3), "{}", warned.text);
}

#[tokio::test]
async fn bad_values_are_refused_in_upstreams_words() {
    let cluster = Cluster::new().await;
    define(&cluster, tabs()).await;
    let check = async |spec: Value, expected: &str| {
        let (code, message) = cluster.refused(&format!("POST {TABS}"), tab("x", spec)).await;
        let expected = format!("CronTab.stable.example.com \"x\" is invalid: {expected}");
        assert_eq!((code, message), (422, expected));
    };
    check(json!({}), "spec.cronSpec: Required value").await;
    check(
        json!({"cronSpec": 5}),
        "spec.cronSpec: Invalid value: \"integer\": spec.cronSpec in body must be of type string: \"integer\"",
    )
    .await;
    check(
        json!({"cronSpec": "a"}),
        "spec.cronSpec: Invalid value: \"a\": spec.cronSpec in body should match '^[0-9*/ ]+$'",
    )
    .await;
    check(
        json!({"cronSpec": "*", "replicas": 11}),
        "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
    )
    .await;
    check(
        json!({"cronSpec": "*", "ports": [{"name": "a"}, {"name": "a"}]}),
        "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
    )
    .await;
}

#[tokio::test]
async fn every_verb_works() {
    let cluster = Cluster::new().await;
    define(&cluster, tabs()).await;
    cluster.ok(&format!("POST {TABS}"), tab("a", json!({"cronSpec": "*", "replicas": 2}))).await;
    cluster.ok(&format!("POST {TABS}"), tab("b", json!({"cronSpec": "*", "image": "other"}))).await;
    let patched =
        cluster.ok(&format!("PATCH {TABS}/a"), json!({"spec": {"replicas": 3}, "status": {"replicas": 9}})).await;
    assert_eq!((&patched["spec"]["replicas"], &patched["metadata"]["generation"]), (&json!(3), &json!(2)));
    assert_eq!(patched.get("status"), None);
    let status = json!({"spec": {"replicas": 7}, "status": {"replicas": 1, "selector": "a=b"}});
    let status = cluster.ok(&format!("PATCH {TABS}/a/status"), status).await;
    assert_eq!((&status["spec"]["replicas"], &status["metadata"]["generation"]), (&json!(3), &json!(2)));
    let scale = cluster.ok(&format!("PATCH {TABS}/a/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scale["spec"], json!({"replicas": 5}));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let chosen = cluster.ok(&format!("GET {TABS}?fieldSelector=spec.image%3Dother"), Value::Null).await;
    assert_eq!(chosen["items"].as_array().unwrap().len(), 1);
    assert_eq!((&chosen["kind"], &chosen["items"][0]["metadata"]["name"]), (&json!("CronTabList"), &json!("b")));
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    assert_eq!(cluster.ask(&format!("PATCH {TABS}/a"), &strategic, "{}").await.code, 415);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = cluster.ask(&format!("GET {TABS}"), &accept, "").await.json();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "*", 5, "0s"]));
    let deleted = cluster.ok(&format!("DELETE {TABS}/b"), Value::Null).await;
    assert_eq!(deleted["status"], "Success");
    cluster.ok(&format!("DELETE {TABS}"), Value::Null).await;
    let left = cluster.ok("GET /apis/stable.example.com/v1/crontabs", Value::Null).await;
    assert_eq!(left["items"], json!([]));
    let counted =
        "group=\"stable.example.com\",resource=\"crontabs\",scope=\"resource\",subresource=\"scale\",verb=\"PATCH\"";
    assert!(cluster.ask("GET /metrics", &[], "").await.text.contains(counted));
}

#[tokio::test]
async fn versions_differ_in_name_and_schema() {
    let cluster = Cluster::new().await;
    let mut two = tabs();
    let mut old = two["spec"]["versions"][0].clone();
    old["name"] = "v1beta1".into();
    old["storage"] = false.into();
    old["deprecated"] = true.into();
    old["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["image"]["default"] = "old".into();
    two["spec"]["versions"] = json!([old, two["spec"]["versions"][0]]);
    define(&cluster, two.clone()).await;
    cluster.ok(&format!("POST {TABS}"), tab("a", json!({"cronSpec": "*"}))).await;
    let beta = TABS.replace("/v1/", "/v1beta1/");
    let seen = cluster.ask(&format!("GET {beta}/a"), &[], "").await;
    assert_eq!(seen.json()["apiVersion"], "stable.example.com/v1beta1");
    assert_eq!(seen.headers["warning"], "299 - \"stable.example.com/v1beta1 CronTab is deprecated\"");
    let mut made = tab("b", json!({"cronSpec": "*"}));
    made["apiVersion"] = "stable.example.com/v1beta1".into();
    let made = cluster.ok(&format!("POST {beta}"), made).await;
    assert_eq!((&made["apiVersion"], &made["spec"]["image"]), (&json!("stable.example.com/v1beta1"), &json!("old")));
    let read = cluster.ok(&format!("GET {TABS}/b"), Value::Null).await;
    assert_eq!((&read["apiVersion"], &read["spec"]["image"]), (&json!("stable.example.com/v1"), &json!("old")));
    let groups = cluster.ok("GET /apis/stable.example.com", Value::Null).await;
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    // The other version becomes the stored one; both are remembered, and the first cannot be dropped.
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": true},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": false},
    ]);
    let json_patch = [("content-type", "application/json-patch+json")];
    let name = "crontabs.stable.example.com";
    let patched = cluster.ask(&format!("PATCH {DEFINITIONS}/{name}"), &json_patch, &patch.to_string()).await.json();
    assert_eq!(patched["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    let drop = json!([{"op": "remove", "path": "/spec/versions/1"}]);
    let dropped = cluster.ask(&format!("PATCH {DEFINITIONS}/{name}"), &json_patch, &drop.to_string()).await;
    assert!(dropped.code == 422 && dropped.text.contains("status.storedVersions[0]"), "{}", dropped.text);
}

#[tokio::test]
async fn deletion_takes_the_objects_first_and_ends_watches() {
    let cluster = Cluster::new().await;
    define(&cluster, tabs()).await;
    let mut held = tab("a", json!({"cronSpec": "*"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.ok(&format!("POST {TABS}"), held).await;
    cluster.ok(&format!("POST {TABS}"), tab("b", json!({"cronSpec": "*"}))).await;
    let watched = cluster.open(&format!("GET {TABS}?watch=1"), &[], "").await;
    let name = "crontabs.stable.example.com";
    cluster.ok(&format!("DELETE {DEFINITIONS}/{name}"), Value::Null).await;
    until(&cluster, name, "Terminating", "True").await;
    let (code, message) = cluster.refused(&format!("POST {TABS}"), tab("c", json!({"cronSpec": "*"}))).await;
    assert_eq!((code, &*message), (405, "create not allowed while custom resource definition is terminating"));
    cluster.ok(&format!("PATCH {TABS}/a"), json!({"metadata": {"finalizers": null}})).await;
    // The watch ends because the kind is gone.
    let text = tokio::time::timeout(Duration::from_secs(10), watched.into_body().collect()).await.unwrap().unwrap();
    let text = String::from_utf8(text.to_bytes().to_vec()).unwrap();
    assert_eq!(text.matches("\"DELETED\"").count(), 2, "{text}");
    assert_eq!(cluster.ask(&format!("GET {TABS}"), &[], "").await.code, 404);
    assert_eq!(cluster.ask(&format!("GET {DEFINITIONS}/{name}"), &[], "").await.code, 404);
}

/// A server that opens a store goes on where the one before stopped, also in the middle of a deletion.
#[tokio::test]
async fn kinds_are_there_when_a_server_opens() {
    let directory = tempfile::tempdir().unwrap();
    let name = "crontabs.stable.example.com";
    {
        let cluster = Cluster::in_directory(directory.path()).await;
        define(&cluster, tabs()).await;
        let mut held = tab("a", json!({"cronSpec": "*"}));
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        cluster.ok(&format!("POST {TABS}"), held).await;
    }
    {
        let cluster = Cluster::in_directory(directory.path()).await;
        assert_eq!(cluster.ok(&format!("GET {TABS}/a"), Value::Null).await["spec"]["image"], "busybox");
        cluster.ok(&format!("DELETE {DEFINITIONS}/{name}"), Value::Null).await;
        until(&cluster, name, "Terminating", "True").await;
    }
    let cluster = Cluster::in_directory(directory.path()).await;
    let watched = cluster.open(&format!("GET {DEFINITIONS}?watch=1&timeoutSeconds=5"), &[], "").await;
    cluster.ok(&format!("PATCH {TABS}/a"), json!({"metadata": {"finalizers": null}})).await;
    let mut body = watched.into_body();
    let mut text = String::new();
    while !text.contains("\"DELETED\"") {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert_eq!(cluster.ask(&format!("GET {DEFINITIONS}/{name}"), &[], "").await.code, 404);
}

#[tokio::test]
async fn taken_names_are_not_accepted_until_they_are_free() {
    let cluster = Cluster::new().await;
    define(&cluster, definition("firsts", "First", json!({"type": "object"}))).await;
    let mut second = definition("seconds", "First", json!({"type": "object"}));
    second["spec"]["names"]["singular"] = "second".into();
    cluster.ok(&format!("POST {DEFINITIONS}"), second).await;
    let refused = until(&cluster, "seconds.stable.example.com", "NamesAccepted", "False").await;
    assert_eq!(refused["status"]["conditions"][0]["reason"], "KindConflict");
    let url = collection("stable.example.com/v1/seconds", "default");
    assert_eq!(cluster.ask(&format!("GET {url}"), &[], "").await.code, 404);
    cluster.ok(&format!("DELETE {DEFINITIONS}/firsts.stable.example.com"), Value::Null).await;
    until(&cluster, "seconds.stable.example.com", "Established", "True").await;
    cluster.ok(&format!("GET {url}"), Value::Null).await;
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let cluster = Cluster::new().await;
    let schema = "spec.versions[0].schema.openAPIV3Schema";
    let check = async |pointer: &str, value: Value, expected: &str| {
        let mut bad = tabs();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value;
        let (code, message) = cluster.refused(&format!("POST {DEFINITIONS}"), bad).await;
        assert!(code == 422 && message.contains(expected), "{pointer}: {message}");
    };
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    check(
        "/metadata/name",
        json!("x"),
        "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
    )
    .await;
    check("/spec/scope", json!("Some"), "spec.scope: Unsupported value: \"Some\"").await;
    check("/spec/names/kind", json!("9"), "spec.names.kind: Invalid value: \"9\"").await;
    check("/spec/versions/0/storage", json!(false), "must have exactly one version marked as storage version").await;
    check("/spec/versions/0/schema", json!({}), &format!("{schema}: Required value: schemas are required")).await;
    check("/spec/preserveUnknownFields", json!(true), "spec.preserveUnknownFields: Invalid value: true: must be false")
        .await;
    check(
        &format!("{spec}/properties/replicas"),
        json!({}),
        &format!("{schema}.properties[spec].properties[replicas].type: Required value: must not be empty for specified object fields"),
    )
    .await;
    check(
        &format!("{spec}/anyOf"),
        json!([{"type": "object"}]),
        &format!("{schema}.properties[spec].anyOf[0].type: Forbidden: must be empty to be structural"),
    )
    .await;
    check(
        &format!("{spec}/properties/image/default"),
        json!(5),
        &format!("{schema}.properties[spec].properties[image].default: Invalid value: \"integer\""),
    )
    .await;
    check(&format!("{spec}/properties/image/pattern"), json!("("), "must be a valid regular expression").await;
    check(
        "/spec/versions/0/additionalPrinterColumns/0/jsonPath",
        json!("spec"),
        "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: \"spec\"",
    )
    .await;
    check(
        "/spec/versions/0/subresources/scale/specReplicasPath",
        json!(".status.x"),
        "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
    )
    .await;
    check(
        "/spec/versions/0/selectableFields/0/jsonPath",
        json!(".spec.ports"),
        "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.ports\"",
    )
    .await;
}

#[tokio::test]
async fn rules_in_cel_are_checked() {
    let cluster = Cluster::new().await;
    let spec = json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "message": "min may not exceed max", "fieldPath": ".min"},
            {"rule": "!has(self.name) || self.name.startsWith('x-')",
             "messageExpression": "'%s must begin with x-'.format([self.name])", "reason": "FieldValueForbidden"},
            {"rule": "self.max >= oldSelf.max"},
            {"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true, "message": "begin with 0"},
        ],
        "properties": {
            "min": {"type": "integer", "default": 0}, "max": {"type": "integer", "default": 1},
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "items": {"type": "array", "maxItems": 100, "items": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "10 / self > 0"},
            ]}},
        },
    });
    define(&cluster, definition("crontabs", "CronTab", spec)).await;
    let check = async |line: &str, spec: Value, expected: &str| {
        let (code, message) = cluster.refused(line, tab("a", spec)).await;
        let text = format!("CronTab.stable.example.com \"a\" is invalid: {expected}");
        assert_eq!((code, message), (422, text));
    };
    let post = format!("POST {TABS}");
    check(&post, json!({"max": -1}), "spec.min: Invalid value: \"object\": min may not exceed max").await;
    check(&post, json!({"name": "y"}), "spec: Forbidden: y must begin with x-").await;
    check(&post, json!({"min": 1}), "spec: Invalid value: \"object\": begin with 0").await;
    let by_zero =
        "spec.items[1]: Invalid value: \"integer\": division by zero evaluating rule: failed rule: 10 / self > 0";
    check(&post, json!({"items": [1, 0]}), by_zero).await;
    cluster.ok(&post, tab("a", json!({"name": "x-a", "max": 5}))).await;
    let patch = format!("PATCH {TABS}/a");
    check(&patch, json!({"max": 4}), "spec: Invalid value: \"object\": failed rule: self.max >= oldSelf.max").await;
    check(&patch, json!({"name": "x-b"}), "spec.name: Invalid value: \"string\": is immutable").await;
    cluster.ok(&patch, tab("a", json!({"min": 2, "max": 6}))).await;
}

#[tokio::test]
async fn rules_that_do_not_compile_are_refused_by_path() {
    let cluster = Cluster::new().await;
    let check = async |field: &str, rule: Value, expected: &str| {
        let mut spec = json!({"type": "object", "properties": {
            "n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        }});
        spec.pointer_mut(field).unwrap()["x-kubernetes-validations"] = json!([rule]);
        let (code, message) =
            cluster.refused(&format!("POST {DEFINITIONS}"), definition("crontabs", "CronTab", spec)).await;
        let lead = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
        assert!(code == 422 && message.contains(&format!("{lead}{expected}")), "{message}");
    };
    let undefined = ".x-kubernetes-validations[0].rule: Invalid value: \"self.other > 1\": compilation failed: ERROR: \
                     <input>:1:5: undefined field 'other'";
    check("", json!({"rule": "self.other > 1"}), undefined).await;
    let no_bool = ".properties[n].x-kubernetes-validations[0].rule: Invalid value: \"self + 1\": compilation failed: ERROR: \
                   <input>:1:1: cel expression must evaluate to a bool";
    check("/properties/n", json!({"rule": "self + 1"}), no_bool).await;
    let unrelated = ".properties[list].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf \
                     cannot be used on the uncorrelatable portion of the schema within";
    check("/properties/list/items", json!({"rule": "self == oldSelf"}), unrelated).await;
    check("", json!({"rule": ""}), ".x-kubernetes-validations[0].rule: Required value").await;
    let message = ".x-kubernetes-validations[0].messageExpression: Invalid value: \"self.n\": messageExpression compilation failed";
    check("", json!({"rule": "true", "messageExpression": "self.n"}), message).await;
    check("", json!({"rule": "true", "fieldPath": ".none"}), ".x-kubernetes-validations[0].fieldPath: Invalid value")
        .await;
}

#[tokio::test]
async fn a_changed_schema_holds_at_once_and_old_objects_stay_readable() {
    let cluster = Cluster::new().await;
    define(&cluster, tabs()).await;
    cluster.ok(&format!("POST {TABS}"), tab("a", json!({"cronSpec": "*", "replicas": 9}))).await;
    let watched = cluster.open(&format!("GET {TABS}?watch=1"), &[], "").await;
    let mut tighter = tabs();
    let fields = &mut tighter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    fields["replicas"]["maximum"] = 5.into();
    fields["added"] = json!({"type": "string", "default": "new"});
    fields.as_object_mut().unwrap().remove("image");
    tighter["spec"]["versions"][0].as_object_mut().unwrap().remove("selectableFields");
    let name = "crontabs.stable.example.com";
    let current = cluster.ok(&format!("GET {DEFINITIONS}/{name}"), Value::Null).await;
    tighter["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    cluster.ok(&format!("PUT {DEFINITIONS}/{name}"), tighter).await;
    // The watch of the old rows ends when the new ones are served.
    tokio::time::timeout(Duration::from_secs(10), watched.into_body().collect()).await.unwrap().unwrap();
    let read = cluster.ok(&format!("GET {TABS}/a"), Value::Null).await;
    assert_eq!(read["spec"], json!({"cronSpec": "*", "replicas": 9, "added": "new"}));
    // What was there before and is not touched is not held against a change.
    cluster.ok(&format!("PATCH {TABS}/a"), json!({"spec": {"cronSpec": "1"}})).await;
    let (code, _) = cluster.refused(&format!("PATCH {TABS}/a"), json!({"spec": {"replicas": 8}})).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn old_openapi_lets_clients_send_what_an_open_kind_takes() {
    let cluster = Cluster::new().await;
    let mut open = definition("opens", "Open", json!({"type": "string"}));
    let schema = &mut open["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["x-kubernetes-preserve-unknown-fields"] = true.into();
    for definition in [tabs(), open] {
        let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
        cluster.ok(&format!("POST {DEFINITIONS}"), definition).await;
        until(&cluster, &name, "Established", "True").await;
    }
    let schemas = cluster.ok("GET /openapi/v2", Value::Null).await;
    let of = |kind: &str| &schemas["definitions"][format!("com.example.stable.v1.{kind}")];
    let gvk = json!([{"group": "stable.example.com", "version": "v1", "kind": "Open"}]);
    assert_eq!(*of("Open"), json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
    let spec = &of("CronTab")["properties"]["spec"]["properties"];
    assert_eq!(spec["open"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(spec["cronSpec"]["type"], "string");
}
