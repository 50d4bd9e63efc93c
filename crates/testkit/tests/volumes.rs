//! Volumes of running pods over simulated machines: their files follow what they are of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use isopod_testkit::TestCluster;
use serde_json::{Value, json};

/// Starts a pod with these volumes; answers with its UID.
async fn run(cluster: &TestCluster, namespace: &str, volumes: Value) -> String {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let container = json!({"name": "c", "image": "web", "command": ["serve"]});
    let meta = json!({"name": "p", "labels": {"color": "red"}, "annotations": {"builder": "bar"}});
    let spec = json!({"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1});
    cluster.create(&pods, json!({"metadata": meta, "spec": spec})).await.unwrap();
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    let pod = cluster.wait_for(&format!("{pods}/p"), "the pod", running).await.unwrap();
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn wait_for_files(cluster: &TestCluster, uid: &str, volume: &str, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let shown = || cluster.host.files(uid, volume);
    let waited = cluster.wait_until(volume, || shown() == expected).await;
    assert!(waited.is_ok(), "{volume}: {:?}, not {expected:?}", shown());
}

fn volumes() -> Value {
    json!([
        {"name": "map", "configMap": {"name": "m"}},
        {"name": "secret", "secret": {"secretName": "s", "items": [{"key": "k", "path": "dir/k"}]}},
        {"name": "later", "configMap": {"name": "later", "optional": true}},
        {"name": "frozen", "configMap": {"name": "frozen"}},
        {"name": "about", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['color']"}},
            {"path": "builder", "fieldRef": {"fieldPath": "metadata.annotations['builder']"}},
        ]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "m", "items": [{"key": "a", "path": "from-map"}]}},
            {"secret": {"name": "later", "optional": true}},
            {"downwardAPI": {"items": [{"path": "color", "fieldRef": {"fieldPath": "metadata.labels['color']"}}]}},
        ]}},
    ])
}

