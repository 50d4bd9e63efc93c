//! Create, update, patch.

use serde_json::{Value, json};

use crate::harness::{Cluster, collection, config_map, deployment, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/d";

#[tokio::test]
async fn a_created_object_has_its_system_fields() {
    let cluster = Cluster::new().await;
    let mut asked = config_map("x");
    asked["metadata"]["uid"] = "mine".into();
    asked["metadata"]["creationTimestamp"] = "2000-01-01T00:00:00Z".into();
    asked["metadata"]["generation"] = 7.into();
    let created = cluster.create("configmaps", "default", asked).await;
    let metadata = &created["metadata"];
    assert_eq!(
        (&metadata["creationTimestamp"], &metadata["namespace"]),
        (&json!("2026-01-01T00:00:00Z"), &json!("default"))
    );
    assert_eq!((metadata["uid"].as_str().unwrap().len(), &metadata["generation"]), (36, &Value::Null));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    let deployment = cluster.create("apps/v1/deployments", "default", deployment("d", 2)).await;
    assert_eq!(deployment["metadata"]["generation"], 1);
    assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    let named = cluster.create("configmaps", "default", json!({"metadata": {"generateName": "g-"}})).await;
    let name = named["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn what_create_refuses() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("taken")).await;
    let with = |path: &str, value: Value| {
        let mut object = config_map("x");
        object["metadata"][path] = value;
        object
    };
    let table = [
        ("", config_map("taken"), 409, "configmaps \"taken\" already exists"),
        ("", with("resourceVersion", json!("1")), 400, "resourceVersion should not be set"),
        ("", with("namespace", json!("other")), 400, "does not match the namespace sent on the request"),
        ("", with("name", json!("Bad_Name")), 422, "metadata.name: Invalid value"),
        ("", with("name", json!("")), 422, "name or generateName is required"),
        ("", json!({"kind": "Secret", "metadata": {"name": "x"}}), 400, "Secret"),
        ("", json!({"metadata": {"name": "x"}, "data": {"a": 1}}), 400, "cannot be handled as a ConfigMap"),
        (
            "?fieldValidation=Strict",
            json!({"metadata": {"name": "x"}, "dato": {}}),
            400,
            "strict decoding error: unknown field \"dato\"",
        ),
        ("?fieldValidation=Some", config_map("x"), 422, "fieldValidation: Unsupported value: \"Some\""),
        ("?dryRun=Some", config_map("x"), 422, "dryRun: Unsupported value: [\"Some\"]"),
    ];
    for (query, object, code, part) in table {
        let (found, message) = cluster.refused(&format!("POST {CONFIG_MAPS}{query}"), object).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let missing = cluster.refused("POST /api/v1/namespaces/none/configmaps", config_map("x")).await;
    assert_eq!(missing, (404, "namespaces \"none\" not found".into()));
    let large = "x".repeat((3 << 20) + 1);
    assert_eq!(cluster.ask(&format!("POST {CONFIG_MAPS}"), &[], &large).await.code, 413);
    let odd = cluster.ask(&format!("POST {CONFIG_MAPS}"), &[("content-type", "text/plain")], "x").await;
    assert_eq!(odd.code, 415);
    let warned = cluster.ask(&format!("POST {CONFIG_MAPS}"), &[], r#"{"metadata":{"name":"w"},"dato":{}}"#).await;
    assert_eq!((warned.code, warned.headers["warning"].to_str().unwrap()), (201, r#"299 - "unknown field \"dato\"""#));
    let yaml = cluster
        .ask(
            &format!("POST {CONFIG_MAPS}"),
            &[("content-type", "application/yaml")],
            "metadata:\n  name: from-yaml\ndata: {a: b}\n",
        )
        .await;
    assert_eq!((yaml.code, &yaml.json()["data"]["a"]), (201, &json!("b")), "{}", yaml.text);
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let cluster = Cluster::new().await;
    let before = cluster.ok(&format!("GET {CONFIG_MAPS}"), Value::Null).await;
    let dry = cluster.ok(&format!("POST {CONFIG_MAPS}?dryRun=All"), config_map("x")).await;
    assert_eq!(dry["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(cluster.ok(&format!("GET {CONFIG_MAPS}"), Value::Null).await, before);
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    let line = format!("PATCH {CONFIG_MAPS}/x?dryRun=All");
    assert_eq!(cluster.ok(&line, json!({"data": {"key": "new"}})).await["data"]["key"], "new");
    cluster.ok(&format!("DELETE {CONFIG_MAPS}/x?dryRun=All"), Value::Null).await;
    assert_eq!(cluster.ok(&format!("GET {CONFIG_MAPS}/x"), Value::Null).await, created);
}

#[tokio::test]
async fn updates_compare_versions() {
    let cluster = Cluster::new().await;
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    let path = format!("{CONFIG_MAPS}/x");
    let mut changed = created.clone();
    changed["data"]["key"] = "new".into();
    let updated = cluster.ok(&format!("PUT {path}"), changed.clone()).await;
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);
    let (code, message) = cluster.refused(&format!("PUT {path}"), changed.clone()).await;
    assert_eq!((code, message.contains("the object has been modified")), (409, true), "{message}");
    // Without a version it is overwritten; the same again changes nothing at all.
    changed["metadata"] = json!({"name": "x"});
    let unchanged = cluster.ok(&format!("PUT {path}"), changed.clone()).await;
    assert_eq!(unchanged, updated);
    changed["metadata"]["uid"] = "another".into();
    assert_eq!(cluster.refused(&format!("PUT {path}"), changed.clone()).await.0, 409);
    changed["metadata"] = json!({"name": "y"});
    let (code, message) = cluster.refused(&format!("PUT {path}"), changed).await;
    assert_eq!((code, message.as_str()), (400, "the name of the object (y) does not match the name on the URL (x)"));
    assert_eq!(cluster.refused(&format!("PUT {CONFIG_MAPS}/none"), config_map("none")).await.0, 404);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
    let line = format!("PUT {}/l", collection("coordination.k8s.io/v1/leases", "default"));
    assert_eq!(cluster.ask(&line, &[], &lease.to_string()).await.code, 201);
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let cluster = Cluster::new().await;
    cluster.create("apps/v1/deployments", "default", deployment("d", 1)).await;
    let [json_patch, merge, strategic] =
        ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
    let container = |image: &str| json!([{"name": "main", "image": image}]).to_string();
    // Type, body, code, pointer, value there afterwards.
    let table = [
        (merge, r#"{"spec":{"replicas":3}}"#.to_owned(), 200, "/spec/replicas", json!(3)),
        (merge, r#"{"metadata":{"labels":{"a":"b"}}}"#.to_owned(), 200, "/metadata/labels/a", json!("b")),
        (merge, r#"{"metadata":{"labels":null}}"#.to_owned(), 200, "/metadata/labels", Value::Null),
        (
            json_patch,
            r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#.to_owned(),
            200,
            "/spec/replicas",
            json!(4),
        ),
        (
            json_patch,
            r#"[{"op":"test","path":"/spec/replicas","value":9}]"#.to_owned(),
            422,
            "/spec/replicas",
            json!(4),
        ),
        (
            strategic,
            format!(r#"{{"spec":{{"template":{{"spec":{{"containers":{}}}}}}}}}"#, container("busybox")),
            200,
            "/spec/template/spec/containers/0/image",
            json!("busybox"),
        ),
        (
            strategic,
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox"}]}}}}"#.to_owned(),
            200,
            "/spec/template/spec/containers/1/image",
            json!("busybox"),
        ),
        (merge, r#"{"spec":{"replicas":"x"}}"#.to_owned(), 422, "/spec/replicas", json!(4)),
        (merge, r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#.to_owned(), 422, "/spec/replicas", json!(4)),
        (merge, r#"{"metadata":{"name":"other"}}"#.to_owned(), 400, "/metadata/name", json!("d")),
        (merge, r#"{"metadata":{"resourceVersion":"1"}}"#.to_owned(), 409, "/metadata/name", json!("d")),
        ("application/some-patch", "{}".to_owned(), 415, "/metadata/name", json!("d")),
        (merge, "{".to_owned(), 400, "/metadata/name", json!("d")),
    ];
    for (media, body, code, pointer, expected) in table {
        let answer = cluster.ask(&format!("PATCH {DEPLOYMENT}"), &[("content-type", media)], &body).await;
        assert_eq!(answer.code, code, "{body}: {}", answer.text);
        let now = cluster.ok(&format!("GET {DEPLOYMENT}"), Value::Null).await;
        assert_eq!(now.pointer(pointer).cloned().unwrap_or_default(), expected, "after {body}");
    }
}

#[tokio::test]
async fn generation_counts_changes_of_the_specification_only() {
    let cluster = Cluster::new().await;
    cluster.create("apps/v1/deployments", "default", deployment("d", 1)).await;
    let table = [
        (DEPLOYMENT.to_owned(), json!({"metadata": {"labels": {"a": "b"}}}), 1),
        (DEPLOYMENT.to_owned(), json!({"spec": {"replicas": 2}}), 2),
        (DEPLOYMENT.to_owned(), json!({"spec": {"replicas": 2}}), 2),
        (DEPLOYMENT.to_owned(), json!({"status": {"replicas": 9}}), 2),
        (format!("{DEPLOYMENT}/status"), json!({"status": {"replicas": 5}, "spec": {"replicas": 7}}), 2),
        (format!("{DEPLOYMENT}/scale"), json!({"spec": {"replicas": 3}}), 3),
    ];
    for (path, patch, generation) in table {
        cluster.ok(&format!("PATCH {path}"), patch.clone()).await;
        let now = cluster.ok(&format!("GET {DEPLOYMENT}"), Value::Null).await;
        assert_eq!(now["metadata"]["generation"], generation, "after {patch}");
    }
    let now = cluster.ok(&format!("GET {DEPLOYMENT}"), Value::Null).await;
    assert_eq!((&now["spec"]["replicas"], &now["status"]["replicas"]), (&json!(3), &json!(5)));
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", "default", config_map("x")).await;
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                cluster.ok(&format!("PATCH {CONFIG_MAPS}/x"), json!({"data": {format!("k{number}"): "v"}})).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let now = cluster.ok(&format!("GET {CONFIG_MAPS}/x"), Value::Null).await;
    assert_eq!(now["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn events_have_two_faces() {
    let cluster = Cluster::new().await;
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "Started", "action": "Start", "note": "It runs", "reportingController": "isopod.dev/test",
        "reportingInstance": "one", "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    let created = cluster.create("events.k8s.io/v1/events", "default", event).await;
    assert_eq!((&created["apiVersion"], &created["note"]), (&json!("events.k8s.io/v1"), &json!("It runs")));
    let core =
        cluster.ok("GET /api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp", Value::Null).await;
    let core = &core["items"][0];
    assert_eq!(
        (&core["apiVersion"], &core["message"], &core["involvedObject"]["name"]),
        (&json!("v1"), &json!("It runs"), &json!("p"))
    );
    let (old, new) = ("/api/v1", "/apis/events.k8s.io/v1");
    let check = async |face: &str, selector: &str, code: u16, found: usize| {
        let answer = cluster.ask(&format!("GET {face}/events?fieldSelector={selector}"), &[], "").await;
        assert_eq!(answer.code, code, "{face} {selector}");
        assert_eq!(answer.json()["items"].as_array().map_or(0, Vec::len), found, "{face} {selector}");
    };
    check(new, "reportingController%3Disopod.dev/test", 200, 1).await;
    check(new, "reportingController%3Dother", 200, 0).await;
    check(new, "regarding.name%3Dp,regarding.kind%3DPod", 200, 1).await;
    check(new, "reportingComponent%3Disopod.dev/test", 200, 1).await;
    check(old, "reportingComponent%3Disopod.dev/test", 200, 1).await;
    check(old, "reportingController%3Disopod.dev/test", 400, 0).await;
    let line = "PATCH /apis/events.k8s.io/v1/namespaces/default/events/e";
    let patched =
        cluster.ok(line, json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}})).await;
    assert_eq!((&patched["series"]["count"], &patched["note"]), (&json!(2), &json!("It runs")));
    let list = cluster.ok("GET /apis/events.k8s.io/v1/events", Value::Null).await;
    assert_eq!((&list["kind"], &list["items"][0]["regarding"]["name"]), (&json!("EventList"), &json!("p")));
}

#[tokio::test]
async fn pods_begin_pending_with_defaults() {
    let cluster = Cluster::new().await;
    let mut asked = pod("p");
    asked["status"] = json!({"phase": "Running"});
    let pod = cluster.create("pods", "default", asked).await;
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod["spec"]["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(pod["metadata"]["generation"], 1);
}

/// The annotation is deprecated, but upstream goes on counting.
#[tokio::test]
async fn templates_of_daemon_sets_are_counted() {
    const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
    const COUNT: &str = "deprecated.daemonset.template.generation";
    let cluster = Cluster::new().await;
    let mut set = deployment("d", 1);
    set["kind"] = "DaemonSet".into();
    set["spec"].as_object_mut().unwrap().retain(|field, _| matches!(field.as_str(), "selector" | "template"));
    let counted = |set: &Value| set["metadata"]["annotations"][COUNT].as_str().unwrap_or_default().to_owned();
    assert_eq!(counted(&cluster.create("apps/v1/daemonsets", "default", set.clone()).await), "1");
    let path = format!("{SETS}/d");
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    for (patch, expected) in [
        (image("v2"), "2"),
        (image("v2"), "2"),
        (json!({"metadata": {"annotations": {COUNT: "9"}}}), "2"),
        (json!({"metadata": {"annotations": null}}), "2"),
        (json!({"spec": {"minReadySeconds": 3}}), "2"),
        (image("v1"), "3"),
    ] {
        assert_eq!(counted(&cluster.ok(&format!("PATCH {path}"), patch.clone()).await), expected, "{patch}");
    }
    for (asked, expected) in [("7", "7"), ("0", "1"), ("many", "1")] {
        let mut set = set.clone();
        set["metadata"] = json!({"name": format!("of-{asked}"), "annotations": {COUNT: asked}});
        assert_eq!(counted(&cluster.create("apps/v1/daemonsets", "default", set).await), expected);
    }
}
