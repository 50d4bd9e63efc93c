//! Fake images and microVMs behind the host agent's own traits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use isopod_guest_api as api;
use isopod_host_agent::ExecSession;
use isopod_host_agent::drivers::{
    Adopted, AttachedVolume, Drivers, Duplex, HostFacts, LocalImage, Lodging, Machine, MachineRequest, NodeMachine,
    NodeRequest, PullFailure, PullRequest,
};
use isopod_host_agent::guest::{GuestError, GuestStream};
use isopod_planner::environment::ImageDefaults;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Words in the names of images that the simulated registry has not.
const ABSENT: [&str; 3] = ["missing", "non-existent", ":404"];

/// What outlives the agent: the microVMs of a host, those of pods and those of nodes.
#[derive(Clone, Default)]
pub struct FakeHost {
    pods: Arc<Mutex<BTreeMap<String, Arc<FakeMachine>>>>,
    nodes: Arc<Mutex<BTreeMap<String, Arc<FakeNode>>>>,
    volumes: Arc<Mutex<BTreeSet<String>>>,
    /// Bytes of memory that each container uses beyond the least.
    load_bytes: Arc<AtomicU64>,
}

impl FakeHost {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<FakeMachine>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_nodes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<FakeNode>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of the nodes' machines that run, with the UIDs of their pods.
    pub fn nodes(&self) -> BTreeMap<String, Vec<String>> {
        let nodes = self.lock_nodes();
        let running = nodes.iter().filter(|(_, node)| !*node.over.borrow());
        running.map(|(id, node)| (id.clone(), node.pods())).collect()
    }

    fn lock_volumes(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the disks of volumes.
    pub fn volumes(&self) -> Vec<String> {
        self.lock_volumes().iter().cloned().collect()
    }

    /// Ids of the microVMs of single pods that run.
    pub fn machines(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, machine)| !machine.is_over()).map(|(id, _)| id.clone()).collect()
    }

    /// Files in a volume of a pod that runs, by path.
    pub fn files(&self, uid: &str, volume: &str) -> BTreeMap<String, String> {
        let own = |machine: &&Arc<FakeMachine>| machine.inside().pod_uid == uid && !machine.is_over();
        let machine = self.lock().values().find(own).cloned().or_else(|| {
            let nodes = self.lock_nodes();
            nodes.values().find_map(|node| node.lock().get(uid).cloned())
        });
        let files = machine.and_then(|machine| machine.inside().volumes.get(volume).cloned()).unwrap_or_default();
        files.files.into_iter().map(|file| (file.path, String::from_utf8_lossy(&file.content).into_owned())).collect()
    }

    /// From now on, each container uses so many bytes of memory beyond the least.
    pub fn set_load(&self, bytes: u64) {
        self.load_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Ends every microVM as a crash of its process would.
    pub fn kill_all(&self) {
        self.lock().values().for_each(|machine| {
            machine.over.send_replace(true);
        });
        self.lock_nodes().values().for_each(|node| node.end());
    }
}

/// Drivers of a host on which nothing really runs.
pub struct FakeDrivers(pub FakeHost);

#[async_trait]
impl Drivers for FakeDrivers {
    async fn ensure_image(&self, request: PullRequest) -> Result<LocalImage, PullFailure> {
        if ABSENT.iter().any(|word| request.image.contains(word)) {
            return Err(PullFailure { reason: "ErrImagePull", message: format!("{}: not found", request.image) });
        }
        Ok(LocalImage {
            id: format!("{}@sha256:fake", request.image),
            defaults: ImageDefaults { cmd: vec!["serve".into()], ..ImageDefaults::default() },
            stop_signal: "SIGTERM".into(),
            ..LocalImage::default()
        })
    }

    async fn start_machine(&self, request: MachineRequest) -> anyhow::Result<Arc<dyn Machine>> {
        let load_bytes = self.0.load_bytes.clone();
        let machine = Arc::new(FakeMachine { load_bytes, ..FakeMachine::default() });
        self.0.lock().insert(request.id, machine.clone());
        Ok(machine)
    }

    async fn start_node(&self, request: NodeRequest) -> anyhow::Result<Arc<dyn NodeMachine>> {
        let node = Arc::new(FakeNode { load_bytes: self.0.load_bytes.clone(), ..FakeNode::default() });
        self.0.lock_nodes().insert(request.id, node.clone());
        Ok(node)
    }

    async fn adopt(&self) -> anyhow::Result<Adopted> {
        let mut adopted = Adopted::default();
        let machines = self.0.lock();
        let running = machines.iter().filter(|(_, machine)| !machine.is_over());
        adopted.pods.extend(running.map(|(id, machine)| (id.clone(), machine.clone() as Arc<dyn Machine>)));
        let nodes = self.0.lock_nodes();
        let running = nodes.iter().filter(|(_, node)| !*node.over.borrow());
        adopted.nodes.extend(running.map(|(id, node)| (id.clone(), node.clone() as Arc<dyn NodeMachine>)));
        Ok(adopted)
    }

