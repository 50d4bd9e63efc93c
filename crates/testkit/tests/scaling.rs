//! Budgets and autoscalers in whole clusters: what depends on how many pods somebody wants.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use isopod_testkit::TestCluster;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// A cluster with an agent and a Deployment of this many ready pods.
async fn cluster(name: &str, replicas: i64) -> (TestCluster, CancellationToken) {
    let cluster = TestCluster::start(name).await.unwrap();
    let agent = cluster.start_agent().await.unwrap();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster.wait_for(account, "the service account", |found| found["metadata"]["name"] == "default").await.unwrap();
    let requests = json!({"requests": {"cpu": "250m", "memory": "512Mi"}});
    let container = json!({"name": "c", "image": "nginx", "command": ["serve"], "resources": requests});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    cluster.create(deployments, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let ready = |found: &Value| found["status"]["readyReplicas"] == replicas;
    cluster.wait_for(DEPLOYMENT, "ready pods", ready).await.unwrap();
    (cluster, agent)
}

fn status(fields: [(&'static str, i64); 3]) -> impl Fn(&Value) -> bool {
    move |object| fields.iter().all(|(field, expected)| object["status"][field].as_i64() == Some(*expected))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_grants_evictions_as_pods_become_healthy() {
    let (cluster, _agent) = cluster("budget", 3).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    cluster.create(budgets, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let path = format!("{budgets}/web");
    let full = [("disruptionsAllowed", 1), ("currentHealthy", 3), ("expectedPods", 3)];
    cluster.wait_for(&path, "room for one", status(full)).await.unwrap();
    let names: Vec<String> =
        cluster.list(PODS).await.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let evict = async |name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        cluster.create(&format!("{PODS}/{name}/eviction"), eviction).await
    };
    evict(&names[0]).await.unwrap();
    // The next is refused, whether the controller or the API server was first to count the first.
    let refused = evict(&names[1]).await;
    let spent = cluster.get(&path).await.unwrap();
    assert!(refused.is_err() || spent["status"]["currentHealthy"] == 3, "{spent}");
    cluster.wait_for(&path, "a new pod in its place", status(full)).await.unwrap();
    cluster.patch(DEPLOYMENT, json!({"spec": {"replicas": 1}})).await.unwrap();
    let small = [("disruptionsAllowed", 1), ("currentHealthy", 1), ("expectedPods", 1)];
    cluster.wait_for(&path, "what the Deployment wants now", status(small)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_keeps_within_its_bounds_and_says_what_it_lacks() {
    let (cluster, _agent) = cluster("autoscaler", 2).await;
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let external = json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}});
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let spec = json!({"scaleTargetRef": reference, "minReplicas": 4, "maxReplicas": 6, "metrics": [external]});
    cluster.create(autoscalers, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let size = |expected: i64| move |found: &Value| found["status"]["readyReplicas"] == expected;
    cluster.wait_for(DEPLOYMENT, "the smallest number", size(4)).await.unwrap();
    let path = format!("{autoscalers}/web");
    let scaled =
        |found: &Value| found["status"]["desiredReplicas"] == 4 && found["status"]["lastScaleTime"].is_string();
    cluster.wait_for(&path, "the status", scaled).await.unwrap();
    cluster.patch(&path, json!({"spec": {"minReplicas": 1, "maxReplicas": 3}})).await.unwrap();
    cluster.wait_for(DEPLOYMENT, "the greatest number", size(3)).await.unwrap();
    cluster.patch(&path, json!({"spec": {"maxReplicas": 5}})).await.unwrap();
    let lacks = |found: &Value| {
        let conditions = found["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter().any(|one| one["type"] == "ScalingActive" && one["reason"] == "FailedGetExternalMetric")
        })
    };
    cluster.wait_for(&path, "nobody serves external metrics", lacks).await.unwrap();
    let events = cluster.list("/api/v1/namespaces/default/events").await;
    assert!(
        events.iter().any(|event| event["reason"] == "SuccessfulRescale"
            && event["message"].as_str().unwrap().starts_with("New size: 4"))
    );
}

/// What guests report becomes metrics.k8s.io, and that the number of pods.
#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_follows_what_pods_use() {
    const MIB: u64 = 1 << 20;
    let (cluster, _agent) = cluster("measured", 2).await;
    cluster.host.set_load(184 * MIB);
    let used = |list: &Value| {
        let items = list["items"].as_array();
        items.is_some_and(|all| {
            all.len() == 2 && all.iter().all(|pod| pod["containers"][0]["usage"]["memory"] == "204800Ki")
        })
    };
    cluster.wait_for("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods", "usage", used).await.unwrap();
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let target = json!({"type": "AverageValue", "averageValue": "100Mi"});
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": target}});
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let at_once = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    let spec = json!({"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 4, "metrics": [memory], "behavior": at_once});
    cluster.create(autoscalers, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let size = |expected: i64| {
        move |found: &Value| found["status"]["readyReplicas"] == expected && found["status"]["replicas"] == expected
    };
    cluster.wait_for(DEPLOYMENT, "more for more use", size(4)).await.unwrap();
    cluster.host.set_load(10 * MIB);
    cluster.wait_for(DEPLOYMENT, "fewer for less use", size(2)).await.unwrap();
    let path = format!("{autoscalers}/web");
    let told = |found: &Value| found["status"]["currentMetrics"][0]["resource"]["current"]["averageValue"] == "26Mi";
    cluster.wait_for(&path, "what was measured", told).await.unwrap();
}
