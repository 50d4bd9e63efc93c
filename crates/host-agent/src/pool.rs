//! Machines that wait for their pod: restored, taken once through everything that a pod's start is made of, made nobody's
//! again, and paused, so that they cost no processor time. One that is taken is resumed and starts its pod in a tenth of the
//! time of a restored one, because nothing in it happens for the first time.
//!
//! The pool learns from what is asked for: each size that was asked for recently has a few machines waiting. It never
//! makes a caller wait: `take` answers at once, and an empty pool means a machine is to be prepared as always.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use futures::StreamExt;
use isopod_guest_api::{
    ContainerConfig, EventKind, FilesVolume, Mount, NetworkConfig, PodConfig, Volume, VolumeFile, VolumeSource,
};
use isopod_planner::sizing::FREE_STORAGE_GIB;
use isopod_vmm::{Machine, MachineSpec, SCRATCH_SLOT, Vmm};
use tokio::{
    process::Command,
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{guest::GuestClient, scratch::Scratch};

/// Beginning of the id of a machine that waits; no pod's machine may be called so.
pub const ID_PREFIX: &str = "waiting-";

/// How long a rehearsal may take. One that takes longer is given up.
const REHEARSAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Share of the processors that a machine has while it is rehearsed, in thousandths of one: pods come first.
const FILLING_MILLIS: u32 = 250;

/// How long pods on their way can keep the pool from filling itself.
const HURRY_MAX: Duration = Duration::from_secs(10);

/// Size of the writable disk that a waiting machine has, in bytes: what a pod gets that asks for no more.
pub const SCRATCH_BYTES: u64 = FREE_STORAGE_GIB.unsigned_abs() << 30;

/// Size of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Processors.
    pub vcpu_count: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// How many machines wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Machines of one size. 0: none ever waits.
    pub per_class: usize,
    /// Sizes, those that were asked for last. Each waiting machine takes about 70 MiB of the host's memory.
    pub classes: usize,
}

/// Makes and deletes the tap device of a machine.
#[async_trait]
pub trait Taps: Send + Sync {
    /// Makes one; returns its name, or an empty one for a machine without network.
    async fn create(&self, machine_id: &str) -> anyhow::Result<String>;
    /// Deletes one.
    async fn delete(&self, tap: &str) -> anyhow::Result<()>;
}

#[async_trait]
impl Taps for isopod_net::Network {
    async fn create(&self, machine_id: &str) -> anyhow::Result<String> {
        Ok(self.create_tap(machine_id).await?)
    }

    async fn delete(&self, tap: &str) -> anyhow::Result<()> {
        Ok(self.delete_tap(tap).await?)
    }
}

/// A machine that was taken: it runs, its owner is noted, its writable disk is mounted, and its agent was greeted.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The machine.
    pub machine: Machine,
    /// A conversation with it.
    pub guest: GuestClient,
}

/// Waiting machines. Clones are the same pool. `close` ends it; machines of a pool that was not closed wait on, and whoever
/// adopts them knows them by `ID_PREFIX`.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    filler: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

