//! The machines of one host: making them, finding them again after a restart, clearing away what is left of dead ones.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    accelerator::{Accelerator, tsc_khz},
    arguments::{Role, kernel_command_line},
    assets::{AssetError, Assets, hash},
    cgroup::Groups,
    directory::{Directory, Record, host_boot_id},
    kernel::{self, KernelError},
    launch::{Host, How, LaunchError, Plan},
    machine::{Machine, Parts, StartPath},
    process::{Process, User},
    qemu::{self, QemuError},
    qmp::Qmp,
    tap,
    template::Template,
};

/// Least memory that a guest comes up in, in bytes.
pub const MEMORY_MIN_BYTES: u64 = 96 << 20;

/// Most processors of a machine.
pub const VCPU_MAX: u32 = 64;

/// Where the guest agent's program comes from.
#[derive(Clone, Debug)]
pub enum GuestAgent {
    /// A file.
    Path(PathBuf),
    /// Its bytes.
    Bytes(Bytes),
}

/// How machines of this host are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for machines' sockets and records; made if absent, readable by root only. On tmpfs, best.
    pub run_dir: PathBuf,
    /// Directory for kernels, boot files and templates; made if absent. May be shared by several clusters.
    pub cache_dir: PathBuf,
    /// Kernel image `vmlinuz-RELEASE`; none: the machine's newest cloud kernel, or the one in the cache.
    pub kernel: Option<PathBuf>,
    /// The guest agent, a static program.
    pub guest_agent: GuestAgent,
    /// QEMU; none: `qemu-system-x86_64` on the path.
    pub qemu: Option<PathBuf>,
    /// None: KVM where a guest runs under it, otherwise translated.
    pub accelerator: Option<Accelerator>,
    /// Who QEMU runs as; none: who we are.
    pub user: Option<User>,
    /// Name of the control group that machines' groups are made in; none: no groups.
    pub cgroup: Option<String>,
    /// Restore machines from templates. Off: every machine boots.
    pub templates: bool,
}

impl Options {
    /// The usual: templates on, no privilege dropped, no control group, everything else found.
    #[must_use]
    pub fn new(run_dir: PathBuf, cache_dir: PathBuf, guest_agent: GuestAgent) -> Self {
        Self {
            run_dir,
            cache_dir,
            kernel: None,
            guest_agent,
            qemu: None,
            accelerator: None,
            user: None,
            cgroup: None,
            templates: true,
        }
    }
}

/// One machine to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Unique on this host: letters, digits, `-`, `_` and `.`, at most 64 bytes, not starting with `.`.
    pub id: String,
    /// What it is for. A node boots, since a machine that runs for long need not start in a moment.
    pub role: Role,
    /// Processors.
    pub vcpu_count: u32,
    /// Memory in bytes, a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// Name of its tap device, which exists already; empty: no network.
    pub tap: String,
    /// Leave a restored guest paused until `resume`. A machine that had to boot is paused once it is up.
    pub paused: bool,
}

/// Machines cannot be made on this host.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// QEMU.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// Kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Boot files.
    #[error(transparent)]
    Asset(#[from] AssetError),
    /// Another process has the machines.
    #[error("{} is in use by another process\nhint: only one may have the machines of a directory; end the other one first", .0.display())]
    InUse(PathBuf),
    /// A directory or file.
    #[error("cannot use {}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A machine was not made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A field of the specification.
    #[error("machine {id}: {field} {reason}")]
    Spec {
        /// Machine.
        id: String,
        /// Field.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// It did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It started, but did not obey.
    #[error(transparent)]
    Machine(#[from] crate::MachineError),
}

/// Machines that a template serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    vcpu_count: u32,
    memory_bytes: u64,
    network: bool,
}

/// None inside: it could not be made; machines of this class boot until the process is restarted.
type Slot = Arc<OnceCell<Option<Template>>>;

/// The machines of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vmm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Host,
    assets: Assets,
    tsc_khz: u64,
    qemu_version: String,
    guest_agent: Bytes,
    templates: Option<PathBuf>,
    classes: Mutex<BTreeMap<Class, Slot>>,
    /// Locked as long as this process has the machines.
    _lock: File,
}

