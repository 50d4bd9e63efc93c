//! Services and their endpoints, with all controllers at work over simulated machines.

use isopod_testkit::TestCluster;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn slices_of(service: &str) -> String {
    format!("{SLICES}?labelSelector=kubernetes.io/service-name%3D{service}")
}

/// Addresses of all slices in a list that are ready.
fn ready(list: &Value) -> usize {
    let slices = list["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_the_pods() {
    let cluster = TestCluster::start("endpoints").await.unwrap();
    let _agent = cluster.start_agent().await.unwrap();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    let labels = json!({"app": "web"});
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}});
    cluster.create(SERVICES, service).await.unwrap();
    let one_empty = |list: &Value| list["items"].as_array().is_some_and(|items| items.len() == 1) && ready(list) == 0;
    cluster.wait_for(&slices_of("web"), "an empty slice", one_empty).await.unwrap();
    let container = json!({"name": "c", "image": "web", "command": ["serve"]});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": labels}, "template": template});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    cluster.create(deployments, json!({"metadata": {"name": "web"}, "spec": spec})).await.unwrap();
    let list = cluster.wait_for(&slices_of("web"), "three endpoints", |list| ready(list) == 3).await.unwrap();
    assert_eq!(list["items"][0]["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    let legacy = "/api/v1/namespaces/default/endpoints/web";
    let three = |found: &Value| found["subsets"][0]["addresses"].as_array().is_some_and(|all| all.len() == 3);
    cluster.wait_for(legacy, "three addresses", three).await.unwrap();
    cluster.patch(&format!("{deployments}/web"), json!({"spec": {"replicas": 1}})).await.unwrap();
    cluster.wait_for(&slices_of("web"), "one endpoint", |list| ready(list) == 1).await.unwrap();
    cluster.delete(&format!("{SERVICES}/web")).await.unwrap();
    cluster.wait_for_gone(legacy).await.unwrap();
    let none = |list: &Value| list["items"].as_array().is_some_and(Vec::is_empty);
    cluster.wait_for(&slices_of("web"), "no slices", none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_wrote_is_mirrored() {
    let cluster = TestCluster::start("mirrored").await.unwrap();
    cluster.create(SERVICES, json!({"metadata": {"name": "out"}, "spec": {"ports": [{"port": 80}]}})).await.unwrap();
    let subsets = json!([{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]);
    let endpoints = "/api/v1/namespaces/default/endpoints";
    cluster.create(endpoints, json!({"metadata": {"name": "out"}, "subsets": subsets})).await.unwrap();
    let list = cluster.wait_for(&slices_of("out"), "a mirror", |list| ready(list) == 1).await.unwrap();
    assert_eq!(list["items"][0]["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    cluster.delete(&format!("{endpoints}/out")).await.unwrap();
    cluster.wait_for(&slices_of("out"), "no mirror", |list| ready(list) == 0).await.unwrap();
    // The API server's own are nobody's business.
    let own = cluster.get(&slices_of("kubernetes")).await.unwrap();
    assert_eq!(own["items"].as_array().unwrap().len(), 1, "{own:#}");
}
