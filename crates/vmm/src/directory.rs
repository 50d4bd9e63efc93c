//! A machine's directory: its sockets, its record, its log. The record is written before the process starts and says
//! everything that adoption needs; the directory goes when the machine is destroyed or swept.

use std::{
    io,
    os::unix::{fs::DirBuilderExt, net::UnixListener},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::{arguments::Role, machine::StartPath};

const RECORD: &str = "state.json";
const AGENT: &str = "agent.sock";
const QMP: &str = "qmp.sock";

/// Longest path of a Unix socket in bytes, without its final zero.
const SOCKET_PATH_BYTES: usize = 107;

/// What is known of a machine besides its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    /// Who claimed it; empty: nobody, it is whose its id says.
    pub(crate) owner: String,
    /// What it is for; records of earlier versions do not say.
    #[serde(default)]
    pub(crate) role: Role,
    pub(crate) vcpu_count: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) tap: String,
    pub(crate) path: StartPath,
    /// Boot of the host that it was started in: after another one, nothing of it can run.
    pub(crate) host_boot_id: String,
}

/// A machine's directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Makes the directory of a new machine.
    pub(crate) fn create(run_dir: &Path, record: &Record) -> io::Result<Self> {
        let path = run_dir.join(&record.id);
        if path.join(QMP).as_os_str().len().max(path.join(AGENT).as_os_str().len()) > SOCKET_PATH_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is too long for a socket's path", path.display()),
            ));
        }
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let directory = Self(path);
        directory.write(record)?;
        Ok(directory)
    }

    /// Every machine's directory, with its record if that can be read.
    pub(crate) fn all(run_dir: &Path) -> io::Result<Vec<(Self, Option<Record>)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(run_dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let directory = Self(entry.path());
                let record = directory.read();
                found.push((directory, record));
            }
        }
        Ok(found)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the record in one step.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let new = self.0.join("state.json.new");
        std::fs::write(&new, serde_json::to_vec(record)?)?;
        std::fs::rename(new, self.0.join(RECORD))
    }

    fn read(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.0.join(RECORD)).ok()?).ok()
    }

    /// Listening sockets for the agent and for QMP. They listen before QEMU runs, so a connection never has to be retried.
    pub(crate) fn listen(&self) -> io::Result<(UnixListener, UnixListener)> {
        Ok((UnixListener::bind(self.0.join(AGENT))?, UnixListener::bind(self.0.join(QMP))?))
    }

    pub(crate) async fn connect_agent(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.0.join(AGENT)).await
    }

    pub(crate) async fn connect_qmp(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.0.join(QMP)).await
    }

    /// The end of QEMU's own log, for messages.
    pub(crate) fn log_tail(&self) -> String {
        let bytes = std::fs::read(self.0.join("qemu.log")).unwrap_or_default();
        tail(&bytes, 1000)
    }

    /// Removes it. No error if it is gone.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The last `bytes` of a text, trimmed.
pub(crate) fn tail(text: &[u8], bytes: usize) -> String {
    let start = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[start..]).trim().to_owned()
}

/// Identifies this boot of the host.
pub(crate) fn host_boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
