//! What a new process does between its making and its program. Runs in a copy of the agent (`fork`): everything fails by
//! reporting, nothing returns.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use isopod_guest_api::ErrorKind;
use rustix::{
    fs::{CWD, Gid, Mode, OFlags, Uid},
    process::Rlimit,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    thread::{
        CapabilitySet, CapabilitySets, ThreadNameSpaceType, move_into_thread_name_spaces,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

use crate::{
    fault::Fault,
    fork,
    plan::{Plan, Process},
    report::{self, Report},
    root, seccomp,
};

/// What a new process is given.
pub(crate) struct Inherited<'a> {
    pub(crate) stdio: &'a [OwnedFd; 3],
    pub(crate) report: &'a OwnedFd,
}

/// The first process of a container.
pub(crate) fn first(plan: &Plan, inherited: &Inherited<'_>) {
    // Before the copy closes what it does not need, which includes the namespaces' descriptors.
    let joined = plan.sandbox.as_ref().map_or(Ok(()), |sandbox| sandbox.enter());
    run(inherited, &plan.process, |report| {
        joined.map_err(Fault::internal("the pod's namespaces"))?;
        // Here and not earlier: the namespace's root is the group that this process is in.
        fork::own_control_group_namespace()
            .map_err(|error| Fault::internal("control group namespace")(error.into()))?;
        root::enter(plan)?;
        terminal(&plan.process, report, true)?;
        root::finish(plan)
    });
}

/// A process that joins a container, whose first process this descriptor means. It is in the container's process namespace
/// already.
pub(crate) fn joining(container: &OwnedFd, process: &Process, inherited: &Inherited<'_>) {
    // Before the copy closes what it does not need, which includes this descriptor.
    let namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    let joined = move_into_thread_name_spaces(container.as_fd(), namespaces);
    run(inherited, process, |report| {
        joined.map_err(|error| Fault::internal("container's namespaces")(error.into()))?;
        terminal(process, report, false)
    });
}

/// The steps that both have in common, around those that differ.
fn run(inherited: &Inherited<'_>, process: &Process, enter: impl FnOnce(BorrowedFd<'_>) -> Result<(), Fault>) {
    // Nothing of the container may look into this process while it still has anything of the agent's.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let prepared = standard_streams(inherited).and_then(|()| fork::keep_only(inherited.report));
    let fault = match prepared {
        Err(error) => {
            report::send(inherited.report.as_fd(), &Report::Fault(Fault::internal("standard streams")(error)));
            return;
        }
        Ok(report) => become_process(process, enter, report),
    };
    if let Err((report, fault)) = fault {
        report::send(report, &Report::Fault(fault));
    }
}

fn become_process<'a>(
    process: &Process,
    enter: impl FnOnce(BorrowedFd<'_>) -> Result<(), Fault>,
    report: BorrowedFd<'a>,
) -> Result<(), (BorrowedFd<'a>, Fault)> {
    let step = || -> Result<PathBuf, Fault> {
        rustix::process::setsid().map_err(|error| Fault::internal("session")(error.into()))?;
        enter(report)?;
        settle(process)?;
        find_program(&process.argv[0], process.variable("PATH"))
    };
    let program = step().map_err(|fault| (report, fault))?;
    report::send(report, &Report::Executing);
    let variables = process.env.iter().map(|(name, value)| (name, value));
    let mut command = Command::new(program);
    let error = command.arg0(&process.argv[0]).args(&process.argv[1..]).env_clear().envs(variables).exec();
    Err((report, exec_fault(&process.argv[0], &error)))
}

fn standard_streams(inherited: &Inherited<'_>) -> io::Result<()> {
    let [stdin, stdout, stderr] = inherited.stdio;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}

