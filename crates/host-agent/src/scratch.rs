//! Writable disks of microVMs: sparse copies of one empty ext4 file system per size, made once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::{SeekFrom, seek};
use tokio::sync::Mutex;

/// The writable disks of one host. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Scratch {
    directory: PathBuf,
    making: Arc<Mutex<()>>,
}

impl Scratch {
    /// Disks in a directory, which is made when it is first needed.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, making: Arc::default() }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.scratch"))
    }

    /// Where a node keeps what is in its slots.
    pub(crate) fn slots_path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.slots"))
    }

    /// Makes the disk of a machine.
    pub(crate) async fn create(&self, id: &str, size_bytes: u64) -> anyhow::Result<PathBuf> {
        let (empty, path) = (self.empty(size_bytes).await?, self.path(id));
        let to = path.clone();
        tokio::task::spawn_blocking(move || copy_sparse(&empty, &to)).await?.context("copying an empty disk")?;
        Ok(path)
    }

    /// The empty file system of a size, made when it is first wanted.
    pub(crate) async fn empty(&self, size_bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(format!("empty-{}MiB.ext4", size_bytes >> 20));
        let _one_at_a_time = self.making.lock().await;
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&self.directory)?;
        let partial = path.with_extension("partial");
        let file = File::create(&partial)?;
        file.set_len(size_bytes)?;
        let options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"];
        let output = tokio::process::Command::new("mke2fs").args(options).arg(&partial).output().await;
        let output = output.context("mke2fs cannot be run (hint: install e2fsprogs)")?;
        anyhow::ensure!(output.status.success(), "mke2fs: {}", String::from_utf8_lossy(&output.stderr).trim());
        fs::rename(&partial, &path)?;
        Ok(path)
    }

    /// Makes the disk of one machine id another's.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    /// Removes the disk of a machine, and what a node noted.
    pub(crate) fn remove(&self, id: &str) {
        for path in [self.path(id), self.slots_path(id)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a writable disk cannot be removed");
            }
        }
    }

    /// Removes the disks of all machines but these.
    pub(crate) fn sweep(&self, known: &BTreeSet<String>) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".scratch").filter(|id| !known.contains(*id)) {
                self.remove(id);
            }
        }
    }
}

/// Copies a file without its holes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (File::open(from)?, File::create(to)?);
    target.set_permissions(fs::Permissions::from_mode(0o600))?;
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let (mut at, mut buffer) = (0, vec![0; 1 << 20]);
    while at < length {
        let Ok(data) = seek(&source, SeekFrom::Data(at)) else { break };
        let hole = seek(&source, SeekFrom::Hole(data))?;
        at = data;
        while at < hole {
            let wanted = usize::try_from(hole - at).unwrap_or(usize::MAX).min(buffer.len());
            let count = source.read_at(&mut buffer[..wanted], at)?;
            target.write_all_at(&buffer[..count], at)?;
            at += count as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_content_and_holes() {
        let directory = std::env::temp_dir().join(format!("isopod-scratch-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (from, to) = (directory.join("a"), directory.join("b"));
        let file = File::create(&from).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"middle", 512 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        let copy = File::open(&to).unwrap();
        let mut text = [0; 6];
        copy.read_exact_at(&mut text, 512 << 20).unwrap();
        assert_eq!(&text, b"middle");
        use std::os::unix::fs::MetadataExt;
        assert!(copy.metadata().unwrap().blocks() * 512 < 4 << 20);
        fs::remove_dir_all(&directory).unwrap();
    }
}
