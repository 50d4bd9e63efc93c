//! A cluster on this machine: its directories, its settings file, its lock.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ipnet::Ipv4Net;
use isopod_types::cluster_config::ClusterConfig;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::args::ClusterName;

/// Where clusters are on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// What is fixed when a cluster is created.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterFile {
    /// The configuration it was created from.
    pub(crate) config: ClusterConfig,
    /// Where the API server listens.
    pub(crate) listen: SocketAddr,
    /// All addresses of pods.
    pub(crate) vpc_cidr: Ipv4Net,
    /// All addresses of Services.
    pub(crate) service_cidr: Ipv4Net,
    /// Name of this host.
    pub(crate) host: String,
    /// When it was created.
    pub(crate) created: Timestamp,
}

/// A cluster's place on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// Its state.
    pub(crate) directory: PathBuf,
    /// Its sockets and lock.
    pub(crate) run: PathBuf,
    /// Kernels and templates, shared by all clusters.
    pub(crate) cache: PathBuf,
}

/// Held by a cluster's server for as long as it lives.
pub(crate) struct Lock {
    _file: File,
}

impl Places {
    pub(crate) fn cluster(&self, name: &str) -> Cluster {
        Cluster {
            name: name.to_owned(),
            directory: self.state_dir.join("clusters").join(name),
            run: self.run_dir.join(name),
            cache: self.state_dir.join("cache"),
        }
    }

    /// All clusters, by name.
    pub(crate) fn clusters(&self) -> Vec<Cluster> {
        let entries = fs::read_dir(self.state_dir.join("clusters")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().map(|name| self.cluster(name)).filter(Cluster::exists).collect()
    }

    /// The cluster of that name, or the only one.
    pub(crate) fn find(&self, wanted: &ClusterName) -> anyhow::Result<Cluster> {
        let clusters = self.clusters();
        let names = || clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().join(", ");
        match (&wanted.cluster, &clusters[..]) {
            (_, []) => bail!("there is no cluster on this machine\nhint: isopod create cluster --name demo --fargate"),
            (None, [only]) => Ok(only.clone()),
            (None, _) => bail!("there are several clusters: {}\nhint: name one with --cluster", names()),
            (Some(name), all) => {
                let found = all.iter().find(|cluster| cluster.name == *name);
                found.cloned().with_context(|| format!("there is no cluster {name:?}\nhint: there is {}", names()))
            }
        }
    }
}

/// Only root can make taps, tables and microVMs.
pub(crate) fn require_root() -> anyhow::Result<()> {
    let root = rustix::process::geteuid().is_root();
    ensure!(root, "isopod must run as root: it makes network interfaces and microVMs\nhint: sudo isopod ...");
    Ok(())
}

impl Cluster {
    fn file(&self) -> PathBuf {
        self.directory.join("cluster.json")
    }

    pub(crate) fn exists(&self) -> bool {
        self.file().exists()
    }

    pub(crate) fn read(&self) -> anyhow::Result<ClusterFile> {
        let path = self.file();
        let text = fs::read(&path)
            .with_context(|| format!("{}\nhint: does the cluster exist? isopod get cluster", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    pub(crate) fn write(&self, file: &ClusterFile) -> anyhow::Result<()> {
        fs::create_dir_all(&self.directory).with_context(|| format!("{}", self.directory.display()))?;
        private(&self.directory)?;
        let path = self.file();
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(file)?)?;
        fs::rename(&partial, &path).with_context(|| format!("{}", path.display()))
    }

    fn lock_path(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// Takes the lock for a server. None: another one has it.
    pub(crate) fn lock(&self) -> anyhow::Result<Option<Lock>> {
        fs::create_dir_all(&self.run).with_context(|| format!("{}", self.run.display()))?;
        let mut file = File::options().create(true).read(true).write(true).truncate(false).open(self.lock_path())?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Some(Lock { _file: file }))
    }

    /// Process id of the server, if one runs.
    pub(crate) fn server(&self) -> Option<rustix::process::Pid> {
        let mut file = File::open(self.lock_path()).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        rustix::process::Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Where the administrator's kubeconfig is kept.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}

fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// A client of a cluster, as its administrator.
pub(crate) async fn client(cluster: &Cluster) -> anyhow::Result<kube::Client> {
    ensure!(
        cluster.server().is_some(),
        "cluster {0:?} is not running\nhint: isopod start cluster --name {0}",
        cluster.name
    );
    drop(rustls::crypto::ring::default_provider().install_default());
    let path = cluster.admin_kubeconfig();
    let kubeconfig = kube::config::Kubeconfig::read_from(&path).with_context(|| format!("{}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
