//! One machine: its process, its control connection, its disks. A value of this type is a handle: dropping it leaves the
//! machine running, so that a restart of ours does not end pods; only `destroy` ends it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::{
    arguments::{PLACEHOLDER_BYTES, Role, is_writable},
    cgroup::{self, Groups},
    console::Console,
    directory::{Directory, Record},
    process::{ExitFact, Process},
    qmp::{Qmp, QmpError},
};

/// How a machine came to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StartPath {
    /// It booted a kernel.
    Booted,
    /// It was restored from a template.
    Restored,
    /// It was restored earlier and waited, paused, to be claimed.
    Claimed,
}

/// Something could not be done to a machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// QEMU refused, or is gone.
    #[error("machine {id}")]
    Qmp {
        /// Machine.
        id: String,
        /// Why.
        source: QmpError,
    },
    /// No such slot, or the wrong kind.
    #[error(
        "machine {id}: slot {slot} is {kind}\nhint: slots 0 to 7, of nodes also 9 to 15, are read-only; 8, and of nodes 16 to 20, are writable"
    )]
    Slot {
        /// Machine.
        id: String,
        /// Slot.
        slot: u32,
        /// What the slot is.
        kind: &'static str,
    },
    /// A file or socket failed.
    #[error("machine {id}: {what}")]
    Io {
        /// Machine.
        id: String,
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// A handle on a machine. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    record: Mutex<Record>,
    directory: Directory,
    process: Process,
    qmp: Qmp,
    groups: Option<Groups>,
    /// What the guest agent wrote to its console; none after adoption.
    console: Option<Console>,
    /// Block node behind each slot that has one.
    nodes: tokio::sync::Mutex<BTreeMap<u32, String>>,
    next_node: AtomicU32,
}

/// What a machine is made of.
pub(crate) struct Parts {
    pub(crate) record: Record,
    pub(crate) directory: Directory,
    pub(crate) process: Process,
    pub(crate) qmp: Qmp,
    pub(crate) groups: Option<Groups>,
    pub(crate) console: Option<Console>,
}

