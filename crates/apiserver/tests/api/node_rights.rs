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
        ("GET pods", false),
        ("GET pods?fieldSelector=spec.nodeName%3Dn", true),
        ("GET pods?fieldSelector=spec.nodeName%3Dm", false),
        ("GET pods?fieldSelector=spec.nodeName!%3Dm", false),
        ("GET pods?fieldSelector=metadata.name%3Dp", true),
        ("GET pods/p", true),
        ("GET pods/q", false),
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

/// Asks for rights: `verb group resource[/subresource] [namespace/]name`.
async fn may(user: &Cluster, line: &str) -> (bool, String) {
    let words: Vec<&str> = line.split(' ').collect();
    let [verb, group, resource, name] = words.as_slice() else { panic!("{line}") };
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let (name, field) = name.split_once('?').unwrap_or((name, ""));
    let group = if *group == "core" { "" } else { group };
    let mut attributes = json!({
        "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace, "name": name,
    });
    if !field.is_empty() {
        attributes["fieldSelector"] = json!({"rawSelector": field});
    }
    let review = json!({"spec": {"resourceAttributes": attributes}});
    let asked = user.ok("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    let status = &asked["status"];
    (status["allowed"] == true, status["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn node_agents_see_their_own_node_and_what_its_pods_need() {
    let cluster = Cluster::new().await;
    bound(&cluster, "p", "n", json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]})).await;
    let mirror = json!({
        "metadata": {"name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "x"}], "imagePullSecrets": [{"name": "key"}]},
    });
    cluster.create("pods", "default", mirror).await;
    let attachment = json!({
        "metadata": {"name": "a"}, "spec": {"attacher": "x", "nodeName": "n", "source": {"persistentVolumeName": "v"}},
    });
    cluster.create("storage.k8s.io/v1/volumeattachments", "", attachment).await;
    let agent = cluster.user(UserInfo::new("system:node:n", ["system:nodes"]));
    let table = [
        ("get core nodes n", ""),
        ("get core nodes m", "node 'n' cannot read 'm', only its own Node object"),
        ("list core nodes ", "node 'n' cannot read all nodes, only its own Node object"),
        ("watch core nodes n", ""),
        ("delete core nodes n", "-"),
        ("patch core nodes/status n", ""),
        ("update core pods/status default/p", ""),
        ("update core pods default/p", "-"),
        ("create core pods/eviction default/p", ""),
        ("create core pods/exec default/p", "-"),
        ("list core pods default/?spec.nodeName=n", ""),
        ("list core pods default/?spec.nodeName=m", "can only list/watch pods with spec.nodeName field selector"),
        ("get core secrets default/key", "no relationship found between node 'n' and this object"),
        ("list core secrets default/", "No Object name found"),
        ("delete core secrets default/key", "can only read resources of this type"),
        ("get resource.k8s.io resourceclaims default/gpu", ""),
        ("get resource.k8s.io resourceclaims default/other", "no relationship found"),
        ("list resource.k8s.io resourceclaims default/gpu", "can only get individual resources of this type"),
        ("list resource.k8s.io resourceslices ?spec.nodeName=n", ""),
        ("list resource.k8s.io resourceslices ", "with nodeName field selector"),
        ("create resource.k8s.io resourceslices ", ""),
        ("get storage.k8s.io volumeattachments a", ""),
        ("get storage.k8s.io volumeattachments b", "no relationship found"),
        ("create storage.k8s.io csinodes ", ""),
        ("get storage.k8s.io csinodes m", "can only access CSINode with the same name"),
        ("get coordination.k8s.io leases default/n", "in the \"kube-node-lease\" system namespace"),
        (
            "list coordination.k8s.io leases kube-node-lease/n",
            "can only get, create, update, patch, or delete a node lease",
        ),
        ("create core serviceaccounts/token default/default", ""),
        ("create core serviceaccounts/token default/other", "no relationship found"),
        ("create core serviceaccounts default/", "can only create tokens for individual service accounts"),
        ("watch core services ", ""),
        ("watch core namespaces ", "-"),
    ];
    for (line, why) in table {
        let (allowed, reason) = may(&agent, line).await;
        assert_eq!(allowed, why.is_empty(), "{line}: {reason}");
        assert!(reason.contains(why.trim_start_matches('-')), "{line}: {reason}");
    }
}
