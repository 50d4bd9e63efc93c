//! `cargo xtask bench`: builds what is measured, then runs what says how fast it is on this machine. It measures nothing itself.

use anyhow::{Result, ensure};

use crate::command::{cargo, is_root, run};
use crate::{build, images, setup};

/// Measures a release build.
pub fn bench() -> Result<()> {
    ensure!(is_root()?, "the bench makes microVMs and network interfaces\nhint: run it as root");
    setup::run_setup(false)?;
    build::build(true)?;
    images::make()?;
    println!();
    run(cargo().args(["bench", "--quiet", "-p", "isopod-xtask", "--bench", "cluster"]))
}

/// Measures the control plane alone, with simulated nodes: 10,000 pods on 1,000 of them. Needs no privileges.
pub fn scale() -> Result<()> {
    run(cargo().args(["run", "--quiet", "--release", "-p", "isopod-testkit", "--example", "placements"]))
}

/// Measures the API server alone, over HTTPS on this machine's disk, with 10,000 pods and 1,000 watchers. Needs no privileges.
pub fn api(words: &[&str]) -> Result<()> {
    let example =
        ["run", "--quiet", "--release", "-p", "isopod-apiserver", "--example", "bench", "--", "target/bench-api"];
    run(cargo().args(example).args(words))
}
