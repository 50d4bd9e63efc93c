//! Templates: a guest that booted once, saved with its agent waiting for a host, from which machines of the same class
//! are restored in a few hundredths of a second.
//!
//! A template is two things: the device state, a small file, and the memory, which every restored machine maps copy on
//! write. The memory lives in a sealed memory file, so that no machine can change what the next one is restored from; a
//! copy in the cache outlives this process. Its key is a hash over everything that the state depends on.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create};
use serde_json::json;

use crate::{
    launch::{Host, How, LaunchError, Plan, migrated, set_migration_capabilities},
    machine::Machine,
    qmp::QmpError,
};

const MEMORY: &str = "memory";
const STATE: &str = "state";

/// End of the name of a directory that a template is being made in.
pub(crate) const PARTIAL: &str = ".partial";

/// How long what is not used any more stays in the cache.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A finished template.
#[derive(Debug)]
pub(crate) struct Template {
    memory: OwnedFd,
    /// Held open, so that clearing the cache does not take it away from a process that uses it.
    state: File,
}

/// A template could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Its guest did not boot.
    #[error("template: its guest did not come up")]
    Launch(#[from] LaunchError),
    /// Its state could not be saved.
    #[error("template: its state could not be saved")]
    Save(#[from] QmpError),
    /// A file failed.
    #[error("template: {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn io(what: &'static str) -> impl Fn(io::Error) -> TemplateError {
    move |source| TemplateError::Io { what, source }
}

impl Template {
    /// What a machine is restored from.
    pub(crate) fn how(&self, paused: bool) -> io::Result<How> {
        // Opened anew, because each machine reads it from its start.
        let state = File::open(format!("/proc/self/fd/{}", self.state.as_raw_fd()))?;
        Ok(How::Restore { memory: self.memory.try_clone()?, state, paused })
    }

    /// Reads a template that an earlier process left in the cache; none if there is none.
    pub(crate) fn load(directory: &Path, memory_bytes: u64) -> Result<Option<Self>, TemplateError> {
        let (memory, state) = (directory.join(MEMORY), directory.join(STATE));
        // Both come into place together, in their directory.
        let state = match File::open(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io("cannot open its state"))?,
        };
        let saved = File::open(memory).map_err(io("cannot open its memory"))?;
        let file = memory_file(memory_bytes).map_err(io("cannot make a memory file"))?;
        copy_sparse(&saved, &file).map_err(io("cannot read its memory"))?;
        seal(&file).map_err(io("cannot seal its memory"))?;
        Ok(Some(Self { memory: file.into(), state }))
    }

    /// Boots a guest from `plan` (whose memory is replaced by the template's), saves it, ends it.
    pub(crate) async fn make(host: &Host, mut plan: Plan, directory: &Path) -> Result<Self, TemplateError> {
        let file = memory_file(plan.record.memory_bytes).map_err(io("cannot make a memory file"))?;
        if let How::Boot { memory, .. } = &mut plan.how {
            *memory = Some(file.try_clone().map_err(io("cannot make a memory file"))?.into());
        }
        let machine = host.launch(plan).await?;
        let partial = partial(directory);
        let saved = save(&machine, &partial).await;
        // Its process must be gone before the memory can be sealed, and goes in any case.
        let ended = machine.destroy().await;
        saved?;
        ended
            .map_err(|error| TemplateError::Io { what: "its machine did not end", source: io::Error::other(error) })?;
        seal(&file).map_err(io("cannot seal its memory"))?;
        let state = keep(&file, &partial, directory).map_err(io("cannot keep it in the cache"))?;
        Ok(Self { memory: file.into(), state })
    }
}

fn memory_file(bytes: u64) -> io::Result<File> {
    let file = memfd_create("isopod-template", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, bytes)?;
    Ok(file.into())
}

fn seal(file: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?)
}

/// Where this process makes a template. Another one may be making the same, and the memory of one with the state of the other
/// is a guest that crashes.
fn partial(directory: &Path) -> PathBuf {
    directory.with_extension(format!("{}{PARTIAL}", std::process::id()))
}

