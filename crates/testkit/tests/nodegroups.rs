//! Node groups over simulated machines: nodes come up, run many pods, are adopted, drained and removed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use isopod_testkit::TestCluster;
use serde_json::{Value, json};

const GROUPS: &str = "/apis/isopod.dev/v1alpha1/nodegroups";

async fn group(cluster: &TestCluster, desired: i64) {
    let spec = json!({
        "instanceType": "t3.medium", "minSize": 0, "maxSize": 3, "desiredSize": desired, "volumeSizeGib": 20,
        "labels": {"tier": "db"},
    });
    let group = json!({"apiVersion": "isopod.dev/v1alpha1", "kind": "NodeGroup", "metadata": {"name": "workers"}, "spec": spec});
    cluster.create(GROUPS, group).await.unwrap();
}

async fn wait_for_group(cluster: &TestCluster, phase: &str, ready: i64) {
    let path = format!("{GROUPS}/workers");
    let right = |group: &Value| group["status"]["phase"] == phase && group["status"]["readyNodes"] == ready;
    cluster.wait_for(&path, "the group's size", right).await.unwrap();
}

/// A namespace that no profile matches.
async fn namespace(cluster: &TestCluster) {
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "apps"}})).await.unwrap();
    let account = "/api/v1/namespaces/apps/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
}

async fn deployment(cluster: &TestCluster, replicas: i64) {
    namespace(cluster).await;
    let container =
        json!({"name": "c", "image": "web", "command": ["serve"], "resources": {"requests": {"cpu": "100m"}}});
    let labels = json!({"app": "web"});
    let spec = json!({
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}},
    });
    cluster
        .create("/apis/apps/v1/namespaces/apps/deployments", json!({"metadata": {"name": "web"}, "spec": spec}))
        .await
        .unwrap();
}

async fn wait_for_available(cluster: &TestCluster, replicas: i64) {
    let path = "/apis/apps/v1/namespaces/apps/deployments/web";
    cluster.wait_for(path, "replicas", |found| found["status"]["availableReplicas"] == replicas).await.unwrap();
}

