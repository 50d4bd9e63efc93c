//! `cargo xtask setup [--tests]`: installs the Debian packages that are missing, and says which. It changes nothing when
//! all are there.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{find_program, is_root, output, run};
use crate::schema;

/// What clusters need.
const RUN: [&str; 4] = ["e2fsprogs", "iproute2", "nftables", "qemu-system-x86"];
/// What the build needs, once, for the descriptions of `kubectl explain`.
const PROSE: &str = "python3-pip";
/// What the tests need besides.
const TESTS: [&str; 5] = ["busybox-static", "curl", "dnsutils", "docker-registry", "skopeo"];

fn is_installed(package: &str) -> bool {
    let query = output(Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]));
    query.is_ok_and(|status| status == "install ok installed")
}

fn missing(tests: bool) -> Vec<&'static str> {
    let wanted = RUN.iter().chain(if tests { &TESTS[..] } else { &[] });
    let mut packages: Vec<&str> = wanted.copied().filter(|package| !is_installed(package)).collect();
    if !schema::has_prose() && output(Command::new("python3").args(["-m", "pip", "--version"])).is_err() {
        packages.push(PROSE);
    }
    // Any kubectl will do; Debian's is only for those who have none.
    if find_program("kubectl").is_none() {
        packages.push("kubernetes-client");
    }
    packages
}

/// Whether Debian's package lists were ever fetched: the guest kernel and the sample images are downloaded by them.
fn has_lists() -> bool {
    let mut entries = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn apt_get(args: &[&str]) -> Result<()> {
    run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").arg("-q").args(args))
}

/// Installs what is missing; true when something was.
pub fn run_setup(tests: bool) -> Result<bool> {
    ensure!(
        find_program("apt-get").is_some(),
        "this machine has no apt-get\nhint: install by its own means: {} and a kubectl",
        RUN.join(" ")
    );
    let packages = missing(tests);
    if packages.is_empty() && has_lists() {
        println!("all packages are installed");
        return Ok(false);
    }
    if packages.is_empty() {
        println!("all packages are installed; fetching the package lists");
        return apt_get(&["update"]).map(|()| true);
    }
    let list = packages.join(" ");
    if !is_root()? {
        bail!("missing packages: {list}\nhint: as root: apt-get install --no-install-recommends {list}");
    }
    println!("installing {list}");
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], &packages[..]].concat())
        .with_context(|| format!("could not install {list}"))?;
    println!("installed {list}");
    Ok(true)
}
