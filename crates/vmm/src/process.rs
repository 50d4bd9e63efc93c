//! Starting QEMU so that it outlives us, and knowing it again.
//!
//! The child leaves our session, writes its own line of `/proc/self/stat` into the machine's directory, gives up its
//! privileges and becomes QEMU. Because it writes that line before it is QEMU, there is no moment at which a machine
//! runs and nothing on disk says so: a crash of ours at any point leaves nothing that `sweep` cannot find.
#![expect(unsafe_code, reason = "the child's set-up between fork and exec")]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::SystemTime,
};

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal,
};
use tokio::{io::unix::AsyncFd, sync::watch};

/// File in a machine's directory that the child writes.
const PID_FILE: &str = "pid";

/// Who QEMU runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id. There are no supplementary groups.
    pub gid: u32,
}

/// What is started.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
    /// Descriptors that the child keeps, under the same numbers.
    pub(crate) keep: Vec<BorrowedFd<'a>>,
    /// The machine's directory.
    pub(crate) directory: &'a Path,
    pub(crate) user: Option<User>,
    /// Open `cgroup.procs` files that the child joins.
    pub(crate) cgroups: Vec<OwnedFd>,
}

/// How a machine's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitFact {
    /// Exit code, if it exited and we were its parent.
    pub code: Option<i32>,
    /// Signal, if one ended it and we were its parent.
    pub signal: Option<i32>,
    /// When we learnt it.
    pub at: SystemTime,
}

/// A process that is known by descriptor, so that its number cannot come to mean another one.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<ExitFact>>,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(start: Start<'_>) -> io::Result<Self> {
        let record = File::create(start.directory.join(PID_FILE))?;
        let log = File::options().create(true).append(true).open(start.directory.join("qemu.log"))?;
        let mut command = Command::new(start.program);
        command.args(&start.arguments).current_dir("/").env_clear();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let keep: Vec<RawFd> = start.keep.iter().map(AsRawFd::as_raw_fd).collect();
        let (cgroups, user) = (start.cgroups, start.user);
        // SAFETY: between fork and exec the closure only makes system calls on memory that was there before the fork:
        // it allocates nothing, takes no lock, and returns errors as numbers.
        unsafe {
            command.pre_exec(move || become_machine(&keep, &record, &cgroups, user));
        }
        let child = command.spawn()?;
        let pidfd = pidfd(child.id())?;
        Self::watch(child.id(), pidfd, true)
    }

    /// The process that wrote the record in this directory, if it still runs.
    pub(crate) fn find(directory: &Path) -> io::Result<Option<Self>> {
        let Some((pid, started)) = recorded(directory)? else { return Ok(None) };
        let Ok(pidfd) = pidfd(pid) else { return Ok(None) };
        // Read after the descriptor was had: now the number can only mean the process that the descriptor means.
        if start_time(&format!("/proc/{pid}/stat")) != Some(started) {
            return Ok(None);
        }
        Self::watch(pid, pidfd, false).map(Some)
    }

    fn watch(pid: u32, pidfd: OwnedFd, child: bool) -> io::Result<Self> {
        let (sender, exit) = watch::channel(None);
        let copy = pidfd.try_clone()?;
        // SAFETY: `copy` owns its descriptor, and nothing replaces or closes it before `AsyncFd` is dropped.
        let watched = unsafe { AsyncFd::register(copy) }.map_err(|error| error.into_parts().1)?;
        tokio::spawn(async move {
            let ended = watched.readable().await.map(drop);
            let fact = if child && ended.is_ok() {
                reap(watched.as_fd())
            } else {
                ExitFact { code: None, signal: None, at: SystemTime::now() }
            };
            sender.send_replace(Some(fact));
        });
        Ok(Self { pid, pidfd: Arc::new(pidfd), exit })
    }

    /// Resolves when the process has ended.
    pub(crate) async fn exited(&self) -> ExitFact {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|fact| fact.clone()) {
            Ok(Some(fact)) => fact,
            // The watching task ends only with the runtime.
            _ => std::future::pending().await,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<ExitFact> {
        self.exit.borrow().clone()
    }

    /// Kills it. No error if it has ended.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

fn reap(pidfd: BorrowedFd<'_>) -> ExitFact {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).ok().flatten();
    ExitFact {
        code: status.as_ref().and_then(rustix::process::WaitIdStatus::exit_status),
        signal: status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal),
        at: SystemTime::now(),
    }
}

/// Process number and start time that a directory's child recorded. An empty record means that it never came to life.
fn recorded(directory: &Path) -> io::Result<Option<(u32, u64)>> {
    let file: PathBuf = directory.join(PID_FILE);
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let pid = text.split(' ').next().and_then(|word| word.parse().ok());
    Ok(pid.zip(start_time_in(&text)))
}

fn start_time(stat: &str) -> Option<u64> {
    start_time_in(&std::fs::read_to_string(stat).ok()?)
}

/// Field 22 of a `stat` line; the second field is in parentheses and may hold anything.
fn start_time_in(line: &str) -> Option<u64> {
    line.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Runs in the child. An error becomes the error of `spawn`.
fn become_machine(keep: &[RawFd], record: &File, cgroups: &[OwnedFd], user: Option<User>) -> io::Result<()> {
    rustix::process::setsid()?;
    let stat = rustix::fs::open("/proc/self/stat", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
    let mut line = [0; 1024];
    let length = rustix::io::read(&stat, &mut line)?;
    rustix::io::write(record, &line[..length])?;
    for group in cgroups {
        rustix::io::write(group, b"0")?;
    }
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    for &fd in keep {
        // SAFETY: the parent holds the descriptor open across the fork; it is only borrowed for this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    rustix::thread::set_no_new_privs(true)?;
    user.map_or(Ok(()), drop_privileges)
}

fn drop_privileges(user: User) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(directory: &Path, program: &str, arguments: &[&str]) -> Process {
        Process::start(Start {
            program: Path::new(program),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            keep: Vec::new(),
            directory,
            user: None,
            cgroups: Vec::new(),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn exits_are_told_with_code_and_signal() {
        let dir = tempfile::tempdir().unwrap();
        let process = start(dir.path(), "/bin/sh", &["-c", "exit 3"]);
        let fact = process.exited().await;
        assert_eq!((fact.code, fact.signal), (Some(3), None));
        let process = start(dir.path(), "/bin/sleep", &["1000"]);
        process.kill().unwrap();
        let fact = process.exited().await;
        assert_eq!((fact.code, fact.signal), (None, Some(9)));
        assert_eq!(process.exit(), Some(fact));
        process.kill().unwrap();
    }

    #[tokio::test]
    async fn a_process_is_found_again_by_its_directory_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Process::find(dir.path()).unwrap().is_none());
        let process = start(dir.path(), "/bin/sleep", &["1000"]);
        let found = Process::find(dir.path()).unwrap().unwrap();
        assert_eq!(found.pid, process.pid);
        process.kill().unwrap();
        process.exited().await;
        found.exited().await;
        assert!(Process::find(dir.path()).unwrap().is_none());
        // The number alone is not enough: this process has it, but not the start time.
        std::fs::write(
            dir.path().join(PID_FILE),
            format!("{} (x) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 7", std::process::id()),
        )
        .unwrap();
        assert!(Process::find(dir.path()).unwrap().is_none());
    }

    #[test]
    fn start_times_are_read_behind_any_name() {
        let line = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_time_in(line), Some(4242));
        assert_eq!(start_time_in("7 (a"), None);
    }
}
