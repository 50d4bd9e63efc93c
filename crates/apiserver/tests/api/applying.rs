//! Server-side apply and managed fields.

use serde_json::{Value, json};

use crate::customs::{define, definition};
use crate::harness::{Answer, Cluster, config_map, deployment, pod};

const MAP: &str = "/api/v1/namespaces/default/configmaps/m";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/d";

/// Applies as this manager; `more` are further query parameters.
async fn apply(cluster: &Cluster, url: &str, manager: &str, more: &str, config: &Value) -> Answer {
    let line = format!("PATCH {url}?fieldManager={manager}{more}");
    cluster.ask(&line, &[("content-type", "application/apply-patch+yaml")], &config.to_string()).await
}

async fn applied(cluster: &Cluster, url: &str, manager: &str, config: Value) -> Value {
    let answer = apply(cluster, url, manager, "", &config).await;
    assert!(answer.code < 300, "{}", answer.text);
    answer.json()
}

/// Each entry of `managedFields` as `manager operation [subresource]` and its fields.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owner = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("fieldsType"), "FieldsV1");
        format!("{} {} {}", text("manager"), text("operation"), text("subresource")).trim().to_owned()
    };
    entries.iter().map(|entry| (owner(entry), entry["fieldsV1"].clone())).collect()
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

