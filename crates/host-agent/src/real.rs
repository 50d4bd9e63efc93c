//! The real drivers: images from registries, taps and tables, QEMU microVMs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use async_trait::async_trait;
use isopod_guest_api as api;
use isopod_images::{Credentials, ImageStore, Kind, Policy};
use isopod_net::{GATEWAY, Network};
use isopod_planner::environment::ImageDefaults;
use isopod_planner::sizing::{Tier, tiers};
use isopod_vmm::{MachineSpec, READ_ONLY_SLOTS, Role, SCRATCH_SLOT, StartPath, Vmm};

use crate::drivers::{
    Adopted, Drivers, Duplex, HostFacts, LocalImage, Machine, MachineRequest, NODE_ID_PREFIX, NodeMachine, NodeRequest,
    PullFailure, PullRequest, duplex,
};
use crate::guest::{ExecSession, GuestClient, GuestError, GuestStream};
use crate::lodging::RealNode;
use crate::pool::{Class, Hurry, ID_PREFIX, Limits, Pool, SCRATCH_BYTES, Taken};
use crate::scratch::Scratch;

/// Memory of a microVM beyond its tier, for the guest's kernel and agent: the pod gets what it is billed for.
const GUEST_OVERHEAD_BYTES: u64 = 64 << 20;

/// Machines that wait for pods: two each of the two sizes asked for last, about 70 MiB of memory apiece.
const WAITING: Limits = Limits { per_class: 2, classes: 2 };

/// Smallest disk of a volume: an ext4 file system needs some room for itself.
const VOLUME_MIN_BYTES: u64 = 8 << 20;

/// The drivers of a real host.
pub struct RealDrivers {
    /// Images of this host.
    pub images: ImageStore,
    /// The cluster's network on this host.
    pub network: Network,
    /// Its microVMs.
    pub vmm: Vmm,
    /// What the host is.
    pub facts: HostFacts,
    pub(crate) scratch: Scratch,
    /// Where disks of volumes are.
    volumes: PathBuf,
    pool: Pool,
}

impl RealDrivers {
    /// Puts the drivers together; writable disks of machines are kept in `directory`, those of volumes in `volumes` beside it.
    ///
    /// # Errors
    /// When the pool of waiting microVMs cannot be made.
    pub async fn open(
        images: ImageStore,
        network: Network,
        vmm: Vmm,
        facts: HostFacts,
        directory: PathBuf,
    ) -> anyhow::Result<Self> {
        let rehearsals = directory.join("pool");
        let volumes = directory.with_file_name("volumes");
        let scratch = Scratch::new(directory);
        let pool = Pool::open(vmm.clone(), Arc::new(network.clone()), scratch.clone(), WAITING, &rehearsals).await?;
        Ok(Self { images, network, vmm, facts, scratch, volumes, pool })
    }

    fn wrap(
        self: &Arc<Self>,
        machine: isopod_vmm::Machine,
        guest: GuestClient,
        start: Option<Start>,
    ) -> Arc<dyn Machine> {
        let images = tokio::sync::Mutex::default();
        Arc::new(RealMachine { drivers: self.clone(), machine, guest, start: Mutex::new(start), images })
    }

    /// A machine with a writable disk: one that waited, or else a new one.
    async fn obtain(&self, request: &MachineRequest) -> anyhow::Result<(isopod_vmm::Machine, GuestClient)> {
        if request.scratch_bytes == SCRATCH_BYTES
            && let Some(Taken { machine, guest }) = self.pool.take(class(request.tier), &request.id).await
        {
            return Ok((machine, guest));
        }
        let tap = self.network.create_tap(&request.id).await?;
        let disk = self.scratch.create(&request.id, request.scratch_bytes);
        let (disk, booted) = tokio::join!(disk, self.boot(request, &tap));
        let equipped = async {
            let (machine, guest) = booted?;
            let attached = async { anyhow::Ok(machine.attach_disk(SCRATCH_SLOT, &disk?, false).await?) };
            match attached.await {
                Ok(()) => Ok((machine, guest)),
                Err(error) => {
                    machine.destroy().await?;
                    Err(error)
                }
            }
        };
        match equipped.await {
            Ok(found) => Ok(found),
            Err(error) => {
                self.network.delete_tap(&tap).await?;
                Err(error)
            }
        }
    }

