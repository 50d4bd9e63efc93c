//! Pods that no profile matches on nodes that nobody runs: placement, preemption and volumes with all controllers at work.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use isopod_testkit::TestCluster;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/work/pods";
const NODES: &str = "/api/v1/nodes";

/// A cluster with a namespace that no profile matches.
async fn cluster(name: &str) -> TestCluster {
    let cluster = TestCluster::start(name).await.unwrap();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "work"}})).await.unwrap();
    let account = "/api/v1/namespaces/work/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    cluster
}

async fn add_node(cluster: &TestCluster, name: &str, cpu: &str) {
    let labels = json!({"kubernetes.io/hostname": name});
    cluster.create(NODES, json!({"metadata": {"name": name, "labels": labels}})).await.unwrap();
    let amounts = json!({"cpu": cpu, "memory": "8Gi", "pods": "20"});
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts}});
    cluster.patch(&format!("{NODES}/{name}/status"), status).await.unwrap();
    // A node that nobody has heard of is not ready; no one of this test wants that.
    cluster.patch(&format!("{NODES}/{name}"), json!({"spec": {"taints": null}})).await.unwrap();
}

fn pod(name: &str, cpu: &str) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

fn condition<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array();
    all.and_then(|all| all.iter().find(|one| one["type"] == name)).unwrap_or(&Value::Null)
}

