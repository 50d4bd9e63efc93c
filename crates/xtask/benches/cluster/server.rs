//! The cluster that is measured: created, started, stopped and removed by the binary itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::client::Client;

/// Name of the cluster.
const CLUSTER: &str = "bench";
/// How long a server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the cluster is.
pub struct Site {
    pub binary: PathBuf,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    /// Where the sample images are.
    pub images: PathBuf,
}

/// A running server.
pub struct Server {
    child: Child,
    /// From its start until it said that it is ready and answered `/readyz`.
    pub ready: Duration,
}

impl Site {
    fn isopod(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--state-dir").arg(&self.state_dir).arg("--run-dir").arg(&self.run_dir).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        let output = self.isopod(args).stdin(Stdio::null()).output().context("isopod cannot be run")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "isopod {}: {}", args.join(" "), said.trim());
        Ok(())
    }

    fn cluster(&self) -> PathBuf {
        self.state_dir.join("clusters").join(CLUSTER)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster().join("admin.kubeconfig")
    }

    /// Creates the cluster and stops its server: a measured one runs as a child of this process.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.state_dir).with_context(|| format!("{}", self.state_dir.display()))?;
        let kubeconfig = self.state_dir.join("kubeconfig").display().to_string();
        self.run(&["create", "cluster", "--name", CLUSTER, "--fargate", "--kubeconfig", &kubeconfig])?;
        self.stop_background()
    }

    fn stop_background(&self) -> Result<()> {
        let lock = self.run_dir.join(CLUSTER).join("lock");
        let id = fs::read_to_string(&lock).with_context(|| format!("{}", lock.display()))?;
        ensure!(Command::new("kill").arg(id.trim()).status()?.success(), "the server cannot be stopped");
        let started = Instant::now();
        while Path::new("/proc").join(id.trim()).exists() {
            ensure!(started.elapsed() < STOP_TIMEOUT, "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Everything a cluster has but its settings goes: what is left is a cluster that was never started.
    pub fn empty(&self) -> Result<()> {
        for entry in fs::read_dir(self.cluster())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "cluster.json") {
                continue;
            }
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }

    /// Starts the server and waits until it is ready.
    pub async fn start(&self) -> Result<Server> {
        let log = fs::File::create(self.state_dir.join("server.log"))?;
        let mut command = tokio::process::Command::from(self.isopod(&["server", "--name", CLUSTER]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().context("isopod server cannot be run")?;
        let mut lines = BufReader::new(child.stdout.take().context("output of the server")?).lines();
        while let Some(line) = lines.next_line().await? {
            if line == "ready" {
                Client::connect(&self.kubeconfig()).await?.get("/readyz").await?;
                return Ok(Server { child, ready: started.elapsed() });
            }
        }
        bail!("the server ended\nhint: see {}", self.state_dir.join("server.log").display())
    }

    /// Imports the sample images.
    pub fn import_images(&self) -> Result<()> {
        let archive = self.images.join("busybox.tar").display().to_string();
        self.run(&["image", "import", &archive, "--cluster", CLUSTER])
    }

    /// Removes the cluster, if there is one, and everything of it but the guest kernel.
    pub fn remove(&self) -> Result<()> {
        if self.cluster().exists() {
            self.run(&["delete", "cluster", "--name", CLUSTER])?;
        }
        for path in [&self.run_dir, &self.state_dir.join("kubeconfig")] {
            let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            drop(gone);
        }
        Ok(())
    }
}

impl Server {
    /// Its process id.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("the server has ended")
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.id()?.to_string();
        ensure!(Command::new("kill").arg(id).status()?.success(), "the server cannot be stopped");
        tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.context("the server does not stop")??;
        Ok(())
    }
}