/// A pod is on its way: until this is dropped, the pool does not take its processor time to fill itself.
#[derive(Debug)]
pub struct Hurry(watch::Sender<usize>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct Shared {
    vmm: Vmm,
    taps: Arc<dyn Taps>,
    limits: Limits,
    scratch: Scratch,
    rehearsal: Rehearsal,
    /// Most recently asked for first.
    shelves: Mutex<VecDeque<Shelf>>,
    asked: Notify,
    /// Pods on their way.
    hurried: watch::Sender<usize>,
    closed: AtomicBool,
}

/// Machines of one size.
struct Shelf {
    class: Class,
    waiting: Vec<Machine>,
    /// The last attempt failed; not tried again until the size is asked for again.
    failed: bool,
}

impl Pool {
    /// A pool with nothing in it. `directory` is for the disk of rehearsals and is emptied.
    ///
    /// # Errors
    /// When the disks cannot be made.
    pub async fn open(
        vmm: Vmm,
        taps: Arc<dyn Taps>,
        scratch: Scratch,
        limits: Limits,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let rehearsal = Rehearsal::make(directory, &vmm.guest_agent()).await;
        let rehearsal = rehearsal.context("the disk of the waiting machines' rehearsal")?;
        let shared = Arc::new(Shared {
            vmm,
            taps,
            limits,
            scratch,
            rehearsal,
            shelves: Mutex::default(),
            asked: Notify::new(),
            hurried: watch::Sender::new(0),
            closed: AtomicBool::new(false),
        });
        let filler = tokio::spawn(fill(shared.clone()));
        Ok(Self { shared, filler: Arc::new(tokio::sync::Mutex::new(Some(filler))) })
    }

    /// Notes that machines of a size are wanted, without taking one.
    pub fn want(&self, class: Class) {
        self.shared.shelf(class, |_| ());
        self.shared.asked.notify_one();
    }

    /// A machine of a size for a pod's machine called `owner`, if one waits. It is as good as new: an empty disk, no address, no pod.
    pub async fn take(&self, class: Class, owner: &str) -> Option<Taken> {
        loop {
            let machine = self.shared.shelf(class, |shelf| shelf.waiting.pop());
            self.shared.asked.notify_one();
            let machine = machine?;
            match self.wake(&machine, owner).await {
                Ok(taken) => return Some(taken),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), id = machine.id(), "a waiting machine is of no use");
                    self.shared.discard(machine).await;
                }
            }
        }
    }

    async fn wake(&self, machine: &Machine, owner: &str) -> anyhow::Result<Taken> {
        machine.claim(owner)?;
        self.shared.scratch.rename(&machine.id(), owner)?;
        machine.hasten();
        machine.resume().await?;
        let guest = GuestClient::connect(machine.agent().await?).await?;
        Ok(Taken { machine: machine.clone(), guest })
    }

    /// Notes that a pod is on its way.
    #[must_use]
    pub fn hurry(&self) -> Hurry {
        self.shared.hurried.send_modify(|count| *count += 1);
        Hurry(self.shared.hurried.clone())
    }

    /// Machines of a size that wait.
    #[must_use]
    pub fn waiting(&self, class: Class) -> usize {
        self.shared.lock().iter().find(|shelf| shelf.class == class).map_or(0, |shelf| shelf.waiting.len())
    }

    /// Ends every waiting machine, and makes no more. Returns when the one that is being made is gone as well.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.asked.notify_one();
        self.shared.hurried.send_modify(|_| ());
        if let Some(filler) = self.filler.lock().await.take()
            && let Err(error) = filler.await
        {
            tracing::warn!(%error, "the task that fills the pool failed");
        }
        let shelves = std::mem::take(&mut *self.shared.lock());
        for machine in shelves.into_iter().flat_map(|shelf| shelf.waiting) {
            self.shared.discard(machine).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a size's shelf, which is the most recently asked for from now on.
    fn shelf<T>(&self, class: Class, act: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut shelves = self.lock();
        let known = shelves.iter().position(|shelf| shelf.class == class).and_then(|at| shelves.remove(at));
        let mut shelf = known.unwrap_or(Shelf { class, waiting: Vec::new(), failed: false });
        shelf.failed = false;
        let result = act(&mut shelf);
        shelves.push_front(shelf);
        result
    }

    /// Resolves when no pod is on its way, or some have been for long.
    async fn calm(&self) {
        let mut hurried = self.hurried.subscribe();
        let calm = hurried.wait_for(|count| *count == 0 || self.closed.load(Ordering::Acquire));
        if tokio::time::timeout(HURRY_MAX, calm).await.is_err() {
            tracing::debug!("pods have been on their way for {HURRY_MAX:?}; filling the pool meanwhile");
        }
    }

    /// Shelves that are one too many.
    fn surplus(&self) -> Vec<Machine> {
        let mut shelves = self.lock();
        let keep = self.limits.classes.min(shelves.len());
        shelves.drain(keep..).flat_map(|shelf| shelf.waiting).collect()
    }

    /// The size that lacks a machine most urgently.
    fn lacking(&self) -> Option<Class> {
        let shelves = self.lock();
        let lacks = |shelf: &&Shelf| !shelf.failed && shelf.waiting.len() < self.limits.per_class;
        // A size of which none waits comes before a second one of a size asked for later.
        shelves.iter().filter(lacks).min_by_key(|shelf| shelf.waiting.len()).map(|shelf| shelf.class)
    }

    /// Puts a machine that was made onto its shelf; gives it back if nobody wants it any more.
    fn put(&self, class: Class, made: anyhow::Result<Machine>) -> Option<Machine> {
        let mut shelves = self.lock();
        let shelf = shelves.iter_mut().find(|shelf| shelf.class == class);
        match (made, shelf) {
            (Ok(machine), Some(shelf)) if !self.closed.load(Ordering::Acquire) => {
                shelf.waiting.push(machine);
                None
            }
            (Ok(machine), _) => Some(machine),
            (Err(error), shelf) => {
                tracing::warn!(error = format!("{error:#}"), ?class, "no machine could be made to wait");
                if let Some(shelf) = shelf {
                    shelf.failed = true;
                }
                None
            }
        }
    }

    async fn discard(&self, machine: Machine) {
        let (tap, owner) = (machine.tap(), machine.owner());
        if let Err(error) = machine.destroy().await {
            tracing::warn!(%error, "cannot end a waiting machine");
        }
        self.scratch.remove(&owner);
        self.scratch.remove(&machine.id());
        self.delete_tap(&tap).await;
    }

    async fn delete_tap(&self, tap: &str) {
        if !tap.is_empty()
            && let Err(error) = self.taps.delete(tap).await
        {
            tracing::warn!(error = format!("{error:#}"), tap, "cannot delete the tap of a waiting machine");
        }
    }

    async fn make(&self, class: Class) -> anyhow::Result<Machine> {
        let id = format!("{ID_PREFIX}{}", uuid::Uuid::new_v4().simple());
        let tap = self.taps.create(&id).await?;
        let spec = MachineSpec {
            id,
            role: isopod_vmm::Role::Pod,
            vcpu_count: class.vcpu_count,
            memory_bytes: class.memory_bytes,
            tap: tap.clone(),
            paused: false,
        };
        let machine = match self.vmm.prepare(spec).await {
            Ok(machine) => machine,
            Err(error) => {
                self.delete_tap(&tap).await;
                return Err(error.into());
            }
        };
        let readied = async {
            machine.set_cpu_share(FILLING_MILLIS);
            let scratch = self.scratch.create(&machine.id(), SCRATCH_BYTES).await?;
            self.rehearsal.hold(&machine, &scratch).await
        };
        let rehearsed = tokio::time::timeout(REHEARSAL_TIMEOUT, readied).await;
        match rehearsed.unwrap_or_else(|_| Err(anyhow::anyhow!("its rehearsal took longer than {REHEARSAL_TIMEOUT:?}")))
        {
            Ok(()) => Ok(machine),
            Err(error) => {
                let words = machine.last_words();
                self.discard(machine).await;
                Err(error.context(words))
            }
        }
    }
}

