//! Bodies that are broken, too large, too deep, or not what they say: each gets a Status that says so, and the server goes on.

use isopod_schema::protobuf;
use serde_json::json;

use crate::harness::{Cluster, config_map, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Media type, body, code, reason, part of the message.
type Case = (&'static str, Vec<u8>, u16, &'static str, &'static str);

async fn check(cluster: &Cluster, line: &str, case: Case) {
    let (media, body, code, reason, part) = case;
    let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let headers = [("content-type", media), ("accept", JSON)];
    let (found, _, answer) = cluster.bytes(line, &headers, body).await;
    let status: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let what = format!("{line} {media} {shown}: {status}");
    assert_eq!((found, &status["code"], &status["reason"]), (code, &json!(code), &json!(reason)), "{what}");
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{what}");
    assert!(status["message"].as_str().unwrap().contains(part), "{what}");
    assert!(answer.len() < 2_000, "a refusal does not repeat the body: {} bytes", answer.len());
}

/// Nested lists or objects in a ConfigMap's annotations, where nothing may be nested.
fn deep(levels: usize, open: &str, close: &str) -> Vec<u8> {
    let (open, close) = (open.repeat(levels), close.repeat(levels));
    format!(r#"{{"metadata":{{"name":"x","managedFields":[{{"fieldsV1":{open}1{close}}}]}}}}"#).into_bytes()
}

/// A ConfigMap in protobuf with so many bytes of data.
fn message(data_bytes: usize) -> Vec<u8> {
    let mut object = config_map("x");
    object["data"]["key"] = "v".repeat(data_bytes).into();
    protobuf::encode(&object).unwrap()
}

/// A whole message whose fields are these bytes.
fn raw(bytes: &[u8]) -> Vec<u8> {
    let (head, end) = protobuf::envelope_ends("v1", "ConfigMap", bytes.len());
    [head.as_slice(), bytes, end].concat()
}

fn bodies() -> Vec<Case> {
    let text = |body: &str| body.as_bytes().to_vec();
    let large = format!(r#"{{"metadata":{{"name":"x"}},"data":{{"key":"{}"}}}}"#, "v".repeat(3 << 20));
    let bad = |media, body, part| (media, body, 400, "BadRequest", part);
    let mut cases = vec![
        bad(JSON, Vec::new(), "EOF"),
        bad(JSON, text("{"), "EOF"),
        bad(JSON, text(r#"{"metadata":{"name":"x"}"#), "EOF"),
        bad(JSON, text(r#"{"metadata":{"name":"x"}}}"#), "trailing characters"),
        bad(JSON, text(r#"{"metadata":{"name":"x"}} {}"#), "trailing characters"),
        bad(JSON, text("nothing"), "invalid JSON"),
        bad(JSON, b"{\"metadata\":{\"name\":\"x\xff\"}}".to_vec(), "invalid unicode"),
        bad(JSON, text(r#"{"metadata":{"name":"\ud800"}}"#), "invalid JSON"),
        bad(JSON, text("[]"), "json: cannot unmarshal array into Go value of type v1.ConfigMap"),
        bad(JSON, text(r#"{"metadata":[]}"#), "cannot unmarshal array into Go struct field"),
        bad(JSON, text(r#"{"data":{"key":1}}"#), "cannot unmarshal number into Go struct field"),
        bad(JSON, text(r#"{"immutable":"yes"}"#), "cannot unmarshal string into Go struct field"),
        bad(JSON, text(r#"{"binaryData":{"key":"%%"}}"#), "illegal base64 data"),
        bad(JSON, text(r#"{"metadata":{"creationTimestamp":"yesterday"}}"#), "parsing time"),
        bad(JSON, text(r#"{"metadata":{"generation":1e400}}"#), "invalid JSON"),
        bad(JSON, text(r#"{"metadata":{"generation":99999999999999999999}}"#), "cannot unmarshal number"),
        bad(JSON, text(r#"{"kind":"Secret","apiVersion":"v1"}"#), "does not match the expected kind (ConfigMap)"),
        bad(JSON, text(r#"{"kind":"ConfigMap","apiVersion":"v2"}"#), "does not match the expected API version (v1)"),
        bad(JSON, deep(100_000, "[", "]"), "nested too deep"),
        bad(JSON, deep(100_000, "{\"a\":", "}"), "nested too deep"),
        bad(YAML, text("metadata: {name: x"), "error converting YAML to JSON"),
        bad(YAML, text("metadata:\n\tname: x"), "error converting YAML to JSON"),
        bad(YAML, text("metadata: {name: x}\nmetadata: {name: y}"), "error converting YAML to JSON"),
        bad(YAML, b"metadata: {name: \xff}".to_vec(), "error converting YAML to JSON"),
        bad(YAML, deep(20_000, "[", "]"), "error converting YAML to JSON"),
        bad(YAML, text("- a"), "json: cannot unmarshal array into Go value of type v1.ConfigMap"),
        bad(PROTOBUF, Vec::new(), "magic bytes"),
        bad(PROTOBUF, text("{}"), "magic bytes"),
        bad(PROTOBUF, message(10)[..30].to_vec(), "cut short"),
        bad(PROTOBUF, raw(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]), "cut short"),
        bad(PROTOBUF, raw(&[0x08, 1]), "field metadata has the wrong encoding"),
        bad(PROTOBUF, raw(&[0x0a, 3, 0x0a, 1, 0xff]), "no UTF-8"),
        bad(PROTOBUF, raw(&[0xff; 40]), "cut short"),
        (JSON, large.clone().into_bytes(), 413, "RequestEntityTooLarge", "limit is 3145728"),
        (YAML, large.into_bytes(), 413, "RequestEntityTooLarge", "limit is 3145728"),
        (PROTOBUF, message(3 << 20), 413, "RequestEntityTooLarge", "limit is 3145728"),
        ("text/html", text("{}"), 415, "UnsupportedMediaType", "application/vnd.kubernetes.protobuf"),
    ];
    let level = |at: usize, of: usize| format!("a{at}: &a{at} [{}]\n", vec![format!("*a{}", at - 1); of].join(","));
    let bomb = (1..12).map(|at| level(at, 10)).collect::<String>();
    cases.push(bad(YAML, format!("a0: &a0 [x]\n{bomb}").into_bytes(), "error converting YAML to JSON"));
    cases
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("there")).await;
    for case in bodies() {
        check(&cluster, &format!("POST {CONFIG_MAPS}"), case).await;
    }
    for case in bodies() {
        check(&cluster, &format!("PUT {CONFIG_MAPS}/there"), case).await;
    }
    let left = cluster.ok(&format!("GET {CONFIG_MAPS}"), serde_json::Value::Null).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn patches_that_are_none_are_refused() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let line = "PATCH /api/v1/namespaces/default/pods/p?fieldManager=test";
    let text = |body: &str| body.as_bytes().to_vec();
    let many = format!("[{}]", vec![r#"{"op":"test","path":"/kind","value":"Pod"}"#; 10_001].join(","));
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000)).into_bytes();
    let bad = |media, body, part| (media, body, 400, "BadRequest", part);
    let cases: Vec<Case> = vec![
        bad(MERGE, text("{"), "EOF"),
        bad(MERGE, b"{\"a\":\"\xff\"}".to_vec(), "invalid"),
        bad(MERGE, nested("{\"a\":", "}"), "nested too deep"),
        bad(MERGE, text("[]"), "error decoding patch: json: cannot unmarshal array"),
        bad(MERGE, text("null"), "error decoding patch: json: cannot unmarshal null"),
        bad(STRATEGIC, text("{"), "EOF"),
        bad(STRATEGIC, text("[1]"), "error decoding patch: json: cannot unmarshal array"),
        bad(STRATEGIC, nested("{\"a\":", "}"), "nested too deep"),
        bad(STRATEGIC, text(r#"{"spec":{"containers":[{"image":"x"}]}}"#), "declared merge key: name"),
        bad(PATCH, text("{}"), ""),
        bad(PATCH, nested("[", "]"), "nested too deep"),
        (PATCH, many.into_bytes(), 413, "RequestEntityTooLarge", "10000"),
        (PATCH, text(r#"[{"op":"test","path":"/kind","value":"x"}]"#), 422, "Invalid", ""),
        (PATCH, text(r#"[{"op":"remove","path":"/none/none"}]"#), 422, "Invalid", ""),
        bad(APPLY, text("{"), ""),
        bad(APPLY, text("- a"), ""),
        bad(APPLY, nested("[", "]"), ""),
        bad(APPLY, text("apiVersion: v1\nkind: Pod\nkind: Pod\n"), ""),
        ("application/json", text("{}"), 415, "UnsupportedMediaType", "application/merge-patch+json"),
    ];
    for case in cases {
        check(&cluster, line, case).await;
    }
    let options = [
        (JSON, text("{"), 400, "BadRequest", ""),
        (JSON, text(r#"{"gracePeriodSeconds":"x"}"#), 400, "BadRequest", "cannot unmarshal string"),
        (PROTOBUF, text("k8s\0\x0a"), 400, "BadRequest", "cut short"),
        (JSON, text(r#"{"propagationPolicy":"Sideways"}"#), 422, "Invalid", "Sideways"),
    ];
    for case in options {
        check(&cluster, "DELETE /api/v1/namespaces/default/pods/p", case).await;
    }
    cluster.ok("GET /api/v1/namespaces/default/pods/p", serde_json::Value::Null).await;
}

#[tokio::test]
async fn keys_that_come_twice_are_told_or_refused() {
    let cluster = Cluster::new().await;
    let body = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"1","a":"2"}}}}"#);
    let post = |validation: &str| format!("POST {CONFIG_MAPS}?fieldValidation={validation}");
    let strict = cluster.ask(&post("Strict"), &[], &body("s")).await;
    assert_eq!((strict.code, strict.json()["reason"].as_str()), (400, Some("BadRequest")));
    assert!(strict.text.contains(r#"strict decoding error: duplicate field \"data.a\""#), "{}", strict.text);
    let warned = cluster.ask(&post("Warn"), &[], &body("w")).await;
    assert_eq!((warned.code, &warned.json()["data"]["a"]), (201, &json!("2")));
    assert!(warned.headers["warning"].to_str().unwrap().contains("duplicate field"), "{:?}", warned.headers);
    let ignored = cluster.ask(&post("Ignore"), &[], &body("i")).await;
    assert_eq!((ignored.code, ignored.headers.contains_key("warning")), (201, false));
}

#[tokio::test]
async fn patches_that_say_something_twice_are_told_or_refused() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("x")).await;
    let patches = [
        (MERGE, r#"{"data":{"a":"1","a":"2"}}"#, "data.a"),
        (STRATEGIC, r#"{"data":{"a":"1","a":"2"}}"#, "data.a"),
        (PATCH, r#"[{"op":"add","path":"/data","value":{"a":"1","a":"2"}}]"#, "[0].value.a"),
    ];
    for (media, body, at) in patches {
        let line = |validation: &str| format!("PATCH {CONFIG_MAPS}/x?fieldValidation={validation}");
        let headers = [("content-type", media)];
        let text = format!("strict decoding error: duplicate field {at:?}");
        let strict = cluster.ask(&line("Strict"), &headers, body).await;
        assert_eq!((strict.code, strict.json()["message"].as_str()), (400, Some(&*text)), "{media}");
        let warned = cluster.ask(&line("Warn"), &headers, body).await;
        assert_eq!((warned.code, &warned.json()["data"]["a"]), (200, &json!("2")), "{media}");
        assert!(warned.headers["warning"].to_str().unwrap().contains("duplicate field"), "{:?}", warned.headers);
        let ignored = cluster.ask(&line("Ignore"), &headers, body).await;
        assert_eq!((ignored.code, ignored.headers.contains_key("warning")), (200, false), "{media}");
    }
}
