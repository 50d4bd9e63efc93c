//! A control group per machine: what it may take of the host's processor and memory, whatever happens inside. Works on
//! cgroup v2 and on v1 hierarchies at their usual places; where a controller is missing, the machine runs without it.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";

/// What QEMU needs beside the guest's memory, in bytes: translated code, device state, caches.
const MEMORY_OVERHEAD_BYTES: u64 = 512 << 20;

/// Threads that QEMU may have.
const PIDS: u32 = 256;

/// The share of all machines together against each other group of the host. Without it they would together have what one
/// process has; with much more, busy pods would starve the control plane. In thousandths of a processor.
const TOGETHER: u32 = 16_000;

/// A machine that starts takes precedence over those that run, ten to one.
const STARTING: u32 = 10;

/// The share of a machine that starts, in thousandths of a processor.
pub(crate) fn starting(vcpu_count: u32) -> u32 {
    vcpu_count.saturating_mul(1000 * STARTING)
}

/// Limits of one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) vcpu_count: u32,
}

/// Where groups are made: one directory per hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    parents: Vec<PathBuf>,
    unified: bool,
}

impl Groups {
    /// Groups below `name` in every hierarchy that this host has.
    pub(crate) fn find(name: &str) -> Self {
        let root = Path::new(ROOT);
        let groups = if root.join("cgroup.controllers").exists() {
            hand_down(root);
            Self { parents: vec![root.join(name)], unified: true }
        } else {
            let hierarchies = ["cpu", "memory", "pids"].map(|controller| root.join(controller));
            let parents = hierarchies.into_iter().filter(|path| path.join("cgroup.procs").exists());
            Self { parents: parents.map(|path| path.join(name)).collect(), unified: false }
        };
        let (file, value) = groups.share(TOGETHER);
        for parent in &groups.parents {
            let made = std::fs::create_dir_all(parent);
            let set = if parent.join(file).exists() { std::fs::write(parent.join(file), &value) } else { Ok(()) };
            if let Err(error) = made.and(set) {
                tracing::warn!(%error, group = %parent.display(), "machines have no share of their own of the processors");
            }
            if groups.unified {
                hand_down(parent);
            }
        }
        groups
    }

    /// Makes the group of one machine; returns the files that its process writes itself into.
    pub(crate) fn create(&self, id: &str, limits: Limits) -> io::Result<Vec<OwnedFd>> {
        let mut joined = Vec::new();
        for parent in &self.parents {
            let group = parent.join(id);
            std::fs::create_dir_all(&group)?;
            for (file, value) in self.settings(limits) {
                // A file that is not there belongs to another hierarchy or a controller that this host lacks.
                if group.join(file).exists() {
                    std::fs::write(group.join(file), value)?;
                }
            }
            joined.push(File::options().write(true).open(group.join("cgroup.procs"))?.into());
        }
        Ok(joined)
    }

    fn settings(&self, limits: Limits) -> Vec<(&'static str, String)> {
        let memory = (limits.memory_bytes + MEMORY_OVERHEAD_BYTES).to_string();
        let file = if self.unified { "memory.max" } else { "memory.limit_in_bytes" };
        let share = self.share(starting(limits.vcpu_count));
        vec![("pids.max", PIDS.to_string()), share, (file, memory)]
    }

    /// Gives a machine its share of the processors when they are short, in thousandths of a processor. Ends the precedence of
    /// a machine that starts.
    pub(crate) fn set_share(&self, id: &str, millis: u32) {
        let (file, value) = self.share(millis);
        for group in self.parents.iter().map(|parent| parent.join(id)) {
            if group.join(file).exists()
                && let Err(error) = std::fs::write(group.join(file), &value)
            {
                tracing::warn!(%error, group = %group.display(), "a machine's share of the processors stays as it was");
            }
        }
    }

    /// The setting for a share of the processors, in thousandths of one, within what the kernel takes.
    fn share(&self, millis: u32) -> (&'static str, String) {
        if self.unified {
            ("cpu.weight", (millis / 10).clamp(1, 10_000).to_string())
        } else {
            ("cpu.shares", (u64::from(millis) * 1024 / 1000).clamp(2, 262_144).to_string())
        }
    }

    /// Removes the group of a machine whose process has ended.
    pub(crate) fn remove(&self, id: &str) {
        for parent in &self.parents {
            match std::fs::remove_dir(parent.join(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, group = %parent.join(id).display(), "cannot remove a control group");
                }
                _ => {}
            }
        }
    }

    /// Removes the parents, when they are empty.
    pub(crate) fn remove_parents(&self) {
        for parent in &self.parents {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Lets groups below this one be limited (cgroup v2).
fn hand_down(group: &Path) {
    if let Err(error) = std::fs::write(group.join("cgroup.subtree_control"), "+cpu +memory +pids") {
        tracing::warn!(%error, group = %group.display(), "cannot hand controllers down: machines run without limits of the host");
    }
}
