//! What the cluster adds to pods, from objects in the store.

use serde_json::{Value, json};

use crate::harness::{Cluster, pod};

#[tokio::test]
async fn pods_follow_fargate_profiles() {
    let cluster = Cluster::new().await;
    let profile = json!({
        "apiVersion": "isopod.dev/v1alpha1", "kind": "FargateProfile", "metadata": {"name": "fp-web"},
        "spec": {"selectors": [{"namespace": "default", "labels": {"app": "web"}}]},
    });
    cluster.create("isopod.dev/v1alpha1/fargateprofiles", "", profile).await;
    let web = cluster.create("pods", "default", pod("web")).await;
    assert_eq!(web["metadata"]["labels"]["eks.amazonaws.com/fargate-profile"], "fp-web");
    assert_eq!(
        (&web["spec"]["schedulerName"], &web["spec"]["priority"]),
        (&json!("fargate-scheduler"), &json!(2_000_001_000))
    );
    let other = cluster.create("pods", "default", pod("other")).await;
    assert_eq!((&other["spec"]["schedulerName"], &other["spec"]["priority"]), (&json!("default-scheduler"), &json!(0)));
    assert_eq!(other["spec"]["serviceAccountName"], "default");
    let mounts = &other["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
}

#[tokio::test]
async fn pods_that_are_not_admitted() {
    let cluster = Cluster::new().await;
    let table = [
        (
            "kube-public",
            json!({}),
            "error looking up service account kube-public/default: serviceaccount \"default\" not found",
        ),
        ("default", json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
    ];
    for (namespace, spec, part) in table {
        let mut pod = pod("p");
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let (code, message) = cluster.refused(&format!("POST /api/v1/namespaces/{namespace}/pods"), pod).await;
        assert_eq!((code, message.contains(part)), (403, true), "{message}");
    }
    let class = json!({"metadata": {"name": "high"}, "value": 1000, "globalDefault": true});
    cluster.create("scheduling.k8s.io/v1/priorityclasses", "", class).await;
    let pod = cluster.create("pods", "default", pod("p")).await;
    assert_eq!((&pod["spec"]["priorityClassName"], &pod["spec"]["priority"]), (&json!("high"), &json!(1000)));
    assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    assert_ne!(pod["metadata"]["uid"], Value::Null);
}
