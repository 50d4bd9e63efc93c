//! Brings a QEMU to the point where its guest agent can be spoken to: by booting, or by restoring a template.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::{
    accelerator::Accelerator,
    arguments::{Line, Memory, Start},
    cgroup::{Groups, Limits},
    console::Console,
    directory::{Directory, Record},
    machine::{Machine, Parts},
    process::{self, Process, User},
    qmp::{Qmp, QmpError},
};

/// How long a boot or a restore may take. A hundred of them at once on two processors take seconds each.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A machine did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file, socket or process could not be made.
    #[error("machine {id}: {what}")]
    Io {
        /// Machine.
        id: String,
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// QEMU refused a command.
    #[error("machine {id}: {words}")]
    Qmp {
        /// Machine.
        id: String,
        /// What QEMU or the guest said last.
        words: String,
        /// Why.
        source: QmpError,
    },
    /// QEMU ended before the guest was up.
    #[error("machine {id} ended while it started (exit code {code:?}, signal {signal:?}): {words}")]
    Ended {
        /// Machine.
        id: String,
        /// Exit code.
        code: Option<i32>,
        /// Signal.
        signal: Option<i32>,
        /// What QEMU or the guest said last.
        words: String,
    },
    /// The guest did not come up.
    #[error("machine {id} did not come up within {START_TIMEOUT:?}: {words}")]
    Timeout {
        /// Machine.
        id: String,
        /// What QEMU or the guest said last.
        words: String,
    },
}

/// What every machine of this host has in common.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) run_dir: PathBuf,
    pub(crate) qemu: PathBuf,
    pub(crate) accelerator: Accelerator,
    pub(crate) user: Option<User>,
    pub(crate) groups: Option<Groups>,
}

/// What one machine has.
pub(crate) struct Plan {
    pub(crate) record: Record,
    pub(crate) tap: Option<OwnedFd>,
    pub(crate) how: How,
}

/// Where the guest comes from.
pub(crate) enum How {
    /// A kernel; `memory` is the file of a template being made.
    Boot { kernel: File, initramfs: File, command_line: String, memory: Option<OwnedFd> },
    /// A template.
    Restore { memory: OwnedFd, state: File, paused: bool },
}

/// A machine that was started, before its guest is up.
struct Started {
    process: Process,
    qmp_stream: tokio::net::UnixStream,
    console: Console,
}

impl Host {
    /// Starts a machine; when this returns, its agent can be connected to (or is paused, ready to be). After an error
    /// nothing is left.
    pub(crate) async fn launch(&self, plan: Plan) -> Result<Machine, LaunchError> {
        let id = plan.record.id.clone();
        let directory = Directory::create(&self.run_dir, &plan.record).map_err(|source| LaunchError::Io {
            id: id.clone(),
            what: "cannot make its directory",
            source,
        })?;
        let result = self.launch_in(&directory, plan).await;
        if result.is_err() {
            if let Some(groups) = &self.groups {
                groups.remove(&id);
            }
            if let Err(error) = directory.remove() {
                tracing::warn!(%error, id, "cannot remove the directory of a machine that did not start");
            }
        }
        result
    }

    async fn launch_in(&self, directory: &Directory, plan: Plan) -> Result<Machine, LaunchError> {
        let id = plan.record.id.clone();
        let started = self.start(directory, &plan).await.map_err(|source| LaunchError::Io {
            id: id.clone(),
            what: "cannot start QEMU",
            source,
        })?;
        let Started { process, qmp_stream, console } = started;
        let up = tokio::time::timeout(START_TIMEOUT, bring_up(qmp_stream, &plan.how));
        let words = || [console.text(), directory.log_tail()].join(" ").trim().to_owned();
        let error = tokio::select! {
            up = up => match up {
                Ok(Ok(qmp)) => {
                    let parts = Parts {
                        record: plan.record,
                        directory: directory.clone(),
                        process,
                        qmp,
                        groups: self.groups.clone(),
                        console: Some(console),
                    };
                    return Ok(Machine::new(parts));
                }
                Ok(Err(source)) => LaunchError::Qmp { id, words: words(), source },
                Err(_) => LaunchError::Timeout { id, words: words() },
            },
            fact = process.exited() => LaunchError::Ended { id, code: fact.code, signal: fact.signal, words: words() },
        };
        // It may have ended already; either way it is gone before anyone tries again under the same id.
        let _ = process.kill();
        process.exited().await;
        Err(error)
    }

