//! Node groups over simulated machines: nodes come up, run many pods, are adopted, drained and removed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use isopod_testkit::TestCluster;
use serde_json::{Value, json};

const GROUPS: &str = "/apis/isopod.dev/v1alpha1/nodegroups";
const PODS: &str = "/api/v1/namespaces/apps/pods";
const CLAIMS: &str = "/api/v1/namespaces/apps/persistentvolumeclaims";

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
    let now = cluster.get(&format!("/api/v1/nodes/{}", nodes.first().unwrap())).await.unwrap();
    assert_eq!(now["status"]["nodeInfo"]["bootID"], node["status"]["nodeInfo"]["bootID"]);
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
    let info = |node: &Value, field: &str| node["status"]["nodeInfo"][field].as_str().unwrap_or_default().to_owned();
    let node = cluster.list("/api/v1/nodes").await.remove(0);
    assert_eq!(info(&node, "systemUUID"), node["metadata"]["uid"].as_str().unwrap());
    cluster.host.kill_all();
    for pod in &before {
        let path = format!("/api/v1/namespaces/apps/pods/{}", pod["metadata"]["name"].as_str().unwrap());
        let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1);
        cluster.wait_for(&path, "a restart", restarted).await.unwrap();
    }
    wait_for_available(&cluster, 2).await;
    wait_for_group(&cluster, "ACTIVE", 1).await;
    let again = cluster.list("/api/v1/nodes").await.remove(0);
    assert_eq!(info(&again, "machineID"), info(&node, "machineID"));
    assert!(!info(&again, "bootID").is_empty());
    assert_ne!(info(&again, "bootID"), info(&node, "bootID"));
}

/// A namespace with a claim of 25 MiB.
/// Of two pods of a node, the one that wants what the other has waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_resize_waits_for_room_on_its_node() {
    let cluster = TestCluster::start("resize-node").await.unwrap();
    cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    wait_for_group(&cluster, "ACTIVE", 1).await;
    namespace(&cluster).await;
    let pods = PODS;
    let pod = |name: &str| {
        let resources = json!({"requests": {"cpu": "900m"}});
        let container = json!({"name": "c", "image": "busybox", "command": ["serve"], "resources": resources});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}})
    };
    for name in ["a", "b"] {
        cluster.create(pods, pod(name)).await.unwrap();
        let running = |pod: &Value| pod["status"]["phase"] == "Running";
        cluster.wait_for(&format!("{pods}/{name}"), "Running", running).await.unwrap();
    }
    let mut wanted = cluster.get(&format!("{pods}/a")).await.unwrap()["spec"]["containers"].clone();
    let mut resize = async |cpu: &str| {
        wanted[0]["resources"]["requests"]["cpu"] = json!(cpu);
        let patch = json!({"spec": {"containers": wanted}});
        cluster.patch(&format!("{pods}/a/resize"), patch).await.unwrap();
    };
    let pending = |reason: &'static str| {
        move |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array();
            let is_it = |one: &Value| one["type"] == "PodResizePending" && one["reason"] == reason;
            conditions.is_some_and(|all| all.iter().any(is_it))
        }
    };
    resize("40").await;
    cluster.wait_for(&format!("{pods}/a"), "a refusal", pending("Infeasible")).await.unwrap();
    resize("1500m").await;
    cluster.wait_for(&format!("{pods}/a"), "a delay", pending("Deferred")).await.unwrap();
    cluster.delete(&format!("{pods}/b")).await.unwrap();
    let has = |pod: &Value| pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == "1500m";
    cluster.wait_for(&format!("{pods}/a"), "what it waited for", has).await.unwrap();
}

async fn claim(cluster: &TestCluster) {
    let class = json!({"metadata": {"name": "tb-gp2"}, "provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "Immediate", "allowVolumeExpansion": true});
    cluster.create("/apis/storage.k8s.io/v1/storageclasses", class).await.unwrap();
    namespace(cluster).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "tb-gp2", "resources": {"requests": {"storage": "25Mi"}}});
    cluster.create(CLAIMS, json!({"metadata": {"name": "data"}, "spec": spec})).await.unwrap();
}

