//! Starting a container: root file system, user, mounts, standard streams, helper; and joining one for an exec session.

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixListener},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use isopod_guest_api::{ContainerConfig, ContainerStarted, ErrorKind, EventKind, LogStream, StartContainerResponse};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    mount::{MountFlags, mount},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
    pipe::{PipeFlags, pipe_with},
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    agent::{Agent, now},
    container::{self, Container, Running},
    fault::Fault,
    fd::Stream,
    helper, path,
    pod::Pod,
    reaper::End,
    spec::{self, Bind},
    users::{self, Identity, Wanted},
};

/// How long a helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const ACCOUNTS_BYTES: u64 = 4 << 20;

/// Our ends of a process's standard streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<Stream>,
    pub(crate) stdout: Option<Arc<Stream>>,
    pub(crate) stderr: Option<Arc<Stream>>,
    pub(crate) terminal: Option<Arc<Stream>>,
}

/// A process that a helper made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) streams: Streams,
    pub(crate) end: tokio::sync::oneshot::Receiver<End>,
}

/// Starts a container that `agent` knows already.
pub(crate) async fn start(agent: &Arc<Agent>, container: Arc<Container>) -> Result<StartContainerResponse, Fault> {
    let config = &container.config;
    let specification = agent.with_pod(|pod| prepare(pod, config))?;
    let directory = path::container(&config.id);
    let user = &specification["process"]["user"];
    let owner = (number(&user["uid"]), number(&user["gid"]));
    let result = make(agent, helper::CONTAINER, &config.id, &directory, config.tty, config.stdin, Some(owner)).await;
    let made = match result {
        Ok(made) => made,
        Err(fault) => {
            container::clean_up(&config.id);
            return Err(fault);
        }
    };
    let started = now();
    let pid = made.pid;
    let Streams { stdin, stdout, stderr, terminal } = made.streams;
    let mut outputs = JoinSet::new();
    for (output, stream) in
        [(terminal.clone(), LogStream::Stdout), (stdout, LogStream::Stdout), (stderr, LogStream::Stderr)]
    {
        if let Some(output) = output {
            outputs.spawn(container::collect(container.clone(), output, stream));
        }
    }
    container.begin(Running { pid, specification, terminal, stdin: tokio::sync::Mutex::new(stdin) }, started);
    agent.events.push(started, EventKind::Started(ContainerStarted { id: config.id.clone(), started_unix_nanos: started }));
    tokio::spawn(container::watch(agent.clone(), container.clone(), started, made.end, outputs));
    Ok(StartContainerResponse { started_unix_nanos: started, pid: pid.unsigned_abs() })
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Everything up to the helper: mounts the root file system, writes the specification beside it.
fn prepare(pod: &mut Pod, config: &ContainerConfig) -> Result<Value, Fault> {
    let rootfs = mount_root(pod, config)?;
    let identity = identity(config, &rootfs)?;
    ensure_directory(&rootfs, Path::new(if config.cwd.is_empty() { "/" } else { &config.cwd }), &identity)?;
    let binds = binds(pod, config)?;
    let specification = spec::specification(config, &identity, pod.hostname(), &binds)?;
    let file = path::container(&config.id).join("config.json");
    fs::write(&file, specification.to_string()).map_err(Fault::internal(file.display()))?;
    Ok(specification)
}

/// Overlays the image with the container's own layer.
fn mount_root(pod: &mut Pod, config: &ContainerConfig) -> Result<PathBuf, Fault> {
    let image = pod.images.mounted(config.image_slot)?;
    let layer = path::layer(&config.id);
    let rootfs = path::container(&config.id).join("rootfs");
    for directory in [&layer.join("upper"), &layer.join("work"), &rootfs] {
        fs::create_dir_all(directory).map_err(Fault::internal(directory.display()))?;
    }
    let options = format!("lowerdir={},upperdir={}/upper,workdir={}/work", image.display(), layer.display(), layer.display());
    let options = std::ffi::CString::new(options).map_err(|error| Fault::invalid(error.to_string()))?;
    mount("overlay", &rootfs, "overlay", MountFlags::NODEV, Some(options.as_c_str()))
        .map_err(|error| Fault::new(ErrorKind::MountFailed, format!("root file system: {error}")))?;
    Ok(rootfs)
}

fn identity(config: &ContainerConfig, rootfs: &Path) -> Result<Identity, Fault> {
    let wanted = Wanted {
        user: &config.user,
        run_as_user: config.run_as_user,
        run_as_group: config.run_as_group,
        supplemental_groups: &config.supplemental_groups,
    };
    users::resolve(&wanted, &read_in(rootfs, "etc/passwd"), &read_in(rootfs, "etc/group"))
}

/// A text file in a container's root, whose links are the container's; empty if it cannot be read.
fn read_in(rootfs: &Path, file: &str) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let root = open_directory(rootfs)?;
        let file = rustix::fs::openat2(&root, file, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty(), ResolveFlags::IN_ROOT)?;
        let mut bytes = Vec::new();
        fs::File::from(file).take(ACCOUNTS_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes a directory in a container's root if it is not there, following the container's own links.
fn ensure_directory(rootfs: &Path, wanted: &Path, identity: &Identity) -> Result<(), Fault> {
    let make = || -> io::Result<()> {
        let root = open_directory(rootfs)?;
        let mut current = PathBuf::new();
        let mut parent = root.try_clone()?;
        for part in wanted.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => Path::new("..").as_os_str(),
                _ => continue,
            };
            current.push(name);
            let open = || rustix::fs::openat2(&root, &current, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
            parent = match open() {
                Err(rustix::io::Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    let (uid, gid) = (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
                    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                    open()?
                }
                opened => opened?,
            };
        }
        Ok(())
    };
    make().map_err(Fault::io(ErrorKind::WorkingDirectory, format!("working directory {:?}", wanted.as_os_str().as_bytes().escape_ascii().to_string())))
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
        let source = if wanted.sub_path.is_empty() { volume.clone() } else { sub_path(config, position, volume, &wanted.sub_path)? };
        let destination = wanted.mount_path.trim_end_matches('/');
        let destination = if destination.is_empty() { "/" } else { destination };
        binds.push(Bind { source: source.display().to_string(), destination: destination.to_owned(), read_only: wanted.read_only });
    }
    let taken = |destination: &str, binds: &[Bind]| binds.iter().any(|bind| bind.destination == destination);
    for name in ["hosts", "hostname", "resolv.conf"] {
        let destination = format!("/etc/{name}");
        if !taken(&destination, &binds) {
            binds.push(Bind { source: format!("{}/{name}", path::POD), destination, read_only: false });
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
    let path = if config.termination_message_path.is_empty() { "/dev/termination-log" } else { &config.termination_message_path };
    Ok(Bind { source: file.display().to_string(), destination: path.to_owned(), read_only: false })
}

/// A path in a volume, which containers can write: it is opened without following links and mounted beside the container, so
/// that what is bound later cannot be exchanged for something outside the volume. Missing directories are made.
fn sub_path(config: &ContainerConfig, position: usize, volume: &Path, wanted: &str) -> Result<PathBuf, Fault> {
    let failed = |error: io::Error| Fault::new(ErrorKind::MountFailed, format!("subPath {wanted:?}: {error}"));
    let opened = open_beneath(volume, Path::new(wanted)).map_err(failed)?;
    let target = path::container(&config.id).join(format!("subpath-{position}"));
    let is_directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&opened).map_err(|error| failed(error.into()))?.st_mode)
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
    let resolve = if volume.join("..data").exists() { ResolveFlags::BENEATH } else { ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS };
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

/// Has a helper make a process, with a terminal or with pipes.
pub(crate) async fn make(
    agent: &Agent,
    mode: &'static str,
    container_id: &str,
    path: &Path,
    tty: bool,
    stdin: bool,
    owner: Option<(u32, u32)>,
) -> Result<Made, Fault> {
    let (theirs, mut streams) = streams(tty, stdin, owner).map_err(Fault::internal("standard streams"))?;
    let console = tty.then(|| path::container(container_id).join(format!("console-{}", agent.next_number())));
    let listener = console.as_deref().map(UnixListener::bind).transpose().map_err(Fault::internal("terminal"))?;
    let remembering = agent.reaper.remember();
    let task = helper::Task { mode, container_id, path, console: console.as_deref() };
    let reports = helper::spawn(&task, theirs).map_err(Fault::internal("container helper"))?;
    let reports = tokio::time::timeout(HELPER_TIMEOUT, read_all(reports)).await;
    let reports = reports.map_err(|_| Fault::new(ErrorKind::Internal, "container helper does not end"))?;
    let outcome = helper::outcome(&reports.map_err(Fault::internal("container helper"))?);
    let made = outcome.map(|pid| (pid, agent.reaper.wait(pid)));
    drop(remembering);
    if let Some(console) = console {
        let _ = fs::remove_file(console);
    }
    let (pid, end) = made?;
    if let Some(listener) = listener {
        let terminal = receive_terminal(&listener).and_then(Stream::new).map_err(Fault::internal("terminal"))?;
        streams.terminal = Some(Arc::new(terminal));
    }
    Ok(Made { pid, streams, end })
}

/// Their ends and ours. Without a terminal, whoever the process runs as may open its streams again by their names.
fn streams(tty: bool, stdin: bool, owner: Option<(u32, u32)>) -> io::Result<([OwnedFd; 3], Streams)> {
    let null = || -> io::Result<OwnedFd> { Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?) };
    let mut ours = Streams { stdin: None, stdout: None, stderr: None, terminal: None };
    if tty {
        return Ok(([null()?, null()?, null()?], ours));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let input = if stdin {
        let (theirs, mine) = pipe()?;
        ours.stdin = Some(Stream::new(mine)?);
        theirs
    } else {
        null()?
    };
    let ((my_stdout, stdout), (my_stderr, stderr)) = (pipe()?, pipe()?);
    ours.stdout = Some(Arc::new(Stream::new(my_stdout)?));
    ours.stderr = Some(Arc::new(Stream::new(my_stderr)?));
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&stdout, Some(uid), Some(gid))?;
        rustix::fs::fchown(&stderr, Some(uid), Some(gid))?;
        if stdin {
            rustix::fs::fchown(&input, Some(uid), Some(gid))?;
        }
    }
    Ok(([input, stdout, stderr], ours))
}

async fn read_all(pipe: OwnedFd) -> io::Result<Vec<u8>> {
    /// More than a helper can say.
    const REPORTS_BYTES: usize = 64 << 10;
    let (stream, mut all, mut buffer) = (Stream::new(pipe)?, Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(all),
            length => all.extend_from_slice(&buffer[..length]),
        }
        if all.len() > REPORTS_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// The terminal that the process sent before it ran; so this does not wait.
fn receive_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let (socket, _) = listener.accept()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 64];
    rustix::net::recvmsg(socket.as_fd(), &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no terminal was sent"))
}