    async fn volume(&self, handle: &str, _size_bytes: u64) -> anyhow::Result<PathBuf> {
        self.0.lock_volumes().insert(handle.to_owned());
        Ok(handle.into())
    }

    async fn delete_volume(&self, handle: &str) -> anyhow::Result<()> {
        self.0.lock_volumes().remove(handle);
        Ok(())
    }

    fn facts(&self) -> HostFacts {
        HostFacts {
            cpu_count: 64,
            memory_bytes: 256 << 30,
            backend: "simulated".into(),
            accelerator: "none".into(),
            version: "0".into(),
            simulated: true,
            kernel: "simulated".into(),
        }
    }
}

/// A node's machine: each pod has a simulated machine in it.
#[derive(Default)]
struct FakeNode {
    load_bytes: Arc<AtomicU64>,
    pods: Mutex<BTreeMap<String, Arc<FakeMachine>>>,
    over: watch::Sender<bool>,
}

impl FakeNode {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<FakeMachine>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        for machine in self.lock().values() {
            machine.over.send_replace(true);
        }
        self.over.send_replace(true);
    }
}

#[async_trait]
impl NodeMachine for FakeNode {
    fn pods(&self) -> Vec<String> {
        let pods = self.lock();
        pods.iter().filter(|(_, machine)| !machine.is_over()).map(|(uid, _)| uid.clone()).collect()
    }

    async fn volumes(&self) -> BTreeMap<PathBuf, BTreeSet<String>> {
        let mut volumes: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for (uid, machine) in self.lock().iter().filter(|(_, machine)| !machine.is_over()) {
            for disk in machine.disks.lock().unwrap_or_else(PoisonError::into_inner).keys() {
                volumes.entry(disk.clone()).or_default().insert(uid.clone());
            }
        }
        volumes
    }

    async fn lodge(&self, lodging: Lodging) -> anyhow::Result<Arc<dyn Machine>> {
        anyhow::ensure!(!*self.over.borrow(), "the simulated node is gone");
        let mut pods = self.lock();
        let load_bytes = self.load_bytes.clone();
        let there = pods.get(&lodging.uid).filter(|machine| !machine.is_over()).cloned();
        let machine = there.unwrap_or_else(|| Arc::new(FakeMachine { load_bytes, ..FakeMachine::default() }));
        pods.insert(lodging.uid, machine.clone());
        Ok(machine)
    }

    async fn stats(&self) -> Result<api::StatsResponse, GuestError> {
        let pods = self.lock().clone();
        let mut whole = api::StatsResponse::default();
        for (uid, machine) in pods {
            let stats = machine.stats().await?;
            let named = |one: api::ContainerStats| api::ContainerStats { id: format!("{uid}.{}", one.id), ..one };
            whole.containers.extend(stats.containers.into_iter().map(named));
            let containers = std::mem::take(&mut whole.containers);
            whole = api::StatsResponse { containers, ..stats };
        }
        Ok(whole)
    }

    async fn exited(&self) -> String {
        // An error means that the node itself is gone.
        drop(self.over.subscribe().wait_for(|over| *over).await);
        "its simulated process is gone".into()
    }

    async fn destroy(&self) -> anyhow::Result<()> {
        self.end();
        Ok(())
    }
}

#[derive(Default)]
struct Inside {
    pod_uid: String,
    volumes: BTreeMap<String, api::FilesVolume>,
    containers: BTreeMap<String, api::ContainerStatus>,
    events: Vec<api::Event>,
    listeners: Vec<mpsc::UnboundedSender<api::Event>>,
}

/// A microVM in which containers do what their commands say.
#[derive(Default)]
struct FakeMachine {
    inside: Mutex<Inside>,
    load_bytes: Arc<AtomicU64>,
    /// Disks of volumes.
    disks: Mutex<BTreeMap<PathBuf, u64>>,
    over: watch::Sender<bool>,
}

/// A moment, growing with every call: real enough for an order.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The code with which a program ends at once: `exit N`, on its own or as a shell's command.
fn ends_with(argv: &[String]) -> Option<i32> {
    let words: Vec<&str> = match argv {
        [shell, flag, script] if shell.ends_with("sh") && flag == "-c" => script.split_whitespace().collect(),
        _ => argv.iter().map(String::as_str).collect(),
    };
    if let ["exit", code] = words[..] { Some(code.parse().unwrap_or(0)) } else { None }
}

fn unsupported() -> GuestError {
    GuestError::Lost("a simulated microVM has no streams".into())
}

impl FakeMachine {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    fn exit(&self, id: &str, code: i32) {
        let mut inside = self.inside();
        let Some(status) = inside.containers.get_mut(id).filter(|status| status.exit.is_none()) else { return };
        let started_unix_nanos = status.started_unix_nanos;
        let exit = api::ContainerExited {
            id: id.into(),
            code,
            started_unix_nanos,
            finished_unix_nanos: now(),
            ..Default::default()
        };
        status.exit = Some(exit.clone());
        let sequence = inside.events.len() as u64 + 1;
        let event = api::Event { sequence, unix_nanos: now(), kind: Some(api::EventKind::Exited(exit)) };
        inside.events.push(event.clone());
        inside.listeners.retain(|listener| listener.send(event.clone()).is_ok());
    }
}