    async fn boot(&self, request: &MachineRequest, tap: &str) -> anyhow::Result<(isopod_vmm::Machine, GuestClient)> {
        let Class { vcpu_count, memory_bytes } = class(request.tier);
        let (id, tap) = (request.id.clone(), tap.to_owned());
        let spec = MachineSpec { id, role: Role::Pod, vcpu_count, memory_bytes, tap, paused: false };
        let machine = self.vmm.prepare(spec).await?;
        let connected = async { anyhow::Ok(GuestClient::connect(machine.agent().await?).await?) };
        match connected.await {
            Ok(guest) => Ok((machine, guest)),
            Err(error) => {
                let last_words = machine.last_words();
                machine.destroy().await?;
                Err(error.context(format!("the microVM's agent did not answer; its last words: {last_words}")))
            }
        }
    }

    /// A machine with what makes it this pod's: writable disk and address.
    async fn make(self: &Arc<Self>, request: &MachineRequest) -> anyhow::Result<Arc<dyn Machine>> {
        let start = Start {
            vcpu_millis: u32::try_from(request.tier.vcpu_millis).unwrap_or(u32::MAX),
            _hurry: self.pool.hurry(),
        };
        let (machine, guest) = self.obtain(request).await?;
        let tap = machine.tap();
        let wrapped = self.wrap(machine, guest, Some(start));
        match self.network.attach(&tap, request.address).await {
            Ok(()) => Ok(wrapped),
            Err(error) => {
                wrapped.destroy().await?;
                Err(error.into())
            }
        }
    }

    /// Where a volume's disk is. Handles come from objects that users can write.
    fn volume_path(&self, handle: &str) -> anyhow::Result<PathBuf> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        anyhow::ensure!(
            !handle.is_empty() && handle.len() <= 128 && handle.chars().all(good),
            "volume handle {handle:?} is not 1 to 128 letters, digits and hyphens"
        );
        Ok(self.volumes.join(format!("{handle}.ext4")))
    }

    async fn volume(&self, handle: &str, size_bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.volume_path(handle)?;
        if path.exists() {
            return Ok(path);
        }
        std::fs::create_dir_all(&self.volumes)?;
        let empty = self.scratch.empty(size_bytes.next_multiple_of(1 << 20).max(VOLUME_MIN_BYTES)).await?;
        let (partial, to) = (path.with_extension("partial"), path.clone());
        tokio::task::spawn_blocking(move || {
            crate::scratch::copy_sparse(&empty, &partial)?;
            std::fs::rename(partial, to)
        })
        .await?
        .context("copying an empty disk")?;
        Ok(path)
    }

    /// Ends the machines that wait. Those of pods go on running.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Makes the template of the smallest size and machines that wait, so that the first pod waits for neither.
    pub fn warm(&self) {
        if let Some(tier) = tiers().next() {
            self.pool.want(class(tier));
        }
    }
}

/// Size of the microVM of a tier.
fn class(tier: Tier) -> Class {
    Class { vcpu_count: tier.vcpu_count(), memory_bytes: tier.memory_bytes() + GUEST_OVERHEAD_BYTES }
}

fn failure(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidName => "InvalidImageName",
        Kind::NeverPull => "ErrImageNeverPull",
        _ => "ErrImagePull",
    }
}

/// `Drivers` needs a handle on itself for the machines it makes.
pub struct Real(pub Arc<RealDrivers>);

