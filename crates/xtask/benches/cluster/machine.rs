//! The machine that is measured, so that numbers of two runs can be compared at all.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::server::Site;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_owned())
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Prints processor, cores, memory, kernel, load, accelerator and what is measured.
pub fn print(site: &Site) -> Result<()> {
    let cores = std::thread::available_parallelism()?;
    println!("machine   {}, {cores} core(s)", field(&read("/proc/cpuinfo"), "model name"));
    println!("memory    {}", field(&read("/proc/meminfo"), "MemTotal"));
    println!("kernel    {}", read("/proc/sys/kernel/osrelease").trim());
    println!("load      {}", read("/proc/loadavg").trim());
    println!("qemu      {}", first_line("qemu-system-x86_64", &["--version"]));
    let doctor = Command::new(&site.binary).arg("doctor").output().context("isopod doctor")?;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let kvm = doctor.lines().find(|line| line.contains(" KVM ")).unwrap_or("KVM: unknown");
    println!("kvm       {}", kvm.trim());
    println!("commit    {}", first_line("git", &["log", "-1", "--format=%h %cI"]));
    let bytes = site.binary.metadata().with_context(|| format!("{}", site.binary.display()))?.len();
    println!("binary    {:.1} MiB\n", bytes as f64 / f64::from(1 << 20));
    Ok(())
}
