//! Joins the API server's wish for streams to the host agent that has them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use isopod_apiserver as apiserver;
use isopod_apiserver::{
    ExecRequest, Kubelets, LogRequest, NodeUsage, PodUsage, PortForwardRequest, Status, Target, Usage,
};
use isopod_host_agent as host;
use isopod_host_agent::{ContainerRef, HostAgent, LogOptions, Session, StreamError};
use tokio::sync::mpsc;

/// Messages that wait in a session's direction.
const QUEUE: usize = 32;

/// The host agent of this process, as the API server sees it.
pub(crate) struct LocalKubelets(pub(crate) HostAgent);

fn container(target: &Target) -> ContainerRef {
    ContainerRef { namespace: target.namespace.clone(), pod: target.pod.clone(), container: target.container.clone() }
}

fn refused(error: &StreamError) -> Status {
    match error {
        StreamError::Guest(error) => Status::internal(error),
        _ => Status::bad_request(error.to_string()),
    }
}

#[async_trait]
impl Kubelets for LocalKubelets {
    async fn logs(
        &self,
        _node: &str,
        request: LogRequest,
    ) -> Result<mpsc::Receiver<Result<bytes::Bytes, String>>, Status> {
        let options = LogOptions {
            follow: request.follow,
            timestamps: request.timestamps,
            tail_lines: request.tail_lines.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            since: request.since,
            limit_bytes: request.limit_bytes,
            stderr_only: request.stream.as_deref().and_then(|stream| match stream {
                "Stdout" => Some(false),
                "Stderr" => Some(true),
                _ => None,
            }),
        };
        self.0.logs(&container(&request.target), request.previous, options).map_err(|error| refused(&error))
    }

    async fn exec(&self, _node: &str, request: ExecRequest) -> Result<apiserver::ExecSession, Status> {
        let session = Session { command: request.command, tty: request.tty, stdin: request.stdin };
        let session = self.0.session(&container(&request.target), session).await;
        Ok(join(session.map_err(|error| refused(&error))?))
    }

    async fn usage(&self, node: &str) -> Result<NodeUsage, Status> {
        let found = self.0.usage(node).await.map_err(|error| refused(&error))?;
        let at_unix_nanos = found.machine.unix_nanos;
        let mut pods: BTreeMap<(String, String), PodUsage> = BTreeMap::new();
        for host::ContainerStats { namespace, pod, container, stats } in found.containers {
            let (cpu_nanos, memory_bytes) = (stats.cpu_usage_nanos, stats.memory_working_set_bytes);
            let entry = pods.entry((namespace.clone(), pod.clone())).or_default();
            (entry.namespace, entry.pod) = (namespace, pod);
            entry.containers.insert(container, Usage { at_unix_nanos, cpu_nanos, memory_bytes });
        }
        let memory_bytes = found.machine.memory_total_bytes.saturating_sub(found.machine.memory_available_bytes);
        let whole = Usage { at_unix_nanos, cpu_nanos: found.machine.cpu_usage_nanos, memory_bytes };
        Ok(NodeUsage { whole, pods: pods.into_values().collect() })
    }

    async fn port_forward(
        &self,
        _node: &str,
        request: PortForwardRequest,
    ) -> Result<Box<dyn apiserver::Duplex>, Status> {
        let Target { namespace, pod, .. } = &request.target;
        let stream = self.0.connect(namespace, pod, request.port).await.map_err(|error| refused(&error))?;
        Ok(Box::new(stream))
    }
}

/// Passes messages between the two sides' words for them.
fn join(session: host::ExecSession) -> apiserver::ExecSession {
    let host::ExecSession { input: to_guest, output: mut from_guest } = session;
    let (input, mut from_client) = mpsc::channel(QUEUE);
    let (to_client, output) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(message) = from_client.recv().await {
            let message = match message {
                apiserver::ExecInput::Stdin(bytes) => host::ExecInput::Stdin(bytes),
                apiserver::ExecInput::StdinClosed => host::ExecInput::StdinClosed,
                apiserver::ExecInput::Resize { columns, rows } => host::ExecInput::Resize { columns, rows },
            };
            if to_guest.send(message).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            // A client that has left ends the session in the guest as well.
            let message = tokio::select! {
                message = from_guest.recv() => message,
                () = to_client.closed() => return,
            };
            let message = match message {
                None => return,
                Some(host::ExecOutput::Stdout(bytes)) => apiserver::ExecOutput::Stdout(bytes),
                Some(host::ExecOutput::Stderr(bytes)) => apiserver::ExecOutput::Stderr(bytes),
                Some(host::ExecOutput::Exited { code }) => apiserver::ExecOutput::Exited { code },
                Some(host::ExecOutput::Failed(text)) => apiserver::ExecOutput::Failed(text),
            };
            if to_client.send(message).await.is_err() {
                return;
            }
        }
    });
    apiserver::ExecSession { input, output }
}