impl Vmm {
    /// Finds QEMU and a kernel, chooses the accelerator, makes the boot files.
    ///
    /// # Errors
    /// `OpenError`; its text says what to install.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        for directory in [&options.run_dir, &options.cache_dir] {
            std::fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let lock = lock(&options.run_dir)?;
        let program = qemu::find(options.qemu.as_deref())?;
        let (qemu_version, accelerator) = tokio::join!(qemu::version(&program), async {
            match options.accelerator {
                Some(accelerator) => accelerator,
                None => qemu::choose_accelerator(&program).await,
            }
        });
        let (kernel_image, cache) = (options.kernel.clone(), options.cache_dir.clone());
        let agent = options.guest_agent.clone();
        let (assets, guest_agent, tsc_khz) = tokio::task::spawn_blocking(move || {
            let rate = std::thread::spawn({
                let cache = cache.clone();
                move || if accelerator == Accelerator::Tcg { tsc_khz(&cache) } else { 0 }
            });
            let kernel = kernel::find(kernel_image.as_deref(), &cache)?;
            let agent = agent_bytes(agent)?;
            let assets = Assets::make(&kernel, &agent, &cache)?;
            Ok::<_, OpenError>((assets, agent, rate.join().unwrap_or(0)))
        })
        .await
        .map_err(|error| OpenError::Io { path: options.cache_dir.clone(), source: io::Error::other(error) })??;
        let host = Host {
            run_dir: options.run_dir,
            qemu: program,
            accelerator,
            user: options.user,
            groups: options.cgroup.as_deref().map(Groups::find),
        };
        // By kernel and agent first, so that those of earlier ones can be told and cleared.
        let all_templates = options.cache_dir.join("templates");
        crate::template::clear(&all_templates, |name| name == assets.directory_name());
        let templates = all_templates.join(assets.directory_name());
        crate::template::clear(&templates, |name| !name.ends_with(crate::template::PARTIAL));
        let templates = options.templates.then_some(templates);
        let qemu_version = qemu_version?;
        Ok(Self(Arc::new(Inner {
            host,
            assets,
            tsc_khz,
            qemu_version,
            guest_agent,
            templates,
            classes: Mutex::default(),
            _lock: lock,
        })))
    }

    /// The guest agent's program. Static, so it runs in any root file system.
    #[must_use]
    pub fn guest_agent(&self) -> Bytes {
        self.0.guest_agent.clone()
    }

    /// How guests' instructions are executed here.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.0.host.accelerator
    }

    /// Version of QEMU, such as `7.2.22`.
    #[must_use]
    pub fn qemu_version(&self) -> &str {
        self.0.qemu_version.split_whitespace().nth(3).unwrap_or_default()
    }

    /// Makes a machine: restores it from its class's template, which the first machine of a class has to wait for, or
    /// boots it. When this returns, its agent can be connected to. After an error nothing of it is left.
    ///
    /// # Errors
    /// `PrepareError`.
    pub async fn prepare(&self, spec: MachineSpec) -> Result<Machine, PrepareError> {
        check(&spec)?;
        let class =
            Class { vcpu_count: spec.vcpu_count, memory_bytes: spec.memory_bytes, network: !spec.tap.is_empty() };
        let tap = open_tap(&spec)?;
        if spec.role == Role::Pod
            && let Some(slot) = self.template(class).await
            && let Some(Some(template)) = slot.get()
        {
            match self.restore(&spec, template, tap.as_ref()).await {
                Ok(machine) => return Ok(machine),
                Err(error) => tracing::warn!(%error, id = spec.id, "restoring failed: booting instead"),
            }
        }
        let plan = self.boot_plan(record(&spec, StartPath::Booted), tap)?;
        let machine = self.0.host.launch(plan).await?;
        if spec.paused {
            machine.pause().await?;
        }
        Ok(machine)
    }

    /// Makes the template of a class now, rather than for its first machine. Says whether there is one.
    pub async fn warm(&self, vcpu_count: u32, memory_bytes: u64, network: bool) -> bool {
        let slot = self.template(Class { vcpu_count, memory_bytes, network }).await;
        slot.is_some_and(|slot| matches!(slot.get(), Some(Some(_))))
    }

    async fn restore(
        &self,
        spec: &MachineSpec,
        template: &Template,
        tap: Option<&std::os::fd::OwnedFd>,
    ) -> Result<Machine, LaunchError> {
        let failed = |source| LaunchError::Io { id: spec.id.clone(), what: "cannot open its template", source };
        let how = template.how(spec.paused).map_err(failed)?;
        let tap = tap.map(std::os::fd::OwnedFd::try_clone).transpose().map_err(failed)?;
        let record = record(spec, StartPath::Restored);
        self.0.host.launch(Plan { record, tap, how }).await
    }

    fn boot_plan(&self, record: Record, tap: Option<std::os::fd::OwnedFd>) -> Result<Plan, LaunchError> {
        let (kernel, initramfs) = self.0.assets.open().map_err(|source| LaunchError::Io {
            id: record.id.clone(),
            what: "cannot open its kernel",
            source,
        })?;
        let command_line = kernel_command_line(self.0.host.accelerator, record.vcpu_count, self.0.tsc_khz);
        Ok(Plan { record, tap, how: How::Boot { kernel, initramfs, command_line, memory: None } })
    }

    /// The class's template, loaded or made by the first who asks; none when templates are off.
    async fn template(&self, class: Class) -> Option<Slot> {
        let directory = self.0.templates.as_ref()?.join(self.template_key(class));
        let slot = self.0.classes.lock().await.entry(class).or_default().clone();
        slot.get_or_init(|| async {
            match self.load_or_make(class, &directory).await {
                Ok(template) => Some(template),
                Err(error) => {
                    tracing::warn!(error = &*error, ?class, "no template: machines of this class boot");
                    None
                }
            }
        })
        .await;
        Some(slot)
    }

    async fn load_or_make(
        &self,
        class: Class,
        directory: &Path,
    ) -> Result<Template, Box<dyn std::error::Error + Send + Sync>> {
        let (from, bytes) = (directory.to_owned(), class.memory_bytes);
        match tokio::task::spawn_blocking(move || Template::load(&from, bytes)).await? {
            Ok(Some(template)) => return Ok(template),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a template in the cache is of no use: making it again"),
        }
        let id = format!("template-{}-{}-{}", class.vcpu_count, class.memory_bytes >> 20, u8::from(class.network));
        let spec = MachineSpec {
            id,
            role: Role::Pod,
            vcpu_count: class.vcpu_count,
            memory_bytes: class.memory_bytes,
            tap: String::new(),
            paused: false,
        };
        let tap = if class.network { Some(tap::open("")?) } else { None };
        let plan = self.boot_plan(record(&spec, StartPath::Booted), tap)?;
        Ok(Template::make(&self.0.host, plan, directory).await?)
    }

    /// Hash over everything that a template's state depends on.
    fn template_key(&self, class: Class) -> String {
        let line = kernel_command_line(self.0.host.accelerator, class.vcpu_count, self.0.tsc_khz);
        let devices = format!("{class:?} {} {}", crate::arguments::SCRATCH_SLOT, self.0.qemu_version);
        hash(&[b"1", self.0.assets.key.as_bytes(), line.as_bytes(), devices.as_bytes()])[..32].to_owned()
    }

    /// Finds the machines that an earlier process of ours left running, and clears away what is left of dead ones and of
    /// unfinished templates. Call once, before the first `prepare`.
    ///
    /// # Errors
    /// Only when the directory of machines cannot be read; a machine that cannot be adopted is destroyed and logged.
    pub async fn adopt(&self) -> io::Result<Vec<Machine>> {
        let mut machines = Vec::new();
        for (directory, record) in Directory::all(&self.0.host.run_dir)? {
            if let Some(machine) = self.adopt_one(&directory, record).await {
                machines.push(machine);
            }
        }
        machines.sort_by_key(Machine::id);
        Ok(machines)
    }

    async fn adopt_one(&self, directory: &Directory, record: Option<Record>) -> Option<Machine> {
        let process = match Process::find(directory.path()) {
            Ok(process) => process,
            Err(error) => {
                tracing::warn!(%error, directory = %directory.path().display(), "cannot tell whether a machine runs");
                return None;
            }
        };
        if let (Some(process), Some(record)) = (&process, record)
            && !record.id.starts_with("template-")
            && record.host_boot_id == host_boot_id()
        {
            match self.connect(directory, record, process.clone()).await {
                Ok(machine) => return Some(machine),
                Err(error) => tracing::warn!(%error, "cannot adopt a machine: destroying it"),
            }
        }
        self.sweep(directory, process).await;
        None
    }

    async fn connect(
        &self,
        directory: &Directory,
        record: Record,
        process: Process,
    ) -> Result<Machine, Box<dyn std::error::Error + Send + Sync>> {
        let qmp = Qmp::open(directory.connect_qmp().await?).await?;
        let groups = self.0.host.groups.clone();
        Ok(Machine::adopted(Parts { record, directory: directory.clone(), process, qmp, groups, console: None })
            .await?)
    }

    async fn sweep(&self, directory: &Directory, process: Option<Process>) {
        if let Some(process) = process {
            match process.kill() {
                Ok(()) => {
                    process.exited().await;
                }
                Err(error) => tracing::warn!(%error, pid = process.pid, "cannot kill a machine that cannot be adopted"),
            }
        }
        if let (Some(groups), Some(id)) =
            (&self.0.host.groups, directory.path().file_name().and_then(|name| name.to_str()))
        {
            groups.remove(id);
        }
        if let Err(error) = directory.remove() {
            tracing::warn!(%error, directory = %directory.path().display(), "cannot remove a dead machine's directory");
        }
    }

    /// Removes what the host keeps for all machines together (control groups), when no machine is left.
    pub fn close(&self) {
        if let Some(groups) = &self.0.host.groups {
            groups.remove_parents();
        }
    }
}

