//! What the tests of real machines share: a host with a kernel, an image disk, a client, and containers to start.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt;
use isopod_guest_api::{ContainerConfig, ContainerExited, Event, EventKind, LogStream, LogsRequest, PodConfig};
use isopod_host_agent::guest::{GuestClient, GuestStream};
use isopod_vmm::{GuestAgent, Machine, MachineSpec, Options, User, Vmm, kernel};

/// A host for machines, in a directory of its own.
pub struct Lab {
    /// None when a test has let go of it.
    pub vmm: Option<Vmm>,
    pub options: Options,
    pub disk: PathBuf,
    directory: tempfile::TempDir,
}

impl Lab {
    /// None, with a loud word, if this machine lacks something.
    pub async fn open(templates: bool) -> Option<Self> {
        match Self::try_open(templates).await {
            Ok(lab) => Some(lab),
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                None
            }
        }
    }

    async fn try_open(templates: bool) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".into());
        }
        let cache_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("machines");
        fs::create_dir_all(&cache_dir).map_err(|error| error.to_string())?;
        kernel::fetch(&cache_dir).await.map_err(|error| error.to_string())?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = image(directory.path())?;
        let mut options = Options::new(directory.path().join("run"), cache_dir, GuestAgent::Path(agent()?));
        options.templates = templates;
        options.user = Some(User { uid: 65_534, gid: 65_534 });
        options.cgroup = Some("isopod-test".into());
        let vmm = Vmm::open(options.clone()).await.map_err(|error| error.to_string())?;
        let subscriber = tracing_subscriber::fmt().with_env_filter("isopod_vmm=info").with_test_writer();
        let _ = subscriber.try_init();
        Ok(Self { vmm: Some(vmm), options, disk, directory })
    }

    pub fn vmm(&self) -> &Vmm {
        self.vmm.as_ref().expect("the test has not let go of it")
    }

    /// A machine with the image in slot 0.
    pub async fn machine(&self, id: &str, memory_mebibytes: u64) -> Machine {
        let machine = self.vmm().prepare(self.spec(id, memory_mebibytes)).await.unwrap();
        machine.attach_disk(0, &self.disk, true).await.unwrap();
        machine
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn spec(&self, id: &str, memory_mebibytes: u64) -> MachineSpec {
        MachineSpec {
            id: id.into(),
            role: isopod_vmm::Role::Pod,
            vcpu_count: 1,
            memory_bytes: memory_mebibytes << 20,
            tap: String::new(),
            paused: false,
        }
    }
}

impl Drop for Lab {
    /// Machines outlive whoever made them; those of a test that failed must not.
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.options.run_dir).into_iter().flatten().flatten() {
            let record = fs::read_to_string(entry.path().join("pid")).unwrap_or_default();
            let pid =
                record.split(' ').next().and_then(|word| word.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if let Some(vmm) = &self.vmm {
            vmm.close();
        }
    }
}

/// The agent built for guests.
fn agent() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("ISOPOD_GUEST_AGENT") {
        return Ok(path.into());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/guest/x86_64-unknown-linux-gnu/guest/isopod-guest-agent");
    if path.exists() { Ok(path) } else { Err(format!("{} is not built", path.display())) }
}

/// A disk with busybox and two accounts.
fn image(directory: &Path) -> Result<PathBuf, String> {
    let (tree, disk) = (directory.join("tree"), directory.join("image.ext4"));
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(tree.join(name)).map_err(|error| error.to_string())?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).map_err(|error| format!("busybox-static: {error}"))?;
    for applet in [
        "sh", "cat", "echo", "id", "sleep", "ls", "stty", "nc", "dd", "tail", "hostname", "mount", "ip", "kill", "env",
        "yes", "httpd", "printf", "head", "touch", "mkdir", "ln", "pwd", "true", "grep", "wc", "date", "wget",
    ] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).map_err(|error| error.to_string())?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n")
        .map_err(|error| error.to_string())?;
    fs::write(tree.join("etc/group"), "root:x:0:\nweb:x:102:\nextra:x:50:web\n").map_err(|error| error.to_string())?;
    let output = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .arg(&tree)
        .arg(&disk)
        .arg("16M")
        .output()
        .map_err(|error| format!("mke2fs: {error}"))?;
    if output.status.success() { Ok(disk) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

pub async fn client(machine: &Machine) -> GuestClient {
    match GuestClient::connect(machine.agent().await.unwrap()).await {
        Ok(client) => client,
        Err(error) => panic!("{error:?}; {}", machine.last_words()),
    }
}

pub fn pod(uid: &str) -> PodConfig {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    PodConfig {
        uid: uid.into(),
        hostname: "web-0".into(),
        realtime_unix_nanos: i64::try_from(now.as_nanos()).unwrap(),
        entropy: bytes::Bytes::from_static(&[7; 64]),
        ..PodConfig::default()
    }
}

/// A container of the image in slot 0 that runs a line of shell.
pub fn container(id: &str, line: &str) -> ContainerConfig {
    ContainerConfig {
        id: id.into(),
        name: id.into(),
        argv: ["sh", "-c", line].map(str::to_owned).to_vec(),
        ..ContainerConfig::default()
    }
}

/// The end of a container, from a stream of events.
pub async fn exit(events: &mut GuestStream<Event>, id: &str) -> ContainerExited {
    loop {
        if let Some(EventKind::Exited(exit)) = events.next().await.unwrap().unwrap().kind
            && exit.id == id
        {
            return exit;
        }
    }
}

/// What a container wrote to its two outputs.
pub async fn logs(client: &GuestClient, request: LogsRequest) -> (Vec<u8>, Vec<u8>) {
    let mut stream = client.logs(request).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        if chunk.stream() == LogStream::Stderr {
            err.extend_from_slice(&chunk.data)
        } else {
            out.extend_from_slice(&chunk.data)
        }
    }
    (out, err)
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Asks until the answer is right; for what ends some time after it was told to.
pub async fn wait_until<T: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> T, right: impl Fn(&T) -> bool) {
    let ask = async {
        while !right(&ask().await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ask).await.expect("the answer never became right");
}