#[tokio::test]
async fn applying_creates_changes_and_removes() {
    let cluster = Cluster::new().await;
    let created = apply(&cluster, MAP, "a", "", &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!((created.code, &created.json()["data"]), (201, &json!({"x": "1", "y": "1"})));
    assert_eq!(owners(&created.json()), [("a Apply".into(), json!({"f:data": {"f:x": {}, "f:y": {}}}))]);
    let other = applied(&cluster, MAP, "b", map(json!({"y": "1", "z": "1"}))).await;
    assert_eq!(other["data"], json!({"x": "1", "y": "1", "z": "1"}));
    // What b owns as well stays; what nobody else owns goes.
    let less = applied(&cluster, MAP, "a", map(json!({}))).await;
    assert_eq!(less["data"], json!({"y": "1", "z": "1"}));
    assert_eq!(
        owners(&less),
        [("a Apply".into(), json!({"f:data": {}})), ("b Apply".into(), json!({"f:data": {"f:y": {}, "f:z": {}}})),]
    );
}

#[tokio::test]
async fn applying_the_same_again_writes_nothing() {
    let cluster = Cluster::new().await;
    let first = applied(&cluster, DEPLOYMENT, "a", deployment("d", 2)).await;
    cluster.pass(60);
    let again = apply(&cluster, DEPLOYMENT, "a", "", &deployment("d", 2)).await;
    assert_eq!((again.code, again.json()), (200, first.clone()));
    let shared = applied(&cluster, DEPLOYMENT, "b", deployment("d", 2)).await;
    let times: Vec<&Value> =
        shared["metadata"]["managedFields"].as_array().unwrap().iter().map(|e| &e["time"]).collect();
    assert_eq!(times, ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"]);
    assert_eq!(shared["metadata"]["generation"], 1);
}

#[tokio::test]
async fn conflicts_name_the_owner_and_force_takes() {
    let cluster = Cluster::new().await;
    applied(&cluster, MAP, "a", map(json!({"x": "1", "y": "1"}))).await;
    let (line, body) = (format!("PUT {MAP}"), map(json!({"x": "1", "y": "1", "k": "1"})).to_string());
    let put = cluster.ask(&line, &[("user-agent", "kubectl/v1.36.0 (linux)")], &body).await;
    assert_eq!(put.code, 200);
    let one = apply(&cluster, MAP, "b", "", &map(json!({"x": "2"}))).await;
    let status = one.json();
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"a\": .data.x");
    assert_eq!((one.code, &status["reason"]), (409, &json!("Conflict")));
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x"});
    assert_eq!(status["details"]["causes"], json!([cause]));
    let more = apply(&cluster, MAP, "b", "", &map(json!({"x": "2", "y": "2", "k": "2"}))).await.json();
    let expected = "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y\nconflicts with \"kubectl\" \
                    using v1:\n- .data.k";
    assert_eq!(more["message"], expected);
    let forced = apply(&cluster, MAP, "b", "&force=true", &map(json!({"x": "2", "k": "2"}))).await.json();
    assert_eq!(forced["data"], json!({"x": "2", "y": "1", "k": "2"}));
    assert_eq!(
        owners(&forced),
        [
            ("a Apply".into(), json!({"f:data": {"f:y": {}}})),
            ("b Apply".into(), json!({"f:data": {"f:k": {}, "f:x": {}}})),
        ]
    );
}

#[tokio::test]
async fn what_apply_refuses() {
    let cluster = Cluster::new().await;
    let named = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let with = |field: &str, value: Value| {
        let mut map = named("m");
        map["metadata"][field] = value;
        map
    };
    let typed = |why: &str| format!("failed to create typed patch object (/m; /v1, Kind=ConfigMap): {why}");
    let table = [
        (
            "",
            named("m"),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
                .to_owned(),
        ),
        (&"a".repeat(129), named("m"), 422, "may not be more than 128 bytes".into()),
        ("a%07", named("m"), 422, "should not contain unprintable character: U+0007 (at position 1)".into()),
        ("a", named("other"), 400, "the name of the object (other) does not match the name on the URL (m)".into()),
        ("a", with("namespace", json!("n")), 400, "namespace of the provided object does not match".into()),
        ("a", with("managedFields", json!([])), 400, "metadata.managedFields must be nil".into()),
        ("a", with("uid", json!("u")), 409, "uid mismatch: the provided object specified uid u".into()),
        ("a", json!({"kind": "ConfigMap"}), 400, "invalid object type: /, Kind=ConfigMap".into()),
        ("a", json!({"apiVersion": "v1", "kind": "Secret"}), 400, "invalid object type: /v1, Kind=Secret".into()),
        (
            "a",
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            400,
            "Specified patch version: v2, expected: v1".into(),
        ),
        ("a", json!([]), 400, "an applied configuration is an object".into()),
        ("a", map(json!({"x": 1})), 400, typed(".data.x: expected string, got 1")),
        (
            "a",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "dato": {}}),
            400,
            typed(".dato: field not declared in schema"),
        ),
    ];
    for (manager, config, code, text) in table {
        let answer = apply(&cluster, MAP, manager, "", &config).await;
        assert_eq!(answer.code, code, "{config}: {}", answer.text);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&text), "{message}");
    }
    let line = format!("PATCH {MAP}?fieldManager=a");
    for doubled in [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\ndata: {}\n",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}, "data": {}}"#,
    ] {
        let answer = cluster.ask(&line, &[("content-type", "application/apply-patch+yaml")], doubled).await;
        assert!(answer.code == 400 && answer.text.contains("error decoding YAML"), "{}", answer.text);
    }
    assert_eq!(cluster.refused(&format!("PATCH {MAP}?force=true"), json!({})).await.0, 422);
    assert_eq!(cluster.refused(&format!("GET {MAP}"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_dry_run_shows_and_keeps_nothing() {
    let cluster = Cluster::new().await;
    let shown = apply(&cluster, MAP, "a", "&dryRun=All", &map(json!({"x": "1"}))).await;
    assert_eq!((shown.code, owners(&shown.json()).len()), (201, 1));
    assert_eq!(cluster.refused(&format!("GET {MAP}"), Value::Null).await.0, 404);
    let kept = applied(&cluster, MAP, "a", map(json!({"x": "1"}))).await;
    let shown = apply(&cluster, MAP, "a", "&dryRun=All", &map(json!({"x": "2"}))).await;
    assert_eq!((shown.code, &shown.json()["data"]["x"]), (200, &json!("2")));
    assert_eq!(cluster.ok(&format!("GET {MAP}"), Value::Null).await, kept);
}

#[tokio::test]
async fn list_items_are_owned_by_their_keys() {
    let cluster = Cluster::new().await;
    let container = |extra: Value| {
        let mut config = deployment("d", 1);
        for (name, value) in extra.as_object().unwrap() {
            config["spec"]["template"]["spec"]["containers"][0][name] = value.clone();
        }
        config
    };
    let ports = json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]);
    applied(&cluster, DEPLOYMENT, "a", container(json!({"ports": ports, "env": [{"name": "E", "value": "1"}]}))).await;
    let side = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "i"}, {"name": "main", "env": [{"name": "F", "value": "2"}]}]}}},
    });
    let both = applied(&cluster, DEPLOYMENT, "b", side).await;
    let spec = &both["spec"]["template"]["spec"];
    let names: Vec<&Value> = spec["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["side", "main"]);
    let env = &spec["containers"][1]["env"];
    assert_eq!(env, &json!([{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]));
    let fields = &owners(&both)[0].1["f:spec"]["f:template"]["f:spec"]["f:containers"][r#"k:{"name":"main"}"#];
    let keys: Vec<&String> = fields["f:ports"].as_object().unwrap().keys().collect();
    assert_eq!(keys, [r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"k:{"containerPort":80,"protocol":"UDP"}"#]);
    let fewer = applied(&cluster, DEPLOYMENT, "a", container(json!({"ports": [{"containerPort": 80}]}))).await;
    let main = &fewer["spec"]["template"]["spec"]["containers"][1];
    assert_eq!(main["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(main["env"], json!([{"name": "F", "value": "2"}]));
    let twice = apply(&cluster, DEPLOYMENT, "a", "", &container(json!({"env": [{"name": "E"}, {"name": "E"}]}))).await;
    assert!(twice.text.contains(r#".env: duplicate entries for key [name=\"E\"]"#), "{}", twice.text);
}

#[tokio::test]
async fn every_write_has_an_owner() {
    let cluster = Cluster::new().await;
    let ask = async |line: &str, body: Value| {
        let media = if line.starts_with("PATCH") { "application/merge-patch+json" } else { "application/json" };
        let headers = [("user-agent", "kubectl-create/v1.36.0 (linux)"), ("content-type", media)];
        let answer = cluster.ask(line, &headers, &body.to_string()).await;
        assert!(answer.code < 300, "{}", answer.text);
        answer.json()
    };
    let created = ask("POST /apis/apps/v1/namespaces/default/deployments", deployment("d", 1)).await;
    let container = json!({
        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
    });
    let expected = json!({
        "f:spec": {
            "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {r#"k:{"name":"main"}"#: container},
                    "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                    "f:terminationGracePeriodSeconds": {},
                },
            },
        },
    });
    assert_eq!(owners(&created)[0].0, "kubectl-create Update");
    assert_eq!(owners(&created)[0].1.to_string(), sorted(&expected).to_string());
    ask(&format!("PATCH {DEPLOYMENT}?fieldManager=p"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    ask(
        &format!("PATCH {DEPLOYMENT}/status?fieldManager=s"),
        json!({"status": {"replicas": 1}, "spec": {"replicas": 9}}),
    )
    .await;
    let scale = ask(&format!("PATCH {DEPLOYMENT}/scale?fieldManager=c"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(scale["spec"]["replicas"], 3);
    let mut object = ask(&format!("GET {DEPLOYMENT}"), Value::Null).await;
    let found = owners(&object);
    let rest: Vec<(&str, Value)> = found[1..].iter().map(|(owner, fields)| (owner.as_str(), fields.clone())).collect();
    assert!(
        found
            .iter()
            .any(|(owner, fields)| owner == "kubectl-create Update" && fields["f:spec"].get("f:replicas").is_none())
    );
    assert!(
        found.contains(&("p Update".into(), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}))),
        "{rest:?}"
    );
    assert!(found.contains(&("s Update status".into(), json!({"f:status": {"f:replicas": {}}}))), "{rest:?}");
    assert!(found.contains(&("c Update scale".into(), json!({"f:spec": {"f:replicas": {}}}))), "{rest:?}");
    // Writing what is there already changes no owner; managedFields that cannot be read are not believed.
    object["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Steal", "apiVersion": "apps/v1"}]);
    let same = ask(&format!("PUT {DEPLOYMENT}?fieldManager=other"), object.clone()).await;
    assert_eq!(owners(&same), found);
    for reset in [json!([]), json!([{}])] {
        object["metadata"]["resourceVersion"] = Value::Null;
        object["metadata"]["managedFields"] = reset;
        let cleared = ask(&format!("PUT {DEPLOYMENT}?fieldManager=other"), object.clone()).await;
        assert!(owners(&cleared).is_empty(), "{cleared}");
        ask(&format!("PATCH {DEPLOYMENT}"), json!({"spec": {"paused": true}})).await;
        ask(&format!("PATCH {DEPLOYMENT}"), json!({"spec": {"paused": false}})).await;
    }
}

/// With all keys sorted: fields are written in order.
fn sorted(value: &Value) -> Value {
    let Value::Object(map) = value else { return value.clone() };
    let mut entries: Vec<(String, Value)> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn status_and_spec_are_applied_apart() {
    let cluster = Cluster::new().await;
    let mut whole = deployment("d", 1);
    whole["status"] = json!({"replicas": 7});
    let main = applied(&cluster, DEPLOYMENT, "a", whole).await;
    assert_eq!((main["status"].get("replicas"), owners(&main)[0].1.get("f:status")), (None, None));
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 5},
        "status": {"conditions": [{"type": "Available", "status": "True"}]},
    });
    let both = applied(&cluster, &format!("{DEPLOYMENT}/status"), "a", status).await;
    assert_eq!((&both["spec"]["replicas"], &both["status"]["conditions"][0]["type"]), (&json!(1), &json!("Available")));
    let item = json!({".": {}, "f:status": {}, "f:type": {}});
    let fields = json!({"f:status": {"f:conditions": {r#"k:{"type":"Available"}"#: item}}});
    assert!(owners(&both).contains(&("a Apply status".into(), fields)), "{:?}", owners(&both));
    assert_eq!(owners(&both).len(), 2);
    let none = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "none"}});
    let url = "/apis/apps/v1/namespaces/default/deployments/none/status";
    assert_eq!(apply(&cluster, url, "a", "", &none).await.code, 404);
}

#[tokio::test]
async fn a_scale_is_applied_to_what_it_scales() {
    let cluster = Cluster::new().await;
    applied(&cluster, DEPLOYMENT, "a", deployment("d", 1)).await;
    let url = format!("{DEPLOYMENT}/scale");
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    let refused = apply(&cluster, &url, "s", "", &scale(3)).await;
    assert!(refused.text.contains("conflict with \\\"a\\\": .spec.replicas"), "{}", refused.text);
    let forced = apply(&cluster, &url, "s", "&force=true", &scale(3)).await.json();
    assert_eq!((&forced["kind"], &forced["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let object = cluster.ok(&format!("GET {DEPLOYMENT}"), Value::Null).await;
    assert!(owners(&object).contains(&("s Apply scale".into(), json!({"f:spec": {"f:replicas": {}}}))));
    let back = apply(&cluster, DEPLOYMENT, "a", "", &deployment("d", 1)).await.json();
    assert_eq!(
        back["message"],
        "Apply failed with 1 conflict: conflict with \"s\" with subresource \"scale\": .spec.replicas"
    );
}

#[tokio::test]
async fn more_than_ten_updaters_are_joined() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("m")).await;
    for number in 0..14 {
        cluster.pass(1);
        let line = format!("PATCH {MAP}?fieldManager=m{number}");
        cluster.ok(&line, json!({"data": {format!("k{number}"): "v"}})).await;
    }
    let found = owners(&cluster.ok(&format!("GET {MAP}"), Value::Null).await);
    assert_eq!(found.len(), 10);
    let ancient = &found[0];
    assert_eq!(ancient.0, "ancient-changes Update");
    let keys = ["f:k0", "f:k1", "f:k2", "f:k3", "f:k4", "f:key"];
    assert!(keys.iter().all(|key| ancient.1["f:data"].get(*key).is_some()), "{ancient:?}");
}

#[tokio::test]
async fn kubectl_moves_from_client_side_apply_without_conflict() {
    let cluster = Cluster::new().await;
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    let mut object = map(json!({"x": "1", "y": "1"}));
    let config = object.to_string();
    object["metadata"]["annotations"] = json!({last: config});
    let line = "POST /api/v1/namespaces/default/configmaps?fieldManager=kubectl-client-side-apply";
    cluster.ok(line, object).await;
    let other = apply(&cluster, MAP, "other", "", &map(json!({"x": "2"}))).await;
    assert_eq!(other.code, 409);
    let moved = applied(&cluster, MAP, "kubectl", map(json!({"x": "2"}))).await;
    assert_eq!(moved["data"], json!({"x": "2", "y": "1"}));
    let kept: Value = serde_json::from_str(moved["metadata"]["annotations"][last].as_str().unwrap()).unwrap();
    assert_eq!(kept["data"], json!({"x": "2"}));
    cluster.ok(&format!("PATCH {MAP}?fieldManager=someone"), json!({"data": {"y": "3"}})).await;
    let refused = apply(&cluster, MAP, "kubectl", "", &map(json!({"x": "2", "y": "4"}))).await.json();
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"someone\" using v1: .data.y");
}

#[tokio::test]
async fn owners_of_kinds_with_two_versions_see_each_others_changes() {
    let cluster = Cluster::new().await;
    let url = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h");
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let config = |version: &str, spec: Value| {
        let mut spec = spec;
        spec["scaleTargetRef"] = target.clone();
        spec["maxReplicas"] = 3.into();
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec})
    };
    applied(&cluster, &url("v1"), "a", config("v1", json!({"targetCPUUtilizationPercentage": 50}))).await;
    let line = format!("PATCH {}?fieldManager=b", url("v2"));
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}});
    cluster.ok(&line, json!({"spec": {"metrics": [metric]}})).await;
    let seen = cluster.ok(&format!("GET {}", url("v1")), Value::Null).await;
    assert_eq!(seen["spec"]["targetCPUUtilizationPercentage"], 70);
    let of_a = &owners(&seen)[0];
    assert_eq!(of_a.1, json!({"f:spec": {"f:maxReplicas": {}, "f:scaleTargetRef": {}}}), "{of_a:?}");
}

