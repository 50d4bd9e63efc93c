//! `cargo xtask check`: all that can be said without privileges and in two minutes. It never changes a file.

use anyhow::{Context, Result};

use crate::command::{cargo, find_program, run};
use crate::steps::Steps;
use crate::{layers, tidy};

/// Crates without I/O: their tests need nothing but a processor.
const PURE: [&str; 4] = ["isopod-guest-api", "isopod-planner", "isopod-schema", "isopod-types"];

/// Installs cargo-nextest when it is not there.
pub fn require_nextest() -> Result<()> {
    if find_program("cargo-nextest").is_some() || crate::command::output(cargo().args(["nextest", "--version"])).is_ok()
    {
        return Ok(());
    }
    println!("installing cargo-nextest");
    run(cargo().args(["install", "cargo-nextest", "--locked"])).context("cargo-nextest is needed to run tests")
}

/// Does every check, also after one has failed.
pub fn check() -> Result<()> {
    let mut steps = Steps::new();
    steps.try_step("format", || run(cargo().args(["fmt", "--all", "--check", "--", "-l"])));
    steps.try_step("layers", layers::check);
    steps.try_step("tidy", tidy::check);
    steps.try_step("clippy", || {
        run(cargo().args(["clippy", "--quiet", "--keep-going", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    steps.try_step("pure tests", || {
        require_nextest()?;
        let packages = PURE.iter().flat_map(|name| ["-p", name]);
        run(cargo().args(["nextest", "run", "--cargo-quiet", "--status-level", "fail"]).args(packages))
    });
    steps.finish()
}
