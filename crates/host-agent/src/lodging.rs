//! Real nodes of many pods: one machine, and for each pod a part of it that behaves as a machine of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use async_trait::async_trait;
use futures::{StreamExt, future};
use isopod_guest_api as api;
use isopod_net::GATEWAY;
use isopod_vmm::{MachineSpec, NODE_READ_ONLY_SLOTS, NODE_WRITABLE_SLOTS, READ_ONLY_SLOTS, Role, SCRATCH_SLOT};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::drivers::{AttachedVolume, Duplex, LocalImage, Lodging, Machine, NodeMachine, NodeRequest, duplex};
use crate::guest::{ExecSession, GuestClient, GuestError, GuestStream};
use crate::real::{RealDrivers, mac};
use crate::scratch;

/// A node's machine. Clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct RealNode(Arc<Inner>);

struct Inner {
    drivers: Arc<RealDrivers>,
    machine: isopod_vmm::Machine,
    guest: GuestClient,
    disks: tokio::sync::Mutex<Disks>,
}

/// What is in the slots, and which pods use it. Kept on disk beside the node's, for an agent that adopts it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Disks(BTreeMap<u32, (PathBuf, BTreeSet<String>)>);

/// What has to be done to have a disk in a slot.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It is there.
    There(u32),
    /// The slot is empty.
    Empty(u32),
    /// What nobody uses any more goes first.
    Replace(u32),
}

impl Disks {
    /// Finds a slot for a disk.
    fn turn(&self, slots: impl Iterator<Item = u32> + Clone, disk: &Path) -> Option<Turn> {
        let there = self.0.iter().find(|(slot, (path, _))| path == disk && slots.clone().any(|other| other == **slot));
        if let Some((slot, _)) = there {
            return Some(Turn::There(*slot));
        }
        let unused = |slot: &u32| self.0.get(slot).is_some_and(|(_, users)| users.is_empty());
        let empty = slots.clone().find(|slot| !self.0.contains_key(slot)).map(Turn::Empty);
        empty.or_else(|| slots.clone().find(unused).map(Turn::Replace))
    }

    fn hold(&mut self, slot: u32, disk: &Path, uid: &str) {
        self.0.entry(slot).or_insert_with(|| (disk.to_owned(), BTreeSet::new())).1.insert(uid.to_owned());
    }

    /// A pod is gone; returns the slots of volumes that nobody uses any more.
    fn release(&mut self, uid: &str) -> Vec<u32> {
        for (_, users) in self.0.values_mut() {
            users.remove(uid);
        }
        let volumes = NODE_WRITABLE_SLOTS;
        self.0
            .iter()
            .filter(|(slot, (_, users))| volumes.contains(slot) && users.is_empty())
            .map(|(slot, _)| *slot)
            .collect()
    }
}

/// Slots that take images.
fn image_slots() -> impl Iterator<Item = u32> + Clone {
    (0..READ_ONLY_SLOTS).chain(NODE_READ_ONLY_SLOTS)
}

fn volume_slots() -> RangeInclusive<u32> {
    NODE_WRITABLE_SLOTS
}

impl RealNode {
    fn new(drivers: Arc<RealDrivers>, machine: isopod_vmm::Machine, guest: GuestClient, disks: Disks) -> Self {
        Self(Arc::new(Inner { drivers, machine, guest, disks: tokio::sync::Mutex::new(disks) }))
    }

