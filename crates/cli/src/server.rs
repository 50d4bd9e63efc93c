//! A cluster's server: the one place where the product is joined together.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use ipnet::Ipv4Net;
use isopod_apiserver::{ApiServer, Config, UserInfo};
use isopod_controllers as controllers;
use isopod_host_agent::drivers::HostFacts;
use isopod_host_agent::{HostAgent, Real, RealDrivers};
use isopod_images::{ImageStore, Limits};
use isopod_net::{DnsRelay, GATEWAY, Network, Protocol, RoutingTable, Virtual, upstreams_of_this_host};
use isopod_types::names::OWN_API_VERSION;
use isopod_types::own::{ClusterSpec, FargateProfileSpec, NodeGroupSpec, Subnet, Vpc};
use isopod_vmm::{Accelerator, GuestAgent, Options, User, Vmm};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterFile, Places, require_root};
use crate::kubeconfig::context_name;
use crate::streams::LocalKubelets;

/// The guest agent that this binary carries; empty when it was built without one.
static GUEST_AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-agent"));

/// Who QEMU runs as: a guest that breaks out of it has no rights.
const NOBODY: User = User { uid: 65534, gid: 65534 };

/// Private subnets of a cluster, one per zone.
const SUBNETS: usize = 3;

/// Runs a cluster's server until it is told to stop. Pods go on running after it.
pub(crate) async fn run(places: &Places, name: &str) -> anyhow::Result<()> {
    require_root()?;
    let cluster = places.cluster(name);
    let file = cluster.read()?;
    let Some(_lock) = cluster.lock()? else { bail!("cluster {name:?} is running already") };
    start_logging();
    raise_open_files();
    drop(rustls::crypto::ring::default_provider().install_default());
    let stop = CancellationToken::new();
    let server = Server::open(&cluster, &file).await?;
    let (serving, drivers) = server.serve(&file, stop.clone()).await?;
    ready();
    wait_for_signal().await?;
    tracing::info!("stopping; pods go on running");
    stop.cancel();
    let served = serving.await?;
    drivers.close().await;
    served
}

/// A connection takes a descriptor, and a shell's usual limit is a quarter of the connections that are served.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays what it is");
    }
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ISOPOD_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube=warn,hyper=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second subscriber in one process is a test's.
    drop(subscriber.try_init());
}

/// Tells whoever started the server, who reads its standard output.
fn ready() {
    let mut out = std::io::stdout();
    // Nobody may be listening.
    drop(writeln!(out, "ready").and_then(|()| out.flush()));
}

async fn wait_for_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// The nth address of a network.
fn nth(network: Ipv4Net, index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) + index)
}

