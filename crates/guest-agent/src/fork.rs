//! A copy of this process for a container: into its control group and namespaces at once, with `clone3`.
//!
//! The agent has one thread, so the copy is whole: no lock is held by a thread that it lacks, and it may allocate. It still
//! holds everything of the agent's, so it closes what it does not need before it looks at anything of the container's, and
//! it ends in `exec` or `_exit`, never by returning.
#![expect(unsafe_code, reason = "clone3, close_range and _exit have no safe form")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Where the report socket is in the copy, so that everything above it can be closed.
pub(crate) const REPORT: RawFd = 3;

/// `struct clone_args` (linux/sched.h), as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The copy's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// New ones for processes and mounts.
    New,
    /// A new one for mounts; processes are in the one that the caller has set for its children.
    NewMounts,
    /// Those that the caller has set for its children.
    Inherited,
}

/// A process by number, for waiting, and by descriptor, for everything else: the number can come to mean another one.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Child {
    /// Sends it a signal; one that has ended is no error, the host learns of that by itself.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }
}

/// Makes a copy that runs `act`, whose end is the copy's.
pub(crate) fn fork(namespaces: Namespaces, cgroup: &OwnedFd, act: impl FnOnce()) -> io::Result<Child> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the agent has more than one thread"));
    }
    let new = match namespaces {
        Namespaces::New => libc::CLONE_NEWPID | libc::CLONE_NEWNS,
        Namespaces::NewMounts => libc::CLONE_NEWNS,
        Namespaces::Inherited => 0,
    };
    let mut pidfd: RawFd = -1;
    let arguments = CloneArguments {
        flags: u64::from((new | libc::CLONE_PIDFD).cast_unsigned()) | CLONE_INTO_CGROUP,
        pidfd: std::ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..CloneArguments::default()
    };
    // SAFETY: clone3 reads `arguments` during the call, and writes one descriptor to `pidfd`, which lives until after it. Without CLONE_VM the child has a copy of the memory; the process has
    // one thread (checked above), so that copy is consistent, as after `fork`.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArguments>()) };
    match result {
        0 => {
            act();
            // SAFETY: ends the copy without running anything of the agent's that waits for an exit.
            unsafe { libc::_exit(127) }
        }
        1.. => {
            // SAFETY: the kernel has just made this descriptor for this process, and nothing else knows of it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: i32::try_from(result).map_err(io::Error::other)?, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// `CLONE_INTO_CGROUP` (linux/sched.h); it does not fit libc's type for flags.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// In the copy: makes the control group that it is in the root of what it sees of control groups.
pub(crate) fn own_control_group_namespace() -> rustix::io::Result<()> {
    // SAFETY: of the namespaces, only that of descriptors (CLONE_FILES) bears on what safe code may assume.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
}

/// In the copy: puts the report socket to its place and closes everything else above the standard streams.
pub(crate) fn keep_only(report: &OwnedFd) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: dup3 and close_range work on numbers. This process is a copy that never returns to the code that owns those
    // descriptors, and the one at REPORT is used by nothing but what is returned here.
    unsafe {
        if report.as_raw_fd() != REPORT && libc::dup3(report.as_raw_fd(), REPORT, libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::syscall(libc::SYS_close_range, REPORT + 1, libc::c_uint::MAX, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(BorrowedFd::borrow_raw(REPORT))
    }
}
