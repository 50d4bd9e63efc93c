//! `isopod delete cluster|fargateprofile`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use isopod_net::{Network, Settings};
use isopod_vmm::Vmm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::args::ClusterName;
use crate::cluster::{self, Cluster, ClusterFile, Places, require_root};
use crate::create::read_config;
use crate::progress::{done, info};
use crate::{kubeconfig, server};

/// Deletes a cluster with everything it has on this machine.
pub(crate) async fn cluster(
    places: &Places,
    name: Option<String>,
    file: Option<PathBuf>,
    purge: bool,
) -> anyhow::Result<()> {
    require_root()?;
    let name = match (name, file) {
        (Some(name), _) => name,
        (None, Some(path)) => read_config(&path)?.metadata.name,
        (None, None) => bail!("a name or a file is needed"),
    };
    let cluster = places.cluster(&name);
    if cluster.exists() {
        info(format!("deleting cluster {name:?}"));
        let file = cluster.read()?;
        remove(&cluster, &file).await?;
        done("all cluster resources were deleted");
    } else {
        info(format!("there is no cluster {name:?}; nothing to delete"));
    }
    if purge && places.clusters().is_empty() {
        for path in [places.state_dir.clone(), places.run_dir.clone()] {
            remove_tree(&path)?;
        }
        done("removed kernels and templates");
    }
    Ok(())
}

/// Takes a cluster off this machine: server, microVMs, network, files, kubeconfig entries.
pub(crate) async fn remove(cluster: &Cluster, file: &ClusterFile) -> anyhow::Result<()> {
    stop_server(cluster).await?;
    end_microvms(cluster).await?;
    Network::teardown(&Settings { cluster: cluster.name.clone(), vpc: file.vpc_cidr }).await?;
    if let Ok(text) = fs::read_to_string(cluster.admin_kubeconfig()) {
        kubeconfig::remove(&kubeconfig::user_file(), &text)?;
    }
    remove_tree(&cluster.directory)?;
    remove_tree(&cluster.run)?;
    if let Some(parent) = cluster.directory.parent()
        && fs::read_dir(parent).is_ok_and(|mut entries| entries.next().is_none())
    {
        remove_tree(parent)?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Asks the server to stop and waits until it has.
async fn stop_server(cluster: &Cluster) -> anyhow::Result<()> {
    let Some(pid) = cluster.server() else { return Ok(()) };
    kill_process(pid, Signal::TERM).context("the server cannot be stopped")?;
    let ended = ends_within(pid, STOPPING).await?;
    ensure!(ended, "the server did not end within {STOPPING:?}\nhint: kill -9 {}", pid.as_raw_nonzero());
    info("stopped the control plane");
    Ok(())
}

/// How long a server may take to end when it is asked to.
const STOPPING: Duration = Duration::from_secs(60);

/// Whether a process ends within a time.
pub(crate) async fn ends_within(pid: Pid, limit: Duration) -> anyhow::Result<bool> {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(true) };
    let limit = Timespec::try_from(limit)?;
    let ended = tokio::task::spawn_blocking(move || poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)));
    Ok(ended.await?? > 0)
}

async fn end_microvms(cluster: &Cluster) -> anyhow::Result<()> {
    let options = server::vmm_options(cluster)?;
    if !cluster.run.join("vm").exists() {
        return Ok(());
    }
    let vmm = Vmm::open(options).await?;
    let machines = vmm.adopt().await?;
    for machine in &machines {
        machine.destroy().await?;
    }
    vmm.close();
    info(format!("ended {} microVM(s)", machines.len()));
    Ok(())
}

/// Deletes a Fargate profile, and its pods with it as EKS does.
pub(crate) async fn profile(places: &Places, of: &ClusterName, name: &str) -> anyhow::Result<()> {
    let cluster = places.find(of)?;
    let client = cluster::client(&cluster).await?;
    let uri = format!("/apis/isopod.dev/v1alpha1/fargateprofiles/{name}");
    match client.request_text(http::Request::delete(uri).body(Vec::new())?).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("cluster {:?} has no Fargate profile {name:?}\nhint: isopod get fargateprofile", cluster.name)
        }
        Err(error) => return Err(error.into()),
    }
    let pods = format!("/api/v1/pods?labelSelector=eks.amazonaws.com/fargate-profile%3D{name}");
    let list: serde_json::Value = client.request(http::Request::get(pods).body(Vec::new())?).await?;
    for pod in list["items"].as_array().into_iter().flatten() {
        let (namespace, pod) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
        let uri = format!(
            "/api/v1/namespaces/{}/pods/{}",
            namespace.as_str().unwrap_or_default(),
            pod.as_str().unwrap_or_default()
        );
        client.request_text(http::Request::delete(uri).body(Vec::new())?).await?;
    }
    done(format!("deleted Fargate profile {name:?} on cluster {:?}", cluster.name));
    Ok(())
}