    /// The node that an earlier process made.
    pub(crate) fn adopted(
        drivers: Arc<RealDrivers>,
        machine: isopod_vmm::Machine,
        guest: GuestClient,
    ) -> anyhow::Result<Self> {
        let path = drivers.scratch.slots_path(&machine.owner());
        let disks = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Disks::default(),
            Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
        };
        Ok(Self::new(drivers, machine, guest, disks))
    }

    /// Keeps what is in the slots where the next process finds it.
    fn save(&self, disks: &Disks) -> anyhow::Result<()> {
        let path = self.0.drivers.scratch.slots_path(&self.0.machine.owner());
        let partial = path.with_extension("partial");
        std::fs::write(&partial, serde_json::to_vec(disks)?)?;
        std::fs::rename(&partial, &path).with_context(|| format!("{}", path.display()))
    }

    /// Makes the machine: network, disk, kernel, identity. After an error nothing of it is left.
    pub(crate) async fn make(drivers: Arc<RealDrivers>, request: NodeRequest) -> anyhow::Result<Self> {
        let tap = drivers.network.create_tap(&request.id).await?;
        let made = Self::boot(&drivers, &request, &tap).await;
        if made.is_err() {
            drivers.network.delete_tap(&tap).await?;
            drivers.scratch.remove(&request.id);
        }
        made
    }

    async fn boot(drivers: &Arc<RealDrivers>, request: &NodeRequest, tap: &str) -> anyhow::Result<Self> {
        let NodeRequest { id, vcpu_count, memory_bytes, address, hostname, disk_bytes } = request.clone();
        let disk = drivers.scratch.create(&id, disk_bytes).await?;
        let spec = MachineSpec { id, role: Role::Node, vcpu_count, memory_bytes, tap: tap.to_owned(), paused: false };
        let machine = drivers.vmm.prepare(spec).await?;
        let ready = async {
            machine.attach_disk(SCRATCH_SLOT, &disk, false).await?;
            let guest = GuestClient::connect(machine.agent().await?).await?;
            drivers.network.attach(tap, address).await?;
            guest.configure_node(identity(address, hostname)?).await?;
            anyhow::Ok(guest)
        };
        match ready.await {
            Ok(guest) => {
                machine.set_cpu_share(vcpu_count * 1000);
                Ok(Self::new(drivers.clone(), machine, guest, Disks::default()))
            }
            Err(error) => {
                let words = machine.last_words();
                machine.destroy().await?;
                Err(error.context(format!("the node's machine did not come up; its last words: {words}")))
            }
        }
    }

    /// Has a disk in one of these slots, for a pod. One that is in none yet is first made as large as it should be, if that is said.
    async fn have(
        &self,
        slots: impl Iterator<Item = u32> + Clone,
        disk: &Path,
        size_bytes: Option<u64>,
        uid: &str,
    ) -> anyhow::Result<u32> {
        let mut disks = self.0.disks.lock().await;
        let count = slots.clone().count();
        let turn = disks.turn(slots, disk);
        let turn =
            turn.with_context(|| format!("all {count} slots of the node's machine for such disks are in use"))?;
        if let Turn::Replace(slot) = turn {
            self.0.guest.release_image(slot).await?;
            disks.0.remove(&slot);
        }
        let (Turn::There(slot) | Turn::Empty(slot) | Turn::Replace(slot)) = turn;
        if let Some(size_bytes) = size_bytes.filter(|_| turn != Turn::There(slot)) {
            scratch::grow(disk, size_bytes).await?;
        }
        // Noted first: a slot that is noted and empty does less harm than one that is used and free.
        disks.hold(slot, disk, uid);
        self.save(&disks)?;
        if turn != Turn::There(slot) {
            self.0.machine.attach_disk(slot, disk, !volume_slots().contains(&slot)).await?;
        }
        Ok(slot)
    }

    /// Takes a pod away: what runs of it, its address, its disks.
    async fn remove(&self, lodging: &Lodging) -> anyhow::Result<()> {
        self.0.guest.remove_pod(&lodging.uid).await?;
        if !lodging.host_network {
            self.0.drivers.network.dismiss(&self.0.machine.tap(), lodging.address).await?;
        }
        let mut disks = self.0.disks.lock().await;
        for slot in disks.release(&lodging.uid) {
            self.0.machine.detach_disk(slot).await?;
            disks.0.remove(&slot);
        }
        self.save(&disks)
    }
}

fn identity(address: Ipv4Addr, hostname: String) -> anyhow::Result<api::NodeConfig> {
    let mut entropy = vec![0; 64];
    rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty())?;
    Ok(api::NodeConfig {
        hostname,
        realtime_unix_nanos: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0),
        entropy: entropy.into(),
        network: Some(network(address)),
        scratch_slot: Some(SCRATCH_SLOT),
    })
}

fn network(address: Ipv4Addr) -> api::NetworkConfig {
    api::NetworkConfig {
        mac: mac(address),
        ipv4_address: address.to_string(),
        prefix_length: 32,
        gateway: GATEWAY.to_string(),
        ..api::NetworkConfig::default()
    }
}

#[async_trait]
impl NodeMachine for RealNode {
    fn pods(&self) -> Vec<String> {
        self.0.guest.hello().pod_uids.clone()
    }

    async fn volumes(&self) -> BTreeMap<PathBuf, BTreeSet<String>> {
        let disks = self.0.disks.lock().await;
        let volumes = disks.0.iter().filter(|(slot, _)| volume_slots().contains(slot));
        volumes.map(|(_, (path, users))| (path.clone(), users.clone())).collect()
    }

    async fn lodge(&self, lodging: Lodging) -> anyhow::Result<Arc<dyn Machine>> {
        if !lodging.host_network {
            self.0.drivers.network.admit(&self.0.machine.tap(), lodging.address).await?;
            self.0.drivers.network.publish(lodging.node, lodging.address, &lodging.ports).await?;
        }
        Ok(Arc::new(Lodger { node: self.clone(), lodging, slots: Mutex::default(), over: watch::Sender::default() }))
    }

