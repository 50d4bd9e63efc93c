//! Measures of pods: from create to Running, as a watch shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::{Client, Watch};
use crate::report::{Report, milliseconds};
use crate::server::Site;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SAMPLES: usize = 20;
const AT_ONCE: usize = 20;
/// Longer than any path to Running: what takes longer is a failure.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How the host made the pod's microVM.
const START_PATH: &str = "isopod.dev/start-path";

fn pod(name: &str) -> Value {
    let container = json!({
        "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"],
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
    });
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// Opens a watch of all pods from now on.
async fn watch(site: &Site) -> Result<Watch> {
    let mut client = Client::connect(&site.kubeconfig()).await?;
    let list: Value = serde_json::from_slice(&client.get(PODS).await?)?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("revision of the list")?.to_owned();
    client.watch(&format!("{PODS}?watch=1&resourceVersion={revision}")).await
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// Waits until all pods run; returns when each was seen to.
async fn until_running(watch: &mut Watch, mut names: BTreeSet<String>) -> Result<BTreeMap<String, Instant>> {
    let mut running = BTreeMap::new();
    while !names.is_empty() {
        let event = watch.next().await?;
        let object = &event["object"];
        match object["status"]["phase"].as_str() {
            Some("Running") if names.remove(name(object)) => {
                running.insert(name(object).to_owned(), Instant::now());
            }
            Some("Failed") => bail!("pod {} failed: {}", name(object), object["status"]),
            _ => {}
        }
    }
    Ok(running)
}

async fn until_deleted(watch: &mut Watch, mut names: BTreeSet<String>) -> Result<()> {
    while !names.is_empty() {
        let event = watch.next().await?;
        if event["type"] == "DELETED" {
            names.remove(name(&event["object"]));
        }
    }
    Ok(())
}

/// How many pods took which path.
async fn paths(client: &mut Client, names: &BTreeSet<String>, counts: &mut BTreeMap<String, usize>) -> Result<()> {
    for name in names {
        let pod: Value = serde_json::from_slice(&client.get(&format!("{PODS}/{name}")).await?)?;
        let path = pod["metadata"]["annotations"][START_PATH].as_str().unwrap_or("unknown");
        *counts.entry(path.to_owned()).or_default() += 1;
    }
    Ok(())
}

fn shown(paths: &BTreeMap<String, usize>) -> String {
    paths.iter().map(|(path, count)| format!("{path} {count}")).collect::<Vec<_>>().join(", ")
}

async fn delete(client: &mut Client, watch: &mut Watch, names: BTreeSet<String>) -> Result<()> {
    for name in &names {
        client.bytes("DELETE", &format!("{PODS}/{name}"), Bytes::new()).await?;
    }
    tokio::time::timeout(TIMEOUT, until_deleted(watch, names)).await.context("pods do not go")?
}

/// One pod after the other.
pub async fn one_by_one(site: &Site, report: &mut Report) -> Result<()> {
    let mut client = Client::connect(&site.kubeconfig()).await?;
    let mut watch = watch(site).await?;
    let (mut samples, mut counts) = (Vec::new(), BTreeMap::new());
    for index in 0..SAMPLES {
        let names = BTreeSet::from([format!("one-{index}")]);
        let started = Instant::now();
        client.create(PODS, &pod(&format!("one-{index}"))).await?;
        let running = tokio::time::timeout(TIMEOUT, until_running(&mut watch, names.clone())).await;
        let running = running.with_context(|| format!("pod one-{index} does not run"))??;
        samples.extend(running.values().map(|at| *at - started));
        paths(&mut client, &names, &mut counts).await?;
        delete(&mut client, &mut watch, names).await?;
    }
    let more = format!("path: {}; goal pool 150/500, restored 250/700", shown(&counts));
    report.times("pod create -> Running, image cached", &samples, &more);
    Ok(())
}

/// Many pods together.
pub async fn at_once(site: &Site, report: &mut Report) -> Result<()> {
    let mut client = Client::connect(&site.kubeconfig()).await?;
    let mut watch = watch(site).await?;
    let names: BTreeSet<String> = (0..AT_ONCE).map(|index| format!("many-{index}")).collect();
    let started = Instant::now();
    for name in &names {
        client.create(PODS, &pod(name)).await?;
    }
    let running = tokio::time::timeout(TIMEOUT, until_running(&mut watch, names.clone())).await;
    let running = running.context("not all pods run")??;
    let samples: Vec<Duration> = running.values().map(|at| *at - started).collect();
    let all = samples.iter().max().copied().unwrap_or_default();
    let mut counts = BTreeMap::new();
    paths(&mut client, &names, &mut counts).await?;
    let more = format!("all in {}; path: {}", milliseconds(all), shown(&counts));
    report.times(&format!("{AT_ONCE} pods at once, each -> Running"), &samples, &more);
    delete(&mut client, &mut watch, names).await
}
