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

    fn process_file(&self, name: &str) -> Result<String, Failure> {
        let id = self.child.id().ok_or("the server has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/{name}"))?)
    }

    pub fn resident_bytes(&self) -> Result<f64, Failure> {
        let status = self.process_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }

    /// Seconds of processor time that it has used.
    pub fn processor_seconds(&self) -> Result<f64, Failure> {
        let stat = self.process_file("stat")?;
        // The name of the program is in parentheses; two times are the 14th and 15th field, in hundredths (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").ok_or("no name")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / 100.0)
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