    async fn stats(&self) -> Result<api::StatsResponse, GuestError> {
        self.0.guest.stats().await
    }

    async fn exited(&self) -> String {
        let fact = self.0.machine.exited().await;
        format!("the node's machine ended ({:?}); {}", fact.signal.or(fact.code), self.0.machine.last_words())
    }

    async fn destroy(&self) -> anyhow::Result<()> {
        let (id, tap) = (self.0.machine.owner(), self.0.machine.tap());
        self.0.machine.destroy().await?;
        self.0.drivers.network.delete_tap(&tap).await?;
        self.0.drivers.scratch.remove(&id);
        Ok(())
    }
}

/// One pod's part of a node's machine.
struct Lodger {
    node: RealNode,
    lodging: Lodging,
    /// Slots of the machine by the pod's own numbers for its images.
    slots: Mutex<BTreeMap<u32, u32>>,
    over: watch::Sender<bool>,
}

/// A container's id on a machine of many pods.
pub(crate) fn shared_id(uid: &str, id: &str) -> String {
    format!("{uid}.{id}")
}

impl Lodger {
    fn guest(&self) -> &GuestClient {
        &self.node.0.guest
    }

    /// A container's id on the machine: those of other pods may have the same names.
    fn id(&self, id: &str) -> String {
        shared_id(&self.lodging.uid, id)
    }

    /// The container's id in the pod; none for those of other pods.
    fn own<'a>(&self, id: &'a str) -> Option<&'a str> {
        id.strip_prefix(self.lodging.uid.as_str())?.strip_prefix('.')
    }

    fn own_event(&self, event: api::Event) -> Option<api::Event> {
        let kind = match event.kind? {
            api::EventKind::Started(started) => {
                api::EventKind::Started(api::ContainerStarted { id: self.own(&started.id)?.to_owned(), ..started })
            }
            api::EventKind::Exited(exit) => {
                api::EventKind::Exited(api::ContainerExited { id: self.own(&exit.id)?.to_owned(), ..exit })
            }
        };
        Some(api::Event { kind: Some(kind), ..event })
    }
}

