//! The Python and JavaScript clients of Kubernetes against a served API server. What they need is installed below the
//! target directory once; without an interpreter or a network they are skipped, loudly.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::site::Site;

/// Installing may take this long, and so may a script.
const LIMIT: Duration = Duration::from_secs(240);

/// A client: what it is called, the commands that install it, the program that runs its script.
struct Client {
    name: &'static str,
    install: &'static [&'static str],
    program: &'static str,
    script: &'static str,
}

const PYTHON: Client = Client {
    name: "python-kubernetes-36",
    install: &["python3 -m venv env", "env/bin/pip install --quiet --disable-pip-version-check kubernetes==36.*"],
    program: "env/bin/python",
    script: "client.py",
};
const JAVASCRIPT: Client = Client {
    name: "javascript-client-node-1",
    install: &["npm install --no-audit --no-fund --silent --prefix . @kubernetes/client-node@1"],
    program: "node",
    script: "client.mjs",
};

/// Not by `eprintln!`, which a test that passes swallows.
fn skipped(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

/// Runs a command in a directory: what it said, when it failed.
async fn run(line: &str, directory: &Path) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir(directory).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.map_err(|_| format!("{line}: takes too long"))?;
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{line}: {}", said.trim())) }
}

impl Client {
    /// The directory with the client installed; none when it cannot be.
    async fn installed(&self) -> Option<PathBuf> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(self.name);
        let done = directory.join("installed");
        if done.exists() {
            return Some(directory);
        }
        std::fs::create_dir_all(&directory).unwrap();
        for line in self.install {
            if let Err(why) = run(line, &directory).await {
                skipped(self.name, &why);
                return None;
            }
        }
        std::fs::write(done, "").unwrap();
        Some(directory)
    }

    async fn meets_the_server(&self) {
        let Some(directory) = self.installed().await else { return };
        let site = Site::open().await;
        site.running_pod("p", &["main"]).await;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network/clients").join(self.script);
        // Beside what is installed, where the interpreter looks for it.
        let script = directory.join(self.script);
        std::fs::copy(source, &script).unwrap();
        let program = if self.program.contains('/') { directory.join(self.program) } else { self.program.into() };
        let mut command = Command::new(program);
        command.arg(&script).env("KUBECONFIG", site.directory.path().join("kubeconfig"));
        command.env("NODE_NO_WARNINGS", "1").kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the script hangs").unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.trim_end().ends_with("all is well"), "{}: {out}\n{err}", self.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works() {
    PYTHON.meets_the_server().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_works() {
    JAVASCRIPT.meets_the_server().await;
}
