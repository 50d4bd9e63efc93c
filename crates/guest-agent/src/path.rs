//! Where things are in the guest. All of it is memory except what is below `SCRATCH`.

use std::path::PathBuf;

/// Everything of ours.
pub(crate) const RUN: &str = "/run/isopod";

/// Mounted image disks, one directory per slot.
pub(crate) const IMAGES: &str = "/run/isopod/images";

/// The writable disk, or memory in its place.
pub(crate) const SCRATCH: &str = "/run/isopod/scratch";

/// One directory per container: configuration, root file system, sockets.
pub(crate) const CONTAINERS: &str = "/run/isopod/containers";

/// Volumes of files and of memory.
pub(crate) const VOLUMES: &str = "/run/isopod/volumes";

/// hosts, hostname, resolv.conf.
pub(crate) const POD: &str = "/run/isopod/pod";

/// The pod's shared memory.
pub(crate) const SHM: &str = "/run/isopod/shm";

/// Parent of the containers' control groups.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup/isopod";

/// A container's directory.
pub(crate) fn container(id: &str) -> PathBuf {
    PathBuf::from(CONTAINERS).join(id)
}

/// A container's control group.
pub(crate) fn cgroup(id: &str) -> PathBuf {
    PathBuf::from(CGROUP).join(id)
}

/// A container's writable layer.
pub(crate) fn layer(id: &str) -> PathBuf {
    PathBuf::from(SCRATCH).join("containers").join(id)
}
