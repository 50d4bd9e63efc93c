//! Measures of the control plane alone: start, rest, writes, lists.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;

use crate::client::Client;
use crate::report::Report;
use crate::server::{Server, Site};

const STARTS: usize = 10;
const RESTARTS: usize = 5;
const LISTS: usize = 20;
const LISTED: usize = 10_000;
/// Writes by one client, and by twenty together.
const CREATES: [(usize, usize); 2] = [(1, 3_000), (20, 20_000)];
/// Until what a start leaves to be done later has been done.
const SETTLE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "listed";

/// Empty directory to `/readyz`.
pub async fn start_from_nothing(site: &Site, report: &mut Report) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..STARTS {
        site.empty()?;
        let server = site.start().await?;
        samples.push(server.ready);
        server.stop().await?;
    }
    report.times("empty directory -> ready and /readyz", &samples, "goal 300 ms; guest kernel and template cached");
    site.empty()
}

/// Processor time of a process, user and system, in clock ticks of 10 ms.
fn ticks(id: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name of the program is in parentheses and may have spaces.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).context("/proc/PID/stat");
    Ok(field(11)? + field(12)?)
}

/// A figure of `/proc/PID/status`, in MiB.
fn memory(id: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("no such figure")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}

/// Memory and processor of a server that has nothing to do.
pub async fn idle(server: &Server, report: &mut Report) -> Result<()> {
    let id = server.id()?;
    tokio::time::sleep(SETTLE).await;
    let before = ticks(id)?;
    tokio::time::sleep(IDLE).await;
    let used = (ticks(id)? - before) as f64 * 0.01 / IDLE.as_secs_f64();
    let (resident, own) = (memory(id, "VmRSS")?, memory(id, "RssAnon")?);
    let more = format!("{own:.1} MiB of it its own, the rest the program's file; goal 60 MiB");
    report.value("control plane idle: memory (RSS)", &format!("{resident:.1} MiB"), &more);
    report.value(
        "control plane idle: processor, over 10 s",
        &format!("{:.2} %", used * 100.0),
        "of one core, goal 0.3 %",
    );
    Ok(())
}

fn config_map(name: &str) -> Bytes {
    let data = json!({"colour": "blue", "text": "x".repeat(100)});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string().into()
}

async fn create_namespace(site: &Site, name: &str) -> Result<()> {
    let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    Client::connect(&site.kubeconfig()).await?.create("/api/v1/namespaces", &document).await.map(drop)
}

/// Creates ConfigMaps over so many connections at once; returns how long each took, and all together.
async fn create_many(site: &Site, namespace: &str, clients: usize, count: usize) -> Result<(Vec<Duration>, Duration)> {
    create_namespace(site, namespace).await?;
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Client::connect(&site.kubeconfig()).await?);
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, mut client) in connections.into_iter().enumerate() {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        tasks.spawn(async move {
            let mut samples = Vec::with_capacity(count / clients);
            for number in 0..count / clients {
                let body = config_map(&format!("c-{index}-{number}"));
                let started = Instant::now();
                client.bytes("POST", &path, body).await?;
                samples.push(started.elapsed());
            }
            anyhow::Ok(samples)
        });
    }
    let mut samples = Vec::with_capacity(count);
    while let Some(result) = tasks.join_next().await {
        samples.extend(result??);
    }
    Ok((samples, started.elapsed()))
}

/// Durable writes over HTTPS.
pub async fn creates(site: &Site, report: &mut Report) -> Result<()> {
    for (clients, count) in CREATES {
        let (samples, took) = create_many(site, &format!("clients-{clients}"), clients, count).await?;
        let rate = samples.len() as f64 / took.as_secs_f64();
        let goal = if clients == 1 { "goal 1,200 a second, p99 3 ms" } else { "goal 8,000 a second, p99 10 ms" };
        report.times(
            &format!("ConfigMap create, {clients} client(s)"),
            &samples,
            &format!("{rate:.0} a second; {goal}"),
        );
    }
    Ok(())
}

/// A list of 10,000 ConfigMaps.
pub async fn list(site: &Site, report: &mut Report) -> Result<()> {
    // Every namespace gets one of its own, the certificate authority's.
    create_many(site, NAMESPACE, 20, LISTED).await?;
    let mut client = Client::connect(&site.kubeconfig()).await?;
    let mut samples = Vec::new();
    let mut bytes = 0;
    for _ in 0..LISTS {
        let started = Instant::now();
        let answer = client.get(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps")).await?;
        samples.push(started.elapsed());
        bytes = answer.len();
    }
    let more = format!("{:.1} MiB each; goal 30 ms", bytes as f64 / f64::from(1 << 20));
    report.times("first list of 10,000 ConfigMaps, JSON", &samples[..1], &more);
    report.times("the same list again", &samples[1..], &more);
    Ok(())
}

/// Start with everything that was written stored.
pub async fn restart(site: &Site, report: &mut Report) -> Result<()> {
    let mut samples = Vec::new();
    let stored = CREATES.iter().map(|(_, count)| count).sum::<usize>() + LISTED;
    for _ in 0..RESTARTS {
        let server = site.start().await?;
        samples.push(server.ready);
        server.stop().await?;
    }
    report.times(&format!("restart with {stored} objects -> ready and /readyz"), &samples, "goal 1 s");
    Ok(())
}
