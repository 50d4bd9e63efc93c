//! The cluster: starts its parts, stops them, starts them again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isopod_apiserver::{ApiServer, Config, UserInfo};
use isopod_controllers as controllers;
use isopod_host_agent::{HostAgent, Settings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fake::{FakeDrivers, FakeHost};
use crate::kubelets::CurrentAgent;

/// Longest time a test waits for something; never a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with one simulated host and profile `fp-default` over namespace `default`.
pub struct TestCluster {
    /// The API server.
    pub api: Arc<ApiServer>,
    /// The host's microVMs, which outlive agents.
    pub host: FakeHost,
    agent: Arc<CurrentAgent>,
    directory: PathBuf,
    stop: CancellationToken,
}

impl TestCluster {
    /// Starts a cluster.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        let api = ApiServer::open(Config::default()).await?;
        let directory = std::env::temp_dir().join(format!("isopod-testkit-{name}-{}", std::process::id()));
        let agent = Arc::<CurrentAgent>::default();
        api.connect_kubelets(agent.clone());
        let cluster = Self { api, host: FakeHost::default(), agent, directory, stop: CancellationToken::new() };
        let subnets = json!([{"id": "subnet-a", "cidr": "10.1.0.0/20", "zone": "a"}]);
        let fargate = json!({"cpuOvercommit": 16, "memoryOvercommit": 3});
        let spec = json!({"region": "local", "vpc": {"cidr": "10.1.0.0/16", "subnets": subnets}, "fargate": fargate});
        cluster.create("/apis/isopod.dev/v1alpha1/clusters", own("Cluster", name, spec)).await?;
        let selectors = json!({"selectors": [{"namespace": "default"}]});
        cluster
            .create("/apis/isopod.dev/v1alpha1/fargateprofiles", own("FargateProfile", "fp-default", selectors))
            .await?;
        let settings = controllers::Settings { ca_pem: cluster.api.ca_certificate_pem().to_owned() };
        tokio::spawn(controllers::run(
            cluster.client("system:isopod:controllers", &[]),
            settings,
            cluster.stop.clone(),
        ));
        Ok(cluster)
    }

    /// A client with an identity of its own.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        kube::Client::new(self.api.in_process(UserInfo::new(user, groups.iter().copied())), "default")
    }

    /// Starts a host agent; the token ends it, its microVMs run on.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_agent(&self) -> anyhow::Result<CancellationToken> {
        let stop = self.stop.child_token();
        let settings = Settings {
            host: "host-1".into(),
            address: "127.0.0.1".into(),
            directory: self.directory.clone(),
            cluster_dns: "10.100.0.10".into(),
            fargate: Default::default(),
        };
        let client = self.client("system:isopod:host-agent", &[]);
        let drivers = Box::new(FakeDrivers(self.host.clone()));
        self.agent.is(HostAgent::start(client, drivers, settings, stop.clone()).await?);
        Ok(stop)
    }

    async fn request(&self, request: http::request::Builder, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.header("content-type", "application/json").body(body)?;
        Ok(self.client("admin", &["system:masters"]).request(request).await?)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// What the API says.
    pub async fn create(&self, collection: &str, object: Value) -> anyhow::Result<Value> {
        self.request(http::Request::post(collection), Some(&object)).await
    }

    /// Gets an object or a list.
    ///
    /// # Errors
    /// What the API says.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request(http::Request::get(path), None).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// What the API says.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.request(http::Request::delete(path), None).await
    }

    /// Merges a patch into an object.
    ///
    /// # Errors
    /// What the API says.
    pub async fn patch(&self, path: &str, patch: Value) -> anyhow::Result<Value> {
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        let request = request.body(patch.to_string().into_bytes())?;
        Ok(self.client("admin", &["system:masters"]).request(request).await?)
    }

    /// Items of a list; none when it cannot be had.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until what is at a path satisfies a condition; says what was there last when it does not.
    ///
    /// # Errors
    /// After the longest time a test waits.
    pub async fn wait_for(&self, path: &str, what: &str, condition: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begin = Instant::now();
        loop {
            let found = self.get(path).await.unwrap_or_default();
            if condition(&found) {
                return Ok(found);
            }
            anyhow::ensure!(begin.elapsed() < PATIENCE, "timed out waiting for {what}: {found:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl TestCluster {
    /// Waits until something holds that the API does not tell.
    ///
    /// # Errors
    /// After the longest time a test waits.
    pub async fn wait_until(&self, what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !condition() {
            anyhow::ensure!(begin.elapsed() < PATIENCE, "timed out waiting for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until nothing is at a path.
    ///
    /// # Errors
    /// After the longest time a test waits.
    pub async fn wait_for_gone(&self, path: &str) -> anyhow::Result<()> {
        self.wait_for(path, "its end", Value::is_null).await.map(drop)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.stop.cancel();
        // Agents that are still ending may have files open.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn own(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "isopod.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
