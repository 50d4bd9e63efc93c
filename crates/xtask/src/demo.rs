//! `cargo xtask up|down`: a cluster with something running in it, and its end. Both can be run again and then change nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{is_root, output, root, run};
use crate::steps::Steps;
use crate::{build, images, leftovers, setup};

const CLUSTER: &str = "demo";
/// Context that the cluster has in the user's kubeconfig.
const CONTEXT: &str = "admin@demo.local.isopod.dev";
const DEPLOYMENT: &str = "web";
/// Words on the sample page.
const PAGE: &str = "Isopod";
const ROLLOUT_TIMEOUT: &str = "--timeout=300s";
/// How long a web server may take from Running to its first answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
const PAGE_BYTES_MAX: u64 = 1 << 20;

fn binary() -> PathBuf {
    root().join("target/release/isopod")
}

fn isopod(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    command
}

fn kubectl(args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(["--context", CONTEXT]).args(args);
    command
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// Builds the release binary; true when that made another one.
fn build_binary() -> Result<bool> {
    let before = modified(&binary());
    build::build(true)?;
    Ok(before != modified(&binary()))
}

/// Makes the cluster run; true when it did not.
fn start_cluster() -> Result<bool> {
    let listed = output(&mut isopod(&["get", "cluster"]))?;
    let line = listed.lines().find(|line| line.split_whitespace().next() == Some(CLUSTER));
    match line {
        Some(line) if line.contains("ACTIVE") => {
            println!("cluster {CLUSTER} exists and runs");
            return Ok(false);
        }
        Some(_) => run(&mut isopod(&["start", "cluster", "--name", CLUSTER]))?,
        None => run(&mut isopod(&["create", "cluster", "--name", CLUSTER, "--fargate"]))?,
    }
    Ok(true)
}

/// Imports the sample images; true when one was not there.
fn import_images() -> Result<bool> {
    let listed = output(&mut isopod(&["image", "list", "--cluster", CLUSTER]))?;
    let mut changed = false;
    for name in ["busybox", "nginx"] {
        if listed.contains(&format!("docker.io/library/{name}:latest")) {
            println!("image {name} is there");
            continue;
        }
        run(isopod(&["image", "import"]).arg(images::archive(name)).args(["--cluster", CLUSTER]))?;
        changed = true;
    }
    Ok(changed)
}

/// Creates the sample Deployment; true when it was not there.
fn deploy() -> Result<bool> {
    let found = output(&mut kubectl(&["get", "deployment", DEPLOYMENT, "--ignore-not-found", "-o", "name"]))?;
    if !found.trim().is_empty() {
        println!("deployment {DEPLOYMENT} exists");
        return Ok(false);
    }
    run(&mut kubectl(&["create", "deployment", DEPLOYMENT, "--image=nginx", "--replicas=2"]))?;
    Ok(true)
}

/// Waits until the Deployment's pods run and one of them serves the sample page.
fn serve() -> Result<()> {
    run(&mut kubectl(&["rollout", "status", "deployment", DEPLOYMENT, ROLLOUT_TIMEOUT]))?;
    let path = "jsonpath={.items[0].status.podIP}";
    let selector = format!("app={DEPLOYMENT}");
    let address = output(&mut kubectl(&["get", "pods", "-l", &selector, "-o", path]))?;
    let started = Instant::now();
    loop {
        match get(address.trim()) {
            Ok(page) if page.contains(PAGE) => break,
            Ok(page) => bail!("http://{address}/ is not the sample page: {page}"),
            Err(error) if started.elapsed() > ANSWER_TIMEOUT => {
                return Err(error.context(format!("http://{address}/ does not answer")));
            }
            // There is nothing to be told by: the page is the first sign of life.
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    println!("http://{}/ serves", address.trim());
    Ok(())
}

/// Gets the page at an address.
fn get(address: &str) -> Result<String> {
    let address = SocketAddr::new(address.parse().with_context(|| format!("pod address {address:?}"))?, 80);
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {}\r\n\r\n", address.ip())?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{}", answer.lines().next().unwrap_or("no answer"));
    Ok(answer)
}

/// Makes the demonstration run.
pub fn up() -> Result<()> {
    ensure!(is_root()?, "the demonstration makes microVMs and network interfaces\nhint: run it as root");
    let mut steps = Steps::new();
    let changes = [
        steps.step("packages", || setup::run_setup(false))?,
        steps.step("build", build_binary)?,
        steps.step("sample images", images::make)?,
        steps.step("cluster", start_cluster)?,
        steps.step("import images", import_images)?,
        steps.step("deployment", deploy)?,
    ];
    steps.step("it serves", serve)?;
    steps.finish()?;
    if !changes.contains(&true) {
        println!("\nEverything was there already; nothing was changed.");
    }
    println!("{}", next_commands());
    Ok(())
}

fn next_commands() -> String {
    let binary = binary();
    let binary = binary.strip_prefix(root()).unwrap_or(&binary).display();
    format!(
        "
Try next:
  kubectl get pods -o wide                      each pod is alone on a node of its own
  kubectl get nodes                             which are microVMs of this machine
  kubectl scale deployment {DEPLOYMENT} --replicas=4    nodes come with pods
  kubectl logs -f deployment/{DEPLOYMENT}
  kubectl exec -it deployment/{DEPLOYMENT} -- sh
  kubectl port-forward deployment/{DEPLOYMENT} 8080:80  then curl http://127.0.0.1:8080/
  {binary} cost                   what it has cost so far
  make down                                     removes all of it"
    )
}

/// Removes the demonstration and proves that nothing of it is left.
pub fn down() -> Result<()> {
    ensure!(is_root()?, "removing microVMs and network interfaces needs root\nhint: run it as root");
    let mut steps = Steps::new();
    if !binary().is_file() {
        steps.step("build", build_binary)?;
    }
    steps.step("delete cluster", || run(&mut isopod(&["delete", "cluster", "--name", CLUSTER, "--purge"])))?;
    steps.step("nothing is left", || leftovers::check(CLUSTER))?;
    steps.finish()
}
