//! Starting a container: image, layer, user, mounts, control group, process.

use std::{
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex},
};

use isopod_guest_api::{ContainerConfig, ContainerStarted, ErrorKind, EventKind, LogStream, StartContainerResponse};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::task::JoinSet;

use crate::{
    agent::{Agent, now},
    container::{self, Container, Running},
    create::{self, Streams},
    disk::Images,
    fault::Fault,
    path,
    plan::{self, Bind, Plan},
    pod::Pod,
    users::{self, Identity, Wanted},
};

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const ACCOUNTS_BYTES: u64 = 4 << 20;

/// Starts a container that `agent` knows already.
pub(crate) async fn start(agent: &Arc<Agent>, container: Arc<Container>) -> Result<StartContainerResponse, Fault> {
    let config = &container.config;
    let plan = {
        let mut tenants = agent.tenants();
        let (pod, images) = tenants.pod(&config.pod_uid)?;
        prepare(pod, images, config)?
    };
    create::control_group(&config.id, &plan::control_group(config))?;
    let target = if config.target.is_empty() { None } else { Some(agent.container(&config.target)?.running()?) };
    let target = target.as_ref().map(|running| &running.child);
    let made = create::container(agent, &config.id, &plan, config.stdin, target).await?;
    let (started, pid) = (now(), made.child.pid);
    let Streams { stdin, stdout, stderr, terminal } = made.streams;
    let mut outputs = JoinSet::new();
    for (output, stream) in
        [(terminal.clone(), LogStream::Stdout), (stdout, LogStream::Stdout), (stderr, LogStream::Stderr)]
    {
        if let Some(output) = output {
            outputs.spawn(container::collect(container.clone(), output, stream));
        }
    }
    container.begin(Running { child: made.child, process: plan.process, terminal, stdin: Mutex::new(stdin) }, started);
    agent
        .events
        .push(started, EventKind::Started(ContainerStarted { id: config.id.clone(), started_unix_nanos: started }));
    tokio::spawn(container::watch(agent.clone(), container.clone(), started, made.end, outputs));
    Ok(StartContainerResponse { started_unix_nanos: started, pid: pid.unsigned_abs() })
}

/// Everything up to the process.
fn prepare(pod: &Pod, images: &mut Images, config: &ContainerConfig) -> Result<Plan, Fault> {
    let image = images.mounted(config.image_slot)?;
    let identity = identity(config, &image)?;
    let process = plan::process(config, &identity, pod.hostname())?;
    let layer = path::layer(&config.id);
    let root = path::container(&config.id).join("rootfs");
    for directory in [&layer.join("upper"), &layer.join("work"), &root] {
        fs::create_dir_all(directory).map_err(Fault::internal(directory.display()))?;
    }
    let overlay =
        format!("lowerdir={},upperdir={}/upper,workdir={}/work", image.display(), layer.display(), layer.display());
    let binds = binds(pod, config)?;
    Ok(Plan {
        process,
        overlay,
        root,
        readonly_root: config.readonly_rootfs,
        binds,
        privileged: config.privileged,
        shm: pod.directory().join("shm"),
        sandbox: pod.sandbox.clone(),
    })
}

fn identity(config: &ContainerConfig, image: &Path) -> Result<Identity, Fault> {
    let wanted = Wanted {
        user: &config.user,
        run_as_user: config.run_as_user,
        run_as_group: config.run_as_group,
        supplemental_groups: &config.supplemental_groups,
    };
    users::resolve(&wanted, &read_in(image, "etc/passwd"), &read_in(image, "etc/group"))
}

/// A text file in an image, whose links are the image's; empty if it cannot be read.
fn read_in(image: &Path, file: &str) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let root = open_directory(image)?;
        let file = rustix::fs::openat2(
            &root,
            file,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )?;
        let mut bytes = Vec::new();
        fs::File::from(file).take(ACCOUNTS_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What of the pod the container sees: name service files, termination message, volumes.
fn binds(pod: &Pod, config: &ContainerConfig) -> Result<Vec<Bind>, Fault> {
    let mut binds = Vec::new();
    for (position, wanted) in config.mounts.iter().enumerate() {
        let Some(volume) = pod.volumes.get(&wanted.volume) else {
            return Err(Fault::new(ErrorKind::NoSuchVolume, format!("the pod has no volume {}", wanted.volume)));
        };
        if !wanted.mount_path.starts_with('/') {
            return Err(Fault::invalid(format!("mount path {:?} is not an absolute path", wanted.mount_path)));
        }
        let source = if wanted.sub_path.is_empty() {
            volume.clone()
        } else {
            sub_path(config, position, volume, &wanted.sub_path)?
        };
        let destination = wanted.mount_path.trim_end_matches('/');
        let destination = if destination.is_empty() { "/" } else { destination };
        binds.push(Bind { source, destination: destination.to_owned(), read_only: wanted.read_only });
    }
    let taken = |destination: &str, binds: &[Bind]| binds.iter().any(|bind| bind.destination == destination);
    for name in ["hosts", "hostname", "resolv.conf"] {
        let destination = format!("/etc/{name}");
        if !taken(&destination, &binds) {
            binds.push(Bind { source: pod.directory().join(name), destination, read_only: false });
        }
    }
    binds.push(termination_log(config)?);
    Ok(binds)
}

fn termination_log(config: &ContainerConfig) -> Result<Bind, Fault> {
    use std::os::unix::fs::PermissionsExt;
    let file = path::container(&config.id).join("termination-log");
    fs::write(&file, "")
        .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o666)))
        .map_err(Fault::internal(file.display()))?;
    let path = if config.termination_message_path.is_empty() {
        "/dev/termination-log"
    } else {
        &config.termination_message_path
    };
    Ok(Bind { source: file, destination: path.to_owned(), read_only: false })
}

/// A path in a volume, which containers can write: it is opened without following links and mounted beside the container, so
/// that what is bound later cannot be exchanged for something outside the volume. Missing directories are made.
fn sub_path(config: &ContainerConfig, position: usize, volume: &Path, wanted: &str) -> Result<PathBuf, Fault> {
    let failed = |error: io::Error| Fault::new(ErrorKind::MountFailed, format!("subPath {wanted:?}: {error}"));
    let opened = open_beneath(volume, Path::new(wanted)).map_err(failed)?;
    let target = path::container(&config.id).join(format!("subpath-{position}"));
    let is_directory =
        rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&opened).map_err(|error| failed(error.into()))?.st_mode)
            == rustix::fs::FileType::Directory;
    let made = if is_directory { fs::create_dir_all(&target) } else { fs::write(&target, "") };
    made.map_err(failed)?;
    let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened));
    rustix::mount::mount_bind(&source, &target).map_err(|error| failed(error.into()))?;
    Ok(target)
}

fn open_beneath(volume: &Path, wanted: &Path) -> io::Result<OwnedFd> {
    let root = open_directory(volume)?;
    // The links of a volume of files point within it; nothing else's are followed.
    let resolve = if volume.join("..data").exists() {
        ResolveFlags::BENEATH
    } else {
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(&root, wanted, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let mut parent = root.try_clone()?;
    for part in wanted.components() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        parent = rustix::fs::openat2(&parent, name, flags, Mode::empty(), resolve)?;
    }
    Ok(parent)
}