#[async_trait]
impl Machine for Lodger {
    fn start_path(&self) -> &'static str {
        "shared"
    }

    fn hello(&self) -> api::HelloResponse {
        let hello = self.guest().hello();
        let own = |status: &api::ContainerStatus| {
            let id = self.own(&status.id)?.to_owned();
            let exit = status.exit.clone().map(|exit| api::ContainerExited { id: id.clone(), ..exit });
            Some(api::ContainerStatus { id, exit, ..status.clone() })
        };
        let known = hello.pod_uids.contains(&self.lodging.uid);
        api::HelloResponse {
            containers: hello.containers.iter().filter_map(own).collect(),
            pod_uid: if known { self.lodging.uid.clone() } else { String::new() },
            pod_uids: Vec::new(),
            ..hello.clone()
        }
    }

    /// Its address was let through when it was lodged.
    async fn readmit(&self, _: Ipv4Addr) -> anyhow::Result<()> {
        Ok(())
    }

    async fn attach_image(&self, slot: u32, image: &LocalImage) -> anyhow::Result<()> {
        let of_machine = self.node.have(image_slots(), &image.disk, None, &self.lodging.uid).await?;
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, of_machine);
        Ok(())
    }

    async fn attach_volume(&self, disk: PathBuf, size_bytes: u64) -> anyhow::Result<AttachedVolume> {
        let slot = self.node.have(volume_slots(), &disk, Some(size_bytes), &self.lodging.uid).await?;
        Ok(AttachedVolume { slot, size_bytes: std::fs::metadata(&disk)?.len() })
    }

    async fn configure(&self, mut config: api::PodConfig) -> Result<(), GuestError> {
        (config.shared, config.host_network) = (true, self.lodging.host_network);
        if let Some(given) = &mut config.network {
            let whole = network(self.lodging.address);
            (given.prefix_length, given.gateway) = (whole.prefix_length, whole.gateway);
        }
        if config.host_network {
            // Its ports are the node's already.
            config.host_ports.clear();
        }
        self.guest().configure_pod(config).await
    }

    async fn start(&self, mut config: api::ContainerConfig) -> Result<api::StartContainerResponse, GuestError> {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(&config.image_slot).copied();
        config.image_slot = slot.unwrap_or(u32::MAX);
        config.id = self.id(&config.id);
        config.pod_uid.clone_from(&self.lodging.uid);
        if !config.target.is_empty() {
            config.target = self.id(&config.target);
        }
        self.guest().start_container(config).await
    }

    async fn update(&self, request: api::UpdateContainerRequest) -> Result<(), GuestError> {
        let id = self.id(&request.id);
        self.guest().update_container(api::UpdateContainerRequest { id, ..request }).await
    }

    async fn signal(&self, container_id: &str, signal: u32) -> Result<(), GuestError> {
        self.guest().signal_container(&self.id(container_id), signal, false).await
    }

    async fn events(&self, after_sequence: u64) -> Result<GuestStream<api::Event>, GuestError> {
        let events = self.guest().events(after_sequence).await?;
        let own = Self {
            node: self.node.clone(),
            lodging: self.lodging.clone(),
            slots: Mutex::default(),
            over: watch::Sender::default(),
        };
        let own = events.filter_map(move |event| future::ready(event.map(|event| own.own_event(event)).transpose()));
        // A pod that was taken away has no more events, though its node has.
        let mut over = self.over.subscribe();
        let until = async move { drop(over.wait_for(|over| *over).await) };
        Ok(own.take_until(Box::pin(until)).boxed())
    }

    async fn logs(&self, request: api::LogsRequest) -> Result<GuestStream<api::LogChunk>, GuestError> {
        let container_id = self.id(&request.container_id);
        self.guest().logs(api::LogsRequest { container_id, ..request }).await
    }

    async fn exec(&self, start: api::ExecStart) -> Result<ExecSession, GuestError> {
        let container_id = self.id(&start.container_id);
        self.guest().exec(api::ExecStart { container_id, ..start }).await
    }

    async fn attach(&self, request: api::AttachRequest) -> Result<ExecSession, GuestError> {
        let container_id = self.id(&request.container_id);
        self.guest().attach(api::AttachRequest { container_id, ..request }).await
    }

    async fn connect(&self, port: u16) -> Result<Box<dyn Duplex>, GuestError> {
        Ok(duplex(self.guest().connect_pod_port(&self.lodging.uid, port).await?))
    }

    async fn dial(&self, address: Ipv4Addr, port: u16) -> std::io::Result<Box<dyn Duplex>> {
        Ok(Box::new(tokio::net::TcpStream::connect((address, port)).await?))
    }

    async fn update_volume(&self, request: api::UpdateVolumeRequest) -> Result<(), GuestError> {
        let pod_uid = self.lodging.uid.clone();
        self.guest().update_volume(api::UpdateVolumeRequest { pod_uid, ..request }).await
    }

    async fn stats(&self) -> Result<api::StatsResponse, GuestError> {
        let mut stats = self.guest().stats().await?;
        stats.containers.retain_mut(|container| match self.own(&container.id).map(str::to_owned) {
            Some(id) => {
                container.id = id;
                true
            }
            None => false,
        });
        Ok(stats)
    }

    async fn exited(&self) -> String {
        let mut over = self.over.subscribe();
        tokio::select! {
            cause = self.node.exited() => cause,
            _ = over.wait_for(|over| *over) => "it was taken from its node".into(),
        }
    }

    /// Takes the pod from its node. A node that is gone took it along.
    async fn destroy(&self) -> anyhow::Result<()> {
        if *self.over.borrow() {
            return Ok(());
        }
        let removed = tokio::select! {
            removed = self.node.remove(&self.lodging) => removed,
            _ = self.node.0.machine.exited() => Ok(()),
        };
        if removed.is_ok() || self.node.0.machine.exit().is_some() {
            self.over.send_replace(true);
            return Ok(());
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_share_slots_and_leave_when_nobody_uses_them() {
        let mut disks = Disks::default();
        let turn = |disks: &Disks, path: &str| disks.turn([0, 1].into_iter(), Path::new(path));
        assert_eq!(turn(&disks, "a"), Some(Turn::Empty(0)));
        disks.hold(0, Path::new("a"), "p");
        assert_eq!(turn(&disks, "a"), Some(Turn::There(0)));
        disks.hold(1, Path::new("b"), "q");
        assert_eq!(turn(&disks, "c"), None);
        disks.hold(*NODE_WRITABLE_SLOTS.start(), Path::new("v"), "p");
        assert_eq!(disks.release("p"), [*NODE_WRITABLE_SLOTS.start()]);
        assert_eq!(turn(&disks, "c"), Some(Turn::Replace(0)));
        assert_eq!(turn(&disks, "a"), Some(Turn::There(0)));
        // A disk in a slot of another sort does not count.
        assert_eq!(disks.turn([7].into_iter(), Path::new("a")), Some(Turn::Empty(7)));
    }
}