#[async_trait]
impl Machine for FakeMachine {
    fn start_path(&self) -> &'static str {
        "simulated"
    }

    fn hello(&self) -> api::HelloResponse {
        let inside = self.inside();
        let containers = inside.containers.values().cloned().collect();
        api::HelloResponse {
            pod_uid: inside.pod_uid.clone(),
            containers,
            last_event_sequence: inside.events.len() as u64,
            ..Default::default()
        }
    }

    async fn readmit(&self, _address: Ipv4Addr) -> anyhow::Result<()> {
        Ok(())
    }

    async fn attach_image(&self, _slot: u32, _image: &LocalImage) -> anyhow::Result<()> {
        Ok(())
    }

    async fn attach_volume(&self, disk: PathBuf, size_bytes: u64) -> anyhow::Result<AttachedVolume> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(AttachedVolume { slot: 0, size_bytes: *disks.entry(disk).or_insert(size_bytes) })
    }

    async fn configure(&self, config: api::PodConfig) -> Result<(), GuestError> {
        let mut inside = self.inside();
        inside.pod_uid = config.uid;
        for volume in config.volumes {
            if let Some(api::VolumeSource::Files(files)) = volume.source {
                inside.volumes.insert(volume.name, files);
            }
        }
        Ok(())
    }

    async fn start(&self, config: api::ContainerConfig) -> Result<api::StartContainerResponse, GuestError> {
        let started_unix_nanos = now();
        let status =
            api::ContainerStatus { id: config.id.clone(), name: config.name, started_unix_nanos, ..Default::default() };
        self.inside().containers.insert(config.id.clone(), status);
        if let Some(code) = ends_with(&config.argv) {
            self.exit(&config.id, code);
        }
        Ok(api::StartContainerResponse { started_unix_nanos, pid: 1 })
    }

    /// A simulated container takes what it is given.
    async fn update(&self, _request: api::UpdateContainerRequest) -> Result<(), GuestError> {
        Ok(())
    }

    async fn signal(&self, container_id: &str, signal: u32) -> Result<(), GuestError> {
        self.exit(container_id, 128 + i32::try_from(signal).unwrap_or(0));
        Ok(())
    }

    async fn events(&self, after_sequence: u64) -> Result<GuestStream<api::Event>, GuestError> {
        let mut inside = self.inside();
        let (listener, news) = mpsc::unbounded_channel();
        inside
            .events
            .iter()
            .filter(|event| event.sequence > after_sequence)
            .for_each(|event| drop(listener.send(event.clone())));
        inside.listeners.push(listener);
        Ok(UnboundedReceiverStream::new(news).map(Ok).boxed())
    }

    async fn logs(&self, _request: api::LogsRequest) -> Result<GuestStream<api::LogChunk>, GuestError> {
        Ok(futures::stream::empty().boxed())
    }

    async fn exec(&self, _start: api::ExecStart) -> Result<ExecSession, GuestError> {
        Err(unsupported())
    }

    async fn attach(&self, _request: api::AttachRequest) -> Result<ExecSession, GuestError> {
        Err(unsupported())
    }

    async fn connect(&self, _port: u16) -> Result<Box<dyn Duplex>, GuestError> {
        Err(unsupported())
    }

    /// A simulated program answers everybody with 200.
    async fn dial(&self, _address: Ipv4Addr, _port: u16) -> std::io::Result<Box<dyn Duplex>> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut theirs, answer).await
        });
        Ok(Box::new(ours))
    }

    async fn update_volume(&self, request: api::UpdateVolumeRequest) -> Result<(), GuestError> {
        self.inside().volumes.insert(request.name, request.files.unwrap_or_default());
        Ok(())
    }

    /// Every container that runs uses a tenth of a processor and 16 MiB, or more if that was said.
    async fn stats(&self) -> Result<api::StatsResponse, GuestError> {
        let at = now();
        let inside = self.inside();
        let running = inside.containers.values().filter(|status| status.exit.is_none());
        let containers: Vec<api::ContainerStats> = running
            .map(|status| api::ContainerStats {
                id: status.id.clone(),
                cpu_usage_nanos: u64::try_from(at - status.started_unix_nanos).unwrap_or(0) / 10,
                memory_working_set_bytes: (16 << 20) + self.load_bytes.load(Ordering::Relaxed),
                ..Default::default()
            })
            .collect();
        Ok(api::StatsResponse {
            unix_nanos: at,
            cpu_usage_nanos: containers.iter().map(|container| container.cpu_usage_nanos).sum(),
            memory_total_bytes: 512 << 20,
            memory_available_bytes: 448 << 20,
            containers,
        })
    }

    async fn exited(&self) -> String {
        // An error means that the machine itself is gone.
        drop(self.over.subscribe().wait_for(|over| *over).await);
        "its simulated process is gone".into()
    }

    async fn destroy(&self) -> anyhow::Result<()> {
        self.over.send_replace(true);
        Ok(())
    }
}
