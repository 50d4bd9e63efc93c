//! From the kernel's hand-over to a guest that can be spoken to: file systems, modules, a root that can be pivoted away
//! from, control groups, the loopback interface. Runs before the runtime, in a single thread.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, mount, mount_move},
    system::RebootCommand,
};

use crate::{network, path, port};

/// Does all of it; returns the open port to the host.
pub(crate) fn boot() -> io::Result<OwnedFd> {
    pseudo_file_systems("")?;
    let uevents = port::listen_for_devices()?;
    load_modules(Path::new("/modules"))?;
    leave_initramfs()?;
    directories()?;
    control_groups()?;
    network::loopback_up()?;
    network::only_ipv4()?;
    raise_limits()?;
    port::open(&uevents)
}

/// A line on the console, which the host keeps the first of.
pub(crate) fn say(line: &str) {
    if let Ok(mut console) = File::options().write(true).open("/dev/ttyS0") {
        let _ = writeln!(console, "{line}");
    }
}

/// Ends the machine: its VMM is told not to reboot, so this is its end.
pub(crate) fn restart_machine() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}

fn pseudo_file_systems(root: &str) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devtmpfs", format!("{root}/dev"), "devtmpfs", MountFlags::NOSUID, None)?;
    mount("proc", format!("{root}/proc"), "proc", flags | MountFlags::NODEV, None)?;
    mount("sysfs", format!("{root}/sys"), "sysfs", flags | MountFlags::NODEV, None)?;
    Ok(())
}

/// Loads every file of the directory in the order of their names, and frees their memory.
fn load_modules(directory: &Path) -> io::Result<()> {
    let mut files: Vec<_> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        let module = rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        match rustix::system::finit_module(&module, c"", 0) {
            // Built in, or loaded by another.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(io::Error::other(format!("module {}: {error}", file.display()))),
        }
        fs::remove_file(&file)?;
    }
    Ok(())
}

/// Moves to a root in memory that is a mount of its own: the kernel refuses `pivot_root` from the initramfs.
fn leave_initramfs() -> io::Result<()> {
    fs::create_dir_all("/root")?;
    mount("root", "/root", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))?;
    for name in ["dev", "proc", "sys"] {
        fs::create_dir(format!("/root/{name}"))?;
        mount_move(format!("/{name}"), format!("/root/{name}"))?;
    }
    rustix::process::chdir("/root")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn directories() -> io::Result<()> {
    for directory in ["/run", "/tmp", "/dev/pts", path::RUN, path::IMAGES, path::SCRATCH, path::CONTAINERS, path::PODS]
    {
        fs::create_dir_all(directory)?;
    }
    mount(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"ptmxmode=0666,mode=0620,gid=5"),
    )?;
    Ok(())
}

fn control_groups() -> io::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    mount("cgroup2", root, "cgroup2", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    let offered = fs::read_to_string(root.join("cgroup.controllers"))?;
    let wanted: Vec<String> = ["cpu", "memory", "pids", "io", "cpuset"]
        .iter()
        .filter(|name| offered.split_whitespace().any(|word| word == **name))
        .map(|name| format!("+{name}"))
        .collect();
    fs::write(root.join("cgroup.subtree_control"), wanted.join(" "))?;
    fs::create_dir(path::CGROUP)?;
    fs::write(Path::new(path::CGROUP).join("cgroup.subtree_control"), wanted.join(" "))
}

/// Kernel settings and our own limits: containers get theirs from their configuration.
fn raise_limits() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    fs::write("/proc/sys/kernel/pid_max", "4194304")?;
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) })?;
    setrlimit(Resource::Nproc, Rlimit { current: None, maximum: None })?;
    Ok(())
}