/// Writes the device state. The guest is not stopped first: what is restored would come up stopped.
async fn save(machine: &Machine, directory: &Path) -> Result<(), TemplateError> {
    std::fs::create_dir_all(directory).map_err(io("cannot make its directory"))?;
    let file = File::create(directory.join(STATE)).map_err(io("cannot make its state file"))?;
    let qmp = machine.control();
    set_migration_capabilities(qmp).await?;
    let mut events = qmp.events();
    qmp.command_with_fd("getfd", json!({ "fdname": STATE }), std::os::fd::AsFd::as_fd(&file)).await?;
    qmp.command("migrate", json!({ "uri": format!("fd:{STATE}") })).await?;
    migrated(&mut events).await?;
    Ok(())
}

/// Copies the memory beside the state and puts both into their place, whole even if the host loses power, unless somebody
/// was faster. Returns the state.
fn keep(memory: &File, partial: &Path, directory: &Path) -> io::Result<File> {
    let copy = File::create(partial.join(MEMORY))?;
    copy.set_len(memory.metadata()?.len())?;
    copy_sparse(memory, &copy)?;
    let state = File::open(partial.join(STATE))?;
    copy.sync_all()?;
    state.sync_all()?;
    match std::fs::rename(partial, directory) {
        // Theirs stays in the cache; this process goes on with its own, which is as good.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => std::fs::remove_dir_all(partial)?,
        renamed => renamed?,
    }
    Ok(state)
}

/// Removes from a directory of the cache what is not called `keep` and has not changed for a while: made for a kernel, an
/// agent or a QEMU that this host had before. What another process uses, it holds open. Failures are left for next time.
pub(crate) fn clear(directory: &Path, keep: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        if !keep(&entry.file_name().to_string_lossy()) && age.is_some_and(|age| age > STALE) {
            let path = entry.path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "cannot clear the cache");
            }
        }
    }
}

/// Copies what is not a hole.
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let (mut at, end) = (0, from.metadata()?.len());
    while at < end {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => break,
            data => data?,
        };
        at = rustix::fs::seek(from, SeekFrom::Hole(data))?;
        let mut position = data;
        while position < at {
            let piece = usize::try_from(at - position).unwrap_or(usize::MAX).min(buffer.len());
            from.read_exact_at(&mut buffer[..piece], position)?;
            to.write_all_at(&buffer[..piece], position)?;
            position += piece as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_are_made_at_once_one_is_kept_whole() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("class");
        let kept = ["first", "second"].map(|name| {
            let (memory, partial) = (memory_file(1 << 20).unwrap(), cache.path().join(name));
            memory.write_all_at(name.as_bytes(), 0).unwrap();
            std::fs::create_dir_all(&partial).unwrap();
            std::fs::write(partial.join(STATE), name).unwrap();
            (memory, partial)
        });
        for (memory, partial) in &kept {
            let state = keep(memory, partial, &directory).unwrap();
            assert_eq!(io::read_to_string(state).unwrap(), partial.file_name().unwrap().to_str().unwrap());
        }
        assert_eq!(std::fs::read_to_string(directory.join(STATE)).unwrap(), "first");
        assert!(std::fs::read(directory.join(MEMORY)).unwrap().starts_with(b"first"));
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
    }

    #[test]
    fn holes_stay_holes_and_sealed_memory_stays_as_it_is() {
        use std::os::unix::fs::MetadataExt;
        let from = memory_file(64 << 20).unwrap();
        from.write_all_at(b"start", 0).unwrap();
        from.write_all_at(b"middle", 40 << 20).unwrap();
        let to = memory_file(64 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        seal(&to).unwrap();
        let mut bytes = [0; 6];
        to.read_exact_at(&mut bytes, 40 << 20).unwrap();
        assert_eq!(&bytes, b"middle");
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert!(to.write_all_at(b"x", 0).is_err());
    }

    #[test]
    fn only_what_is_old_and_not_kept_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - STALE * 2;
        for (name, is_old) in [("kept", true), ("old", true), ("new", false)] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            if is_old {
                File::open(dir.path().join(name)).unwrap().set_modified(old).unwrap();
            }
        }
        clear(dir.path(), |name| name == "kept");
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!((left("kept"), left("old"), left("new")), (true, false, true));
        clear(&dir.path().join("none"), |_| false);
    }

    #[test]
    fn a_template_without_state_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MEMORY), "half").unwrap();
        assert!(Template::load(dir.path(), 4096).unwrap().is_none());
    }
}
