//! Disks by slot. The host puts them behind fixed devices, so a slot is found by the serial number of its device.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
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

/// Mounts the writable disk, or memory where there is none.
pub(crate) fn mount_scratch(slot: Option<u32>) -> Result<(), Fault> {
    let fault = |error: rustix::io::Errno| Fault::new(ErrorKind::MountFailed, format!("scratch disk: {error}"));
    match slot {
        None => mount("scratch", path::SCRATCH, "tmpfs", MountFlags::NODEV, Some(c"mode=755")).map_err(fault)?,
        Some(slot) => {
            let flags = MountFlags::NODEV | MountFlags::NOATIME;
            mount(device(slot)?, path::SCRATCH, "ext4", flags, Some(c"discard")).map_err(fault)?;
        }
    }
    for name in ["containers", "volumes"] {
        fs::create_dir_all(Path::new(path::SCRATCH).join(name)).map_err(Fault::internal("scratch disk"))?;
    }
    Ok(())
}

/// The device node of a slot.
fn device(slot: u32) -> Result<PathBuf, Fault> {
    let serial = format!("slot{slot}");
    for entry in fs::read_dir("/sys/block").map_err(Fault::internal("/sys/block"))?.flatten() {
        if fs::read_to_string(entry.path().join("serial")).is_ok_and(|text| text.trim() == serial) {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(Fault::new(ErrorKind::NoSuchImage, format!("there is no disk slot {slot}")))
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