/// Makes a terminal in the container, the process's standard streams and controlling terminal; sends its other side.
fn terminal(process: &Process, report: BorrowedFd<'_>, is_first: bool) -> Result<(), Fault> {
    if !process.terminal {
        return Ok(());
    }
    let make = || -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let controller = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
        unlockpt(&controller)?;
        let user = ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::fs::fchown(&user, Some(Uid::from_raw(process.uid)), None)?;
        if is_first {
            let name = rustix::pty::ptsname(&controller, Vec::new())?;
            fs::File::create("/dev/console")?;
            rustix::mount::mount_bind(name.as_c_str(), "/dev/console")?;
        }
        rustix::process::ioctl_tiocsctty(&user)?;
        rustix::stdio::dup2_stdin(&user)?;
        rustix::stdio::dup2_stdout(&user)?;
        rustix::stdio::dup2_stderr(&user)?;
        report::send(report, &Report::Terminal(controller));
        Ok(())
    };
    make().map_err(Fault::internal("terminal"))
}

/// Limits, directory, user, capabilities: in the order in which each still may.
fn settle(process: &Process) -> Result<(), Fault> {
    let internal = |what: &'static str| move |error: rustix::io::Errno| Fault::internal(what)(error.into());
    fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string())
        .map_err(Fault::internal("oom_score_adj"))?;
    for (resource, soft, hard) in &process.limits {
        rustix::process::setrlimit(*resource, Rlimit { current: Some(*soft), maximum: Some(*hard) })
            .map_err(|error| Fault::invalid(format!("limit {resource:?} {soft}/{hard}: {error}")))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    working_directory(process)
        .map_err(Fault::io(ErrorKind::WorkingDirectory, format!("working directory {:?}", process.cwd)))?;
    if process.no_new_privileges {
        set_no_new_privs(true).map_err(internal("no_new_privs"))?;
    }
    if process.seccomp {
        // Without no_new_privs this takes a capability that the next steps may take away.
        seccomp::apply(process.capabilities)
            .map_err(|error| Fault::new(ErrorKind::Internal, format!("seccomp: {error}")))?;
    }
    for capability in CapabilitySet::all().iter().filter(|capability| !process.capabilities.contains(*capability)) {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(internal("capabilities")(error)),
        }
    }
    become_user(process).map_err(internal("user"))
}

fn working_directory(process: &Process) -> io::Result<()> {
    let directory = Path::new(&process.cwd);
    if !directory.exists() {
        fs::create_dir_all(directory)?;
        rustix::fs::chownat(
            CWD,
            directory,
            Some(Uid::from_raw(process.uid)),
            Some(Gid::from_raw(process.gid)),
            rustix::fs::AtFlags::empty(),
        )?;
    }
    Ok(rustix::process::chdir(directory)?)
}

fn become_user(process: &Process) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = process.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // A user other than root has none after this, and gets some back only through programs that carry them.
    let sets = if uid.is_root() { process.capabilities } else { CapabilitySet::empty() };
    set_capabilities(None, CapabilitySets { effective: sets, permitted: sets, inheritable: CapabilitySet::empty() })
}

/// The file that a program's name means in this root.
fn find_program(program: &str, search: &str) -> Result<PathBuf, Fault> {
    if program.contains('/') {
        return match fs::metadata(program) {
            Ok(_) => Ok(PathBuf::from(program)),
            Err(error) => Err(exec_fault(program, &error)),
        };
    }
    let mut denied = false;
    for directory in search.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(program);
        match fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(exec_fault(program, &io::ErrorKind::PermissionDenied.into()));
    }
    Err(Fault::new(ErrorKind::CommandNotFound, format!("exec: {program:?}: executable file not found in $PATH")))
}

fn exec_fault(program: &str, error: &io::Error) -> Fault {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Fault::new(
            ErrorKind::CommandNotFound,
            format!("exec: {program:?}: stat {program}: no such file or directory"),
        ),
        Some(rustix::io::Errno::NOEXEC) => {
            Fault::new(ErrorKind::PermissionDenied, format!("exec {program}: exec format error"))
        }
        _ => Fault::new(ErrorKind::PermissionDenied, format!("exec: {program:?}: permission denied")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let text = |program, search| find_program(program, search).map_err(|fault| fault.0.message);
        assert_eq!(text("sh", "/nonexistent:/bin"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(text("/bin/sh", ""), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(text("foo", "/bin"), Err("exec: \"foo\": executable file not found in $PATH".into()));
        assert_eq!(text("/nope", ""), Err("exec: \"/nope\": stat /nope: no such file or directory".into()));
        assert_eq!(text("passwd", "/etc"), Err("exec: \"passwd\": permission denied".into()));
    }
}
