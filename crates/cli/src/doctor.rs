//! `isopod doctor`: what this host offers, what is missing, what to install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::cluster::Places;
use crate::progress::info;

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// What was found, or what is wrong and what to do.
    result: Result<String, String>,
    /// Whether clusters cannot run without it.
    needed: bool,
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|path| path.is_file())
}

fn package(what: &'static str, name: &str, package: &str) -> Finding {
    let found = program(name).map(|path| path.display().to_string());
    let result = found.ok_or_else(|| format!("{name} is not installed (hint: apt-get install {package})"));
    Finding { what, result, needed: true }
}

/// Version of QEMU, such as `7.2.22`.
fn qemu_version() -> Option<String> {
    let output = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(3).map(str::to_owned)
}

fn privileges() -> Finding {
    let root = rustix::process::geteuid().is_root();
    let result = if root { Ok("root".into()) } else { Err("isopod must run as root (hint: sudo isopod ...)".into()) };
    Finding { what: "privileges", result, needed: true }
}

fn device(what: &'static str, path: &str, hint: &str, needed: bool) -> Finding {
    let result = match std::fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(path.to_owned()),
        Err(error) => Err(format!("{path}: {error} (hint: {hint})")),
    };
    Finding { what, result, needed }
}

fn kernel(places: &Places) -> Finding {
    let result = match isopod_vmm::kernel::find(None, &places.state_dir.join("cache")) {
        Ok(kernel) => Ok(format!("{} ({})", kernel.release, kernel.image.display())),
        Err(error) => Err(format!("{error}; it is fetched from the distribution when the first cluster is created")),
    };
    Finding { what: "guest kernel", result, needed: false }
}

fn memory() -> Finding {
    let available = crate::server::meminfo().ok().and_then(|all| all.get("MemAvailable").copied()).unwrap_or(0);
    let text = format!("{} MiB available", available >> 20);
    let enough = available >= 512 << 20;
    let result = if enough { Ok(text) } else { Err(format!("{text}; a microVM takes 128 MiB or more")) };
    Finding { what: "memory", result, needed: false }
}

/// Whether guests can use the processor's virtualisation; without it they are translated, which is slower.
fn kvm() -> Finding {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_flag = flags.contains(" vmx") || flags.contains(" svm");
    let result = match (Path::new("/dev/kvm").exists(), has_flag) {
        (true, true) => Ok("/dev/kvm; used if a guest runs under it".into()),
        (true, false) => Err("/dev/kvm is there but this processor shows neither vmx nor svm: microVMs run under TCG, slower".into()),
        (false, _) => Err("no /dev/kvm: microVMs run under TCG, slower (hint: enable virtualisation in the firmware or on the outer host)".into()),
    };
    Finding { what: "KVM", result, needed: false }
}

fn findings(places: &Places) -> Vec<Finding> {
    let qemu = qemu_version().map(|version| format!("QEMU {version}"));
    let qemu =
        qemu.ok_or_else(|| "qemu-system-x86_64 is not installed (hint: apt-get install qemu-system-x86)".to_owned());
    vec![
        privileges(),
        Finding { what: "microVMs", result: qemu, needed: true },
        kvm(),
        kernel(places),
        device("network devices", "/dev/net/tun", "modprobe tun", true),
        package("firewall", "nft", "nftables"),
        package("file systems", "mke2fs", "e2fsprogs"),
        memory(),
    ]
}

/// Prints everything that was found.
pub(crate) async fn run(places: &Places) -> anyhow::Result<()> {
    let findings = findings(places);
    for finding in &findings {
        let (mark, text) = match (&finding.result, finding.needed) {
            (Ok(text), _) => ("ok     ", text),
            (Err(text), true) => ("MISSING", text),
            (Err(text), false) => ("note   ", text),
        };
        println!("{mark}  {:<16} {text}", finding.what);
    }
    let missing = findings.iter().filter(|finding| finding.needed && finding.result.is_err()).count();
    if missing > 0 {
        bail!("{missing} thing(s) that clusters need are missing; see above");
    }
    println!("this host can run clusters");
    Ok(())
}

/// Fails unless a cluster can run here; fetches the guest kernel if there is none.
pub(crate) async fn require(places: &Places) -> anyhow::Result<()> {
    let missing: Vec<String> = findings(places)
        .into_iter()
        .filter(|finding| finding.needed)
        .filter_map(|finding| finding.result.err())
        .collect();
    if !missing.is_empty() {
        bail!("this host cannot run clusters:\n  {}", missing.join("\n  "));
    }
    let cache = places.state_dir.join("cache");
    if isopod_vmm::kernel::find(None, &cache).is_err() {
        info("fetching the distribution's cloud kernel for guests");
        let kernel = isopod_vmm::kernel::fetch(&cache).await?;
        info(format!("guests will run kernel {}", kernel.release));
    }
    Ok(())
}
