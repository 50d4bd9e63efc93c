//! A cluster of its own for one test: real binary, real kubectl, real microVMs. Taken away when the test ends, also by a panic.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Longest time anything may take before the test fails; never a measurement.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Cluster {
    pub name: String,
    pub state: PathBuf,
    pub run: PathBuf,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

/// What is missing on this machine for tests with real microVMs.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".into());
    }
    let programs = ["qemu-system-x86_64", "nft", "mke2fs", "kubectl", "curl", "ip"];
    let absent = |name: &&&str| {
        !["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"].iter().any(|d| Path::new(d).join(name).exists())
    };
    if let Some(name) = programs.iter().find(absent) {
        return Some((*name).into());
    }
    (!root().join("target/images/nginx.tar").exists()).then(|| "target/images (cargo xtask images)".into())
}

impl Cluster {
    /// Creates a cluster with the default Fargate profile and the sample images. None: this machine cannot, said loudly.
    pub fn create(name: &str) -> Option<Self> {
        let cluster = Self::place(name)?;
        cluster.isopod(&["create", "cluster", "--name", name, "--fargate"]);
        cluster.import_images();
        Some(cluster)
    }

    /// Imports the sample images.
    pub fn import_images(&self) {
        for image in ["nginx", "busybox"] {
            let file = root().join(format!("target/images/{image}.tar"));
            self.isopod(&["image", "import", file.to_str().unwrap(), "--cluster", &self.name]);
        }
    }

    /// A place for a cluster that is not created yet.
    pub fn place(name: &str) -> Option<Self> {
        if let Some(what) = missing() {
            eprintln!("SKIPPED: needs {what}");
            return None;
        }
        let state = root().join("target/e2e/state");
        std::fs::create_dir_all(&state).unwrap();
        let cluster = Self { name: name.into(), state, run: PathBuf::from("/run/isopod-e2e") };
        cluster.delete();
        Some(cluster)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.state.join(format!("{}.kubeconfig", self.name))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig());
        command.env("ISOPOD_STATE_DIR", &self.state).env("ISOPOD_RUN_DIR", &self.run);
        command
    }

    pub fn try_isopod(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_isopod")).args(args).output().unwrap()
    }

    /// Runs isopod; it must succeed.
    pub fn isopod(&self, args: &[&str]) -> String {
        let output = self.try_isopod(args);
        assert!(output.status.success(), "isopod {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.command("kubectl").args(args).output().unwrap()
    }

    /// Runs kubectl; it must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        assert!(output.status.success(), "kubectl {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs kubectl in the background.
    pub fn spawn_kubectl(&self, args: &[&str]) -> std::process::Child {
        let mut command = self.command("kubectl");
        command.args(args).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) {
        let file = self.state.join(format!("{}.yaml", self.name));
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// A pod with one busybox container.
    pub fn run_pod(&self, name: &str, policy: &str, script: &str) {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]},
        });
        self.apply(&pod.to_string());
    }

    /// The text of a JSON path.
    pub fn field(&self, object: &str, path: &str) -> String {
        let output = self.try_kubectl(&["get", object, "-o", &format!("jsonpath={path}")]);
        text(&output.stdout)
    }

    /// Waits until a JSON path of an object has a value.
    pub fn wait_for(&self, object: &str, path: &str, expected: &str) {
        self.wait_until(&format!("{object} {path} = {expected:?}"), || self.field(object, path) == expected);
    }

    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let begin = Instant::now();
        while !condition() {
            if begin.elapsed() > PATIENCE {
                let state = self.try_kubectl(&["get", "pods,nodes,events", "-A"]);
                let log = std::fs::read_to_string(self.state.join("clusters").join(&self.name).join("server.log"));
                panic!("timed out waiting for {what}\n{}\n{}", text(&state.stdout), log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Lines of `kubectl get KIND`.
    pub fn count(&self, kind: &str) -> usize {
        self.kubectl(&["get", kind, "--no-headers", "--ignore-not-found"]).lines().count()
    }

    /// Process id of the server.
    pub fn server_pid(&self) -> i32 {
        std::fs::read_to_string(self.run.join(&self.name).join("lock")).unwrap().parse().unwrap()
    }

    /// Process ids of the pods' microVMs; those that wait for a pod are not counted.
    pub fn vm_pids(&self) -> Vec<i32> {
        let vms = std::fs::read_dir(self.run.join(&self.name).join("vm")).into_iter().flatten().flatten();
        let pid = |entry: std::fs::DirEntry| {
            let state: serde_json::Value =
                serde_json::from_slice(&std::fs::read(entry.path().join("state.json")).ok()?).ok()?;
            let waits = entry.file_name().to_string_lossy().starts_with("waiting-");
            if waits && state["owner"].as_str().unwrap_or_default().is_empty() {
                return None;
            }
            let text = std::fs::read_to_string(entry.path().join("pid")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        vms.filter_map(pid).collect()
    }

    /// The body of a page, empty when there is none.
    pub fn http(&self, address: &str) -> String {
        let output = Command::new("curl").args(["-s", "-m", "5", address]).output().unwrap();
        text(&output.stdout)
    }

    pub fn delete(&self) {
        drop(self.try_isopod(&["delete", "cluster", "--name", &self.name]));
        drop(std::fs::remove_file(self.kubeconfig()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.delete();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
