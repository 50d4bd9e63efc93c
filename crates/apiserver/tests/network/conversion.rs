//! A kind whose versions differ in form: `host: "a:1"` in the first, `host: a, port: 1` in the second.

use http::Request;
use http_body_util::BodyExt;
use isopod_apiserver::UserInfo;
use serde_json::{Value, json};
use tower::Service;

use crate::hooks::Hooks;
use crate::site::Site;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MERGE: &str = "application/merge-patch+json";

/// What the webhook answers.
pub fn convert(review: &Value) -> String {
    let (request, wanted) = (&review["request"], &review["request"]["desiredAPIVersion"]);
    let one = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.clone();
        let spec = object["spec"].clone();
        object["spec"] = match (wanted == "demo.example.com/v1", spec["port"].is_u64()) {
            (true, true) => json!({"host": format!("{}:{}", spec["host"].as_str().unwrap(), spec["port"])}),
            (false, false) => {
                let (host, port) = spec["host"].as_str().unwrap().split_once(':').unwrap();
                json!({"host": host, "port": port.parse::<u64>().unwrap()})
            }
            _ => spec,
        };
        // What identifies the object stays, whatever is tried.
        object["metadata"]["finalizers"] = json!(["example.com/evil"]);
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(one).collect();
    let unwilling = objects.iter().any(|object| object["metadata"]["name"] == "unwilling");
    let result = match unwilling {
        true => json!({"status": "Failed", "message": "not this one"}),
        false => json!({"status": "Success"}),
    };
    let response = json!({"uid": request["uid"], "result": result, "convertedObjects": objects});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}).to_string()
}

fn version(name: &str, storage: bool, properties: Value) -> Value {
    let spec = json!({"type": "object", "properties": properties, "required": ["host"]});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}})
}

async fn define(site: &Site, client: Value) {
    let (host, port) = (json!({"type": "string"}), json!({"type": "integer"}));
    let old = version("v1", true, json!({"host": {"type": "string", "pattern": ":"}}));
    let mut new = version("v2", false, json!({"host": host, "port": port}));
    new["selectableFields"] = json!([{"jsonPath": ".spec.host"}, {"jsonPath": ".spec.port"}]);
    let conversion =
        json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}});
    let names = json!({"plural": "links", "kind": "Link"});
    let spec = json!({"group": "demo.example.com", "scope": "Namespaced", "names": names, "versions": [old, new], "conversion": conversion});
    site.post(DEFINITIONS, json!({"metadata": {"name": "links.demo.example.com"}, "spec": spec})).await;
    let path = format!("{DEFINITIONS}/links.demo.example.com");
    let established = async {
        loop {
            let found = site.request("GET", &path, "", Value::Null).await;
            let conditions = found["status"]["conditions"].as_array().unwrap().clone();
            if conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), established).await.unwrap();
}

fn links(version: &str) -> String {
    format!("/apis/demo.example.com/{version}/namespaces/default/links")
}

async fn get(site: &Site, version: &str, name: &str) -> Value {
    site.request("GET", &format!("{}/{name}", links(version)), "", Value::Null).await
}

