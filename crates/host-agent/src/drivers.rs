//! What the agent needs of its drivers, as traits: the real ones are images, net and vmm; tests bring their own.
//!
//! The fake ones of the test kit implement the same traits, so the agent that is tested is the agent that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use isopod_guest_api as api;
use isopod_planner::environment::ImageDefaults;
use isopod_planner::sizing::Tier;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::guest::{ExecSession, GuestError, GuestStream};

/// A pull that failed: the status reason, and the registry's words.
#[derive(Clone, Debug)]
pub struct PullFailure {
    /// `ErrImagePull`, `InvalidImageName` or `ErrImageNeverPull`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// An image on this host.
#[derive(Clone, Debug, Default)]
pub struct LocalImage {
    /// Digest by which the pod's status names it.
    pub id: String,
    /// Its read-only disk.
    pub disk: PathBuf,
    /// How its process runs.
    pub defaults: ImageDefaults,
    /// Signal that asks it to stop, such as `SIGTERM`.
    pub stop_signal: String,
    /// Whether it was here already.
    pub was_present: bool,
}

/// One image to be made available.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Reference.
    pub image: String,
    /// `imagePullPolicy`.
    pub policy: String,
    /// `.dockerconfigjson` documents of the pod's pull secrets.
    pub docker_configs: Vec<Vec<u8>>,
}

/// One microVM to be made.
#[derive(Clone, Debug)]
pub struct MachineRequest {
    /// Unique on this host.
    pub id: String,
    /// Size.
    pub tier: Tier,
    /// Address of pod and node.
    pub address: Ipv4Addr,
    /// Size of the writable disk in bytes.
    pub scratch_bytes: u64,
}

/// A node of many pods to be made.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// Unique on this host.
    pub id: String,
    /// Processors.
    pub vcpu_count: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its host name.
    pub hostname: String,
    /// Size of its disk in bytes.
    pub disk_bytes: u64,
}

/// A pod's place on a node of many.
#[derive(Clone, Debug)]
pub struct Lodging {
    /// UID of the pod.
    pub uid: String,
    /// Its address; the node's, if it uses the node's network.
    pub address: Ipv4Addr,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// The node's address.
    pub node: Ipv4Addr,
    /// Ports of that address that lead to the pod.
    pub ports: Vec<isopod_net::HostPort>,
}

/// A running machine that many pods share.
#[async_trait]
pub trait NodeMachine: Send + Sync {
    /// UIDs of the pods that it had when it was greeted.
    fn pods(&self) -> Vec<String>;
    /// Disks of volumes that it has, with the UIDs of the pods that use them.
    async fn volumes(&self) -> BTreeMap<PathBuf, BTreeSet<String>>;
    /// A pod's part of it, which behaves as a machine of its own; one that is there already is taken up again.
    async fn lodge(&self, lodging: Lodging) -> anyhow::Result<Arc<dyn Machine>>;
    /// What it and the containers of all its pods use.
    async fn stats(&self) -> Result<api::StatsResponse, GuestError>;
    /// Resolves when it has ended; says what is known about it.
    async fn exited(&self) -> String;
    /// Ends it and removes all that it had on this host.
    async fn destroy(&self) -> anyhow::Result<()>;
}

/// Machines that an earlier process left running, by id.
#[derive(Default)]
pub struct Adopted {
    /// Those of single pods.
    pub pods: BTreeMap<String, Arc<dyn Machine>>,
    /// Those of nodes.
    pub nodes: BTreeMap<String, Arc<dyn NodeMachine>>,
}

/// What ids of nodes' machines begin with.
pub const NODE_ID_PREFIX: &str = "node-";

/// A volume's disk in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedVolume {
    /// Its slot.
    pub slot: u32,
    /// Bytes that its file system has.
    pub size_bytes: u64,
}