/// Takes the directory of machines for this process. The kernel gives it back when the process ends, however it does.
fn lock(run_dir: &Path) -> Result<File, OpenError> {
    let path = run_dir.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(run_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

fn agent_bytes(agent: GuestAgent) -> Result<Bytes, OpenError> {
    match agent {
        GuestAgent::Bytes(bytes) => Ok(bytes),
        GuestAgent::Path(path) => std::fs::read(&path).map(Bytes::from).map_err(at(&path)),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn record(spec: &MachineSpec, path: StartPath) -> Record {
    Record {
        id: spec.id.clone(),
        owner: String::new(),
        role: spec.role,
        vcpu_count: spec.vcpu_count,
        memory_bytes: spec.memory_bytes,
        tap: spec.tap.clone(),
        path,
        host_boot_id: host_boot_id(),
    }
}

fn check(spec: &MachineSpec) -> Result<(), PrepareError> {
    let fail = |field, reason: &str| Err(PrepareError::Spec { id: spec.id.clone(), field, reason: reason.to_owned() });
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if spec.id.is_empty() || spec.id.len() > 64 || spec.id.starts_with('.') || !spec.id.chars().all(named) {
        return fail("id", "must be 1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.`");
    }
    if spec.id.starts_with("template-") {
        return fail("id", "must not start with `template-`, which is how templates are called");
    }
    if spec.vcpu_count == 0 || spec.vcpu_count > VCPU_MAX {
        return fail("vcpu_count", "must be 1 to 64");
    }
    if spec.memory_bytes < MEMORY_MIN_BYTES || !spec.memory_bytes.is_multiple_of(1 << 20) {
        return fail("memory_bytes", "must be a multiple of 1 MiB, at least 96 MiB");
    }
    Ok(())
}

fn open_tap(spec: &MachineSpec) -> Result<Option<std::os::fd::OwnedFd>, PrepareError> {
    if spec.tap.is_empty() {
        return Ok(None);
    }
    if !tap::exists(&spec.tap) {
        let reason = format!("{} does not exist; the network must be made first", spec.tap);
        return Err(PrepareError::Spec { id: spec.id.clone(), field: "tap", reason });
    }
    let opened = tap::open(&spec.tap).map_err(|source| LaunchError::Io {
        id: spec.id.clone(),
        what: "cannot open its tap device",
        source,
    })?;
    Ok(Some(opened))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut MachineSpec);

    #[test]
    fn specifications_are_checked_by_field() {
        let good = MachineSpec {
            id: "pod-1".into(),
            role: Role::Pod,
            vcpu_count: 1,
            memory_bytes: 256 << 20,
            tap: String::new(),
            paused: false,
        };
        let with = |change: Change| {
            let mut spec = good.clone();
            change(&mut spec);
            check(&spec).map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| ()), Ok(()));
        let table: [(Change, &str); 7] = [
            (|spec| spec.id.clear(), "id"),
            (|spec| spec.id = "../x".into(), "id"),
            (|spec| spec.id = "a/b".into(), "id"),
            (|spec| spec.id = "template-1".into(), "id"),
            (|spec| spec.vcpu_count = 0, "vcpu_count"),
            (|spec| spec.memory_bytes = 64 << 20, "memory_bytes"),
            (|spec| spec.memory_bytes += 1, "memory_bytes"),
        ];
        for (change, field) in table {
            let error = with(change).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
