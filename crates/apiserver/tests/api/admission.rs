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

fn limit_range(limits: Value) -> Value {
    json!({"metadata": {"name": "limits"}, "spec": {"limits": [limits]}})
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let cluster = Cluster::new().await;
    let limits = json!({"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}});
    cluster.create("limitranges", "default", limit_range(limits)).await;
    let filled = cluster.create("pods", "default", pod("filled")).await;
    let resources = &filled["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}}));
    assert_eq!(filled["status"]["qosClass"], "Burstable", "it follows from what was filled in");
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let (code, message) = cluster.refused("POST /api/v1/namespaces/default/pods", large).await;
    let expected = "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    assert_eq!((code, message.as_str()), (403, expected));
}

#[tokio::test]
async fn namespaces_hold_pods_to_standards() {
    let cluster = Cluster::new().await;
    let label = |mode: &str, level: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{mode}"): level}}});
    let host = || {
        let mut host = pod("host");
        host["spec"]["hostNetwork"] = true.into();
        host["spec"]["containers"][0]["ports"] = json!([]);
        host
    };
    cluster.ok("PATCH /api/v1/namespaces/default", label("warn", "baseline")).await;
    let warned = cluster.ask("POST /api/v1/namespaces/default/pods", &[], &host().to_string()).await;
    let header = warned.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(warned.code, 201, "{}", warned.text);
    assert!(
        header.contains("would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostNetwork=true)"),
        "{header}"
    );
    let body = label("enforce", "baseline").to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let warned = cluster.ask("PATCH /api/v1/namespaces/default", &headers, &body).await;
    assert_eq!((warned.code, warned.headers.get_all("warning").iter().count()), (200, 2), "{:?}", warned.headers);
    cluster.ok("DELETE /api/v1/namespaces/default/pods/host", Value::Null).await;
    let (code, message) = cluster.refused("POST /api/v1/namespaces/default/pods", host()).await;
    let expected =
        "pods \"host\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert_eq!((code, message.as_str()), (403, expected));
    let (code, message) = cluster.refused("PATCH /api/v1/namespaces/default", label("enforce", "lax")).await;
    let expected =
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"lax\": must be one of privileged";
    assert!(code == 422 && message.contains(expected), "{message}");
}

#[tokio::test]
async fn claims_get_the_default_class() {
    let cluster = Cluster::new().await;
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "fast", "annotations": annotations}, "provisioner": "example.com/disk"});
    cluster.create("storage.k8s.io/v1/storageclasses", "", class).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    let claim = cluster.create("persistentvolumeclaims", "default", claim).await;
    assert_eq!(claim["spec"]["storageClassName"], "fast");
}

#[tokio::test]
async fn node_agents_keep_to_their_own_node() {
    let cluster = Cluster::new().await;
    cluster.create("nodes", "", json!({"metadata": {"name": "b"}})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "agents"}, "rules": rules});
    cluster.create("rbac.authorization.k8s.io/v1/clusterroles", "", role).await;
    let subjects = json!([{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}]);
    let reference = json!({"kind": "ClusterRole", "name": "agents", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "agents"}, "roleRef": reference, "subjects": subjects});
    cluster.create("rbac.authorization.k8s.io/v1/clusterrolebindings", "", binding).await;
    let agent = cluster.user(isopod_apiserver::UserInfo::new("system:node:a", ["system:nodes"]));
    agent.create("nodes", "", json!({"metadata": {"name": "a"}})).await;
    let (code, message) = agent.refused("PATCH /api/v1/nodes/b", json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((code, message.contains("node \"a\" is not allowed to modify node \"b\"")), (403, true), "{message}");
}

/// Waits until the server, which is told of changes, has counted.
async fn used(cluster: &Cluster, name: &str, expected: Value) {
    let path = format!("GET /api/v1/namespaces/default/resourcequotas/{name}");
    let mut found = Value::Null;
    for _ in 0..500 {
        found = cluster.ok(&path, Value::Null).await["status"]["used"].clone();
        if found == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{name}: wanted {expected}, found {found}");
}

#[tokio::test]
async fn quotas_are_charged_and_met() {
    let cluster = Cluster::new().await;
    cluster.create("pods", "default", pod("first")).await;
    let hard = json!({"pods": "3", "count/configmaps": "1", "services.nodeports": "0"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    cluster.create("resourcequotas", "default", quota).await;
    used(&cluster, "q", json!({"count/configmaps": "0", "pods": "1", "services.nodeports": "0"})).await;
    let creations = (0..12).map(|at| {
        let cluster = cluster.clone();
        async move {
            let body = pod(&format!("p{at}")).to_string();
            cluster.ask("POST /api/v1/namespaces/default/pods", &[], &body).await
        }
    });
    let answers = futures::future::join_all(creations).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.code != 201).collect();
    assert_eq!(refused.len(), 10);
    for answer in refused {
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        let expected = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3";
        assert!(answer.code == 403 && message.ends_with(expected), "{message}");
    }
    let full = json!({"count/configmaps": "0", "pods": "3", "services.nodeports": "0"});
    used(&cluster, "q", full).await;
    cluster.ok("DELETE /api/v1/namespaces/default/pods/first", Value::Null).await;
    used(&cluster, "q", json!({"count/configmaps": "0", "pods": "2", "services.nodeports": "0"})).await;
    let map = crate::harness::config_map("one");
    let dry = "POST /api/v1/namespaces/default/configmaps?dryRun=All";
    cluster.ok(dry, map.clone()).await;
    cluster.create("configmaps", "default", map.clone()).await;
    let (code, message) = cluster.refused(dry, crate::harness::config_map("two")).await;
    assert_eq!(
        (code, message.contains("used: count/configmaps=1, limited: count/configmaps=1")),
        (403, true),
        "{message}"
    );
    let service = |ty: &str| json!({"metadata": {"name": "s"}, "spec": {"type": ty, "ports": [{"port": 80}]}});
    cluster.create("services", "default", service("ClusterIP")).await;
    let (code, message) =
        cluster.refused("PATCH /api/v1/namespaces/default/services/s", json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!((code, message.contains("requested: services.nodeports=1")), (403, true), "{message}");
}

#[tokio::test]
async fn a_charge_for_nothing_is_taken_back() {
    let cluster = Cluster::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "5"}}});
    cluster.create("resourcequotas", "default", quota).await;
    cluster.create("configmaps", "default", crate::harness::config_map("one")).await;
    for _ in 0..3 {
        let again = crate::harness::config_map("one");
        assert_eq!(cluster.refused("POST /api/v1/namespaces/default/configmaps", again).await.0, 409);
    }
    used(&cluster, "q", json!({"count/configmaps": "1"})).await;
    let stricter = json!({"spec": {"hard": {"count/configmaps": "1", "secrets": "2"}}});
    cluster.ok("PATCH /api/v1/namespaces/default/resourcequotas/q", stricter).await;
    let two = crate::harness::config_map("two");
    let (code, message) = cluster.refused("POST /api/v1/namespaces/default/configmaps", two).await;
    let expected =
        "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1";
    assert_eq!((code, message.contains(expected)), (403, true), "{message}");
    used(&cluster, "q", json!({"count/configmaps": "1", "secrets": "0"})).await;
}
