//! What this host offers for microVMs, and what it lacks: for `isopod doctor`. Changes nothing, fails never.

use std::path::{Path, PathBuf};

use crate::{
    accelerator::Accelerator,
    kernel::{self, Kernel, NEEDED_MODULES, load_order},
    qemu,
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How guests' instructions would be executed.
    pub accelerator: Accelerator,
    /// Why not by KVM; none if by KVM, or if there is no QEMU to try it with.
    pub no_kvm_because: Option<String>,
    /// QEMU's program file.
    pub qemu: Option<PathBuf>,
    /// What QEMU says of itself.
    pub qemu_version: Option<String>,
    /// The kernel that guests would boot.
    pub kernel: Option<Kernel>,
    /// Everything that keeps machines from being made; each says what to do. Empty: they can be.
    pub problems: Vec<String>,
}

/// Looks at this host. `kernel` and `qemu` are those that the configuration names, if it does.
pub async fn probe(kernel: Option<&Path>, qemu: Option<&Path>, cache_dir: &Path) -> Capabilities {
    let mut found = Capabilities {
        accelerator: Accelerator::Tcg,
        no_kvm_because: None,
        qemu: None,
        qemu_version: None,
        kernel: None,
        problems: Vec::new(),
    };
    match qemu::find(qemu) {
        Ok(program) => {
            match qemu::version(&program).await {
                Ok(version) => found.qemu_version = Some(version),
                Err(error) => found.problems.push(error.to_string()),
            }
            found.no_kvm_because = qemu::kvm_problem(&program).await;
            found.accelerator = if found.no_kvm_because.is_none() { Accelerator::Kvm } else { Accelerator::Tcg };
            found.qemu = Some(program);
        }
        Err(error) => found.problems.push(error.to_string()),
    }
    match kernel::find(kernel, cache_dir) {
        Ok(kernel) => {
            if let Err(error) = load_order(&kernel.modules, NEEDED_MODULES) {
                found.problems.push(error.to_string());
            }
            found.kernel = Some(kernel);
        }
        Err(error) => found.problems.push(error.to_string()),
    }
    found.problems.extend(privileges());
    found
}

/// What the making of a machine needs of the system itself.
fn privileges() -> Vec<String> {
    let mut problems = Vec::new();
    if !rustix::process::geteuid().is_root() {
        problems.push("not running as root\nhint: taps, mounts and control groups need it; use sudo".to_owned());
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        problems.push(format!("/dev/net/tun: {error}\nhint: `modprobe tun`"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("vmlinuz-none");
        let found = probe(Some(&nowhere), Some(Path::new("/nonexistent/qemu")), dir.path()).await;
        assert_eq!((found.accelerator, found.qemu, found.kernel), (Accelerator::Tcg, None, None));
        for text in ["/nonexistent/qemu", "vmlinuz-none"] {
            assert!(found.problems.iter().any(|problem| problem.contains(text)), "{:?}", found.problems);
        }
    }
}
