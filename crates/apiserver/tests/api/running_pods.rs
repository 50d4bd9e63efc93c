//! What may be changed of a pod that runs, through paths of its own: ephemeral containers.

use serde_json::{Value, json};

use crate::harness::{Cluster, pod};

const POD: &str = "/api/v1/namespaces/default/pods/p";

#[tokio::test]
async fn ephemeral_containers_are_added_and_nothing_else_is_changed() {
    let cluster = Cluster::new().await;
    let created = cluster.create("pods", "default", pod("p")).await;
    let path = format!("{POD}/ephemeralcontainers");
    assert_eq!(cluster.ok(&format!("GET {path}"), Value::Null).await["metadata"]["uid"], created["metadata"]["uid"]);
    let mut whole = created.clone();
    whole["spec"]["ephemeralContainers"] = json!([{"name": "d1", "image": "busybox"}]);
    whole["spec"]["activeDeadlineSeconds"] = 9.into();
    whole["metadata"]["labels"] = json!({"no": "no"});
    whole["status"]["phase"] = "Failed".into();
    let put = cluster.ok(&format!("PUT {path}"), whole.clone()).await;
    assert_eq!(
        (&put["spec"]["activeDeadlineSeconds"], &put["metadata"]["labels"], &put["status"]),
        (&Value::Null, &created["metadata"]["labels"], &created["status"])
    );
    assert_eq!((&put["metadata"]["generation"], &created["metadata"]["generation"]), (&json!(2), &json!(1)));
    let added = &put["spec"]["ephemeralContainers"][0];
    assert_eq!(
        (&added["imagePullPolicy"], &added["terminationMessagePath"]),
        (&json!("Always"), &json!("/dev/termination-log"))
    );
    assert_eq!(cluster.refused(&format!("PUT {path}"), whole).await.0, 409, "an old version");
    let more =
        json!({"spec": {"ephemeralContainers": [{"name": "d2", "image": "busybox", "targetContainerName": "main"}]}});
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let answer = cluster.ask(&format!("PATCH {path}"), &strategic, &more.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    let list = answer.json()["spec"]["ephemeralContainers"].as_array().unwrap().len();
    assert_eq!((list, &answer.json()["metadata"]["generation"]), (2, &json!(3)));
    // The pod itself takes neither more nor less of them.
    for change in [json!([]), json!([{"name": "d3", "image": "busybox"}])] {
        let (code, message) =
            cluster.refused(&format!("PATCH {POD}"), json!({"spec": {"ephemeralContainers": change}})).await;
        assert_eq!((code, message.contains("pod updates may not change fields other than")), (422, true), "{message}");
    }
    let (code, message) = cluster.refused(&format!("PATCH {path}"), json!({"spec": {"ephemeralContainers": []}})).await;
    assert_eq!(
        (code, message.contains("existing ephemeral containers \"d1\" may not be removed")),
        (422, true),
        "{message}"
    );
    assert_eq!(cluster.refused(&format!("DELETE {path}"), Value::Null).await.0, 405);
}

#[tokio::test]
async fn who_applies_ephemeral_containers_owns_them() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let config = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"not": "mine"}},
        "spec": {"ephemeralContainers": [{"name": "d", "image": "busybox"}], "hostname": "not-mine"},
    });
    let apply = [("content-type", "application/apply-patch+yaml")];
    let line = format!("PATCH {POD}/ephemeralcontainers?fieldManager=debugger");
    let answer = cluster.ask(&line, &apply, &config.to_string()).await.json();
    let entries = answer["metadata"]["managedFields"].as_array().unwrap();
    let own = entries.iter().find(|entry| entry["manager"] == "debugger").unwrap();
    assert_eq!((&own["operation"], &own["subresource"]), (&json!("Apply"), &json!("ephemeralcontainers")));
    let spec = &own["fieldsV1"]["f:spec"];
    assert!(spec["f:ephemeralContainers"]["k:{\"name\":\"d\"}"]["f:image"].is_object(), "{own}");
    assert_eq!((&spec["f:hostname"], &own["fieldsV1"]["f:metadata"]), (&Value::Null, &Value::Null));
    assert_eq!(answer["metadata"]["labels"]["not"], Value::Null);
}

#[tokio::test]
async fn pod_security_sees_ephemeral_containers() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("p")).await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    cluster.ok("PATCH /api/v1/namespaces/default", labels).await;
    let privileged = json!([{"name": "d", "image": "busybox", "securityContext": {"privileged": true}}]);
    let patch = json!({"spec": {"ephemeralContainers": privileged}});
    let (code, message) = cluster.refused(&format!("PATCH {POD}/ephemeralcontainers"), patch).await;
    assert_eq!((code, message.contains("violates PodSecurity \"baseline")), (403, true), "{message}");
}