async fn pods(cluster: &TestCluster) -> Vec<Value> {
    let pods = cluster.list("/api/v1/namespaces/apps/pods").await;
    pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_no_profile_share_the_nodes_of_a_group() {
    let cluster = TestCluster::start("groups").await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    wait_for_group(&cluster, "ACTIVE", 1).await;
    deployment(&cluster, 3).await;
    wait_for_available(&cluster, 3).await;
    let found = pods(&cluster).await;
    let nodes: std::collections::BTreeSet<&str> =
        found.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    let addresses: std::collections::BTreeSet<&str> =
        found.iter().map(|pod| pod["status"]["podIP"].as_str().unwrap()).collect();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    let node = cluster.get(&format!("/api/v1/nodes/{}", nodes.first().unwrap())).await.unwrap();
    let address = &node["status"]["addresses"][0]["address"];
    assert!(found.iter().all(|pod| pod["status"]["hostIP"] == *address), "{address}");
    assert_eq!(
        (&node["status"]["allocatable"]["cpu"], &node["metadata"]["labels"]["tier"]),
        (&json!("1930m"), &json!("db"))
    );
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", nodes.first().unwrap());
    cluster.wait_for(&lease, "a lease", |lease| lease["spec"]["renewTime"].is_string()).await.unwrap();
    // Another agent takes up the node and its pods; nothing is started again.
    let before = cluster.host.nodes();
    assert_eq!(before.values().next().unwrap().len(), 3);
    agent.cancel();
    let _agent = cluster.start_agent().await.unwrap();
    wait_for_available(&cluster, 3).await;
    assert_eq!(cluster.host.nodes(), before);
    assert!(pods(&cluster).await.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_scaled_by_draining_and_leave_nothing_behind() {
    let cluster = TestCluster::start("scaled").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 2).await;
    wait_for_group(&cluster, "ACTIVE", 2).await;
    deployment(&cluster, 4).await;
    wait_for_available(&cluster, 4).await;
    let path = format!("{GROUPS}/workers");
    cluster.patch(&path, json!({"spec": {"desiredSize": 1}})).await.unwrap();
    wait_for_group(&cluster, "ACTIVE", 1).await;
    wait_for_available(&cluster, 4).await;
    assert_eq!(cluster.list("/api/v1/nodes").await.len(), 1);
    cluster.wait_until("the machine's end", || cluster.host.nodes().len() == 1).await.unwrap();
    // A group that goes takes its nodes; its pods wait for another.
    cluster.delete(&path).await.unwrap();
    cluster.wait_for_gone(&path).await.unwrap();
    assert!(cluster.list("/api/v1/nodes").await.is_empty());
    cluster.wait_until("the machines' end", || cluster.host.nodes().is_empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_grows_for_pods_that_do_not_fit() {
    let cluster = TestCluster::start("grows").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    namespace(&cluster).await;
    let pod = |name: &str, cpu: &str| {
        let container =
            json!({"name": "c", "image": "web", "command": ["serve"], "resources": {"requests": {"cpu": cpu}}});
        json!({"metadata": {"name": name}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}})
    };
    // Each asks for more than half of a node, the last for more than any has.
    for (name, cpu) in [("a", "1200m"), ("b", "1200m"), ("huge", "3")] {
        cluster.create("/api/v1/namespaces/apps/pods", pod(name, cpu)).await.unwrap();
    }
    for name in ["a", "b"] {
        let path = format!("/api/v1/namespaces/apps/pods/{name}");
        cluster.wait_for(&path, "the pod", |pod| pod["status"]["phase"] == "Running").await.unwrap();
    }
    wait_for_group(&cluster, "ACTIVE", 2).await;
    let group = cluster.get(&format!("{GROUPS}/workers")).await.unwrap();
    assert_eq!(group["spec"]["desiredSize"], 2);
    assert!(group["metadata"]["annotations"]["isopod.dev/grown-at"].is_string(), "{group}");
    let events = cluster.list("/api/v1/namespaces/apps/events").await;
    let said = |reason: &str| -> Vec<&str> {
        let of = |event: &&Value| event["reason"] == reason && event["source"]["component"] == "cluster-autoscaler";
        events.iter().filter(of).filter_map(|event| event["message"].as_str()).collect()
    };
    assert!(said("TriggeredScaleUp").contains(&"pod triggered scale-up: [{workers 1->2 (max: 3)}]"), "{events:?}");
    let refused = "pod didn't trigger scale-up: 1 Insufficient cpu";
    assert!(said("NotTriggerScaleUp").contains(&refused), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_crashes_comes_back_with_its_pods() {
    let cluster = TestCluster::start("crash").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    deployment(&cluster, 2).await;
    wait_for_available(&cluster, 2).await;
    let before = pods(&cluster).await;
    cluster.host.kill_all();
    for pod in &before {
        let path = format!("/api/v1/namespaces/apps/pods/{}", pod["metadata"]["name"].as_str().unwrap());
        let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1);
        cluster.wait_for(&path, "a restart", restarted).await.unwrap();
    }
    wait_for_available(&cluster, 2).await;
    wait_for_group(&cluster, "ACTIVE", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claims_disk_is_made_for_its_pod_and_goes_with_it() {
    let cluster = TestCluster::start("disks").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    let class = json!({"metadata": {"name": "tb-gp2"}, "provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "Immediate"});
    cluster.create("/apis/storage.k8s.io/v1/storageclasses", class).await.unwrap();
    namespace(&cluster).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "tb-gp2", "resources": {"requests": {"storage": "25Mi"}}});
    let claims = "/api/v1/namespaces/apps/persistentvolumeclaims";
    cluster.create(claims, json!({"metadata": {"name": "data"}, "spec": spec})).await.unwrap();
    let pod = json!({
        "metadata": {"name": "db"},
        "spec": {
            "containers": [{"name": "c", "image": "mysql", "command": ["serve"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "terminationGracePeriodSeconds": 1,
        },
    });
    cluster.create("/api/v1/namespaces/apps/pods", pod).await.unwrap();
    let path = "/api/v1/namespaces/apps/pods/db";
    cluster.wait_for(path, "the pod", |pod| pod["status"]["phase"] == "Running").await.unwrap();
    assert_eq!(cluster.host.volumes().len(), 1);
    cluster.delete(path).await.unwrap();
    cluster.delete(&format!("{claims}/data")).await.unwrap();
    let name = cluster.list("/api/v1/persistentvolumes").await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.wait_for_gone(&format!("/api/v1/persistentvolumes/{name}")).await.unwrap();
    assert!(cluster.host.volumes().is_empty());
}
