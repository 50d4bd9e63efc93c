//! Prints how many pods a second go from their creation to a node, API, watches and all controllers included:
//! `cargo run --release -p isopod-testkit --example placements`.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on stops where it is")]
#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use isopod_testkit::TestCluster;
use serde_json::{Value, json};

const NODES: usize = 1000;
const PODS: usize = 5000;
/// Requests at the same time.
const CLIENTS: usize = 20;

async fn at_once<F: Future>(count: usize, one: impl Fn(usize) -> F) {
    futures::stream::iter((0..count).map(one)).buffer_unordered(CLIENTS).for_each(|_| async {}).await;
}

async fn add_node(cluster: &TestCluster, number: usize) {
    let name = format!("node-{number}");
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 3)});
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": name, "labels": labels}})).await.unwrap();
    let amounts = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": conditions}});
    cluster.patch(&format!("/api/v1/nodes/{name}/status"), status).await.unwrap();
}

fn pod(prefix: &str, number: usize, scheduler: &str) -> Value {
    let requests = json!({"cpu": "100m", "memory": "128Mi"});
    let container = json!({"name": "c", "image": "nginx", "resources": {"requests": requests}});
    let spec = json!({"schedulerName": scheduler, "containers": [container]});
    let labels = json!({"app": format!("app-{}", number % 100)});
    json!({"metadata": {"name": format!("{prefix}-{number}"), "labels": labels}, "spec": spec})
}

async fn create_pods(cluster: &TestCluster, prefix: &str, scheduler: &str) {
    let pods = "/api/v1/namespaces/work/pods";
    at_once(PODS, |number| async move { cluster.create(pods, pod(prefix, number, scheduler)).await.unwrap() }).await;
}

fn tell(what: &str, count: usize, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:<50} {count} in {seconds:.2} s: {:.0} a second", count as f64 / seconds);
}

#[tokio::main]
async fn main() {
    let cluster = TestCluster::start("placements").await.unwrap();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "work"}})).await.unwrap();
    let account = "/api/v1/namespaces/work/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    at_once(NODES, |number| add_node(&cluster, number)).await;
    let begin = Instant::now();
    create_pods(&cluster, "idle", "nobody").await;
    tell("pods created that nobody places", PODS, begin);
    let begin = Instant::now();
    create_pods(&cluster, "placed", "default-scheduler").await;
    tell("pods created that are placed meanwhile", PODS, begin);
    loop {
        let bound = cluster.list("/api/v1/namespaces/work/pods?fieldSelector=spec.nodeName!=").await;
        if bound.len() == PODS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tell(&format!("the same until all have one of {NODES} nodes"), PODS, begin);
}
