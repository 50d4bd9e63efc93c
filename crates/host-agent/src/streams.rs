//! Logs, exec, attach and port-forward: what the API server asks of a node.

use bytes::Bytes;
use isopod_guest_api as api;
use tokio::sync::mpsc;

use crate::actor::Face;
use crate::agent::HostAgent;
use crate::convert::container_id;
use crate::drivers::{Duplex, Machine};
use crate::guest::{ExecSession, GuestError};
use crate::logs::LogOptions;
use std::sync::Arc;

/// Pieces of a log that wait for the reader.
const LOG_QUEUE: usize = 16;

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The pod does not run here.
    #[error("pod {0} does not run on this host")]
    NoPod(String),
    /// The container cannot be used now.
    #[error("{0}")]
    Refused(String),
    /// The guest refused.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// Which container of which pod.
#[derive(Clone, Debug, Default)]
pub struct ContainerRef {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Container.
    pub container: String,
}

/// A command to run, or a container to attach to when there is no command.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Standard input follows.
    pub stdin: bool,
}

impl HostAgent {
    fn pod(&self, namespace: &str, name: &str) -> Result<Face, StreamError> {
        self.context.find(namespace, name).ok_or_else(|| StreamError::NoPod(format!("{namespace}/{name}")))
    }

    /// The log of a container's newest run, or of the one before.
    ///
    /// # Errors
    /// [`StreamError`] when there is no such run.
    pub fn logs(
        &self,
        of: &ContainerRef,
        previous: bool,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Result<Bytes, String>>, StreamError> {
        let face = self.pod(&of.namespace, &of.pod)?;
        let starts = face.runs.get(&of.container).map_or(0, |(starts, _)| *starts);
        let attempt = starts.checked_sub(if previous { 2 } else { 1 });
        let attempt = attempt.ok_or_else(|| StreamError::Refused(no_run(of, previous)))?;
        let (to, from) = mpsc::channel(LOG_QUEUE);
        let (logs, uid, container) = (self.context.logs.clone(), face.pod.metadata.uid.clone(), of.container.clone());
        tokio::spawn(async move { logs.read(&uid, &container, attempt, options, to).await });
        Ok(from)
    }

    /// Runs a command in a container, or attaches to it.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn session(&self, of: &ContainerRef, session: Session) -> Result<ExecSession, StreamError> {
        let (machine, id) = self.running(of)?;
        let Session { command, tty, stdin } = session;
        if command.is_empty() {
            let request = api::AttachRequest { container_id: id, stdin, ..Default::default() };
            return Ok(machine.attach(request).await?);
        }
        let start = api::ExecStart { container_id: id, argv: command, tty, stdin, ..Default::default() };
        Ok(machine.exec(start).await?)
    }

    fn running(&self, of: &ContainerRef) -> Result<(Arc<dyn Machine>, String), StreamError> {
        let face = self.pod(&of.namespace, &of.pod)?;
        let refused =
            || StreamError::Refused(format!("container {:?} in pod {:?} is not running", of.container, of.pod));
        let (starts, is_running) = face.runs.get(&of.container).copied().ok_or_else(refused)?;
        let machine = face.machine.filter(|_| is_running).ok_or_else(refused)?;
        Ok((machine, container_id(&of.container, starts.saturating_sub(1))))
    }

    /// Connects to a port of a pod.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<Box<dyn Duplex>, StreamError> {
        let face = self.pod(namespace, pod)?;
        let machine = face.machine.ok_or_else(|| StreamError::Refused(format!("pod {pod:?} is not running")))?;
        Ok(machine.connect(port).await?)
    }
}

fn no_run(of: &ContainerRef, previous: bool) -> String {
    if previous {
        return format!("previous terminated container {:?} in pod {:?} not found", of.container, of.pod);
    }
    format!("container {:?} in pod {:?} is waiting to start: ContainerCreating", of.container, of.pod)
}