/// Keeps the shelves as they should be, one machine at a time and while no pod is on its way, so that pods that start meanwhile
/// are not held up more than by one neighbour.
async fn fill(shared: Arc<Shared>) {
    while !shared.closed.load(Ordering::Acquire) {
        for machine in shared.surplus() {
            shared.discard(machine).await;
        }
        let Some(class) = shared.lacking() else {
            shared.asked.notified().await;
            continue;
        };
        shared.calm().await;
        let made = shared.make(class).await;
        if let Some(unwanted) = shared.put(class, made) {
            shared.discard(unwanted).await;
        }
    }
}

/// What a rehearsal needs: an image whose program is the guest agent.
struct Rehearsal {
    image: PathBuf,
}

impl Rehearsal {
    async fn make(directory: &Path, program: &[u8]) -> anyhow::Result<Self> {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let tree = directory.join("tree");
        fs::create_dir_all(&tree)?;
        write_program(&tree.join("program"), program)?;
        let image = directory.join("image.ext4");
        let image_bytes = (program.len() as u64 * 2).next_multiple_of(1 << 20) + (4 << 20);
        file_system(&image, image_bytes, &tree).await?;
        fs::remove_dir_all(tree)?;
        Ok(Self { image })
    }

    /// A pod's start and end, as the real one goes; then nobody's, with an empty writable disk, and paused.
    async fn hold(&self, machine: &Machine, scratch: &Path) -> anyhow::Result<()> {
        machine.attach_disk(SCRATCH_SLOT, scratch, false).await?;
        machine.attach_disk(0, &self.image, true).await?;
        let guest = GuestClient::connect(machine.agent().await?).await?;
        guest.configure_pod(rehearsal_pod()).await?;
        let mut events = guest.events(0).await?;
        guest.start_container(rehearsal_container()).await?;
        loop {
            let event = events.next().await.context("the guest ended its events")??;
            if matches!(event.kind, Some(EventKind::Exited(_))) {
                break;
            }
        }
        guest.stats().await?;
        guest.reset().await?;
        machine.detach_disk(0).await?;
        guest.prepare(SCRATCH_SLOT).await?;
        Ok(machine.pause().await?)
    }
}

fn write_program(path: &Path, program: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, program)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

async fn file_system(path: &Path, size_bytes: u64, tree: &Path) -> anyhow::Result<()> {
    fs::File::create(path)?.set_len(size_bytes)?;
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]).arg(tree);
    let output = command.arg(path).output().await.context("mke2fs cannot be run\nhint: install e2fsprogs")?;
    anyhow::ensure!(output.status.success(), "mke2fs: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn rehearsal_pod() -> PodConfig {
    PodConfig {
        uid: "rehearsal".into(),
        hostname: "rehearsal".into(),
        network: Some(NetworkConfig {
            ipv4_address: "169.254.1.2".into(),
            prefix_length: 32,
            gateway: "169.254.1.1".into(),
            mac: "52:54:00:00:00:02".into(),
            ..NetworkConfig::default()
        }),
        scratch_slot: Some(SCRATCH_SLOT),
        entropy: vec![0; 64].into(),
        volumes: vec![Volume {
            name: "rehearsal".into(),
            source: Some(VolumeSource::Files(FilesVolume {
                files: vec![VolumeFile { path: "file".into(), ..VolumeFile::default() }],
            })),
        }],
        ..PodConfig::default()
    }
}

fn rehearsal_container() -> ContainerConfig {
    ContainerConfig {
        id: "rehearsal".into(),
        name: "rehearsal".into(),
        argv: ["/program", "--version"].map(str::to_owned).to_vec(),
        cpu_limit_millis: 1000,
        memory_limit_bytes: 64 << 20,
        seccomp_default: true,
        mounts: vec![Mount {
            volume: "rehearsal".into(),
            mount_path: "/mnt".into(),
            read_only: true,
            ..Mount::default()
        }],
        ..ContainerConfig::default()
    }
}
