//! Paths of the node that its pods mount. All but the kernel's own file systems are on the node's disk: what a pod leaves
//! there outlives it and ends with the node.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use isopod_guest_api::HostPathVolume;

use crate::path;

/// Where the kernel's own file systems are.
const KERNELS: &[&str] = &["/dev", "/proc", "/sys"];

/// The path to mount; made or refused as its kind says (`hostPath.type` of the Kubernetes API).
pub(crate) fn find(wanted: &HostPathVolume) -> io::Result<PathBuf> {
    let path = resolve(&wanted.path)
        .ok_or_else(|| io::Error::other(format!("hostPath {:?} is not an absolute path without `..`", wanted.path)))?;
    match wanted.kind.as_str() {
        "" if !path.exists() => make_directory(&path)?,
        "DirectoryOrCreate" if !path.exists() => make_directory(&path)?,
        "FileOrCreate" if !path.exists() => drop(fs::File::options().append(true).create(true).open(&path)?),
        _ => {}
    }
    let is = |kind: &str| io::Error::other(format!("hostPath type check failed: {} is not a {kind}", wanted.path));
    let found = fs::metadata(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("hostPath {}: {error}", wanted.path)))?
        .file_type();
    match wanted.kind.as_str() {
        "Directory" | "DirectoryOrCreate" if !found.is_dir() => Err(is("directory")),
        "File" | "FileOrCreate" if !found.is_file() => Err(is("file")),
        "Socket" if !found.is_socket() => Err(is("socket file")),
        "CharDevice" if !found.is_char_device() => Err(is("character device")),
        "BlockDevice" if !found.is_block_device() => Err(is("block device")),
        _ => Ok(path),
    }
}

/// Where a path of the node is in this guest.
fn resolve(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || text.contains('\0') {
        return None;
    }
    if KERNELS.iter().any(|kernel| path.starts_with(kernel)) {
        return Some(path.to_owned());
    }
    Some(Path::new(path::NODE_FILES).join(path.strip_prefix("/").ok()?))
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_the_nodes_disk_or_the_kernel() {
        for (path, expected) in [
            ("/var/log", Some("/run/isopod/scratch/node/var/log")),
            ("/", Some("/run/isopod/scratch/node")),
            ("/run/isopod", Some("/run/isopod/scratch/node/run/isopod")),
            ("/dev/null", Some("/dev/null")),
            ("/sys", Some("/sys")),
            ("/device", Some("/run/isopod/scratch/node/device")),
            ("var", None),
            ("/a/../b", None),
            ("", None),
        ] {
            let found = resolve(path).map(|path| path.to_string_lossy().trim_end_matches('/').to_owned());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
