//! Disks by slot. The host puts them behind fixed devices, so a slot is found by the serial number of its device.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use isopod_guest_api::ErrorKind;
use rustix::mount::{MountFlags, mount};

use crate::{fault::Fault, path};

/// Slots whose image is mounted.
#[derive(Debug, Default)]
pub(crate) struct Images(BTreeSet<u32>);

impl Images {
    /// The directory of a slot's image, mounted if it was not yet.
    pub(crate) fn mounted(&mut self, slot: u32) -> Result<PathBuf, Fault> {
        let target = Path::new(path::IMAGES).join(slot.to_string());
        if self.0.contains(&slot) {
            return Ok(target);
        }
        let device = device(slot)?;
        let kind = file_system(&device).map_err(Fault::io(ErrorKind::NoSuchImage, format!("disk slot {slot}")))?;
        let Some(kind) = kind else {
            return Err(Fault::new(
                ErrorKind::NoSuchImage,
                format!("disk slot {slot} holds no ext4 or erofs file system"),
            ));
        };
        fs::create_dir_all(&target).map_err(Fault::internal("images"))?;
        // A journal cannot be replayed on a read-only disk, and a finished image has nothing to replay.
        let options = (kind == "ext4").then_some(c"noload");
        mount(&device, &target, kind, MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOATIME, options)
            .map_err(|error| Fault::new(ErrorKind::MountFailed, format!("disk slot {slot} ({kind}): {error}")))?;
        self.0.insert(slot);
        Ok(target)
    }
}

impl Images {
    /// Unmounts a slot's image, if it is mounted.
    pub(crate) fn release(&mut self, slot: u32) -> Result<(), Fault> {
        if !self.0.contains(&slot) {
            return Ok(());
        }
        let target = Path::new(path::IMAGES).join(slot.to_string());
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty())
            .map_err(|error| Fault::new(ErrorKind::MountFailed, format!("disk slot {slot}: {error}")))?;
        self.0.remove(&slot);
        Ok(())
    }
}

/// Mounts a volume's disk. A second pod of the node gets the same file system.
pub(crate) fn mount_volume(slot: u32, directory: &Path, read_only: bool) -> Result<(), Fault> {
    let flags =
        MountFlags::NODEV | MountFlags::NOATIME | if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    mount(device(slot)?, directory, "ext4", flags, Some(c"discard"))
        .map_err(|error| Fault::new(ErrorKind::MountFailed, format!("disk slot {slot}: {error}")))
}

/// Mounts the writable disk, or memory where there is none. One that was mounted ahead stays.
pub(crate) fn mount_scratch(slot: Option<u32>) -> Result<(), Fault> {
    if slot.is_some() && is_mount_point(Path::new(path::SCRATCH)).map_err(Fault::internal("scratch disk"))? {
        return Ok(());
    }
    let fault = |error: rustix::io::Errno| Fault::new(ErrorKind::MountFailed, format!("scratch disk: {error}"));
    match slot {
        None => mount("scratch", path::SCRATCH, "tmpfs", MountFlags::NODEV, Some(c"mode=755")).map_err(fault)?,
        Some(slot) => {
            let flags = MountFlags::NODEV | MountFlags::NOATIME;
            // Inode tables stay unwritten until they are used: the disk is young, and short of time.
            mount(device(slot)?, path::SCRATCH, "ext4", flags, Some(c"discard,noinit_itable")).map_err(fault)?;
        }
    }
    for name in ["containers", "volumes", "node"] {
        fs::create_dir_all(Path::new(path::SCRATCH).join(name)).map_err(Fault::internal("scratch disk"))?;
    }
    Ok(())
}

fn is_mount_point(directory: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = directory.parent().unwrap_or(directory);
    Ok(fs::metadata(directory)?.dev() != fs::metadata(parent)?.dev())
}

/// The device node of a slot.
fn device(slot: u32) -> Result<PathBuf, Fault> {
    let known = SLOTS.get_or_init(slots);
    let name =
        known.get(&slot).ok_or_else(|| Fault::new(ErrorKind::NoSuchImage, format!("there is no disk slot {slot}")))?;
    Ok(Path::new("/dev").join(name))
}

/// Device names by slot. Devices never come or go, only what is behind them; and asking a device for its serial number is a
/// conversation with the host, so it is done once.
static SLOTS: OnceLock<BTreeMap<u32, OsString>> = OnceLock::new();

fn slots() -> BTreeMap<u32, OsString> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let slot = |entry: fs::DirEntry| {
        let serial = fs::read_to_string(entry.path().join("serial")).ok()?;
        Some((serial.trim().strip_prefix("slot")?.parse().ok()?, entry.file_name()))
    };
    entries.filter_map(slot).collect()
}

/// What file system a device holds, by its superblock.
fn file_system(device: &Path) -> io::Result<Option<&'static str>> {
    let mut block = [0; 64];
    File::open(device)?.read_exact_at(&mut block, 1024)?;
    Ok(kind_of(&block))
}

fn kind_of(superblock: &[u8; 64]) -> Option<&'static str> {
    match superblock {
        [0xe2, 0xe1, 0xf5, 0xe0, ..] => Some("erofs"),
        _ if superblock[56..58] == [0x53, 0xef] => Some("ext4"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_by_their_superblock() {
        let with = |at: usize, bytes: &[u8]| {
            let mut block = [0; 64];
            block[at..at + bytes.len()].copy_from_slice(bytes);
            kind_of(&block)
        };
        assert_eq!(with(0, &[0xe2, 0xe1, 0xf5, 0xe0]), Some("erofs"));
        assert_eq!(with(56, &[0x53, 0xef]), Some("ext4"));
        assert_eq!(with(0, &[0]), None);
    }
}
