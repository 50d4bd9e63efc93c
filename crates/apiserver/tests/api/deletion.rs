//! Deletion: grace, finalizers, propagation, preconditions, namespaces.

use serde_json::{Value, json};

use crate::harness::{Cluster, config_map, deployment, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POD: &str = "/api/v1/namespaces/default/pods/p";

async fn is_gone(cluster: &Cluster, path: &str) -> bool {
    cluster.ask(&format!("GET {path}"), &[], "").await.code == 404
}

#[tokio::test]
async fn plain_objects_go_at_once() {
    let cluster = Cluster::new().await;
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    let status = cluster.ok(&format!("DELETE {CONFIG_MAPS}/x"), Value::Null).await;
    let details = json!({"name": "x", "kind": "configmaps", "uid": created["metadata"]["uid"]});
    assert_eq!((&status["status"], &status["details"]), (&json!("Success"), &details));
    assert!(is_gone(&cluster, &format!("{CONFIG_MAPS}/x")).await);
    assert_eq!(cluster.refused(&format!("DELETE {CONFIG_MAPS}/x"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn pods_are_given_time() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    cluster.ok(&format!("POST {POD}/binding"), json!({"metadata": {"name": "p"}, "target": {"name": "n"}})).await;
    // Options, grace afterwards.
    for (options, grace, time) in [
        (json!({}), 30, "2026-01-01T00:00:30Z"),
        (json!({"gracePeriodSeconds": 60}), 30, "2026-01-01T00:00:30Z"),
        (json!({"gracePeriodSeconds": 5}), 5, "2026-01-01T00:00:05Z"),
    ] {
        let deleted = cluster.ok(&format!("DELETE {POD}"), options.clone()).await;
        let metadata = &deleted["metadata"];
        assert_eq!(
            (&metadata["deletionGracePeriodSeconds"], &metadata["deletionTimestamp"]),
            (&json!(grace), &json!(time)),
            "{options}"
        );
        assert_eq!(metadata["generation"], 2);
    }
    cluster.ok(&format!("DELETE {POD}"), json!({"gracePeriodSeconds": 0})).await;
    assert!(is_gone(&cluster, POD).await);
    cluster.create("pods", "default", pod("p")).await;
    cluster.ok(&format!("DELETE {POD}"), Value::Null).await;
    assert!(is_gone(&cluster, POD).await, "a pod without a node has nothing to stop");
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let cluster = Cluster::new().await;
    let mut held = config_map("x");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create("configmaps", "default", held).await;
    let path = format!("{CONFIG_MAPS}/x");
    let marked = cluster.ok(&format!("DELETE {path}"), Value::Null).await;
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    let again = cluster.ok(&format!("DELETE {path}"), Value::Null).await;
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    let (code, message) = cluster
        .refused(
            &format!("PATCH {path}"),
            json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}),
        )
        .await;
    assert_eq!((code, message.contains("no new finalizers can be added")), (422, true), "{message}");
    let (code, message) = cluster.refused(&format!("POST {CONFIG_MAPS}"), config_map("x")).await;
    assert_eq!((code, message.starts_with("object is being deleted: ")), (409, true), "{message}");
    cluster.ok(&format!("PATCH {path}"), json!({"metadata": {"finalizers": null}})).await;
    assert!(is_gone(&cluster, &path).await);
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let cluster = Cluster::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    for (query, body, finalizer) in [
        ("?propagationPolicy=Foreground", Value::Null, "foregroundDeletion"),
        ("", json!({"propagationPolicy": "Orphan"}), "orphan"),
        ("", json!({"orphanDependents": true}), "orphan"),
    ] {
        cluster.create("apps/v1/deployments", "default", deployment("d", 1)).await;
        let marked = cluster.ok(&format!("DELETE {path}{query}"), body).await;
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        cluster.ok(&format!("PATCH {path}"), json!({"metadata": {"finalizers": []}})).await;
        assert!(is_gone(&cluster, path).await);
    }
    cluster.create("apps/v1/deployments", "default", deployment("d", 1)).await;
    let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
    assert_eq!(cluster.refused(&format!("DELETE {path}"), both).await.0, 422);
    cluster.ok(&format!("DELETE {path}"), json!({"propagationPolicy": "Background"})).await;
    assert!(is_gone(&cluster, path).await);
}

#[tokio::test]
async fn preconditions_protect() {
    let cluster = Cluster::new().await;
    let created = cluster.create("configmaps", "default", config_map("x")).await;
    let path = format!("{CONFIG_MAPS}/x");
    for precondition in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let (code, message) = cluster.refused(&format!("DELETE {path}"), json!({"preconditions": precondition})).await;
        assert_eq!((code, message.contains("Precondition failed")), (409, true), "{message}");
    }
    let uid = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    cluster.ok(&format!("DELETE {path}"), uid).await;
}

#[tokio::test]
async fn collections_are_deleted_by_selection() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.create("pods", "default", pod(name)).await;
    }
    let deleted =
        cluster.ok("DELETE /api/v1/namespaces/default/pods?labelSelector=app%20in%20(a,c)", Value::Null).await;
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("PodList"), 2));
    let left = cluster.ok("GET /api/v1/pods", Value::Null).await;
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn namespaces_end_when_they_are_finalized() {
    let cluster = Cluster::new().await;
    let created = cluster.create("namespaces", "", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(
        (&created["status"]["phase"], &created["spec"]["finalizers"]),
        (&json!("Active"), &json!(["kubernetes"]))
    );
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let mut ending = cluster.ok("DELETE /api/v1/namespaces/n", Value::Null).await;
    assert_eq!(ending["status"]["phase"], "Terminating");
    let answer = cluster.ask("POST /api/v1/namespaces/n/configmaps", &[], &config_map("x").to_string()).await;
    assert_eq!((answer.code, &answer.json()["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")));
    ending["spec"]["finalizers"] = json!([]);
    cluster.ok("PUT /api/v1/namespaces/n/finalize", ending).await;
    assert!(is_gone(&cluster, "/api/v1/namespaces/n").await);
    assert_eq!(cluster.refused("DELETE /api/v1/namespaces/kube-system", Value::Null).await.0, 403);
}

#[tokio::test]
async fn events_are_forgotten_after_an_hour() {
    let cluster = Cluster::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reason": "R", "message": "m", "type": "Normal"});
    cluster.create("events", "default", event).await;
    tokio::time::pause();
    for (seconds, kept) in [(3_000, true), (700, false)] {
        cluster.pass(seconds);
        tokio::time::sleep(std::time::Duration::from_secs(61)).await;
        assert_eq!(!is_gone(&cluster, "/api/v1/namespaces/default/events/e").await, kept);
    }
}