/// A byte stream to a port in the pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A running microVM with its guest agent.
#[async_trait]
pub trait Machine: Send + Sync {
    /// `booted`, `restored` or `claimed`.
    fn start_path(&self) -> &'static str;
    /// What the guest said when it was greeted.
    fn hello(&self) -> api::HelloResponse;
    /// Lets a pod's address through to this machine; for machines of an earlier process.
    async fn readmit(&self, address: Ipv4Addr) -> anyhow::Result<()>;
    /// Puts an image's disk into a slot.
    async fn attach_image(&self, slot: u32, image: &LocalImage) -> anyhow::Result<()>;
    /// Puts a volume's disk into a slot; machines of single pods have none for that. A disk that was in no slot is made as large as it
    /// should be before.
    async fn attach_volume(&self, disk: PathBuf, _size_bytes: u64) -> anyhow::Result<AttachedVolume> {
        anyhow::bail!("this machine takes no volumes ({})", disk.display())
    }
    /// Makes the guest this pod's guest. Network and scratch slot are filled in by the driver.
    async fn configure(&self, config: api::PodConfig) -> Result<(), GuestError>;
    /// Starts a container.
    async fn start(&self, config: api::ContainerConfig) -> Result<api::StartContainerResponse, GuestError>;
    /// Gives a running container other limits.
    async fn update(&self, request: api::UpdateContainerRequest) -> Result<(), GuestError>;
    /// Signals a container's first process.
    async fn signal(&self, container_id: &str, signal: u32) -> Result<(), GuestError>;
    /// Events after a sequence number.
    async fn events(&self, after_sequence: u64) -> Result<GuestStream<api::Event>, GuestError>;
    /// A container's output from an offset.
    async fn logs(&self, request: api::LogsRequest) -> Result<GuestStream<api::LogChunk>, GuestError>;
    /// Runs a command in a container.
    async fn exec(&self, start: api::ExecStart) -> Result<ExecSession, GuestError>;
    /// Attaches to a container.
    async fn attach(&self, request: api::AttachRequest) -> Result<ExecSession, GuestError>;
    /// Connects to a port on the pod's loopback.
    async fn connect(&self, port: u16) -> Result<Box<dyn Duplex>, GuestError>;
    /// Connects to a port at the pod's own address, as anybody in the cluster would.
    async fn dial(&self, address: Ipv4Addr, port: u16) -> std::io::Result<Box<dyn Duplex>>;
    /// Replaces the files of a volume.
    async fn update_volume(&self, request: api::UpdateVolumeRequest) -> Result<(), GuestError>;
    /// Use of resources, now.
    async fn stats(&self) -> Result<api::StatsResponse, GuestError>;
    /// Resolves when it has ended; says what is known about it.
    async fn exited(&self) -> String;
    /// Ends it and removes all that it had on this host.
    async fn destroy(&self) -> anyhow::Result<()>;
}

/// What a host can do.
#[async_trait]
pub trait Drivers: Send + Sync {
    /// Makes an image available.
    async fn ensure_image(&self, request: PullRequest) -> Result<LocalImage, PullFailure>;
    /// Makes a microVM.
    async fn start_machine(&self, request: MachineRequest) -> anyhow::Result<Arc<dyn Machine>>;
    /// Makes a machine that is a node of many pods.
    async fn start_node(&self, request: NodeRequest) -> anyhow::Result<Arc<dyn NodeMachine>>;
    /// Machines that an earlier process left running.
    async fn adopt(&self) -> anyhow::Result<Adopted>;
    /// The file of a volume's disk, made with an empty file system of this size if it is not there.
    async fn volume(&self, handle: &str, size_bytes: u64) -> anyhow::Result<PathBuf>;
    /// Removes the file of a volume's disk; one that is gone is no error.
    async fn delete_volume(&self, handle: &str) -> anyhow::Result<()>;
    /// What this host is, for its Host object and its nodes.
    fn facts(&self) -> HostFacts;
}

/// What a host is.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Processors.
    pub cpu_count: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// `qemu` or `simulated`.
    pub backend: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Version of the backend.
    pub version: String,
    /// Whether nothing really runs.
    pub simulated: bool,
    /// Release of the guests' kernel.
    pub kernel: String,
}

/// The two ends of a port connection as one stream.
pub(crate) fn duplex(connection: crate::guest::PortConnection) -> Box<dyn Duplex> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut read, mut write) = tokio::io::split(theirs);
    let crate::guest::PortConnection { input, mut output } = connection;
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(count) = tokio::io::AsyncReadExt::read(&mut read, &mut buffer).await {
            if count == 0 || input.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(bytes)) = output.recv().await {
            if tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.is_err() {
                return;
            }
        }
        // The other side closed; telling ours may fail when it has closed as well.
        drop(tokio::io::AsyncWriteExt::shutdown(&mut write).await);
    });
    Box::new(ours)
}