#[async_trait]
impl Drivers for Real {
    async fn ensure_image(&self, request: PullRequest) -> Result<LocalImage, PullFailure> {
        let was_present = self.0.images.find(&request.image).is_some();
        let credentials =
            request.docker_configs.iter().find_map(|config| Credentials::from_docker_config(config, &request.image));
        let policy = Policy::from_text(&request.policy);
        let image = self.0.images.ensure(&request.image, policy, credentials).await;
        let image = image.map_err(|error| PullFailure { reason: failure(error.kind), message: error.message })?;
        let name = image.reference.rsplit_once(':').map_or(image.reference.as_str(), |(name, _)| name).to_owned();
        Ok(LocalImage {
            id: format!("{name}@{}", image.digest),
            disk: image.disk,
            defaults: ImageDefaults {
                entrypoint: image.config.entrypoint,
                cmd: image.config.cmd,
                env: image.config.env,
                working_dir: image.config.working_dir,
                user: image.config.user,
            },
            stop_signal: image.config.stop_signal,
            was_present,
        })
    }

    async fn start_machine(&self, request: MachineRequest) -> anyhow::Result<Arc<dyn Machine>> {
        let made = self.0.make(&request).await;
        if made.is_err() {
            self.0.scratch.remove(&request.id);
        }
        made
    }

    async fn start_node(&self, request: NodeRequest) -> anyhow::Result<Arc<dyn NodeMachine>> {
        Ok(Arc::new(RealNode::make(self.0.clone(), request).await?))
    }

    async fn volume(&self, handle: &str, size_bytes: u64) -> anyhow::Result<PathBuf> {
        self.0.volume(handle, size_bytes).await
    }

    async fn delete_volume(&self, handle: &str) -> anyhow::Result<()> {
        match std::fs::remove_file(self.0.volume_path(handle)?) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn adopt(&self) -> anyhow::Result<Adopted> {
        let drivers = &self.0;
        let mut adopted = Adopted::default();
        let mut taps = BTreeSet::new();
        for machine in drivers.vmm.adopt().await.context("adopting microVMs")? {
            let id = machine.owner();
            if id.starts_with(ID_PREFIX) {
                // It waited for a pod in a pool that is gone.
                machine.destroy().await?;
                continue;
            }
            let guest = match machine.agent().await {
                Ok(stream) => GuestClient::connect(stream).await.map_err(anyhow::Error::from),
                Err(error) => Err(error.into()),
            };
            match guest {
                Ok(guest) => {
                    taps.insert(machine.tap());
                    if id.starts_with(NODE_ID_PREFIX) {
                        let node = RealNode::adopted(drivers.clone(), machine, guest)?;
                        adopted.nodes.insert(id, Arc::new(node));
                    } else {
                        adopted.pods.insert(id, drivers.wrap(machine, guest, None));
                    }
                }
                Err(error) => {
                    tracing::warn!(id, error = format!("{error:#}"), "a microVM does not answer and is ended");
                    machine.destroy().await?;
                }
            }
        }
        drivers.network.sweep(&taps).await?;
        drivers.scratch.sweep(&adopted.pods.keys().chain(adopted.nodes.keys()).cloned().collect());
        Ok(adopted)
    }

    fn facts(&self) -> HostFacts {
        self.0.facts.clone()
    }
}

/// A machine on its way to its first container.
struct Start {
    /// Its share of the processors from then on.
    vcpu_millis: u32,
    _hurry: Hurry,
}

struct RealMachine {
    drivers: Arc<RealDrivers>,
    machine: isopod_vmm::Machine,
    guest: GuestClient,
    /// Until its first container was started.
    start: Mutex<Option<Start>>,
    /// Disks of images by slot.
    images: tokio::sync::Mutex<BTreeMap<u32, PathBuf>>,
}

/// A locally administered MAC address made from a pod's address.
pub(crate) fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[async_trait]
impl Machine for RealMachine {
    fn start_path(&self) -> &'static str {
        match self.machine.path() {
            StartPath::Booted => "booted",
            StartPath::Restored => "restored",
            StartPath::Claimed => "claimed",
        }
    }

