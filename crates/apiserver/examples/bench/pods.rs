//! What a large cluster has: 10,000 pods, and a watch for each of 1,000 nodes, as their kubelets have. They stay while other
//! things are measured. What they take of memory and processor is told here.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::{Access, Connection};
use crate::figures::{Figures, print};
use crate::server::Server;

const PODS: usize = 10_000;
const WATCHERS: usize = 1_000;
const CLIENTS: usize = 20;
const IDLE: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "kube-system";

/// Fills the server; the watches end with what is returned.
pub async fn fill(access: &Access, server: &Server) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    // No controller makes it here.
    let account = json!({"metadata": {"name": "default"}}).to_string();
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    Connection::open(access).await?.post(&accounts, account).await?;
    let before = server.resident_bytes()?;
    let created = create_all(access).await?;
    print(&format!("durable Pod creates, {CLIENTS} clients"), &created, "none");
    tell_memory(server, before, "Pod", PODS)?;
    let before = server.resident_bytes()?;
    let kubelets = watch_all(access).await?;
    tell_memory(server, before, "watcher", WATCHERS)?;
    let before = server.processor_seconds()?;
    tokio::time::sleep(IDLE).await;
    let share = (server.processor_seconds()? - before) / IDLE.as_secs_f64() * 100.0;
    println!("{:<44} {share:>6.2} % of a core, over 30 s; goal 1 %", "idle with 10,000 pods and 1,000 watchers");
    Ok(kubelets)
}

/// Tells how much memory each of so many things takes that were made since.
pub fn tell_memory(server: &Server, before_bytes: f64, what: &str, count: usize) -> Result<(), Failure> {
    let each = (server.resident_bytes()? - before_bytes) / count as f64 / 1024.0;
    println!("{:<44} {each:>6.2} KiB, n = {count}", format!("resident memory per {what}"));
    Ok(())
}

/// Each client has a connection of its own and waits for each answer.
async fn create_all(access: &Access) -> Result<Figures, Failure> {
    let mut figures = Figures::begin();
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let mut connection = Connection::open(access).await?;
        tasks.spawn(async move {
            let mut taken = Vec::new();
            for number in (client..PODS).step_by(CLIENTS) {
                let (body, begun) = (pod(number), std::time::Instant::now());
                connection.post(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), body).await?;
                taken.push(begun.elapsed());
            }
            Ok::<_, Failure>(taken)
        });
    }
    while let Some(taken) = tasks.join_next().await {
        taken??.into_iter().for_each(|taken| figures.add(taken));
    }
    Ok(figures.end())
}

fn pod(number: usize) -> String {
    let (app, node) = (format!("app-{}", number / 100), format!("node-{}", number % WATCHERS));
    let container = json!({
        "name": "main", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
        "env": [{"name": "MODE", "value": "production"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 80}},
    });
    let metadata = json!({"name": format!("{app}-{number}"), "labels": {"app": app, "tier": "web"}});
    let spec = json!({"nodeName": node, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

async fn watch_all(access: &Access) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    let mut tasks = JoinSet::new();
    for number in 0..WATCHERS {
        let mut connection = Connection::open(access).await?;
        let path =
            format!("/api/v1/pods?watch=true&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dnode-{number}");
        let mut body = connection.send(Method::GET, &path, String::new()).await?.into_body();
        // The state at the beginning: the watch is open.
        body.frame().await;
        tasks.spawn(async move {
            let _connection = connection;
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok(())
        });
    }
    Ok(tasks)
}