/// A pod that uses the claim; on a node, if one is named.
fn database(name: &str, node: &str) -> Value {
    let mut spec = json!({
        "containers": [{"name": "c", "image": "mysql", "command": ["serve"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "terminationGracePeriodSeconds": 1,
    });
    if !node.is_empty() {
        spec["nodeName"] = json!(node);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claims_disk_is_made_for_its_pod_and_goes_with_it() {
    let cluster = TestCluster::start("disks").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    claim(&cluster).await;
    cluster.create(PODS, database("db", "")).await.unwrap();
    let path = &format!("{PODS}/db");
    cluster.wait_for(path, "the pod", |pod| pod["status"]["phase"] == "Running").await.unwrap();
    assert_eq!(cluster.host.volumes().len(), 1);
    cluster.delete(path).await.unwrap();
    cluster.delete(&format!("{CLAIMS}/data")).await.unwrap();
    let name = cluster.list("/api/v1/persistentvolumes").await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.wait_for_gone(&format!("/api/v1/persistentvolumes/{name}")).await.unwrap();
    assert!(cluster.host.volumes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pod_of_a_stateful_set_has_a_disk_that_outlives_it() {
    let cluster = TestCluster::start("stateful-disks").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    claim(&cluster).await;
    let labels = json!({"app": "db"});
    let mut pod = database("db", "")["spec"].clone();
    pod["volumes"] = json!([]);
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "tb-gp2", "resources": {"requests": {"storage": "25Mi"}}},
    });
    let spec = json!({
        "replicas": 2, "serviceName": "db", "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod}, "volumeClaimTemplates": [claim],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
    });
    let sets = "/apis/apps/v1/namespaces/apps/statefulsets";
    cluster.create(sets, json!({"metadata": {"name": "db"}, "spec": spec})).await.unwrap();
    let set = format!("{sets}/db");
    cluster.wait_for(&set, "2 ready", |set| set["status"]["readyReplicas"] == 2).await.unwrap();
    for name in ["data-db-0", "data-db-1"] {
        assert_eq!(cluster.get(&format!("{CLAIMS}/{name}")).await.unwrap()["status"]["phase"], "Bound");
    }
    cluster.patch(&set, json!({"spec": {"replicas": 1}})).await.unwrap();
    cluster.wait_for_gone(&format!("{PODS}/db-1")).await.unwrap();
    assert_eq!(cluster.host.volumes().len(), 2);
    cluster.delete(&set).await.unwrap();
    for name in ["data-db-0", "data-db-1"] {
        cluster.wait_for_gone(&format!("{CLAIMS}/{name}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_in_one_machine_at_a_time() {
    let cluster = TestCluster::start("alone").await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    group(&cluster, 2).await;
    wait_for_group(&cluster, "ACTIVE", 2).await;
    claim(&cluster).await;
    let nodes = cluster.list("/api/v1/nodes").await;
    let node = |at: usize| nodes[at]["metadata"]["name"].as_str().unwrap();
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    // No scheduler looks at pods that name their node.
    for name in ["first", "beside"] {
        cluster.create(PODS, database(name, node(0))).await.unwrap();
        cluster.wait_for(&format!("{PODS}/{name}"), "a pod with the disk", running).await.unwrap();
    }
    // An agent that starts anew still knows who has it.
    agent.cancel();
    let _agent = cluster.start_agent().await.unwrap();
    cluster.create(PODS, database("other", node(1))).await.unwrap();
    let refused = |list: &Value| {
        let mut events = list["items"].as_array().into_iter().flatten();
        let words = "Volume is already exclusively attached to one node and can't be attached to another";
        events.any(|event| event["reason"] == "FailedAttachVolume" && event["message"].to_string().contains(words))
    };
    cluster.wait_for("/api/v1/namespaces/apps/events", "the words", refused).await.unwrap();
    cluster.delete(&format!("{PODS}/first")).await.unwrap();
    cluster.wait_for_gone(&format!("{PODS}/first")).await.unwrap();
    let other = cluster.get(&format!("{PODS}/other")).await.unwrap();
    assert_eq!(other["status"]["phase"], "Pending", "one of the pods still uses the disk");
    cluster.delete(&format!("{PODS}/beside")).await.unwrap();
    cluster.wait_for(&format!("{PODS}/other"), "its turn", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_grows_when_its_pod_starts_anew() {
    let cluster = TestCluster::start("growing").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    claim(&cluster).await;
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    cluster.create(PODS, database("db", "")).await.unwrap();
    cluster.wait_for(&format!("{PODS}/db"), "the pod", running).await.unwrap();
    let path = format!("{CLAIMS}/data");
    let ask = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    cluster.patch(&path, ask("3Gi")).await.unwrap();
    let pending = |claim: &Value| claim["status"]["conditions"][0]["type"] == "FileSystemResizePending";
    let found = cluster.wait_for(&path, "the volume's growth", pending).await.unwrap();
    assert_eq!(found["status"]["capacity"]["storage"], "1Gi");
    let volume = format!("/api/v1/persistentvolumes/{}", found["spec"]["volumeName"].as_str().unwrap());
    assert_eq!(cluster.get(&volume).await.unwrap()["spec"]["capacity"]["storage"], "3Gi");
    // What was not made yet may be taken back in part; what there is, may not.
    let refused = cluster.patch(&path, ask("1Gi")).await.unwrap_err().to_string();
    assert!(refused.contains("field can not be less than status.capacity"), "{refused}");
    cluster.delete(&format!("{PODS}/db")).await.unwrap();
    cluster.wait_for_gone(&format!("{PODS}/db")).await.unwrap();
    cluster.create(PODS, database("db", "")).await.unwrap();
    let grown = |claim: &Value| claim["status"]["capacity"]["storage"] == "3Gi" && !pending(claim);
    cluster.wait_for(&path, "the file system's growth", grown).await.unwrap();
    cluster
        .patch("/apis/storage.k8s.io/v1/storageclasses/tb-gp2", json!({"allowVolumeExpansion": false}))
        .await
        .unwrap();
    let refused = cluster.patch(&path, ask("4Gi")).await.unwrap_err().to_string();
    assert!(refused.contains("the storageclass that provisions the pvc must support resize"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_shrinks_when_a_node_was_not_needed_for_long() {
    let cluster = TestCluster::start("shrinks").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    group(&cluster, 2).await;
    wait_for_group(&cluster, "ACTIVE", 2).await;
    deployment(&cluster, 2).await;
    wait_for_available(&cluster, 2).await;
    const UNNEEDED: &str = "isopod.dev/unneeded-since";
    let since = |node: &Value| node["metadata"]["annotations"][UNNEEDED].as_str().map(str::to_owned);
    let noted = |list: &Value| list["items"].as_array().is_some_and(|all| all.iter().any(|node| since(node).is_some()));
    cluster.wait_for("/api/v1/nodes", "a node that is not needed", noted).await.unwrap();
    assert_eq!(cluster.get(&format!("{GROUPS}/workers")).await.unwrap()["spec"]["desiredSize"], 2, "not at once");
    // What is noted decides, so that ten minutes need not be waited for.
    for node in cluster.list("/api/v1/nodes").await.iter().filter(|node| since(node).is_some()) {
        let long_ago = json!({"metadata": {"annotations": {UNNEEDED: "2026-01-01T00:00:00Z"}}});
        cluster
            .patch(&format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap()), long_ago)
            .await
            .unwrap();
    }
    wait_for_group(&cluster, "ACTIVE", 1).await;
    assert_eq!(cluster.get(&format!("{GROUPS}/workers")).await.unwrap()["spec"]["desiredSize"], 1);
    wait_for_available(&cluster, 2).await;
    cluster.wait_until("the machine's end", || cluster.host.nodes().len() == 1).await.unwrap();
    assert_eq!(cluster.list("/api/v1/nodes").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_refuses_pods_that_it_cannot_take() {
    let cluster = TestCluster::start("refuses").await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    group(&cluster, 1).await;
    wait_for_group(&cluster, "ACTIVE", 1).await;
    namespace(&cluster).await;
    let node = cluster.list("/api/v1/nodes").await.remove(0)["metadata"]["name"].as_str().unwrap().to_owned();
    // Bound as it is made, without a scheduler.
    let bound = |name: &str, cpu: &str, port: u16, more: Value| {
        let mut container =
            json!({"name": "c", "image": "web", "command": ["serve"], "resources": {"requests": {"cpu": cpu}}});
        container["ports"] = json!([{"containerPort": 80, "hostPort": port}]);
        let mut spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1, "nodeName": node});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let phase = |name: &str, phase: &'static str| {
        let path = format!("{PODS}/{name}");
        let cluster = &cluster;
        async move { cluster.wait_for(&path, phase, |pod| pod["status"]["phase"] == phase).await.unwrap() }
    };
    cluster.create(PODS, bound("first", "100m", 8080, json!({}))).await.unwrap();
    phase("first", "Running").await;
    let refused = [
        (
            bound("port", "100m", 8080, json!({})),
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
        (
            bound("cpu", "3", 8081, json!({})),
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 3000, used: 100, capacity: 1930",
        ),
        (
            bound("label", "100m", 8081, json!({"nodeSelector": {"tier": "web"}})),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
    ];
    for (pod, reason, message) in refused {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        cluster.create(PODS, pod).await.unwrap();
        let found = phase(&name, "Failed").await;
        assert_eq!(
            (&found["status"]["reason"], &found["status"]["message"]),
            (&json!(reason), &json!(format!("Pod was rejected: {message}")))
        );
        assert_eq!((&found["status"]["podIP"], &found["status"]["containerStatuses"]), (&json!(null), &json!(null)));
    }
    // Another agent takes up the one that was taken in and none of the others; what they asked for is not held.
    agent.cancel();
    let _agent = cluster.start_agent().await.unwrap();
    cluster.create(PODS, bound("second", "100m", 8081, json!({"nodeSelector": {"tier": "db"}}))).await.unwrap();
    phase("second", "Running").await;
    for name in ["port", "cpu", "label"] {
        phase(name, "Failed").await;
        cluster.delete(&format!("{PODS}/{name}")).await.unwrap();
        cluster.wait_for_gone(&format!("{PODS}/{name}")).await.unwrap();
    }
    // A port is free again with the pod that had it.
    cluster.delete(&format!("{PODS}/first")).await.unwrap();
    cluster.wait_for_gone(&format!("{PODS}/first")).await.unwrap();
    cluster.create(PODS, bound("third", "100m", 8080, json!({}))).await.unwrap();
    phase("third", "Running").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microvm_is_for_the_one_pod_that_it_was_made_for() {
    let cluster = TestCluster::start("single").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    namespace(&cluster).await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "web", "command": ["serve"]}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let own = "/api/v1/namespaces/default/pods";
    cluster.create(own, pod("p", json!({}))).await.unwrap();
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    let found = cluster.wait_for(&format!("{own}/p"), "the pod", running).await.unwrap();
    let node = format!("/api/v1/nodes/{}", found["spec"]["nodeName"].as_str().unwrap());
    let before = cluster.get(&node).await.unwrap();
    cluster.create(PODS, pod("q", json!({"nodeName": found["spec"]["nodeName"]}))).await.unwrap();
    let refused =
        cluster.wait_for(&format!("{PODS}/q"), "its end", |pod| pod["status"]["phase"] == "Failed").await.unwrap();
    assert_eq!(refused["status"]["reason"], "OutOfpods");
    cluster.delete(&format!("{PODS}/q")).await.unwrap();
    cluster.wait_for_gone(&format!("{PODS}/q")).await.unwrap();
    let after = cluster.get(&node).await.unwrap();
    assert_eq!(after["status"]["capacity"], before["status"]["capacity"]);
    assert_eq!(cluster.get(&format!("{own}/p")).await.unwrap()["status"]["phase"], "Running");
}
