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

/// One directory per pod: hosts, hostname, resolv.conf, shared memory, volumes of files and of memory.
pub(crate) const PODS: &str = "/run/isopod/pods";

/// What pods see of the node's own files, on its disk.
pub(crate) const NODE_FILES: &str = "/run/isopod/scratch/node";

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

/// A pod's directory.
pub(crate) fn pod(uid: &str) -> PathBuf {
    PathBuf::from(PODS).join(uid)
}

/// The directory of a pod's volumes on the writable disk.
pub(crate) fn scratch_volumes(uid: &str) -> PathBuf {
    PathBuf::from(SCRATCH).join("volumes").join(uid)
}
