//! `cargo xtask fuzz`: fuzz targets built with coverage for libFuzzer, by the compiler that builds everything else, and run for
//! a while. What a target finds stays under `target/fuzz` and is run again first.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, output, root, run};

/// How long each target runs unless told otherwise.
const SECONDS_DEFAULT: u32 = 30;
/// Memory in MiB that a target may use.
const MEMORY_MIB_MAX: u32 = 2048;
/// What libFuzzer needs of the code: counters of edges, tables of them, compared values.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Runs `fuzz [TARGET] [--seconds N]` or `fuzz --check`.
pub fn fuzz(args: &[&str]) -> Result<()> {
    let (target, seconds) = match args {
        ["--check"] => return cargo_does("check").map(drop),
        [] => (None, SECONDS_DEFAULT),
        ["--seconds", seconds] => (None, number(seconds)?),
        [target] => (Some(*target), SECONDS_DEFAULT),
        [target, "--seconds", seconds] => (Some(*target), number(seconds)?),
        _ => bail!("usage: cargo xtask fuzz [TARGET] [--seconds N], or cargo xtask fuzz --check"),
    };
    let all = targets()?;
    let chosen: Vec<&String> = all.iter().filter(|name| target.is_none_or(|target| *name == target)).collect();
    if chosen.is_empty() {
        bail!("no fuzz target is called {:?}; there are {}", target.unwrap_or_default(), all.join(", "));
    }
    let built = cargo_does("build")?;
    chosen.into_iter().try_for_each(|name| run_one(&built, name, seconds))
}

fn number(text: &str) -> Result<u32> {
    text.parse().with_context(|| format!("--seconds {text:?} is no number"))
}

/// Names of all targets: the files there are.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("crates/fuzz/fuzz_targets"))? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds or checks all targets; returns where built ones are.
fn cargo_does(verb: &str) -> Result<PathBuf> {
    let directory = root().join("target/fuzz");
    // With a target of its own the flags stay away from build scripts and macros.
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not say its host")?;
    let mut command = cargo();
    command.current_dir(root().join("crates/fuzz")).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &directory);
    run(command.args([verb, "--release", "--bins", "--target", host]))?;
    Ok(directory.join(host).join("release"))
}

fn run_one(built: &std::path::Path, name: &str, seconds: u32) -> Result<()> {
    let corpus = root().join("target/fuzz/corpus").join(name);
    let found = root().join("target/fuzz/found").join(name);
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&found)?;
    println!("==> {name}");
    let mut command = Command::new(built.join(name));
    command.arg(&corpus).arg(&found).args([
        format!("-max_total_time={seconds}"),
        format!("-artifact_prefix={}/", found.display()),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        "-timeout=10".into(),
        "-print_final_stats=1".into(),
        "-verbosity=0".into(),
    ]);
    run(&mut command).with_context(|| format!("{name}: what it found is in {}", found.display()))
}
