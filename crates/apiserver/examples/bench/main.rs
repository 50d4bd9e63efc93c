//! How fast the API server is, over HTTPS, with a client on the same machine, with 10,000 pods stored and 1,000 watchers like
//! the kubelets of as many nodes: `cargo xtask bench --api [SCALE [PART...]]`, or
//! `cargo run --release -p isopod-apiserver --example bench -- DIRECTORY [SCALE [PART...]]`.
//!
//! The server runs as a process of its own over a fresh store below DIRECTORY, so that what is durable is what that
//! disk makes durable. SCALE (default 1) multiplies how often everything is done.

mod client;
mod figures;
mod pods;
mod server;
mod watching;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Access, Connection};
use crate::figures::{Figures, print, print_head};
use crate::server::Server;

/// The allocator of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Anything that ends a measurement.
pub type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = PathBuf::from(arguments.first().ok_or("usage: bench DIRECTORY [SCALE [PART...]]")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (scale, parts) = (arguments.get(1).map(String::as_str), arguments.get(2..).unwrap_or_default());
    match scale {
        Some(server::SERVE) => runtime.block_on(server::serve(&directory)),
        scale => {
            let plan = Plan { directory, scale: scale.map_or(Ok(1.0), str::parse)?, parts: parts.to_vec() };
            runtime.block_on(plan.measure())
        }
    }
}

const MIB: f64 = (1 << 20) as f64;
const ENCODINGS: [(&str, &str); 2] = [("JSON", client::JSON), ("protobuf", client::PROTOBUF)];

struct Plan {
    directory: PathBuf,
    scale: f64,
    /// What is measured: `open`, `pods` (which stay for the rest), `create`, `apply`, `list`, `watch`; all when empty.
    parts: Vec<String>,
}

impl Plan {
    fn times(&self, count: f64) -> usize {
        (count * self.scale).ceil() as usize
    }

    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|own| own == part)
    }

    async fn measure(&self) -> Result<(), Failure> {
        print_head();
        if self.has("open") {
            let opened = opening(&self.directory, self.times(20.0)).await?;
            print("empty directory to /readyz", &opened, "300 ms");
        }
        let server = Server::start(&self.directory).await?;
        let access = server.access()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{:<44} {:>6.1} MiB; goal 60 MiB", "idle resident memory", server.resident_bytes()? / MIB);
        // They stay until everything is measured.
        let _kubelets = if self.has("pods") { Some(pods::fill(&access, &server).await?) } else { None };
        if self.has("create") {
            self.creating(&access, &server).await?;
        }
        if self.has("apply") {
            let applied = applies(&access, self.times(2_000.0)).await?;
            print("server-side apply of Deployments, 1 client", &applied, "1,000/s");
        }
        if self.has("list") {
            self.listing(&access).await?;
        }
        if self.has("watch") {
            self.watching(&access).await?;
        }
        Ok(())
    }

    async fn creating(&self, access: &Access, server: &Server) -> Result<(), Failure> {
        for (clients, each, goal) in [(1, 2_000.0, "1,200/s, p99 3 ms"), (20, 500.0, "8,000/s, p99 10 ms")] {
            let before = server.resident_bytes()?;
            let created = creates(access, clients, self.times(each), "default").await?;
            print(&format!("durable ConfigMap creates, {clients} clients"), &created, goal);
            pods::tell_memory(server, before, "ConfigMap", clients * self.times(each))?;
        }
        Ok(())
    }

    /// Every round lists objects that nobody has read yet, then the same again and again.
    async fn listing(&self, access: &Access) -> Result<(), Failure> {
        for (encoding, accept) in ENCODINGS {
            let (mut first, mut again) = (Vec::new(), Vec::new());
            for round in 0..self.times(5.0) {
                let namespace = format!("listed-{}-{round}", encoding.to_lowercase());
                let body = json!({"metadata": {"name": namespace}}).to_string();
                Connection::open(access).await?.post("/api/v1/namespaces", body).await?;
                creates(access, 20, 500, &namespace).await?;
                let taken = lists(access, accept, &namespace, 21).await?;
                first.push(taken[0]);
                again.extend_from_slice(&taken[1..]);
            }
            print(&format!("first list of 10,000 ConfigMaps, {encoding}"), &Figures::alone(first), "30 ms in JSON");
            print(&format!("the same list again, {encoding}"), &Figures::alone(again), "30 ms in JSON");
        }
        Ok(())
    }

    async fn watching(&self, access: &Access) -> Result<(), Failure> {
        for (watchers, hertz, goal) in [(100, 50.0, "p99 3 ms"), (1_000, 10.0, "p99 20 ms")] {
            for (encoding, accept) in ENCODINGS {
                let seen = watching::fan_out(access, accept, (watchers, hertz), self.times(hertz * 5.0)).await?;
                print(&format!("watch: {watchers} watchers, {hertz} events/s, {encoding}"), &seen, goal);
            }
        }
        Ok(())
    }
}

/// From starting the process to its first good answer, each time over an empty store.
async fn opening(directory: &Path, rounds: usize) -> Result<Figures, Failure> {
    let mut figures = Figures::begin();
    for _ in 0..rounds {
        let begun = Instant::now();
        let server = Server::start(directory).await?;
        let mut connection = Connection::open(&server.access()?).await?;
        connection.get("/readyz").await?;
        figures.add(begun.elapsed());
    }
    Ok(figures.end())
}

/// Every client has a connection of its own and waits for each answer.
async fn creates(access: &Access, clients: usize, each: usize, namespace: &str) -> Result<Figures, Failure> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(access).await?);
    }
    let mut figures = Figures::begin();
    let mut tasks = tokio::task::JoinSet::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        let (name, path) = (format!("by-{clients}-{client}"), format!("/api/v1/namespaces/{namespace}/configmaps"));
        tasks.spawn(async move {
            let mut taken = Vec::with_capacity(each);
            for number in 0..each {
                let body = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{name}-{number}")},
                    "data": {"key": "value", "file": "a line of a configuration file\n"},
                });
                let begun = Instant::now();
                connection.post(&path, body.to_string()).await?;
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

/// Each object is created, then changed three times.
async fn applies(access: &Access, rounds: usize) -> Result<Figures, Failure> {
    let mut connection = Connection::open(access).await?;
    let mut figures = Figures::begin();
    for round in 0..rounds {
        let name = format!("applied-{}", round / 4);
        let labels = json!({"app": name});
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [
                    {"name": "main", "image": format!("nginx:{}", round % 4), "ports": [{"containerPort": 80}]},
                ]}},
            },
        });
        let path = format!("/apis/apps/v1/namespaces/default/deployments/{name}?fieldManager=bench");
        let begun = Instant::now();
        connection.apply(&path, body.to_string()).await?;
        figures.add(begun.elapsed());
    }
    Ok(figures.end())
}

/// How long each list of so many took, one after the other.
async fn lists(access: &Access, accept: &'static str, namespace: &str, times: usize) -> Result<Vec<Duration>, Failure> {
    let mut connection = Connection::open(access).await?.accepting(accept);
    let mut taken = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        let bytes = connection.get(&format!("/api/v1/namespaces/{namespace}/configmaps")).await?;
        taken.push(begun.elapsed());
        assert!(bytes > 1 << 20, "a list of ten thousand objects is larger than {bytes} bytes");
    }
    Ok(taken)
}
