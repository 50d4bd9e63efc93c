//! Volumes. Files are laid out in the kubelet's way: a directory of this moment, `..data` that points at it, and a link
//! through `..data` per first component; an update swaps `..data`, so that readers see the old set or the new one.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use isopod_guest_api::{EmptyDirVolume, ErrorKind, FilesVolume, Volume, VolumeSource};
use rustix::mount::{MountFlags, mount};

use crate::{disk, fault::Fault, host_path, path};

/// Makes a volume of a pod; returns its directory.
pub(crate) fn make(uid: &str, volume: &Volume, fs_group: Option<u32>) -> Result<PathBuf, Fault> {
    check_name(&volume.name)?;
    let failed = || Fault::io(ErrorKind::MountFailed, format!("volume {}", volume.name));
    let directory = path::pod(uid).join("volumes").join(&volume.name);
    match &volume.source {
        Some(VolumeSource::EmptyDir(empty)) => {
            let directory = if empty.memory { directory } else { path::scratch_volumes(uid).join(&volume.name) };
            empty_dir(&directory, *empty, fs_group).map_err(failed())?;
            Ok(directory)
        }
        Some(VolumeSource::Files(files)) => {
            fs::create_dir_all(&directory).map_err(failed())?;
            write_files(&directory, files, fs_group)?;
            Ok(directory)
        }
        Some(VolumeSource::HostPath(wanted)) => host_path::find(wanted).map_err(failed()),
        Some(VolumeSource::Disk(wanted)) => {
            fs::create_dir_all(&directory).map_err(failed())?;
            disk::mount_volume(wanted.slot, &directory, wanted.read_only)?;
            share(&directory, wanted.read_only, fs_group).map_err(failed())?;
            Ok(directory)
        }
        None => Err(Fault::invalid(format!("volume {} has no source that this guest knows", volume.name))),
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.chars().all(good) {
        return Err(Fault::invalid(format!("volume name {name:?} is not a name")));
    }
    Ok(())
}

fn empty_dir(directory: &Path, volume: EmptyDirVolume, fs_group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    if volume.memory {
        let limit = match volume.size_limit_bytes {
            0 => String::new(),
            bytes => format!("size={bytes},"),
        };
        let options = std::ffi::CString::new(format!("{limit}mode=777"))?;
        mount("volume", directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
    share(directory, false, fs_group)
}

/// Gives a volume to the pod's group; files made in it belong to the group as well.
fn share(directory: &Path, read_only: bool, fs_group: Option<u32>) -> io::Result<()> {
    let Some(group) = fs_group.filter(|_| !read_only) else { return Ok(()) };
    chown(directory, None, Some(group))?;
    let mode = fs::metadata(directory)?.permissions().mode();
    fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o777 | 0o2070))
}

/// Makes `files` the content of a volume's directory.
pub(crate) fn write_files(directory: &Path, files: &FilesVolume, fs_group: Option<u32>) -> Result<(), Fault> {
    for file in &files.files {
        check_path(&file.path)?;
    }
    swap_in(directory, files, fs_group)
        .map_err(Fault::io(ErrorKind::MountFailed, format!("volume {}", directory.display())))
}

fn check_path(text: &str) -> Result<(), Fault> {
    let fault = || Fault::invalid(format!("file path {text:?} of a volume is not a relative path without `..`"));
    let path = Path::new(text);
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if text.is_empty()
        || text.len() > 4096
        || !normal
        || text.starts_with("..")
        || text.contains('\0')
        || text.ends_with('/')
    {
        return Err(fault());
    }
    Ok(())
}

fn swap_in(directory: &Path, files: &FilesVolume, fs_group: Option<u32>) -> io::Result<()> {
    let old = fs::read_link(directory.join("..data")).ok();
    let name = fresh_name(directory);
    let content = directory.join(&name);
    make_directory(&content, fs_group)?;
    for file in &files.files {
        write_file(&content, file, fs_group)?;
    }
    let link = directory.join("..data_tmp");
    let _ = fs::remove_file(&link);
    symlink(&name, &link)?;
    fs::rename(&link, directory.join("..data"))?;
    link_first_components(directory, files)?;
    match old {
        Some(old) => fs::remove_dir_all(directory.join(old)),
        None => Ok(()),
    }
}

/// A name that says when, for a directory of this moment.
fn fresh_name(directory: &Path) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let named = |number: u32| format!("..{}.{number:09}", moment(since.as_secs()));
    let numbers = since.subsec_nanos()..;
    numbers.map(named).find(|name| !directory.join(name).exists()).unwrap_or_default()
}