impl Machine {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { record, directory, process, qmp, groups, console } = parts;
        let nodes = tokio::sync::Mutex::new(BTreeMap::new());
        Self(Arc::new(Inner {
            record: Mutex::new(record),
            directory,
            process,
            qmp,
            groups,
            console,
            nodes,
            next_node: AtomicU32::new(0),
        }))
    }

    /// As `new`, for a machine that another process of ours started: asks QEMU what its disks are.
    pub(crate) async fn adopted(parts: Parts) -> Result<Self, QmpError> {
        let known = parts.qmp.command("query-named-block-nodes", json!({ "flat": true })).await?;
        let machine = Self::new(parts);
        let names = known.as_array().into_iter().flatten().filter_map(|node| node["node-name"].as_str());
        let mut nodes = machine.0.nodes.lock().await;
        for name in names {
            if let Some((slot, number)) = disk_node(name) {
                nodes.insert(slot, name.to_owned());
                machine.0.next_node.fetch_max(number + 1, Ordering::Relaxed);
            }
        }
        drop(nodes);
        Ok(machine)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> String {
        self.record().id
    }

    /// How it came to life.
    #[must_use]
    pub fn path(&self) -> StartPath {
        self.record().path
    }

    /// Processors.
    #[must_use]
    pub fn vcpu_count(&self) -> u32 {
        self.record().vcpu_count
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.record().role
    }

    /// Memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.record().memory_bytes
    }

    /// Its tap device; empty: none.
    #[must_use]
    pub fn tap(&self) -> String {
        self.record().tap
    }

    /// Process id of its QEMU, for accounting. Signals go through `destroy`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid
    }

    pub(crate) fn control(&self) -> &Qmp {
        &self.0.qmp
    }

    fn record(&self) -> Record {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who claimed it; its own id, if nobody did.
    #[must_use]
    pub fn owner(&self) -> String {
        let record = self.record();
        if record.owner.is_empty() { record.id } else { record.owner }
    }

    /// Notes that a waiting machine was taken, and by whom: `path` says `Claimed` and `owner` says who from now on, also after
    /// an adoption.
    ///
    /// # Errors
    /// `MachineError::Io`.
    pub fn claim(&self, owner: &str) -> Result<(), MachineError> {
        let record = {
            let mut record = self.0.record.lock().unwrap_or_else(PoisonError::into_inner);
            (record.path, record.owner) = (StartPath::Claimed, owner.to_owned());
            record.clone()
        };
        self.0.directory.write(&record).map_err(|source| self.io("cannot write its record", source))
    }

    /// Gives the machine a share of the host's processors for when they are short, in thousandths of one. Until this is called
    /// it has the precedence of a machine that starts.
    pub fn set_cpu_share(&self, millis: u32) {
        if let Some(groups) = &self.0.groups {
            groups.set_share(&self.id(), millis);
        }
    }

    /// Gives the machine the precedence of one that starts, until its share is set.
    pub fn hasten(&self) {
        self.set_cpu_share(cgroup::starting(self.vcpu_count()));
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// `MachineError::Qmp`.
    pub async fn resume(&self) -> Result<(), MachineError> {
        self.command("cont", json!({})).await.map(drop)
    }

    /// Stops the guest's processors; it costs no processor time until `resume`.
    ///
    /// # Errors
    /// `MachineError::Qmp`.
    pub async fn pause(&self) -> Result<(), MachineError> {
        self.command("stop", json!({})).await.map(drop)
    }

    /// Puts a disk (a raw image file) into a slot, replacing what was there. The guest must not have the old one mounted.
    /// The file may be any that this process can open; QEMU gets it as a descriptor.
    ///
    /// # Errors
    /// `MachineError`.
    pub async fn attach_disk(&self, slot: u32, path: &Path, read_only: bool) -> Result<(), MachineError> {
        self.check_slot(slot, read_only)?;
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|source| self.io(&format!("cannot open disk {}", path.display()), source))?;
        self.put_disk(slot, read_only, file.into()).await
    }

    /// Takes the disk out of a slot; the guest must not have it mounted.
    ///
    /// # Errors
    /// `MachineError`.
    pub async fn detach_disk(&self, slot: u32) -> Result<(), MachineError> {
        self.check_slot(slot, !is_writable(slot))?;
        let mut nodes = self.0.nodes.lock().await;
        if !nodes.contains_key(&slot) {
            return Ok(());
        }
        let node = format!("f{slot}-{}", self.0.next_node.fetch_add(1, Ordering::Relaxed));
        let empty = json!({ "driver": "null-co", "node-name": node, "size": PLACEHOLDER_BYTES, "read-zeroes": true });
        self.command("blockdev-add", empty).await?;
        self.point(slot, !is_writable(slot), &node).await?;
        self.replaced(nodes.insert(slot, node)).await
    }

    /// Removes the node that a slot had before. The one of its first placeholder has gone by itself.
    async fn replaced(&self, old: Option<String>) -> Result<(), MachineError> {
        match old {
            Some(old) => self.command("blockdev-del", json!({ "node-name": old })).await.map(drop),
            None => Ok(()),
        }
    }

    fn check_slot(&self, slot: u32, read_only: bool) -> Result<(), MachineError> {
        let kind = match is_writable(slot) {
            _ if slot > self.role().last_slot() => "beyond the last",
            true if read_only => "writable",
            false if !read_only => "read-only",
            _ => return Ok(()),
        };
        Err(MachineError::Slot { id: self.id(), slot, kind })
    }

    async fn put_disk(&self, slot: u32, read_only: bool, file: OwnedFd) -> Result<(), MachineError> {
        // Held to the end: two calls for one slot would otherwise both replace the same node.
        let mut nodes = self.0.nodes.lock().await;
        let number = self.0.next_node.fetch_add(1, Ordering::Relaxed);
        let (set, node) = (100 + number, format!("f{slot}-{number}"));
        let add = self.0.qmp.command_with_fd("add-fd", json!({ "fdset-id": set }), file.as_fd()).await;
        add.map_err(|source| self.qmp(source))?;
        self.command(
            "blockdev-add",
            json!({
                "driver": "file", "node-name": node, "filename": format!("/dev/fdset/{set}"), "read-only": read_only,
                "locking": "off", "discard": "unmap",
            }),
        )
        .await?;
        self.point(slot, read_only, &node).await?;
        self.replaced(nodes.insert(slot, node)).await?;
        self.command("remove-fd", json!({ "fdset-id": set })).await.map(drop)
    }

    /// Makes the slot's raw node read from another node.
    async fn point(&self, slot: u32, read_only: bool, node: &str) -> Result<(), MachineError> {
        let options = json!({ "driver": "raw", "node-name": format!("n{slot}"), "read-only": read_only, "discard": "unmap", "file": node });
        self.command("blockdev-reopen", json!({ "options": [options] })).await.map(drop)
    }

    /// A connection to the guest agent's byte stream. QEMU serves one at a time: drop the old one first.
    ///
    /// # Errors
    /// `MachineError::Io`.
    pub async fn agent(&self) -> Result<UnixStream, MachineError> {
        self.0.directory.connect_agent().await.map_err(|source| self.io("cannot connect to its agent channel", source))
    }

    /// Resolves when the machine has ended, by itself or by `destroy`. May be awaited from several places.
    pub async fn exited(&self) -> ExitFact {
        self.0.process.exited().await
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<ExitFact> {
        self.0.process.exit()
    }

    /// The last words on the guest's console and in QEMU's log, for messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let console = self.0.console.as_ref().map(Console::text).unwrap_or_default();
        [console, self.0.directory.log_tail()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Ends it now and removes everything it had on this host except its disks' files and its tap device. Returns when
    /// the process is gone. May be repeated.
    ///
    /// # Errors
    /// `MachineError::Io`.
    pub async fn destroy(&self) -> Result<ExitFact, MachineError> {
        self.0.process.kill().map_err(|source| self.io("cannot kill it", source))?;
        let fact = self.0.process.exited().await;
        if let Some(groups) = &self.0.groups {
            groups.remove(&self.id());
        }
        self.0.directory.remove().map_err(|source| self.io("cannot remove its directory", source))?;
        Ok(fact)
    }

    async fn command(&self, command: &str, arguments: Value) -> Result<Value, MachineError> {
        self.0.qmp.command(command, arguments).await.map_err(|source| self.qmp(source))
    }

    fn qmp(&self, source: QmpError) -> MachineError {
        MachineError::Qmp { id: self.id(), source }
    }

    fn io(&self, what: &str, source: io::Error) -> MachineError {
        MachineError::Io { id: self.id(), what: what.to_owned(), source }
    }
}

/// Slot and number of a node that `put_disk` made.
fn disk_node(name: &str) -> Option<(u32, u32)> {
    let (slot, number) = name.strip_prefix('f')?.split_once('-')?;
    Some((slot.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_nodes_are_told_from_others() {
        for (name, expected) in [("f3-17", Some((3, 17))), ("n3", None), ("p3", None), ("f-1", None), ("fx-1", None)] {
            assert_eq!(disk_node(name), expected, "{name}");
        }
    }
}