/// The cluster's private subnets: the second half of its network, in three parts as eksctl lays them out.
pub(crate) fn subnets(vpc: Ipv4Net, region: &str, cluster: &str) -> Vec<Subnet> {
    let parts = vpc.subnets(vpc.prefix_len() + 3).into_iter().flatten().skip(SUBNETS).take(SUBNETS);
    let zones = ["a", "b", "c"];
    let hash = |zone: &str| {
        format!("{cluster}{zone}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let subnet = |(cidr, zone): (Ipv4Net, &str)| Subnet {
        id: format!("subnet-0{:016x}", hash(zone)),
        cidr,
        zone: zone_name(region, zone),
    };
    parts.zip(zones).map(subnet).collect()
}

/// `eu-west-1a`, but `local-a`.
fn zone_name(region: &str, zone: &str) -> String {
    if region.ends_with(|c: char| c.is_ascii_digit()) { format!("{region}{zone}") } else { format!("{region}-{zone}") }
}

/// How microVMs are made for a cluster.
pub(crate) fn vmm_options(cluster: &Cluster) -> anyhow::Result<Options> {
    ensure!(!GUEST_AGENT.is_empty(), "this binary was built without a guest agent\nhint: cargo xtask build");
    let mut options =
        Options::new(cluster.run.join("vm"), cluster.cache.clone(), GuestAgent::Bytes(GUEST_AGENT.into()));
    options.user = Some(NOBODY);
    options.cgroup = Some(format!("isopod-{}", cluster.name));
    Ok(options)
}

/// The parts of a running server.
struct Server {
    api: Arc<ApiServer>,
    network: Network,
    vmm: Vmm,
    images: ImageStore,
    cluster: Cluster,
    dns: DnsRelay,
}

/// The task that serves the API.
type Serving = tokio::task::JoinHandle<anyhow::Result<()>>;

impl Server {
    async fn open(cluster: &Cluster, file: &ClusterFile) -> anyhow::Result<Self> {
        let settings = isopod_net::Settings { cluster: cluster.name.clone(), vpc: file.vpc_cidr };
        let network = Network::open(&settings);
        let config = Config {
            state_directory: Some(cluster.directory.join("control-plane")),
            cluster_name: cluster.name.clone(),
            server_names: vec![file.listen.ip().to_string(), GATEWAY.to_string(), file.host.clone()],
            advertise: SocketAddr::new(GATEWAY.into(), file.listen.port()),
            service_cidr: file.service_cidr,
            ..Config::default()
        };
        // Opening the API writes keys and objects to the disk, the others wait for programs: side by side.
        let api = tokio::spawn(ApiServer::open(config));
        let (network, vmm) = tokio::join!(network, Vmm::open(vmm_options(cluster)?));
        let (network, api, vmm) = (network?, api.await??, vmm?);
        let options = isopod_images::Options {
            directory: cluster.directory.join("images"),
            insecure_registries: Vec::new(),
            limits: Limits::default(),
        };
        let images = ImageStore::open(options)?;
        let dns = DnsRelay::start(GATEWAY, upstreams_of_this_host()).await?;
        Ok(Self { api, network, vmm, images, cluster: cluster.clone(), dns })
    }

    /// Starts everything; the task that is returned ends when serving does.
    async fn serve(self, file: &ClusterFile, stop: CancellationToken) -> anyhow::Result<(Serving, Arc<RealDrivers>)> {
        let listeners = listeners(file.listen).await?;
        self.network.apply(self.routes(file)).await?;
        self.write_kubeconfig(file)?;
        let (api, until) = (self.api.clone(), stop.clone());
        let serving =
            tokio::spawn(async move { Ok(api.serve(listeners, async move { until.cancelled().await }).await?) });
        self.create_own_objects(file).await?;
        self.start_controllers(&stop);
        Ok((serving, self.start_agent(file, stop).await?))
    }

    /// A client with an identity of its own; what it may do, RBAC says.
    fn client(&self, name: &str, groups: &[&str]) -> kube::Client {
        kube::Client::new(self.api.in_process(UserInfo::new(name, groups.iter().copied())), "default")
    }

    /// Virtual addresses of every cluster: the API and the cluster's DNS.
    fn routes(&self, file: &ClusterFile) -> RoutingTable {
        let (api, dns) = (nth(file.service_cidr, 1), nth(file.service_cidr, 10));
        let to = |port| vec![(GATEWAY, port)];
        let dns_port = self.dns.address().port();
        RoutingTable::from([
            (Virtual { address: api, port: 443, protocol: Protocol::Tcp }, to(file.listen.port())),
            (Virtual { address: dns, port: 53, protocol: Protocol::Udp }, to(dns_port)),
            (Virtual { address: dns, port: 53, protocol: Protocol::Tcp }, to(dns_port)),
        ])
    }

    fn write_kubeconfig(&self, file: &ClusterFile) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let context = context_name(&self.cluster.name, &file.config.metadata.region);
        let text = self.api.admin_kubeconfig(&format!("https://{}", file.listen), &context);
        let path = self.cluster.admin_kubeconfig();
        std::fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// The Cluster object follows the settings file; profiles are only made once and are the user's afterwards.
    async fn create_own_objects(&self, file: &ClusterFile) -> anyhow::Result<()> {
        let client = self.client("system:isopod:server", &["system:masters"]);
        let first = create(&client, "clusters", &cluster_object(file)).await?;
        for profile in file.config.fargate_profiles.iter().filter(|_| first) {
            create(&client, "fargateprofiles", &profile_object(&profile.name, &FargateProfileSpec::from(profile)))
                .await?;
        }
        if first {
            create_in(&client, "/apis/storage.k8s.io/v1/storageclasses", &default_storage_class()).await?;
        }
        for group in file.config.all_node_groups().filter(|_| first) {
            create(&client, "nodegroups", &node_group_object(&group.name, &NodeGroupSpec::from(group))).await?;
        }
        Ok(())
    }

    fn start_controllers(&self, stop: &CancellationToken) {
        let settings = controllers::Settings { ca_pem: self.api.ca_certificate_pem().to_owned() };
        let (client, stop) = (self.client("system:isopod:controllers", &[]), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = controllers::run(client, settings, stop).await {
                tracing::error!(error = format!("{error:#}"), "controllers ended");
            }
        });
    }

    async fn start_agent(self, file: &ClusterFile, stop: CancellationToken) -> anyhow::Result<Arc<RealDrivers>> {
        let settings = isopod_host_agent::Settings {
            host: file.host.clone(),
            address: file.listen.ip().to_string(),
            directory: self.cluster.directory.join("agent"),
            cluster_dns: nth(file.service_cidr, 10).to_string(),
            fargate: file.config.fargate.clone(),
        };
        let facts = facts(&self.vmm, &self.cluster)?;
        let client = self.client("system:isopod:host-agent", &[]);
        let scratch = self.cluster.directory.join("scratch");
        let dns = self.dns;
        let drivers = Arc::new(RealDrivers::open(self.images, self.network, self.vmm, facts, scratch).await?);
        let agent = HostAgent::start(client, Box::new(Real(drivers.clone())), settings, stop.clone()).await?;
        // Only now: adoption clears away what unfinished templates left.
        drivers.warm();
        self.api.connect_kubelets(Arc::new(LocalKubelets(agent)));
        tokio::spawn(async move {
            stop.cancelled().await;
            drop(dns);
        });
        Ok(drivers)
    }
}