/// Date and time of day of a second since the Unix epoch, by the Gregorian calendar.
fn moment(unix_seconds: u64) -> String {
    // Years that begin in March have their leap day at the end; 400 of them are an era.
    let (days, seconds) = (unix_seconds / 86_400 + 719_468, unix_seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}_{month:02}_{day:02}_{hours:02}_{minutes:02}_{seconds:02}")
}

fn make_directory(directory: &Path, fs_group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    fs_group.map_or(Ok(()), |group| chown(directory, None, Some(group)))
}

fn write_file(content: &Path, file: &isopod_guest_api::VolumeFile, fs_group: Option<u32>) -> io::Result<()> {
    let path = content.join(&file.path);
    let mut parent = content.to_owned();
    for part in Path::new(&file.path).parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        make_directory(&parent, fs_group)?;
    }
    fs::write(&path, &file.content)?;
    let group = if file.gid == 0 { fs_group.unwrap_or(0) } else { file.gid };
    chown(&path, Some(file.uid), Some(group))?;
    // The group that was given to read the volume can read it.
    let mode = file.mode & 0o777 | if fs_group.is_some() { 0o440 } else { 0 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
}

/// Links for what is there now, none for what is not.
fn link_first_components(directory: &Path, files: &FilesVolume) -> io::Result<()> {
    let wanted: BTreeSet<String> =
        files.files.iter().filter_map(|file| file.path.split('/').next().map(str::to_owned)).collect();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(directory.join(name))?;
        }
    }
    for name in wanted {
        match symlink(Path::new("..data").join(&name), directory.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_guest_api::VolumeFile;

    fn files(entries: &[(&str, &str)]) -> FilesVolume {
        let file = |(path, content): &(&str, &str)| VolumeFile {
            path: (*path).into(),
            content: bytes::Bytes::copy_from_slice(content.as_bytes()),
            mode: 0o640,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        FilesVolume { files: entries.iter().map(file).collect() }
    }

    fn listing(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_update_swaps_everything_at_once() {
        let dir = tempfile::tempdir().unwrap();
        write_files(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        let first = fs::read_link(dir.path().join("..data")).unwrap().to_string_lossy().into_owned();
        assert_eq!(listing(dir.path()), [&first, "..data", "a", "d"]);
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        write_files(dir.path(), &files(&[("a", "3"), ("c", "4")]), None).unwrap();
        let second = fs::read_link(dir.path().join("..data")).unwrap().to_string_lossy().into_owned();
        assert_ne!(first, second);
        assert_eq!(listing(dir.path()), [&second, "..data", "a", "c"]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert_eq!(fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
    }

    #[test]
    fn directories_are_named_after_their_moment() {
        for (second, expected) in [
            (0, "1970_01_01_00_00_00"),
            (951_782_399, "2000_02_28_23_59_59"),
            (951_782_400, "2000_02_29_00_00_00"),
            (1_740_787_200, "2025_03_01_00_00_00"),
            (4_107_542_399, "2100_02_28_23_59_59"),
            (4_107_542_400, "2100_03_01_00_00_00"),
        ] {
            assert_eq!(moment(second), expected);
        }
    }

    #[test]
    fn paths_stay_in_the_volume() {
        for (path, good) in [
            ("a", true),
            ("a/b", true),
            ("", false),
            ("/a", false),
            ("../a", false),
            ("a/../b", false),
            ("..data", false),
            ("a/", false),
            ("./a", false),
        ] {
            assert_eq!(check_path(path).is_ok(), good, "{path}");
        }
        for (name, good) in [
            ("config", true),
            ("kube-api-access-x1", true),
            ("", false),
            ("../x", false),
            ("a/b", false),
            (".x", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
    }
}
