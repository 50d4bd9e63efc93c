//! A container's root, made by its first process in its own mount namespace. What of the guest goes into it is opened before
//! the guest's root is left; every path after that is resolved in the container's root and cannot lead out of it.

use std::{
    ffi::CString,
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use isopod_guest_api::ErrorKind;
use rustix::{
    fs::{CWD, FileType, Mode, makedev},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
        mount_change, mount_remount, move_mount, open_tree, unmount,
    },
};

use crate::{
    fault::Fault,
    plan::{Bind, Plan},
};

/// Hidden from containers, as every runtime does: they show or change what is the machine's.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device nodes: name, major, minor.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Links of a path that are followed by hand where the kernel would find nothing at their end.
const LINKS_FOLLOWED: usize = 8;

fn failed(what: &str) -> impl FnOnce(io::Error) -> Fault + use<> {
    Fault::io(ErrorKind::MountFailed, what.to_owned())
}

/// Makes the root and moves into it.
pub(crate) fn enter(plan: &Plan) -> Result<(), Fault> {
    let mounted = |result: rustix::io::Result<()>, what: &str| result.map_err(|error| failed(what)(error.into()));
    rustix::process::umask(Mode::from_raw_mode(0o022));
    mounted(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC), "mounts")?;
    let options = CString::new(plan.overlay.as_str()).map_err(|error| Fault::invalid(error.to_string()))?;
    mounted(mount("overlay", &plan.root, "overlay", MountFlags::NODEV, Some(options.as_c_str())), "root file system")?;
    let shm = tree(&plan.shm).map_err(failed("/dev/shm"))?;
    let mut sources = Vec::with_capacity(plan.binds.len());
    for bind in &plan.binds {
        sources.push(tree(&bind.source).map_err(failed(&bind.destination))?);
    }
    pivot(&plan.root).map_err(failed("root file system"))?;
    pseudo_file_systems(plan.privileged).map_err(failed("/proc, /sys and /dev"))?;
    put(&shm, "/dev/shm", false).map_err(failed("/dev/shm"))?;
    // Shorter paths first would hide what is mounted below them later; the order is the configuration's.
    for (bind, source) in plan.binds.iter().zip(&sources) {
        place(bind, source).map_err(failed(&bind.destination))?;
    }
    Ok(())
}

/// What must come after everything else that is done to the root.
pub(crate) fn finish(plan: &Plan) -> Result<(), Fault> {
    if !plan.privileged {
        mask().map_err(failed("masked paths"))?;
    }
    if plan.readonly_root {
        mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV, c"")
            .map_err(|error| failed("read-only root file system")(error.into()))?;
    }
    Ok(())
}

/// A copy of the mounts at a path, not yet anywhere.
fn tree(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )?)
}

fn pivot(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    // The old root ends up below the new one, at the same place, and is taken away from there.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn pseudo_file_systems(privileged: bool) -> io::Result<()> {
    let (nosuid, noexec, nodev) = (MountFlags::NOSUID, MountFlags::NOEXEC, MountFlags::NODEV);
    let strict = nosuid | noexec | nodev;
    let system = if privileged { strict } else { strict | MountFlags::RDONLY };
    for directory in ["/proc", "/sys", "/dev"] {
        fs::create_dir_all(directory)?;
    }
    mount("proc", "/proc", "proc", strict, None)?;
    mount("sysfs", "/sys", "sysfs", system, None)?;
    mount("cgroup", "/sys/fs/cgroup", "cgroup2", system, None)?;
    mount("tmpfs", "/dev", "tmpfs", nosuid | MountFlags::STRICTATIME, Some(c"mode=755,size=65536k"))?;
    for directory in ["/dev/pts", "/dev/mqueue", "/dev/shm"] {
        fs::create_dir(directory)?;
    }
    mount("devpts", "/dev/pts", "devpts", nosuid | noexec, Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
    mount("mqueue", "/dev/mqueue", "mqueue", strict, None)?;
    let mask = rustix::process::umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(
            CWD,
            Path::new("/dev").join(name),
            FileType::CharacterDevice,
            mode,
            makedev(*major, *minor),
        )?;
    }
    rustix::process::umask(mask);
    for (target, link) in LINKS {
        symlink(target, link)?;
    }
    Ok(())
}

fn place(bind: &Bind, source: &OwnedFd) -> io::Result<()> {
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) == FileType::Directory;
    let destination = Path::new(&bind.destination);
    if is_directory {
        fs::create_dir_all(destination)?
    } else {
        make_file(destination)?
    }
    put(source, &bind.destination, bind.read_only)
}

fn put(source: &OwnedFd, destination: &str, read_only: bool) -> io::Result<()> {
    move_mount(
        source,
        "",
        CWD,
        destination,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
    )?;
    if read_only {
        mount_remount(destination, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV, c"")?;
    }
    Ok(())
}

/// Makes an empty file to mount upon, with its directories, unless there is one. Images have links that lead to files that
/// only exist at run time, `/etc/resolv.conf` above all.
fn make_file(path: &Path) -> io::Result<()> {
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS_FOLLOWED {
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        fs::create_dir_all(&parent)?;
        match fs::File::options().append(true).create(true).open(&path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => path = parent.join(fs::read_link(&path)?),
            // It is there and cannot be written: good enough to mount upon.
            Err(error) => return if path.exists() { Ok(()) } else { Err(error) },
        }
    }
    Err(io::Error::other("too many links"))
}

fn mask() -> io::Result<()> {
    for path in MASKED {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => mount("tmpfs", *path, "tmpfs", MountFlags::RDONLY, Some(c"size=0k"))?,
            Ok(_) => mount_bind("/dev/null", *path)?,
            Err(_) => {}
        }
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::BIND | MountFlags::RDONLY;
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        mount_bind(*path, *path)?;
        mount_remount(*path, flags, c"")?;
    }
    Ok(())
}