async fn events(cluster: &TestCluster, reason: &str) -> Vec<String> {
    let events = cluster.list("/api/v1/namespaces/work/events").await;
    let about = events.iter().filter(|event| event["reason"] == reason);
    about.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_where_there_is_room_and_say_why_when_there_is_none() {
    let cluster = cluster("placement").await;
    cluster.create(PODS, pod("a", "3")).await.unwrap();
    let told = |words: &'static str| {
        move |pod: &Value| condition(pod, "PodScheduled")["message"].as_str().is_some_and(|text| text.contains(words))
    };
    let path = |name: &str| format!("{PODS}/{name}");
    cluster.wait_for(&path("a"), "the profile's name", told("nearest is \"fp-default\"")).await.unwrap();
    add_node(&cluster, "n1", "4").await;
    let placed = |node: &'static str| move |pod: &Value| node_of(pod) == node;
    let found = cluster.wait_for(&path("a"), "a node", placed("n1")).await.unwrap();
    assert_eq!(condition(&found, "PodScheduled")["status"], "True");
    cluster.create(PODS, pod("b", "3")).await.unwrap();
    let found = cluster.wait_for(&path("b"), "a refusal", told("1 Insufficient cpu")).await.unwrap();
    assert_eq!(condition(&found, "PodScheduled")["reason"], "Unschedulable");
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(condition(&found, "PodScheduled")["message"], message);
    cluster.delete(&path("a")).await.unwrap();
    cluster.wait_for(&path("b"), "the room that was left", placed("n1")).await.unwrap();
    let mut gated = pod("c", "1");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    cluster.create(PODS, gated).await.unwrap();
    cluster.create(PODS, pod("d", "1")).await.unwrap();
    cluster.wait_for(&path("d"), "a node", placed("n1")).await.unwrap();
    let found = cluster.get(&path("c")).await.unwrap();
    assert_eq!((node_of(&found), &condition(&found, "PodScheduled")["reason"]), ("", &json!("SchedulingGated")));
    let said = events(&cluster, "Scheduled").await;
    assert!(said.contains(&"Successfully assigned work/a to n1".to_owned()), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_more_important_pod_is_given_room() {
    let cluster = cluster("preemption").await;
    add_node(&cluster, "n1", "4").await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    cluster.create("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.unwrap();
    let mut low = pod("low", "3");
    // Kept after its deletion, so that what was written on it can be read.
    low["metadata"]["finalizers"] = json!(["example.com/look"]);
    cluster.create(PODS, low).await.unwrap();
    cluster.wait_for(&format!("{PODS}/low"), "a node", |pod| node_of(pod) == "n1").await.unwrap();
    let mut high = pod("high", "3");
    high["spec"]["priorityClassName"] = json!("high");
    cluster.create(PODS, high).await.unwrap();
    let ending = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
    let low = cluster.wait_for(&format!("{PODS}/low"), "its end", ending).await.unwrap();
    assert_eq!(condition(&low, "DisruptionTarget")["reason"], "PreemptionByScheduler");
    let nominated = |pod: &Value| pod["status"]["nominatedNodeName"] == "n1";
    cluster.wait_for(&format!("{PODS}/high"), "a nomination", nominated).await.unwrap();
    cluster.patch(&format!("{PODS}/low"), json!({"metadata": {"finalizers": null}})).await.unwrap();
    cluster.wait_for(&format!("{PODS}/high"), "the room", |pod| node_of(pod) == "n1").await.unwrap();
    assert!(events(&cluster, "Preempted").await.iter().any(|text| text.contains("on node n1")));
}

const CLAIMS: &str = "/api/v1/namespaces/work/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

#[tokio::test(flavor = "multi_thread")]
async fn claims_get_disks_where_their_pods_go() {
    let cluster = cluster("claims").await;
    add_node(&cluster, "n1", "4").await;
    cluster.patch(&format!("{NODES}/n1"), json!({"metadata": {"labels": {"isopod.dev/host": "h1"}}})).await.unwrap();
    let class = json!({"metadata": {"name": "gp3"}, "provisioner": "ebs.csi.aws.com", "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.create("/apis/storage.k8s.io/v1/storageclasses", class).await.unwrap();
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "gp3", "resources": {"requests": {"storage": "2Gi"}}});
    cluster.create(CLAIMS, json!({"metadata": {"name": "data"}, "spec": spec})).await.unwrap();
    let said = |words: &'static str| {
        move |list: &Value| {
            let events = list["items"].as_array().into_iter().flatten();
            events.into_iter().any(|event| event["message"].as_str().is_some_and(|text| text.contains(words)))
        }
    };
    let waiting = said("waiting for first consumer to be created before binding");
    cluster.wait_for("/api/v1/namespaces/work/events", "the claim's words", waiting).await.unwrap();
    let mut user = pod("user", "1");
    user["spec"]["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}},
    ]);
    cluster.create(PODS, user).await.unwrap();
    cluster.wait_for(&format!("{PODS}/user"), "a node", |pod| node_of(pod) == "n1").await.unwrap();
    for name in ["data", "user-tmp"] {
        let bound = |claim: &Value| claim["status"]["phase"] == "Bound";
        let claim = cluster.wait_for(&format!("{CLAIMS}/{name}"), "a volume", bound).await.unwrap();
        let volume =
            cluster.get(&format!("{VOLUMES}/{}", claim["spec"]["volumeName"].as_str().unwrap())).await.unwrap();
        assert_eq!(volume["spec"]["csi"]["volumeAttributes"]["isopod.dev/host"], "h1", "{volume}");
        assert_eq!(
            (&volume["status"]["phase"], &volume["spec"]["capacity"]["storage"]),
            (&json!("Bound"), &json!("2Gi"))
        );
    }
    cluster.delete(&format!("{CLAIMS}/data")).await.unwrap();
    let kept = cluster.get(&format!("{CLAIMS}/data")).await.unwrap();
    assert_eq!(kept["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]), "a pod uses it");
    cluster.delete(&format!("{PODS}/user")).await.unwrap();
    let none = |list: &Value| list["items"].as_array().is_some_and(Vec::is_empty);
    cluster.wait_for(CLAIMS, "the end of both claims", none).await.unwrap();
    cluster.wait_for(VOLUMES, "the end of the volumes: there is no host to wait for", none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn taints_drive_pods_away_when_their_patience_ends() {
    let cluster = cluster("taints").await;
    add_node(&cluster, "n1", "4").await;
    let tolerant = |name: &str, seconds: Value| {
        let mut pod = pod(name, "1");
        let toleration = json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        pod["spec"]["tolerations"] = json!([toleration]);
        pod
    };
    let mut impatient = pod("impatient", "1");
    // Kept after its deletion, so that what was written on it can be read.
    impatient["metadata"]["finalizers"] = json!(["example.com/look"]);
    for pod in [impatient, tolerant("patient", json!(1)), tolerant("always", Value::Null)] {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        cluster.create(PODS, pod).await.unwrap();
        cluster.wait_for(&path, "a node", |pod| node_of(pod) == "n1").await.unwrap();
    }
    let taints = json!([{"key": "k", "effect": "NoExecute"}]);
    cluster.patch(&format!("{NODES}/n1"), json!({"spec": {"taints": taints}})).await.unwrap();
    let ending = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
    let found = cluster.wait_for(&format!("{PODS}/impatient"), "its end", ending).await.unwrap();
    assert_eq!(condition(&found, "DisruptionTarget")["reason"], "DeletionByTaintManager");
    let only = |names: [&'static str; 2]| {
        move |list: &Value| {
            let items = list["items"].as_array().into_iter().flatten();
            items.filter_map(|pod| pod["metadata"]["name"].as_str()).eq(names)
        }
    };
    cluster.wait_for(PODS, "the patient one's end", only(["always", "impatient"])).await.unwrap();
    let kept = cluster.get(&format!("{PODS}/always")).await.unwrap();
    assert!(!ending(&kept));
}