    fn hello(&self) -> api::HelloResponse {
        self.guest.hello().clone()
    }

    async fn readmit(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        Ok(self.drivers.network.attach(&self.machine.tap(), address).await?)
    }

    async fn attach_image(&self, slot: u32, image: &LocalImage) -> anyhow::Result<()> {
        // The slot behind the last one has the pod's writable disk.
        anyhow::ensure!(
            slot < READ_ONLY_SLOTS,
            "all {READ_ONLY_SLOTS} slots of the pod's microVM for images are in use: use an image that it has"
        );
        let mut images = self.images.lock().await;
        if images.get(&slot) != Some(&image.disk) {
            // A container of the pod got another image; what another one still runs from stays.
            if images.contains_key(&slot) {
                self.guest.release_image(slot).await?;
                images.remove(&slot);
            }
            self.machine.attach_disk(slot, &image.disk, true).await?;
            images.insert(slot, image.disk.clone());
        }
        Ok(())
    }

    async fn configure(&self, mut config: api::PodConfig) -> Result<(), GuestError> {
        config.scratch_slot = Some(SCRATCH_SLOT);
        if let Some(network) = &mut config.network
            && let Ok(address) = network.ipv4_address.parse()
        {
            (network.mac, network.prefix_length, network.gateway) = (mac(address), 32, GATEWAY.to_string());
        }
        self.guest.configure_pod(config).await
    }

    async fn start(&self, config: api::ContainerConfig) -> Result<api::StartContainerResponse, GuestError> {
        let started = self.guest.start_container(config).await;
        if let Some(Start { vcpu_millis, .. }) = self.start.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.machine.set_cpu_share(vcpu_millis);
        }
        started
    }

    async fn update(&self, request: api::UpdateContainerRequest) -> Result<(), GuestError> {
        self.guest.update_container(request).await
    }

    async fn signal(&self, container_id: &str, signal: u32) -> Result<(), GuestError> {
        self.guest.signal_container(container_id, signal, false).await
    }

    async fn events(&self, after_sequence: u64) -> Result<GuestStream<api::Event>, GuestError> {
        self.guest.events(after_sequence).await
    }

    async fn logs(&self, request: api::LogsRequest) -> Result<GuestStream<api::LogChunk>, GuestError> {
        self.guest.logs(request).await
    }

    async fn exec(&self, start: api::ExecStart) -> Result<ExecSession, GuestError> {
        self.guest.exec(start).await
    }

    async fn attach(&self, request: api::AttachRequest) -> Result<ExecSession, GuestError> {
        self.guest.attach(request).await
    }

    async fn connect(&self, port: u16) -> Result<Box<dyn Duplex>, GuestError> {
        Ok(duplex(self.guest.connect_port(port).await?))
    }

    async fn dial(&self, address: Ipv4Addr, port: u16) -> std::io::Result<Box<dyn Duplex>> {
        Ok(Box::new(tokio::net::TcpStream::connect((address, port)).await?))
    }

    async fn update_volume(&self, request: api::UpdateVolumeRequest) -> Result<(), GuestError> {
        self.guest.update_volume(request).await
    }

    async fn stats(&self) -> Result<api::StatsResponse, GuestError> {
        self.guest.stats().await
    }

    async fn exited(&self) -> String {
        let fact = self.machine.exited().await;
        match (fact.signal, fact.code) {
            (Some(signal), _) => format!("its process was ended by signal {signal}"),
            (None, Some(code)) => format!("its process exited with {code}; {}", self.machine.last_words()),
            (None, None) => "its process is gone".into(),
        }
    }

    async fn destroy(&self) -> anyhow::Result<()> {
        let (id, tap) = (self.machine.owner(), self.machine.tap());
        drop(self.start.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.machine.destroy().await?;
        self.drivers.network.delete_tap(&tap).await?;
        self.drivers.scratch.remove(&id);
        Ok(())
    }
}
