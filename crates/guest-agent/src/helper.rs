//! The helper process: creates a container, or joins one, with libcontainer. A process of one thread that does this and ends,
//! because libcontainer clones itself, which a threaded program must not do. The container becomes a child of PID 1 when
//! the helper has ended.
//!
//! It reports through a pipe, in lines of JSON: the process id, or a fault. The pipe's writing end closes when the
//! container's program is executed, so the end of the lines without a fault means that the program runs.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use isopod_guest_api::ErrorKind;
use libcontainer::{
    container::builder::ContainerBuilder,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use serde::{Deserialize, Serialize};

use crate::{fault::Fault, path};

/// First argument of a helper that creates a container.
pub(crate) const CONTAINER: &str = "container";

/// First argument of a helper that joins one.
pub(crate) const EXEC: &str = "exec";

/// What a helper reports.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Pid(i32),
    Fault { kind: i32, message: String },
}

/// What a helper is to do.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    /// `CONTAINER` or `EXEC`.
    pub(crate) mode: &'static str,
    pub(crate) container_id: &'a str,
    /// The container's directory, or the process specification.
    pub(crate) path: &'a Path,
    /// Socket that the terminal is sent to; none: no terminal.
    pub(crate) console: Option<&'a Path>,
}

/// Starts a helper with the container's standard streams as its own; returns the pipe that it reports to. Whoever reads it
/// must also wait for the helper's end as for any process.
pub(crate) fn spawn(task: &Task<'_>, stdio: [OwnedFd; 3]) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let [stdin, stdout, stderr] = stdio.map(Stdio::from);
    let mut command = Command::new("/proc/self/exe");
    command.arg(task.mode).arg(writer.as_raw_fd().to_string()).arg(task.container_id).arg(task.path);
    command.arg(task.console.map_or(OsStr::new(""), Path::as_os_str));
    command.env_clear().stdin(stdin).stdout(stdout).stderr(stderr);
    // This program has one thread, so nothing else can be started between these two lines.
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty())?;
    command.spawn()?;
    Ok(reader)
}

/// What the reports of a helper, read to their end, say.
pub(crate) fn outcome(reports: &[u8]) -> Result<i32, Fault> {
    let mut pid = None;
    for line in reports.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Report::Pid(number)) => pid = Some(number),
            Ok(Report::Fault { kind, message }) => {
                return Err(Fault::new(ErrorKind::try_from(kind).unwrap_or(ErrorKind::Internal), message));
            }
            Err(error) => return Err(Fault::new(ErrorKind::Internal, format!("container helper: {error}"))),
        }
    }
    pid.ok_or_else(|| Fault::new(ErrorKind::Internal, "container helper ended without a word"))
}

/// Runs as the helper.
pub(crate) fn main(mode: &str, arguments: &[String]) -> ExitCode {
    let [report, id, path, console] = arguments else { return ExitCode::FAILURE };
    let Ok(reporter) = Reporter::open(report) else { return ExitCode::FAILURE };
    let console = (!console.is_empty()).then(|| PathBuf::from(console));
    let result = if mode == CONTAINER {
        create(id, Path::new(path), console, &reporter)
    } else {
        join(id, Path::new(path), console, &reporter)
    };
    match result {
        Ok(pid) => reporter.say(&Report::Pid(pid)),
        Err(error) => reporter.fault(&Fault::new(ErrorKind::Internal, chain(&error))),
    }
    ExitCode::SUCCESS
}

fn create(id: &str, bundle: &Path, console: Option<PathBuf>, reporter: &Reporter) -> Result<i32, libcontainer::error::LibcontainerError> {
    let mut container = ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
        .with_root_path(path::RUNTIME)?
        .with_executor(Workload(reporter.clone()))
        .with_console_socket(console)
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    container.start()?;
    Ok(pid)
}

fn join(id: &str, process: &Path, console: Option<PathBuf>, reporter: &Reporter) -> Result<i32, libcontainer::error::LibcontainerError> {
    let pid = ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
        .with_root_path(path::RUNTIME)?
        .with_executor(Workload(reporter.clone()))
        .with_console_socket(console)
        .as_tenant()
        .with_detach(true)
        .with_process(Some(process))
        .build()?;
    Ok(pid.as_raw())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The writing end of the report pipe. Copies in the container's processes are the same open file.
#[derive(Clone, Debug)]
struct Reporter(Arc<File>);

impl Reporter {
    /// Opens the descriptor that was inherited once more, as one that is closed when a program is executed. libcontainer
    /// marks the inherited one so too, before it executes anything.
    fn open(fd: &str) -> io::Result<Self> {
        File::options().write(true).open(Path::new("/proc/self/fd").join(fd)).map(Arc::new).map(Self)
    }

    fn say(&self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            // One write, so that lines of two processes do not mix. If nobody listens any more, nobody can be told.
            let _ = (&*self.0).write_all(&line);
        }
    }

    fn fault(&self, fault: &Fault) {
        self.say(&Report::Fault { kind: fault.0.kind, message: fault.0.message.clone() });
    }
}

/// Executes the container's program, with faults that say what a user can act on.
#[derive(Clone)]
struct Workload(Reporter);

impl Executor for Workload {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let fault = execute(spec);
        self.0.fault(&fault);
        Err(ExecutorError::Other(fault.0.message))
    }
}

/// Becomes the program. Returns only why not.
fn execute(spec: &Spec) -> Fault {
    let Some(process) = spec.process() else { return Fault::invalid("no process") };
    let environment = process.env().clone().unwrap_or_default();
    let pairs: Vec<(&str, &str)> = environment.iter().filter_map(|entry| entry.split_once('=')).collect();
    let Some((program, arguments)) = process.args().as_deref().and_then(<[String]>::split_first) else {
        return Fault::invalid("no command specified");
    };
    let search = pairs.iter().rev().find(|(name, _)| *name == "PATH").map_or("", |(_, value)| value);
    match find_program(program, search) {
        Err(fault) => fault,
        Ok(path) => {
            let error = Command::new(&path).arg0(program).args(arguments).env_clear().envs(pairs).exec();
            exec_fault(program, &error)
        }
    }
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
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            Fault::new(ErrorKind::CommandNotFound, format!("exec: {program:?}: stat {program}: no such file or directory"))
        }
        Some(rustix::io::Errno::NOEXEC) => Fault::new(ErrorKind::PermissionDenied, format!("exec {program}: exec format error")),
        _ => Fault::new(ErrorKind::PermissionDenied, format!("exec: {program:?}: permission denied")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_to_the_first_fault() {
        let fault = serde_json::to_string(&Report::Fault { kind: ErrorKind::CommandNotFound.into(), message: "m".into() }).unwrap();
        let table: &[(String, Result<i32, ErrorKind>)] = &[
            ("{\"Pid\":7}\n".into(), Ok(7)),
            (format!("{{\"Pid\":7}}\n{fault}\n"), Err(ErrorKind::CommandNotFound)),
            (format!("{fault}\n"), Err(ErrorKind::CommandNotFound)),
            (String::new(), Err(ErrorKind::Internal)),
            ("garbage\n".into(), Err(ErrorKind::Internal)),
        ];
        for (reports, expected) in table {
            let found = outcome(reports.as_bytes()).map_err(|fault| fault.0.kind());
            assert_eq!(&found, expected, "{reports}");
        }
    }

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
