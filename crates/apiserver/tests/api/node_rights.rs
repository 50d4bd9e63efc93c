//! What node agents may read.

use isopod_apiserver::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Cluster, pod};

async fn bound(cluster: &Cluster, name: &str, node: &str, more: Value) {
    let mut object = pod(name);
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    cluster.create("pods", "default", object).await;
    let target = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
    cluster.ok(&format!("POST /api/v1/namespaces/default/pods/{name}/binding"), target).await;
}

#[tokio::test]
async fn node_agents_read_what_their_pods_refer_to() {
    let cluster = Cluster::new().await;
    for name in ["key", "env", "pull", "projected", "other"] {
        cluster.create("secrets", "default", json!({"metadata": {"name": name}})).await;
        cluster.create("configmaps", "default", json!({"metadata": {"name": name}})).await;
    }
    let claim = |name: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    for name in ["data", "p-scratch", "other"] {
        cluster.create("persistentvolumeclaims", "default", claim(name)).await;
    }
    let volumes = json!([
        {"name": "key", "secret": {"secretName": "key"}},
        {"name": "maps", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected"}}]}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim("x")["spec"]}}},
    ]);
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}}]);
    let containers = json!([{"name": "main", "image": "x", "env": env, "envFrom": [{"secretRef": {"name": "env"}}]}]);
    bound(
        &cluster,
        "p",
        "n",
        json!({"volumes": volumes, "containers": containers, "imagePullSecrets": [{"name": "pull"}]}),
    )
    .await;
    bound(&cluster, "q", "m", json!({"imagePullSecrets": [{"name": "other"}]})).await;
    let agent = cluster.user(UserInfo::new("system:node:n", ["system:nodes"]));
    let table = [
        ("GET secrets/key", true),
        ("GET secrets/env", true),
        ("GET secrets/pull", true),
        ("GET secrets/projected", true),
        ("GET secrets/other", false),
        ("GET secrets?fieldSelector=metadata.name%3Dkey", true),
        ("GET secrets?fieldSelector=metadata.name%3Dother", false),
        ("GET secrets", false),
        ("GET configmaps/env", true),
        ("GET configmaps/projected", true),
        ("GET configmaps/key", false),
        ("GET persistentvolumeclaims/data", true),
        ("GET persistentvolumeclaims/p-scratch", true),
        ("GET persistentvolumeclaims/other", false),
        ("DELETE secrets/key", false),
        ("GET serviceaccounts/default", true),
        ("GET pods", true),
        ("GET services", true),
        ("GET resourcequotas", false),
    ];
    for (line, allowed) in table {
        let (method, rest) = line.split_once(' ').unwrap();
        let answer = agent.ask(&format!("{method} /api/v1/namespaces/default/{rest}"), &[], "").await;
        assert_eq!(answer.code == 200, allowed, "{line}: {}", answer.text);
    }
    let (_, message) = agent.refused("GET /api/v1/namespaces/default/secrets/other", Value::Null).await;
    assert!(
        message.ends_with("in the namespace \"default\": no relationship found between node 'n' and this object"),
        "{message}"
    );
    let stranger = cluster.user(UserInfo::new("system:node:n", ["devs"]));
    assert_eq!(
        stranger.refused("GET /api/v1/namespaces/default/secrets/key", Value::Null).await.0,
        403,
        "not a node agent"
    );
    // With the pod goes what it gave.
    cluster.ok("DELETE /api/v1/namespaces/default/pods/p?gracePeriodSeconds=0", Value::Null).await;
    assert_eq!(agent.refused("GET /api/v1/namespaces/default/secrets/key", Value::Null).await.0, 403);
    let lease = |name: &str| json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    agent.ok(&format!("POST {leases}"), lease("n")).await;
    cluster.ok(&format!("POST {leases}"), lease("m")).await;
    assert_eq!(agent.refused(&format!("GET {leases}/m"), Value::Null).await.0, 403);
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "name": "other", "namespace": "default"}}});
    let asked = agent.ok("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert_eq!(asked["status"]["allowed"], false);
}