    async fn start(&self, directory: &Directory, plan: &Plan) -> io::Result<Started> {
        let (agent, qmp) = directory.listen()?;
        let (console, console_end) = Console::new()?;
        let line = self.line(plan, &agent, &qmp, &console_end);
        let mut keep = vec![agent.as_fd(), qmp.as_fd(), console_end.as_fd()];
        keep.extend(plan.tap.iter().map(AsFd::as_fd));
        match &plan.how {
            How::Boot { kernel, initramfs, memory, .. } => {
                keep.extend([kernel.as_fd(), initramfs.as_fd()]);
                keep.extend(memory.iter().map(AsFd::as_fd));
            }
            How::Restore { memory, .. } => keep.push(memory.as_fd()),
        }
        let limits = Limits { memory_bytes: plan.record.memory_bytes, vcpu_count: plan.record.vcpu_count };
        let cgroups = match &self.groups {
            Some(groups) => groups.create(&plan.record.id, limits)?,
            None => Vec::new(),
        };
        let process = Process::start(process::Start {
            program: &self.qemu,
            arguments: line.arguments(),
            keep,
            directory: directory.path(),
            user: self.user,
            cgroups,
        })?;
        Ok(Started { process, qmp_stream: directory.connect_qmp().await?, console })
    }

    fn line(&self, plan: &Plan, agent: &UnixListener, qmp: &UnixListener, console: &OwnedFd) -> Line {
        let (memory, start) = match &plan.how {
            How::Boot { kernel, initramfs, command_line, memory } => {
                let memory = memory.as_ref().map_or(Memory::Private, |file| Memory::Template(file.as_raw_fd()));
                let command_line = command_line.clone();
                (memory, Start::Boot { kernel: kernel.as_raw_fd(), initramfs: initramfs.as_raw_fd(), command_line })
            }
            How::Restore { memory, paused, .. } => {
                (Memory::CopyOnWrite(memory.as_raw_fd()), Start::Restore { paused: *paused })
            }
        };
        Line {
            name: plan.record.id.clone(),
            role: plan.record.role,
            accelerator: self.accelerator,
            vcpu_count: plan.record.vcpu_count,
            memory_mebibytes: plan.record.memory_bytes >> 20,
            memory,
            start,
            tap: plan.tap.as_ref().map(AsRawFd::as_raw_fd),
            agent_listener: agent.as_raw_fd(),
            qmp_listener: qmp.as_raw_fd(),
            console: console.as_raw_fd(),
        }
    }
}

async fn bring_up(stream: tokio::net::UnixStream, how: &How) -> Result<Qmp, QmpError> {
    let qmp = Qmp::open(stream).await?;
    let mut events = qmp.events();
    match how {
        How::Boot { .. } => agent_opened(&qmp, &mut events).await?,
        How::Restore { state, .. } => restore(&qmp, &mut events, state).await?,
    }
    Ok(qmp)
}

/// Waits until the guest agent has opened its port.
async fn agent_opened(qmp: &Qmp, events: &mut broadcast::Receiver<Value>) -> Result<(), QmpError> {
    loop {
        let devices = qmp.command("query-chardev", json!({})).await?;
        let agent = devices.as_array().into_iter().flatten().find(|device| device["label"] == "agent");
        if agent.is_some_and(|device| device["frontend-open"] == true) {
            return Ok(());
        }
        wait_for(events, |event| event["event"] == "VSERPORT_CHANGE").await?;
    }
}

async fn restore(qmp: &Qmp, events: &mut broadcast::Receiver<Value>, state: &File) -> Result<(), QmpError> {
    set_migration_capabilities(qmp).await?;
    qmp.command_with_fd("getfd", json!({ "fdname": "state" }), state.as_fd()).await?;
    qmp.command("migrate-incoming", json!({ "uri": "fd:state" })).await?;
    migrated(events).await
}

pub(crate) async fn set_migration_capabilities(qmp: &Qmp) -> Result<(), QmpError> {
    let capabilities = ["x-ignore-shared", "events"].map(|name| json!({ "capability": name, "state": true }));
    qmp.command("migrate-set-capabilities", json!({ "capabilities": capabilities })).await.map(drop)
}

/// Waits for the end of a migration in either direction.
pub(crate) async fn migrated(events: &mut broadcast::Receiver<Value>) -> Result<(), QmpError> {
    let end = wait_for(events, |event| {
        event["event"] == "MIGRATION"
            && ["completed", "failed", "cancelled"].iter().any(|end| event["data"]["status"] == *end)
    })
    .await?;
    if end["data"]["status"] == "completed" {
        return Ok(());
    }
    Err(QmpError::Refused { command: "migrate".into(), description: end["data"]["status"].to_string() })
}

async fn wait_for(events: &mut broadcast::Receiver<Value>, wanted: impl Fn(&Value) -> bool) -> Result<Value, QmpError> {
    loop {
        match events.recv().await {
            Ok(event) if wanted(&event) => return Ok(event),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return Err(QmpError::Closed { command: "an event".into() }),
        }
    }
}
