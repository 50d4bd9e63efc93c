//! Making a process of a container, from the agent's side: its streams, its control group, the copy, and what it reports.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use isopod_guest_api::ErrorKind;
use rustix::{
    fs::{CWD, Gid, Mode, OFlags, Uid},
    pipe::{PipeFlags, pipe_with},
    process::Signal,
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};
use tokio::sync::oneshot;

use crate::{
    agent::Agent,
    child::{self, Inherited},
    fault::Fault,
    fd::{Registered, Stream},
    fork::{self, Child, Namespaces},
    path,
    plan::{Plan, Process},
    reaper::End,
    report::{self, Report},
    seccomp,
};

/// How long a process may take to get to its program.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Our ends of a process's standard streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<Stream>,
    pub(crate) stdout: Option<Arc<Stream>>,
    pub(crate) stderr: Option<Arc<Stream>>,
    pub(crate) terminal: Option<Arc<Stream>>,
}

/// A process that has executed its program.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) child: Child,
    pub(crate) streams: Streams,
    pub(crate) end: oneshot::Receiver<End>,
}

/// Makes the first process of a container, whose control group must be there. It sees the processes of the container with the
/// first process `target`, if there is one.
pub(crate) async fn container(
    agent: &Agent,
    id: &str,
    plan: &Plan,
    stdin: bool,
    target: Option<&Child>,
) -> Result<Made, Fault> {
    let group = group(id)?;
    make(agent, &plan.process, stdin, |inherited| {
        let act = || child::first(plan, inherited);
        match target {
            None => fork::fork(Namespaces::New, &group, act),
            Some(target) => with_children_in(&target.pidfd, || fork::fork(Namespaces::NewMounts, &group, act)),
        }
    })
    .await
}

/// Makes a process that joins the container with this first process.
pub(crate) async fn exec(
    agent: &Agent,
    id: &str,
    first: &Child,
    process: &Process,
    stdin: bool,
) -> Result<Made, Fault> {
    let (group, container) = (group(id)?, &first.pidfd);
    make(agent, process, stdin, |inherited| {
        with_children_in(container, || {
            fork::fork(Namespaces::Inherited, &group, || child::joining(container, process, inherited))
        })
    })
    .await
}

/// Makes a control group with these settings.
pub(crate) fn control_group(id: &str, settings: &[(&'static str, String)]) -> Result<(), Fault> {
    let group = path::cgroup(id);
    fs::create_dir_all(&group).map_err(Fault::internal("control group"))?;
    set_control_group(&group, settings)
}

/// Writes settings of a control group that is there, in order.
pub(crate) fn set_control_group(group: &Path, settings: &[(&'static str, String)]) -> Result<(), Fault> {
    for (file, value) in settings {
        let failed = Fault::io(ErrorKind::InvalidArgument, format!("control group: {file} = {value}"));
        fs::write(group.join(file), value).map_err(failed)?;
    }
    Ok(())
}

fn group(id: &str) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path::cgroup(id), flags, Mode::empty())
        .map_err(|error| Fault::internal("control group")(error.into()))
}

/// Does something while children of this process are born into a container's process namespace.
fn with_children_in<T>(container: &OwnedFd, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let ours = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_thread_name_spaces(container.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
    let result = act();
    move_into_thread_name_spaces(ours.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .map_or_else(|error| Err(error.into()), |()| result)
}

async fn make(
    agent: &Agent,
    process: &Process,
    stdin: bool,
    fork: impl FnOnce(&Inherited<'_>) -> io::Result<Child>,
) -> Result<Made, Fault> {
    if process.seccomp {
        seccomp::prepare(process.capabilities)
            .map_err(|error| Fault::new(ErrorKind::Internal, format!("seccomp: {error}")))?;
    }
    let (stdio, mut streams) = streams(process, stdin).map_err(Fault::internal("standard streams"))?;
    let (ours, theirs) = report::pair().map_err(Fault::internal("report socket"))?;
    let remembering = agent.reaper.remember();
    let child = fork(&Inherited { stdio: &stdio, report: &theirs }).map_err(Fault::internal("new process"))?;
    let end = agent.reaper.wait(child.pid);
    drop((remembering, stdio, theirs));
    let outcome = tokio::time::timeout(TIMEOUT, listen(ours)).await;
    let outcome =
        outcome.unwrap_or_else(|_| Err(Fault::new(ErrorKind::Internal, "the new process does not get to its program")));
    match outcome {
        Ok(terminal) => {
            streams.terminal =
                terminal.map(|fd| Stream::new(fd).map(Arc::new)).transpose().map_err(Fault::internal("terminal"))?;
            Ok(Made { child, streams, end })
        }
        Err(fault) => {
            child.signal(Signal::KILL);
            // Gone before its name may be used again.
            let _ = end.await;
            Err(fault)
        }
    }
}

/// Hears a process out; returns its terminal, if it has one.
async fn listen(socket: OwnedFd) -> Result<Option<OwnedFd>, Fault> {
    rustix::io::ioctl_fionbio(&socket, true).map_err(|error| Fault::internal("report socket")(error.into()))?;
    let socket = Registered::new(socket).map_err(Fault::internal("report socket"))?;
    let (mut terminal, mut executing) = (None, false);
    loop {
        match socket.read_with(|fd| report::receive(fd.as_fd())).await.map_err(Fault::internal("report socket"))? {
            Some(Report::Terminal(fd)) => terminal = Some(fd),
            Some(Report::Executing) => executing = true,
            Some(Report::Fault(fault)) => return Err(fault),
            None if executing => return Ok(terminal),
            None => return Err(Fault::new(ErrorKind::Internal, "the new process ended without a word")),
        }
    }
}

/// Their ends and ours. Without a terminal, whoever the process runs as may open its streams again by their names.
fn streams(process: &Process, stdin: bool) -> io::Result<([OwnedFd; 3], Streams)> {
    let null =
        || -> io::Result<OwnedFd> { Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?) };
    let mut ours = Streams::default();
    if process.terminal {
        return Ok(([null()?, null()?, null()?], ours));
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fchown(&reader, Some(uid), Some(gid))?;
        Ok((reader, writer))
    };
    let input = if stdin {
        let (theirs, mine) = pipe()?;
        ours.stdin = Some(Stream::new(mine)?);
        theirs
    } else {
        null()?
    };
    let ((my_stdout, stdout), (my_stderr, stderr)) = (pipe()?, pipe()?);
    ours.stdout = Some(Arc::new(Stream::new(my_stdout)?));
    ours.stderr = Some(Arc::new(Stream::new(my_stderr)?));
    Ok(([input, stdout, stderr], ours))
}