/// The API listens for users where they were told, and for pods at the gateway.
async fn listeners(listen: SocketAddr) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in [listen, SocketAddr::new(GATEWAY.into(), listen.port())] {
        let text = "hint: another program has the port; choose another with --port when creating the cluster";
        listeners
            .push(TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}\n{text}"))?);
    }
    Ok(listeners)
}

/// Creates an object of one of our kinds; false when it was there.
pub(crate) async fn create(client: &kube::Client, plural: &str, object: &Value) -> anyhow::Result<bool> {
    create_in(client, &format!("/apis/{OWN_API_VERSION}/{plural}"), object).await
}

async fn create_in(client: &kube::Client, collection: &str, object: &Value) -> anyhow::Result<bool> {
    let request = http::Request::post(collection).header("content-type", "application/json");
    match client.request::<Value>(request.body(object.to_string().into_bytes())?).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The document of a Fargate profile.
pub(crate) fn profile_object(name: &str, spec: &FargateProfileSpec) -> Value {
    json!({"apiVersion": OWN_API_VERSION, "kind": "FargateProfile", "metadata": {"name": name}, "spec": spec})
}

/// The storage class that claims get which name none: EKS's, whose disks are made where the first pod goes.
fn default_storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "gp2", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/aws-ebs", "parameters": {"type": "gp2", "fsType": "ext4"},
        "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
    })
}

/// The document of a node group.
pub(crate) fn node_group_object(name: &str, spec: &NodeGroupSpec) -> Value {
    json!({"apiVersion": OWN_API_VERSION, "kind": "NodeGroup", "metadata": {"name": name}, "spec": spec})
}

fn cluster_object(file: &ClusterFile) -> Value {
    let meta = &file.config.metadata;
    let spec = ClusterSpec {
        region: meta.region.clone(),
        version: meta.version.clone().unwrap_or_else(|| "1.36".into()),
        vpc: Vpc { cidr: Some(file.vpc_cidr), subnets: subnets(file.vpc_cidr, &meta.region, &meta.name) },
        service_cidr: file.service_cidr.to_string(),
        fargate: file.config.fargate.clone(),
        billing: file.config.billing.clone(),
    };
    json!({"apiVersion": OWN_API_VERSION, "kind": "Cluster", "metadata": {"name": meta.name}, "spec": spec})
}

fn facts(vmm: &Vmm, cluster: &Cluster) -> anyhow::Result<HostFacts> {
    let cpu_count = u32::try_from(std::thread::available_parallelism()?.get()).unwrap_or(1);
    let meminfo = meminfo()?;
    let kernel = isopod_vmm::kernel::find(None, &cluster.cache).map(|kernel| kernel.release).unwrap_or_default();
    let accelerator = if vmm.accelerator() == Accelerator::Kvm { "kvm" } else { "tcg" };
    let memory_bytes = meminfo.get("MemTotal").copied().unwrap_or(0);
    let (backend, version) = ("qemu".into(), vmm.qemu_version().to_owned());
    Ok(HostFacts {
        cpu_count,
        memory_bytes,
        backend,
        accelerator: accelerator.into(),
        version,
        simulated: false,
        kernel,
    })
}

/// /proc/meminfo in bytes.
pub(crate) fn meminfo() -> anyhow::Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024))
    };
    Ok(text.lines().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_eksctls_private_ones() {
        let found = subnets("192.168.0.0/16".parse().unwrap(), "eu-west-1", "demo");
        let text: Vec<String> = found.iter().map(|s| format!("{} {}", s.cidr, s.zone)).collect();
        assert_eq!(text, ["192.168.96.0/19 eu-west-1a", "192.168.128.0/19 eu-west-1b", "192.168.160.0/19 eu-west-1c"]);
        assert_ne!(found[0].id, found[1].id);
    }
}
