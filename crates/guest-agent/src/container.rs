//! One container as the guest keeps it: state, output, input; and the task that waits for its end.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use isopod_guest_api::{
    ContainerConfig, ContainerExited, ContainerState, ContainerStatus, ErrorKind, EventKind, LogStream,
    UpdateContainerRequest, limit,
};
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use crate::{
    agent::{Agent, now},
    create,
    fault::Fault,
    fd::Stream,
    fork::Child,
    logs::Log,
    path,
    plan::{self, Process},
    pod::unmount_below,
    reaper::End,
    signal,
};

/// How much of the log becomes a termination message, if the container asked for that (as the kubelet has it).
const FALLBACK_LINES: usize = 80;
const FALLBACK_BYTES: usize = 2048;

/// How long output may still arrive after the container's first process has ended. Nothing can write it any more but what
/// escaped with the pipe, and that must not hold up the exit.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a killed container has to end before it is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) config: ContainerConfig,
    pub(crate) log: Log,
    life: watch::Sender<Life>,
    running: Mutex<Option<Arc<Running>>>,
}

/// Where it is in its life.
#[derive(Clone, Debug, PartialEq)]
enum Life {
    Creating,
    Running { started: i64 },
    Exited(ContainerExited),
}

/// What a running container has.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its first process.
    pub(crate) child: Child,
    /// What exec sessions are made from.
    pub(crate) process: Process,
    /// Its terminal; input, output and size go through it.
    pub(crate) terminal: Option<Arc<Stream>>,
    /// Its standard input, where it has no terminal. None inside: closed.
    pub(crate) stdin: Mutex<Option<Stream>>,
}

impl Running {
    /// Standard input for one session: a descriptor of its own, so that however it ends, the next one finds the input open.
    /// The only session of a `stdin_once` container takes it along.
    pub(crate) fn lend_input(&self, once: bool) -> Option<Stream> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        if once { stdin.take() } else { stdin.as_ref().and_then(|stream| stream.try_clone().ok()) }
    }
}

impl Container {
    pub(crate) fn new(config: ContainerConfig) -> Self {
        Self { config, log: Log::default(), life: watch::channel(Life::Creating).0, running: Mutex::default() }
    }

