//! The QEMU of this host: where it is, what it is, and whether a guest runs under its KVM.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::accelerator::Accelerator;

/// Its name.
const PROGRAM: &str = "qemu-system-x86_64";

/// How long the KVM trial may take. A working one takes hundredths of a second.
const TRIAL: Duration = Duration::from_secs(2);

/// QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It is not installed.
    #[error("{0} is not installed\nhint: `apt-get install qemu-system-x86`")]
    NotFound(String),
    /// It does not run.
    #[error("{} does not run", path.display())]
    Run {
        /// Program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too old.
    #[error(
        "{version} is too old: 7.0 is the first that can exchange a machine's disks\nhint: `apt-get install qemu-system-x86` on Debian 12 or later"
    )]
    TooOld {
        /// What it says of itself.
        version: String,
    },
}

/// QEMU's program file.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, QemuError> {
    if let Some(path) = named {
        return if path.is_file() { Ok(path.to_owned()) } else { Err(QemuError::NotFound(path.display().to_string())) };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(PROGRAM))
        .find(|path| path.is_file())
        .ok_or_else(|| QemuError::NotFound(PROGRAM.into()))
}

/// What QEMU says of itself in the first line.
pub(crate) async fn version(program: &Path) -> Result<String, QemuError> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| QemuError::Run { path: program.to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().unwrap_or_default().to_owned();
    match major(&version) {
        Some(major) if major >= 7 => Ok(version),
        _ => Err(QemuError::TooOld { version }),
    }
}

fn major(version: &str) -> Option<u32> {
    version.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

/// KVM when a guest runs under it. The device's presence says little: under some hypervisors it opens, makes machines,
/// and never runs them.
pub(crate) async fn choose_accelerator(program: &Path) -> Accelerator {
    if kvm_problem(program).await.is_none() { Accelerator::Kvm } else { Accelerator::Tcg }
}

/// Why KVM cannot be used; none if it can.
pub(crate) async fn kvm_problem(program: &Path) -> Option<String> {
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        return Some(format!("/dev/kvm: {error}"));
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cfg!(target_arch = "x86_64") && !flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        return Some("/dev/kvm is there, but the processor does not offer vmx or svm".into());
    }
    trial(program).await.err()
}

/// Runs a guest of 16 bytes that asks for the machine's end. Exit code 0x21 (0x10 * 2 + 1) is its doing and nothing else's.
async fn trial(program: &Path) -> Result<(), String> {
    // mov dx, 0xf4; mov al, 0x10; out dx, al; hlt; jmp -3 -- at the reset vector, in a 64 KiB firmware image.
    let mut firmware = vec![0xf4; 64 << 10];
    let reset = firmware.len() - 16;
    firmware[reset..reset + 9].copy_from_slice(&[0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd]);
    let file =
        rustix::fs::memfd_create("isopod-trial", rustix::fs::MemfdFlags::empty()).map_err(|error| error.to_string())?;
    rustix::io::write(&file, &firmware).map_err(|error| error.to_string())?;
    let image = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let mut child = Command::new(program)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-no-reboot",
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-M",
            "pc",
            "-m",
            "16M",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-bios", &image])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(TRIAL, child.wait()).await {
        Ok(Ok(status)) if status.code() == Some(0x21) => Ok(()),
        Ok(Ok(status)) => Err(format!("/dev/kvm is there, but a trial guest ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("/dev/kvm is there, but a trial guest did not run within {TRIAL:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", Some(7)),
            ("QEMU emulator version 10.0.2", Some(10)),
            ("something else", None),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = find(Some(Path::new("/nonexistent/qemu"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/qemu") && error.contains("apt-get install"), "{error}");
    }
}