/// Changes everything that the volumes are of, and sees the files change.
async fn check_that_files_follow(cluster: &TestCluster, namespace: &str) {
    let core = |plural: &str| format!("/api/v1/namespaces/{namespace}/{plural}");
    let account = format!("{}/default", core("serviceaccounts"));
    cluster.wait_for(&account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    let (maps, secrets) = (core("configmaps"), core("secrets"));
    cluster.create(&maps, json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await.unwrap();
    cluster.create(&secrets, json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}})).await.unwrap();
    let frozen = json!({"metadata": {"name": "frozen"}, "data": {"x": "1"}, "immutable": true});
    cluster.create(&maps, frozen).await.unwrap();
    let uid = run(cluster, namespace, volumes()).await;
    let files = |volume, expected| wait_for_files(cluster, &uid, volume, expected);
    files("map", &[("a", "1")]).await;
    files("later", &[]).await;
    files("about", &[("labels", "red"), ("builder", "bar")]).await;

    cluster.patch(&format!("{maps}/m"), json!({"data": {"a": "2", "b": "new"}})).await.unwrap();
    files("map", &[("a", "2"), ("b", "new")]).await;
    files("all", &[("from-map", "2"), ("color", "red")]).await;
    cluster.patch(&format!("{secrets}/s"), json!({"stringData": {"k": "w"}})).await.unwrap();
    files("secret", &[("dir/k", "w")]).await;
    // What is optional appears and vanishes.
    cluster.create(&maps, json!({"metadata": {"name": "later"}, "data": {"l": "1"}})).await.unwrap();
    cluster.create(&secrets, json!({"metadata": {"name": "later"}, "stringData": {"t": "2"}})).await.unwrap();
    files("later", &[("l", "1")]).await;
    files("all", &[("from-map", "2"), ("t", "2"), ("color", "red")]).await;
    cluster.delete(&format!("{maps}/later")).await.unwrap();
    files("later", &[]).await;
    let meta = json!({"metadata": {"labels": {"color": "blue"}, "annotations": {"builder": "foo"}}});
    cluster.patch(&format!("{}/p", core("pods")), meta).await.unwrap();
    files("about", &[("labels", "blue"), ("builder", "foo")]).await;
    files("all", &[("from-map", "2"), ("t", "2"), ("color", "blue")]).await;
    // What has to be there and is gone leaves the files as they are; it is told, and followed when it is back.
    cluster.delete(&format!("{maps}/m")).await.unwrap();
    let gone = |event: &Value| {
        let text = event["message"].as_str().unwrap_or_default();
        event["reason"] == "FailedMount" && text.contains("volume \"map\": configmap \"m\" not found")
    };
    let said = |events: &Value| events["items"].as_array().is_some_and(|events| events.iter().any(gone));
    cluster.wait_for(&core("events"), "the event", said).await.unwrap();
    files("map", &[("a", "2"), ("b", "new")]).await;
    cluster.create(&maps, json!({"metadata": {"name": "m"}, "data": {"a": "3"}})).await.unwrap();
    files("map", &[("a", "3")]).await;
    // What never changes is not looked at again, though another takes its name.
    cluster.delete(&format!("{maps}/frozen")).await.unwrap();
    cluster.create(&maps, json!({"metadata": {"name": "frozen"}, "data": {"x": "2"}})).await.unwrap();
    cluster.patch(&format!("{maps}/m"), json!({"data": {"a": "4"}})).await.unwrap();
    files("map", &[("a", "4")]).await;
    files("frozen", &[("x", "1")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_microvms_volumes_follow_their_objects() {
    let cluster = TestCluster::start("followed").await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    check_that_files_follow(&cluster, "default").await;
    // So they do under an agent that found the pod running.
    agent.cancel();
    let maps = "/api/v1/namespaces/default/configmaps";
    cluster.patch(&format!("{maps}/m"), json!({"data": {"a": "5"}})).await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    let pod = cluster.get("/api/v1/namespaces/default/pods/p").await.unwrap();
    wait_for_files(&cluster, pod["metadata"]["uid"].as_str().unwrap(), "map", &[("a", "5")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_volumes_on_a_node_of_many_follow_their_objects() {
    let cluster = TestCluster::start("followed-node").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    let spec = json!({"instanceType": "t3.medium", "minSize": 0, "maxSize": 1, "desiredSize": 1, "volumeSizeGib": 20});
    let group = json!({"apiVersion": "isopod.dev/v1alpha1", "kind": "NodeGroup", "metadata": {"name": "workers"}, "spec": spec});
    cluster.create("/apis/isopod.dev/v1alpha1/nodegroups", group).await.unwrap();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "apps"}})).await.unwrap();
    check_that_files_follow(&cluster, "apps").await;
}

/// On one thread, whose clock can be put forward.
#[tokio::test]
async fn tokens_in_volumes_are_renewed_in_time() {
    let cluster = TestCluster::start("renewed").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    let token = json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}});
    let color = json!({"items": [{"path": "color", "fieldRef": {"fieldPath": "metadata.labels['color']"}}]});
    let volumes = json!([{"name": "t", "projected": {"sources": [token]}}, {"name": "about", "downwardAPI": color}]);
    let uid = run(&cluster, "default", volumes).await;
    let shown = || cluster.host.files(&uid, "t").get("token").cloned().unwrap_or_default();
    let first = shown();
    assert_eq!(first.split('.').count(), 3, "{first}");
    for (seconds, renewed) in [(470, false), (20, true)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        if renewed {
            cluster.wait_until("another token", || shown() != first).await.unwrap();
        } else {
            // All volumes are looked at together, tokens first.
            let blue = json!({"metadata": {"labels": {"color": "blue"}}});
            cluster.patch("/api/v1/namespaces/default/pods/p", blue).await.unwrap();
            wait_for_files(&cluster, &uid, "about", &[("color", "blue")]).await;
            assert_eq!(shown(), first);
        }
    }
    assert_eq!(shown().split('.').count(), 3);
}