    /// What a running container has; a fault says what it is instead.
    pub(crate) fn running(&self) -> Result<Arc<Running>, Fault> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        running
            .ok_or_else(|| Fault::new(ErrorKind::NotRunning, format!("container {} is not running", self.config.name)))
    }

    pub(crate) fn begin(&self, running: Running, started: i64) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(running));
        self.life.send_replace(Life::Running { started });
    }

    pub(crate) fn has_exited(&self) -> bool {
        matches!(*self.life.borrow(), Life::Exited(_))
    }

    /// Resolves when it has ended.
    pub(crate) async fn exited(&self) -> Option<ContainerExited> {
        let mut life = self.life.subscribe();
        let ended = life.wait_for(|life| matches!(life, Life::Exited(_))).await.ok()?;
        match &*ended {
            Life::Exited(exit) => Some(exit.clone()),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let (state, started, exit) = match &*self.life.borrow() {
            Life::Creating => (ContainerState::Creating, 0, None),
            Life::Running { started } => (ContainerState::Running, *started, None),
            Life::Exited(exit) => (ContainerState::Exited, exit.started_unix_nanos, Some(exit.clone())),
        };
        ContainerStatus {
            id: self.config.id.clone(),
            name: self.config.name.clone(),
            state: state.into(),
            started_unix_nanos: started,
            exit,
            image_slot: self.config.image_slot,
            log_end_offset: self.log.end(),
        }
    }

    /// Sends a signal to its first process, or to all of them.
    pub(crate) fn signal(&self, number: u32, all: bool) -> Result<(), Fault> {
        let running = self.running()?;
        let signal = i32::try_from(number).ok().and_then(Signal::from_named_raw);
        let signal = signal.ok_or_else(|| Fault::invalid(format!("{number} is not the number of a signal")))?;
        if all {
            for pid in self.pids() {
                // One that has ended meanwhile is no error.
                let _ = rustix::process::kill_process(pid, signal);
            }
        } else {
            tokio::spawn(signal::deliver(running, self.age(), signal));
        }
        Ok(())
    }

    /// Gives it other limits. The kernel would kill a container for memory that it has and may not have, so that is refused.
    pub(crate) fn update(&self, wanted: &UpdateContainerRequest) -> Result<(), Fault> {
        drop(self.running()?);
        let group = path::cgroup(&self.config.id);
        let used = fs::read_to_string(group.join("memory.current")).unwrap_or_default();
        let used: u64 = used.trim().parse().unwrap_or(0);
        let limit = wanted.memory_limit_bytes;
        if limit > 0 && limit < used {
            let text = format!("attempting to set memory limit ({limit}) below current usage ({used})");
            return Err(Fault::new(ErrorKind::LimitReached, text));
        }
        create::set_control_group(&group, &plan::amounts(wanted))
    }

    /// Time since its start.
    fn age(&self) -> Duration {
        match *self.life.borrow() {
            Life::Running { started } => Duration::from_nanos(now().saturating_sub(started).try_into().unwrap_or(0)),
            Life::Creating | Life::Exited(_) => Duration::ZERO,
        }
    }

    fn pids(&self) -> Vec<Pid> {
        let text = fs::read_to_string(path::cgroup(&self.config.id).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
    }

    /// Whether the kernel killed one of its processes for want of memory.
    fn oom_killed(&self) -> bool {
        let events = fs::read_to_string(path::cgroup(&self.config.id).join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    fn termination_message(&self, failed: bool) -> String {
        let file = path::container(&self.config.id).join("termination-log");
        let mut bytes = Vec::new();
        if let Ok(file) = fs::File::open(file) {
            let _ =
                io::Read::read_to_end(&mut io::Read::take(file, limit::TERMINATION_MESSAGE_BYTES as u64), &mut bytes);
        }
        if bytes.is_empty() && failed && self.config.termination_message_from_logs {
            return self.log.tail(FALLBACK_LINES, FALLBACK_BYTES);
        }
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        while text.len() > limit::TERMINATION_MESSAGE_BYTES {
            text.pop();
        }
        text
    }
}

/// Passes a container's output on until its other end is closed.
pub(crate) async fn collect(container: Arc<Container>, output: Arc<Stream>, stream: LogStream) {
    let mut buffer = vec![0; limit::CHUNK_BYTES];
    while let Ok(length) = output.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        container.log.push(stream, now(), Bytes::copy_from_slice(&buffer[..length]));
    }
}

/// Waits for a container's end and makes it known, once nothing of it runs and all its output is there.
pub(crate) async fn watch(
    agent: Arc<Agent>,
    container: Arc<Container>,
    started: i64,
    end: tokio::sync::oneshot::Receiver<End>,
    outputs: tokio::task::JoinSet<()>,
) {
    let Ok(end) = end.await else { return };
    let finished = now();
    // Its namespace has killed its processes already; this is for those that it moved out of it.
    let _ = fs::write(path::cgroup(&container.config.id).join("cgroup.kill"), "1");
    let _ = tokio::time::timeout(DRAIN, outputs.join_all()).await;
    let exit = ContainerExited {
        id: container.config.id.clone(),
        code: end.code,
        signal: end.signal,
        oom_killed: container.oom_killed(),
        started_unix_nanos: started,
        finished_unix_nanos: finished,
        termination_message: container.termination_message(end.code != 0),
        log_end_offset: container.log.end(),
    };
    container.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    remove_group(&container.config.id);
    // Before the event, so that who sees the event also sees this.
    container.life.send_replace(Life::Exited(exit.clone()));
    container.log.close();
    agent.events.push(finished, EventKind::Exited(exit));
}

/// Removes what is left of a container that does not run: group, writable layer, directory.
pub(crate) fn remove(id: &str) -> io::Result<()> {
    remove_group(id);
    for directory in [path::layer(id), path::container(id)] {
        // Mounts of sub-paths are below the container's directory; they must go before anything is deleted.
        unmount_below(&directory)?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Ends what runs of a shared pod and forgets the pod.
pub(crate) async fn end_pod(agent: &Arc<Agent>, uid: &str) -> Result<(), Fault> {
    let of_pod = |container: &&Arc<Container>| container.config.pod_uid == uid;
    let containers: Vec<Arc<Container>> = agent.containers().values().filter(of_pod).cloned().collect();
    for container in containers {
        end(agent, &container).await;
        remove(&container.config.id).map_err(Fault::internal(format!("container {}", container.config.id)))?;
        agent.containers().remove(&container.config.id);
    }
    let pod = agent.tenants().take(uid);
    let Some(mut pod) = pod else { return Ok(()) };
    pod.close_ports().await;
    pod.forget()
}

/// Kills a container until it has ended; one that is being started may come to run, or never.
async fn end(agent: &Agent, container: &Container) {
    while agent.containers().contains_key(&container.config.id) {
        // One that has ended is no error.
        let _ = container.signal(9, true);
        if tokio::time::timeout(KILL_AGAIN, container.exited()).await.is_ok() {
            return;
        }
    }
}

/// What cannot be removed now, because something in it has not ended yet, goes when the container is removed.
fn remove_group(id: &str) {
    let _ = fs::remove_dir(path::cgroup(id));
}
