//! The server as a process of its own, which ends with its owner.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use isopod_apiserver::{ApiServer, Config};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::client::Access;

/// The word that makes this program the server.
pub const SERVE: &str = "serve";

pub struct Server {
    child: Child,
    state: TempDir,
    address: String,
}

impl Server {
    /// Starts it over a fresh directory below `directory` and waits until it says where it serves.
    pub async fn start(directory: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory)?;
        let state = tempfile::tempdir_in(directory)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(state.path()).arg(SERVE).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let address = BufReader::new(output).lines().next_line().await?.ok_or("the server ended")?;
        Ok(Self { child, state, address })
    }

    pub fn access(&self) -> Result<Access, Failure> {
        Access::of(&self.address, &kubeconfig(self.state.path()))
    }

    pub fn resident_mib(&self) -> Result<f64, Failure> {
        let id = self.child.id().ok_or("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

fn kubeconfig(state: &Path) -> PathBuf {
    state.join("kubeconfig")
}

/// The server's own process.
pub async fn serve(directory: &Path) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let advertise = listener.local_addr()?;
    let config = Config { state_directory: Some(directory.to_owned()), advertise, ..Config::default() };
    let server = ApiServer::open(config).await?;
    std::fs::write(kubeconfig(directory), server.admin_kubeconfig(&format!("https://{advertise}"), "bench"))?;
    println!("{advertise}");
    Ok(server.serve(vec![listener], std::future::pending()).await?)
}
