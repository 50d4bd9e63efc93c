//! Prints how fast Deployments of 10,000 pods come to run on 1,000 simulated nodes, API, watches and all controllers
//! included, and what they cost: `cargo xtask bench --scale`. The nodes' kubelets say that a pod runs as soon as it is theirs;
//! they share the process, so that their cost is in the figures. It measures no microVM and no disk.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on stops where it is")]
#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use isopod_testkit::TestCluster;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The allocator of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NODES: usize = 1000;
const DEPLOYMENTS: usize = 100;
const REPLICAS: usize = 100;
const PODS: usize = DEPLOYMENTS * REPLICAS;
/// Requests at the same time, of whoever creates and of the kubelets.
const CLIENTS: usize = 20;
/// Name of the lease that speaks for all nodes.
const HOST: &str = "kubelets";
/// How long the cluster is watched doing nothing.
const IDLE: Duration = Duration::from_secs(30);

async fn at_once<F: Future>(count: usize, one: impl Fn(usize) -> F) {
    futures::stream::iter((0..count).map(one)).buffer_unordered(CLIENTS).for_each(|_| async {}).await;
}

async fn add_node(cluster: &TestCluster, number: usize) {
    let name = format!("node-{number}");
    let labels = json!({"isopod.dev/host": HOST, "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 3)});
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": name, "labels": labels}})).await.unwrap();
    let amounts = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": conditions}});
    cluster.patch(&format!("/api/v1/nodes/{name}/status"), status).await.unwrap();
}

async fn add_deployment(cluster: &TestCluster, number: usize) {
    let name = format!("app-{number}");
    let requests = json!({"cpu": "100m", "memory": "128Mi"});
    let pod = json!({"containers": [{"name": "c", "image": "nginx", "resources": {"requests": requests}}]});
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    let spec = json!({"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template});
    let deployment = json!({"metadata": {"name": name}, "spec": spec});
    cluster.create("/apis/apps/v1/namespaces/work/deployments", deployment).await.unwrap();
}

/// What a kubelet says of a pod whose containers run.
fn running(number: usize) -> Value {
    let address = format!("10.{}.{}.{}", 64 + (number >> 16), (number >> 8) & 255, number & 255);
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let container = json!({
        "name": "c", "image": "nginx", "imageID": "nginx", "containerID": format!("isopod://{number}"), "ready": true, "started": true,
        "restartCount": 0, "state": {"running": {"startedAt": now}},
    });
    json!({"status": {
        "phase": "Running", "startTime": now, "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1",
        "conditions": conditions.map(condition), "containerStatuses": [container],
    }})
}

/// Renews the lease of all nodes, which would count as silent otherwise.
async fn renew(cluster: &TestCluster) {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let said = |round: usize| json!({"spec": {"holderIdentity": HOST, "renewTime": format!("2026-01-01T00:00:00.{round:06}Z")}});
    let mut lease = said(0);
    lease["metadata"] = json!({"name": HOST});
    cluster.create(leases, lease).await.unwrap();
    for round in 1.. {
        tokio::time::sleep(Duration::from_secs(10)).await;
        cluster.patch(&format!("{leases}/{HOST}"), said(round)).await.unwrap();
    }
}

/// All nodes' kubelets: one watch of the pods that have a node, and an answer for each. Tells how many run.
async fn run_kubelets(client: kube::Client, running_pods: watch::Sender<usize>) {
    let (version, kind, plural) = ("v1", "Pod", "pods");
    let kind = ApiResource {
        group: String::new(),
        version: version.into(),
        api_version: version.into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    let pods: Api<DynamicObject> = Api::namespaced_with(client.clone(), "work", &kind);
    let bound = watcher::watcher(pods, watcher::Config::default().fields("spec.nodeName!=,status.phase=Pending"));
    let answers = bound.applied_objects().map_ok(|pod| pod.metadata.name.unwrap()).enumerate();
    let patch = |(number, name): (usize, Result<String, watcher::Error>)| {
        let path = format!("/api/v1/namespaces/work/pods/{}/status", name.unwrap());
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        let request = request.body(running(number).to_string().into_bytes()).unwrap();
        let client = client.clone();
        async move { client.request_text(request).await.unwrap() }
    };
    let patched = answers.map(patch).buffer_unordered(CLIENTS);
    patched.for_each(|_| async { running_pods.send_modify(|count| *count += 1) }).await;
}

/// Seconds of processor time that this process has used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // Fields 14 and 15, in hundredths of a second (proc(5)); the name ends the second.
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1024.0
}

/// One thing that is measured, from now on.
struct Measurement {
    begin: Instant,
    processor: f64,
}

impl Measurement {
    fn begin() -> Self {
        Self { begin: Instant::now(), processor: processor_seconds() }
    }

    fn tell(&self, what: &str, count: usize, goal: &str) {
        let (seconds, processor) = (self.begin.elapsed().as_secs_f64(), processor_seconds() - self.processor);
        let (rate, each) = (count as f64 / seconds, processor * 1e6 / count as f64);
        println!(
            "{what:<44} {count:>6} in {seconds:>6.2} s, {rate:>5.0} a second; {processor:>6.2} s of processor, {each:.0} µs each{goal}"
        );
    }
}

/// Waits until a Deployment says that all its pods are ready. No list of pods is asked for: it would be in the memory measured.
async fn is_ready(cluster: &TestCluster, number: usize) {
    let path = format!("/apis/apps/v1/namespaces/work/deployments/app-{number}");
    while cluster.get(&path).await.unwrap()["status"]["readyReplicas"] != json!(REPLICAS) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn tell_idle() {
    // What is late in the changes before is none of it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = processor_seconds();
    tokio::time::sleep(IDLE).await;
    let share = (processor_seconds() - before) / IDLE.as_secs_f64() * 100.0;
    println!("idle with {PODS} pods: {share:.2} % of a processor, over {} s; goal 1 %", IDLE.as_secs());
}

/// The revision that the store has reached: every write is one.
async fn revision(cluster: &TestCluster) -> f64 {
    let list = cluster.get("/api/v1/namespaces?limit=1").await.unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::main]
async fn main() {
    let cluster = TestCluster::start("placements").await.unwrap();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "work"}})).await.unwrap();
    let account = "/api/v1/namespaces/work/serviceaccounts/default";
    cluster.wait_for(account, "the account", |found| found["metadata"]["name"] == "default").await.unwrap();
    tokio::select! {
        () = renew(&cluster) => {}
        () = measure(&cluster) => {}
    }
}

async fn measure(cluster: &TestCluster) {
    let measured = Measurement::begin();
    at_once(NODES, |number| add_node(cluster, number)).await;
    measured.tell("nodes created", NODES, "");
    // A node is tainted until its controller has seen that it is ready.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (count, mut counted) = watch::channel(0);
    let kubelets = tokio::spawn(run_kubelets(cluster.client("admin", &["system:masters"]), count));
    let (before_bytes, before_revision) = (resident_bytes(), revision(cluster).await);
    let measured = Measurement::begin();
    at_once(DEPLOYMENTS, |number| add_deployment(cluster, number)).await;
    let some_run = counted.wait_for(|count| *count >= PODS).await;
    drop(some_run.unwrap());
    measured.tell("pods of Deployments, from creation to Running", PODS, "; goal 20 s");
    at_once(DEPLOYMENTS, |number| is_ready(cluster, number)).await;
    measured.tell("the same until all Deployments say so", PODS, "");
    println!("writes: {:.2} a pod", (revision(cluster).await - before_revision) / PODS as f64);
    println!("memory: {:.1} KiB a pod", (resident_bytes() - before_bytes) / 1024.0 / PODS as f64);
    tell_idle().await;
    println!(
        "memory after: {:.1} KiB a pod, {:.0} MiB in all",
        (resident_bytes() - before_bytes) / 1024.0 / PODS as f64,
        resident_bytes() / f64::from(1 << 20)
    );
    kubelets.abort();
}