async fn refused(site: &Site, method: &str, path: &str, body: Value) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let admin = UserInfo::new("admin", ["system:masters"]);
    let (code, _, text) = site.ask(&admin, request.body(body.to_string()).unwrap()).await;
    let status: Value = serde_json::from_str(&text.unwrap()).unwrap();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_shows_the_version_that_was_asked_for() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    define(&site, hooks.client("/convert")).await;
    let new = json!({"apiVersion": "demo.example.com/v2", "kind": "Link", "metadata": {"name": "a"}, "spec": {"host": "x", "port": 1}});
    site.post(&links("v2"), new).await;
    let (one, two) = (get(&site, "v1", "a").await, get(&site, "v2", "a").await);
    assert_eq!((&one["apiVersion"], &one["spec"]), (&json!("demo.example.com/v1"), &json!({"host": "x:1"})));
    assert_eq!((&two["apiVersion"], &two["spec"]), (&json!("demo.example.com/v2"), &json!({"host": "x", "port": 1})));
    assert_eq!(
        (&two["metadata"]["resourceVersion"], &two["metadata"]["finalizers"]),
        (&one["metadata"]["resourceVersion"], &Value::Null)
    );
    let old = json!({"apiVersion": "demo.example.com/v1", "kind": "Link", "metadata": {"name": "b"}, "spec": {"host": "y:2"}});
    site.post(&links("v1"), old).await;
    let patched = site.request("PATCH", &format!("{}/b", links("v2")), MERGE, json!({"spec": {"port": 3}})).await;
    assert_eq!(patched["spec"], json!({"host": "y", "port": 3}));
    assert_eq!(get(&site, "v1", "b").await["spec"], json!({"host": "y:3"}));
    let list = site.request("GET", &links("v2"), "", Value::Null).await;
    let specs: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["spec"]).collect();
    assert_eq!(specs, [&json!({"host": "x", "port": 1}), &json!({"host": "y", "port": 3})]);
    let status = format!("{}/b/status", links("v2"));
    site.request("PATCH", &status, MERGE, json!({"status": {}})).await;
    // Applied in one version, seen in the other, owned once.
    let applied = json!({"apiVersion": "demo.example.com/v2", "kind": "Link", "metadata": {"name": "c"}, "spec": {"host": "z", "port": 4}});
    let apply = format!("{}/c?fieldManager=me", links("v2"));
    for _ in 0..2 {
        let object = site.request("PATCH", &apply, "application/apply-patch+yaml", applied.clone()).await;
        assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    }
    assert_eq!(get(&site, "v1", "c").await["spec"], json!({"host": "z:4"}));
    let gone = site.request("DELETE", &format!("{}/c", links("v2")), "", Value::Null).await;
    assert_eq!(gone["status"], "Success");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_selected_in_the_version_that_was_asked_for() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    define(&site, hooks.client("/convert")).await;
    for (name, host) in [("a", "x:1"), ("b", "x:2"), ("c", "y:1")] {
        let object = json!({"apiVersion": "demo.example.com/v1", "kind": "Link", "metadata": {"name": name}, "spec": {"host": host}});
        site.post(&links("v1"), object).await;
    }
    let check = async |method: &str, selector: &str, expected: &[&str]| {
        let path = format!("{}?fieldSelector={selector}", links("v2"));
        let list = site.request(method, &path, "", Value::Null).await;
        let items = list["items"].as_array().unwrap().iter();
        assert_eq!(items.map(|item| item["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    };
    check("GET", "spec.host%3Dx", &["a", "b"]).await;
    check("GET", "spec.host%3Dx,spec.port%3D2", &["b"]).await;
    check("GET", "spec.host!%3Dx", &["c"]).await;
    check("DELETE", "spec.port%3D1", &["a", "c"]).await;
    check("GET", "", &["b"]).await;
    let (code, message) =
        refused(&site, "GET", &format!("{}?fieldSelector=spec.port%3D1", links("v1")), Value::Null).await;
    assert_eq!((code, message.as_str()), (400, "field label not supported: spec.port"));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_show_the_version_that_was_asked_for() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    define(&site, hooks.client("/convert")).await;
    let object = |name: &str| json!({"metadata": {"name": name}, "apiVersion": "demo.example.com/v1", "kind": "Link", "spec": {"host": "x:1"}});
    site.post(&links("v1"), object("a")).await;
    let mut door = site.server.in_process(UserInfo::new("admin", ["system:masters"]));
    let uri = format!(
        "{}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
        links("v2")
    );
    let request = Request::builder().uri(uri).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let Ok(response) = door.call(request).await;
    let mut body = response.into_body();
    let mut lines = Vec::new();
    let mut seen = String::new();
    let steps = ["ADDED a", "BOOKMARK ", "ADDED b", "MODIFIED b", "DELETED a"];
    site.post(&links("v1"), object("b")).await;
    site.request("PATCH", &format!("{}/b", links("v1")), MERGE, json!({"spec": {"host": "x:2"}})).await;
    site.request("DELETE", &format!("{}/a", links("v1")), "", Value::Null).await;
    while lines.len() < steps.len() {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        while let Some(end) = seen.find('\n') {
            let event: Value = serde_json::from_str(&seen[..end]).unwrap();
            seen.drain(..=end);
            let object = &event["object"];
            assert_eq!(object["apiVersion"], "demo.example.com/v2");
            assert_eq!(object["spec"].is_object(), object["spec"]["port"].is_u64(), "{object}");
            lines.push(format!(
                "{} {}",
                event["type"].as_str().unwrap(),
                object["metadata"]["name"].as_str().unwrap_or("")
            ));
        }
    }
    assert_eq!(lines, steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_converted_is_refused_and_said() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    define(&site, hooks.client("/convert")).await;
    let object = |name: &str, version: &str, spec: Value| json!({"apiVersion": format!("demo.example.com/{version}"), "kind": "Link", "metadata": {"name": name}, "spec": spec});
    let unwilling = object("unwilling", "v2", json!({"host": "x", "port": 1}));
    let (code, text) = refused(&site, "POST", &links("v2"), unwilling).await;
    let expected = "conversion webhook for demo.example.com/v2, Kind=Link failed: not this one";
    assert_eq!((code, text.contains(expected)), (500, true), "{text}");
    // Rules are those of the version in which it is written.
    let (code, text) = refused(&site, "POST", &links("v1"), object("a", "v1", json!({"host": "x"}))).await;
    assert_eq!((code, text.contains("spec.host")), (422, true), "{text}");
    site.post(&links("v1"), object("unwilling", "v1", json!({"host": "x:1"}))).await;
    for path in [links("v2"), format!("{}/unwilling", links("v2"))] {
        let (code, text) = refused(&site, "GET", &path, Value::Null).await;
        assert_eq!((code, text.contains("not this one")), (500, true), "{text}");
    }
    assert_eq!(get(&site, "v1", "unwilling").await["spec"], json!({"host": "x:1"}));
    // Another webhook, and the same object can be shown.
    for (path, part) in [("/garbage", "the answer is no JSON"), ("/error", "the webhook answered 500")] {
        let conversion = json!({"spec": {"conversion": {"webhook": {"clientConfig": hooks.client(path)}}}});
        let definition = format!("{DEFINITIONS}/links.demo.example.com");
        site.request("PATCH", &definition, MERGE, conversion).await;
        let said = async {
            loop {
                let (code, text) = refused(&site, "GET", &links("v2"), Value::Null).await;
                if code == 500 && text.contains(part) {
                    return;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), said).await.unwrap();
    }
    let bad = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://x"}, "conversionReviewVersions": ["v9"]}});
    let names = json!({"plural": "racks", "kind": "Rack"});
    let spec = json!({"group": "demo.example.com", "scope": "Cluster", "names": names, "versions": [version("v1", true, json!({"host": {"type": "string"}}))], "conversion": bad});
    let (code, text) =
        refused(&site, "POST", DEFINITIONS, json!({"metadata": {"name": "racks.demo.example.com"}, "spec": spec}))
            .await;
    assert!(code == 422 && text.contains("'https' is the only") && text.contains("conversionReviewVersions"), "{text}");
}
