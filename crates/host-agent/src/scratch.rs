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

/// Makes a disk that no machine has, and its file system, at least this large. A crash in between leaves a file that is too short, or a
/// file system that is smaller than its file; the next call sees either by the file that marks it.
pub(crate) async fn grow(disk: &Path, size_bytes: u64) -> anyhow::Result<()> {
    let mark = disk.with_extension("growing");
    let size_bytes = size_bytes.next_multiple_of(1 << 20);
    if fs::metadata(disk)?.len() >= size_bytes && !mark.exists() {
        return Ok(());
    }
    File::create(&mark)?.sync_all()?;
    let file = File::options().write(true).open(disk)?;
    if file.metadata()?.len() < size_bytes {
        file.set_len(size_bytes)?;
    }
    // Whoever had it last may not have unmounted it. 1: something was set right (e2fsck(8)).
    run("e2fsck", &["-f", "-p"], disk, 1).await?;
    run("resize2fs", &[], disk, 0).await?;
    fs::remove_file(&mark)?;
    Ok(())
}

/// Runs a program of e2fsprogs; it may end with up to this code.
async fn run(program: &str, options: &[&str], disk: &Path, code_max: i32) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(program).args(options).arg(disk).output().await;
    let output = output.with_context(|| format!("{program} cannot be run (hint: install e2fsprogs)"))?;
    let told = [output.stdout, output.stderr].concat();
    let good = output.status.code().is_some_and(|code| code <= code_max);
    anyhow::ensure!(good, "{program} {}: {}", disk.display(), String::from_utf8_lossy(&told).trim());
    Ok(())
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

    /// Size of the file system that a disk holds, in bytes: blocks by 1 KiB shifted (ext4's super block, offsets 4 and 24).
    fn file_system_bytes(disk: &Path) -> u64 {
        let mut block = [0; 28];
        File::open(disk).unwrap().read_exact_at(&mut block, 1024).unwrap();
        let number = |at: usize| u64::from(u32::from_le_bytes(block[at..at + 4].try_into().unwrap()));
        number(4) << (10 + number(24))
    }

    #[tokio::test]
    async fn disks_grow_with_their_file_systems() {
        let directory = std::env::temp_dir().join(format!("isopod-growing-{}", std::process::id()));
        let scratch = Scratch::new(directory.clone());
        let Ok(empty) = scratch.empty(16 << 20).await else {
            eprintln!("SKIPPED: e2fsprogs is not installed");
            return;
        };
        let disk = directory.join("vol-1.ext4");
        copy_sparse(&empty, &disk).unwrap();
        for (asked, expected) in [(8 << 20, 16), (16 << 20, 16), ((40 << 20) - 5, 40), (1 << 30, 1024)] {
            grow(&disk, asked).await.unwrap();
            assert_eq!(file_system_bytes(&disk) >> 20, expected, "{asked}");
        }
        // A crash between the file and the file system.
        File::create(disk.with_extension("growing")).unwrap();
        File::options().write(true).open(&disk).unwrap().set_len(2 << 30).unwrap();
        grow(&disk, 2 << 30).await.unwrap();
        assert_eq!(file_system_bytes(&disk) >> 20, 2048);
        assert!(!disk.with_extension("growing").exists());
        fs::write(&disk, "no file system").unwrap();
        assert!(grow(&disk, 1 << 20).await.unwrap_err().to_string().contains("e2fsck"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
