//! `cargo xtask guest|build`: the static guest agent first, then the binary that carries it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::command::{cargo, root, run};
use crate::schema;
use crate::steps::seconds;

/// Target of the guest agent; a static one, so that it runs in any root file system.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

fn report(path: PathBuf, started: Instant) -> Result<PathBuf> {
    let bytes = path.metadata().with_context(|| format!("{} was not built", path.display()))?.len();
    let shown = path.strip_prefix(root()).unwrap_or(&path).display();
    println!("{shown}: {:.1} MiB, {}", bytes as f64 / f64::from(1 << 20), seconds(started.elapsed()));
    Ok(path)
}

/// Builds the guest agent where the crates that need it look for it.
pub fn guest() -> Result<PathBuf> {
    let started = Instant::now();
    let target_dir = root().join("target/guest");
    let mut command = cargo();
    command.args(["build", "--profile", "guest", "-p", "isopod-guest-agent", "--target", GUEST_TARGET]);
    run(command.arg("--target-dir").arg(&target_dir).env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    report(target_dir.join(GUEST_TARGET).join("guest/isopod-guest-agent"), started)
}

/// Descriptions for `kubectl explain`: fetched once; their absence fails no build.
fn descriptions() {
    if let Err(error) = schema::run(["--prose".to_owned()]) {
        println!("note: kubectl explain will show no descriptions: {error:#}");
    }
}

/// Builds the guest agent, then `isopod`.
pub fn build(release: bool) -> Result<PathBuf> {
    guest()?;
    descriptions();
    let started = Instant::now();
    let mut command = cargo();
    command.args(["build", "-p", "isopod-cli"]);
    if release {
        command.arg("--release");
    }
    run(&mut command)?;
    report(root().join("target").join(if release { "release" } else { "debug" }).join("isopod"), started)
}