#[tokio::test]
async fn where_a_pod_was_put_has_no_owner() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    cluster.ok("POST /api/v1/namespaces/default/pods/p/binding", binding).await;
    let bound = cluster.ok("GET /api/v1/namespaces/default/pods/p", Value::Null).await;
    assert_eq!((&bound["spec"]["nodeName"], owners(&bound).len()), (&json!("n"), 1));
    assert_eq!(owners(&bound)[0].1["f:spec"].get("f:nodeName"), None);
}

/// A kind in two versions with every way to own a list or a map.
fn gadgets() -> Value {
    let port = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "protocol": {"type": "string", "default": "TCP"}, "number": {"type": "integer"},
    }});
    let texts = json!({"type": "string"});
    let mut gadgets = definition(
        "gadgets",
        "Gadget",
        json!({"type": "object", "properties": {
            "ports": {"type": "array", "items": port, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "protocol"]},
            "tags": {"type": "array", "items": texts, "x-kubernetes-list-type": "set"},
            "words": {"type": "array", "items": texts},
            "unit": {"type": "object", "additionalProperties": texts, "x-kubernetes-map-type": "atomic"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}),
    );
    let mut second = gadgets["spec"]["versions"][0].clone();
    (second["name"], second["storage"]) = (json!("v2"), json!(false));
    gadgets["spec"]["versions"].as_array_mut().unwrap().push(second);
    gadgets["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    gadgets
}

#[tokio::test]
async fn custom_kinds_are_applied_by_their_schema() {
    let cluster = Cluster::new().await;
    define(&cluster, gadgets()).await;
    let url = |version: &str| format!("/apis/stable.example.com/{version}/namespaces/default/gadgets/g");
    let gadget = |version: &str, spec: Value| json!({"apiVersion": format!("stable.example.com/{version}"), "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec});
    let first = gadget(
        "v1",
        json!({
            "ports": [{"name": "a", "number": 1}, {"name": "b"}], "tags": ["x", "y"], "words": ["p", "q"],
            "unit": {"k": "v"}, "free": {"a": {"b": 1}, "list": [1]},
        }),
    );
    let created = applied(&cluster, &url("v1"), "one", first.clone()).await;
    let fields = json!({"f:spec": {
        "f:free": {"f:a": {".": {}, "f:b": {}}, "f:list": {}},
        "f:ports": {
            r#"k:{"name":"a","protocol":"TCP"}"#: {".": {}, "f:name": {}, "f:number": {}},
            r#"k:{"name":"b","protocol":"TCP"}"#: {".": {}, "f:name": {}},
        },
        "f:tags": {r#"v:"x""#: {}, r#"v:"y""#: {}}, "f:unit": {}, "f:words": {},
    }});
    assert_eq!(owners(&created), [("one Apply".into(), fields)]);
    assert_eq!(applied(&cluster, &url("v1"), "one", first.clone()).await, created);
    // Another version's manager shares the object.
    let second = gadget("v2", json!({"ports": [{"name": "c"}], "tags": ["y", "z"], "free": {"c": null}}));
    let both = applied(&cluster, &url("v2"), "two", second).await;
    assert_eq!(both["spec"]["tags"], json!(["x", "y", "z"]));
    for (spec, path) in [
        (json!({"words": ["p"]}), ".spec.words"),
        (json!({"unit": {"k": "v", "l": "w"}}), ".spec.unit"),
        (json!({"free": {"a": {"b": 2}}}), ".spec.free.a.b"),
    ] {
        let refused = apply(&cluster, &url("v2"), "two", "", &gadget("v2", spec)).await.json();
        assert_eq!(refused["message"], format!("Apply failed with 1 conflict: conflict with \"one\": {path}"));
    }
    let less = applied(&cluster, &url("v1"), "one", gadget("v1", json!({"tags": ["x"]}))).await;
    let ports = json!([{"name": "c", "protocol": "TCP"}]);
    assert_eq!(less["spec"], json!({"ports": ports, "tags": ["x", "y", "z"], "free": {"c": null}}), "{less}");
    let undeclared = apply(&cluster, &url("v1"), "one", "", &gadget("v1", json!({"nothing": 1}))).await;
    assert!(undeclared.text.contains(".spec.nothing: field not declared in schema"), "{}", undeclared.text);
    let line = format!("PATCH {}?fieldManager=p", url("v1"));
    let patched = cluster.ok(&line, json!({"spec": {"words": ["r"]}})).await;
    assert!(
        owners(&patched).contains(&("p Update".into(), json!({"f:spec": {"f:words": {}}}))),
        "{:?}",
        owners(&patched)
    );
}
