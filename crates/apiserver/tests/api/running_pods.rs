//! What may be changed of a pod that runs, through paths of its own: ephemeral containers, and what containers may use.

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

/// A pod of one container with requests of a tenth of a processor.
fn small() -> Value {
    let mut small = pod("p");
    small["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}});
    small
}

fn resources(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "main", "resources": resources}]}})
}

#[tokio::test]
async fn a_pod_is_resized_and_nothing_else_is_changed() {
    let cluster = Cluster::new().await;
    let created = cluster.create("pods", "default", small()).await;
    let path = format!("{POD}/resize");
    assert_eq!(cluster.ok(&format!("GET {path}"), Value::Null).await["metadata"]["uid"], created["metadata"]["uid"]);
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let mut more = resources(json!({"requests": {"cpu": "200m"}}));
    more["metadata"] = json!({"labels": {"no": "no"}});
    more["spec"]["activeDeadlineSeconds"] = 9.into();
    more["spec"]["containers"][0]["image"] = "other".into();
    let answer = cluster.ask(&format!("PATCH {path}"), &strategic, &more.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    let resized = answer.json();
    assert_eq!(
        resized["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}})
    );
    assert_eq!(
        (&resized["metadata"]["generation"], &resized["spec"]["containers"][0]["image"]),
        (&json!(2), &json!("nginx"))
    );
    assert_eq!(
        (&resized["metadata"]["labels"], &resized["spec"]["activeDeadlineSeconds"]),
        (&json!({"app": "p"}), &Value::Null)
    );
    let mut whole = resized.clone();
    whole["spec"]["containers"][0]["resources"]["limits"]["memory"] = "256Mi".into();
    assert_eq!(cluster.ok(&format!("PUT {path}"), whole).await["metadata"]["generation"], 3);
    let table = [
        (
            json!({"limits": {"memory": null}}),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!({"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"cpu": "200m"}}),
            "Pod QOS Class may not change as a result of resizing",
        ),
        (
            json!({"requests": {"ephemeral-storage": "1Gi"}}),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (json!({"requests": {"memory": "1Gi"}}), "must be less than or equal to memory limit of 256Mi"),
    ];
    for (change, part) in table {
        let answer = cluster.ask(&format!("PATCH {path}"), &strategic, &resources(change).to_string()).await;
        assert_eq!((answer.code, answer.json().to_string().contains(part)), (422, true), "{part}: {}", answer.json());
    }
    // Through the pod itself nothing of it changes.
    let answer = cluster
        .ask(&format!("PATCH {POD}"), &strategic, &resources(json!({"requests": {"cpu": "1"}})).to_string())
        .await;
    assert_eq!(answer.code, 422, "{}", answer.json());
    let apply = [("content-type", "application/apply-patch+yaml")];
    let mut config = resources(json!({"requests": {"cpu": "300m"}}));
    (config["apiVersion"], config["kind"], config["metadata"]) = (json!("v1"), json!("Pod"), json!({"name": "p"}));
    config["spec"]["containers"][0]["image"] = "not-mine".into();
    let answer =
        cluster.ask(&format!("PATCH {path}?fieldManager=sizer&force=true"), &apply, &config.to_string()).await.json();
    let entries = answer["metadata"]["managedFields"].as_array().unwrap();
    let own = entries.iter().find(|entry| entry["manager"] == "sizer").unwrap();
    let container = &own["fieldsV1"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"];
    assert!(container["f:resources"]["f:requests"]["f:cpu"].is_object(), "{own}");
    assert_eq!((&own["subresource"], &container["f:image"]), (&json!("resize"), &Value::Null));
}

#[tokio::test]
async fn limits_and_quotas_hold_for_what_is_resized() {
    let cluster = Cluster::new().await;
    let limits = json!([{"type": "Container", "max": {"memory": "200Mi"}}]);
    cluster.create("limitranges", "default", json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "150m"}}});
    cluster.create("resourcequotas", "default", quota).await;
    cluster.create("pods", "default", small()).await;
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    for (change, part) in [
        (json!({"limits": {"memory": "201Mi"}}), "maximum memory usage per Container is 200Mi, but limit is 201Mi"),
        (
            json!({"requests": {"cpu": "151m"}}),
            "exceeded quota: q, requested: requests.cpu=51m, used: requests.cpu=100m, limited: requests.cpu=150m",
        ),
    ] {
        let answer = cluster.ask(&format!("PATCH {POD}/resize"), &strategic, &resources(change).to_string()).await;
        assert_eq!(
            (answer.code, answer.json()["message"].as_str().unwrap().contains(part)),
            (403, true),
            "{}",
            answer.json()
        );
    }
    let within = resources(json!({"requests": {"cpu": "150m"}}));
    assert_eq!(cluster.ask(&format!("PATCH {POD}/resize"), &strategic, &within.to_string()).await.code, 200);
    let quota = cluster.ok("GET /api/v1/namespaces/default/resourcequotas/q", Value::Null).await;
    assert_eq!(quota["status"]["used"]["requests.cpu"], "150m");
}
