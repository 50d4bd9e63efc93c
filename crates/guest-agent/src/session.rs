//! Exec and attach sessions and forwarded connections: two streams, one each way, and what they are connected to.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use bytes::Bytes;
use futures::StreamExt;
use isopod_guest_api::{
    AttachRequest, ConnectInput, ConnectInputKind, ConnectOutput, ErrorKind, ExecExited, ExecInput, ExecInputKind,
    ExecOutput, ExecOutputKind, ExecStart, LogStream, TerminalSize, limit,
};
use rustix::{process::Signal, termios::Winsize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    agent::Agent,
    container::Container,
    create::{self, Made},
    fault::Fault,
    fd::Stream,
};

/// Messages that wait for the host to take them.
const QUEUE: usize = 8;

/// What the host receives.
pub(crate) type Output<T> = ReceiverStream<Result<T, Status>>;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// Runs a command in a container; answers when it has been executed.
pub(crate) async fn exec(agent: Arc<Agent>, mut inputs: Streaming<ExecInput>) -> Result<Output<ExecOutput>, Status> {
    let permit = agent.session()?;
    let Some(ExecInputKind::Start(request)) = inputs.message().await?.and_then(|input| input.kind) else {
        return Err(Fault::invalid("an exec session begins with what to run").into());
    };
    let made = make(&agent, &request).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(run_exec(made, request, inputs, sender, permit));
    Ok(ReceiverStream::new(receiver))
}

async fn make(agent: &Agent, request: &ExecStart) -> Result<Made, Fault> {
    if request.argv.is_empty() {
        return Err(Fault::invalid("no command specified"));
    }
    let running = agent.container(&request.container_id)?.running()?;
    let process = running.process.exec(&request.argv, request.tty);
    create::exec(agent, &request.container_id, &running.child, &process, request.stdin).await
}

async fn run_exec(
    made: Made,
    request: ExecStart,
    inputs: Streaming<ExecInput>,
    sender: Sender<ExecOutput>,
    permit: OwnedSemaphorePermit,
) {
    let Made { child, streams, end } = made;
    let terminal = streams.terminal.clone();
    resize(terminal.as_deref(), request.terminal_size);
    let mut outputs = JoinSet::new();
    for (output, stream) in [
        (streams.terminal.clone(), LogStream::Stdout),
        (streams.stdout, LogStream::Stdout),
        (streams.stderr, LogStream::Stderr),
    ] {
        if let Some(output) = output {
            outputs.spawn(pass_on(output, stream, sender.clone()));
        }
    }
    let input = async {
        let mut stdin = streams.stdin;
        feed(inputs, &mut stdin, terminal, true).await;
        // The host said that there is no more; the process may go on.
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = end => ended.ok(),
        () = sender.closed() => None,
        () = input => None,
    };
    match ended {
        Some(end) => {
            // A process that it left behind may hold the streams open; the session is over all the same.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), outputs.join_all()).await;
            let exited = ExecExited { code: end.code, signal: end.signal };
            let _ = sender.send(Ok(ExecOutput { kind: Some(ExecOutputKind::Exited(exited)) })).await;
        }
        // The host has left: what it ran ends with the session.
        None => child.signal(Signal::KILL),
    }
    drop(permit);
}

/// Attaches to a container's input and to its output from now on.
pub(crate) async fn attach(agent: Arc<Agent>, mut inputs: Streaming<ExecInput>) -> Result<Output<ExecOutput>, Status> {
    let permit = agent.session()?;
    let Some(ExecInputKind::Attach(request)) = inputs.message().await?.and_then(|input| input.kind) else {
        return Err(Fault::invalid("an attach session begins with what to attach to").into());
    };
    let container = agent.container(&request.container_id)?;
    let running = container.running()?;
    if request.stdin && !container.config.stdin {
        return Err(Fault::invalid(format!("container {} was started without stdin", container.config.name)).into());
    }
    resize(running.terminal.as_deref(), request.terminal_size);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let offset = container.log.end();
    tokio::spawn(async move {
        tokio::select! {
            () = follow(&container, offset, &sender) => {}
            () = sender.closed() => {}
            () = attached_input(&container, &request, inputs) => {}
        }
        drop(permit);
    });
    Ok(ReceiverStream::new(receiver))
}

/// Passes a container's output on, then its end.
async fn follow(container: &Container, mut offset: u64, sender: &Sender<ExecOutput>) {
    while let Some(chunk) = container.log.next(offset, true).await {
        offset = chunk.offset + chunk.data.len() as u64;
        let output = ExecOutput { kind: Some(output(chunk.stream(), chunk.data)) };
        if sender.send(Ok(output)).await.is_err() {
            return;
        }
    }
    if let Some(exit) = container.exited().await {
        let exited = ExecExited { code: exit.code, signal: exit.signal };
        let _ = sender.send(Ok(ExecOutput { kind: Some(ExecOutputKind::Exited(exited)) })).await;
    }
}

async fn attached_input(container: &Container, request: &AttachRequest, inputs: Streaming<ExecInput>) {
    if let Ok(running) = container.running() {
        let once = container.config.stdin_once;
        let mut stdin = if request.stdin { running.lend_input(once) } else { None };
        feed(inputs, &mut stdin, running.terminal.clone(), once).await;
    }
    std::future::pending::<()>().await;
}

/// Takes the host's inputs until they end. Closes `stdin` when the host says so, and lets a program at the terminal know if
/// that is to be the end of all input (`last`).
async fn feed(mut inputs: Streaming<ExecInput>, stdin: &mut Option<Stream>, terminal: Option<Arc<Stream>>, last: bool) {
    while let Ok(Some(input)) = inputs.message().await {
        match input.kind {
            Some(ExecInputKind::Stdin(bytes)) => {
                let target = terminal.as_deref().or(stdin.as_ref());
                // A process that does not read its input any more is no error of the session.
                if let Some(target) = target
                    && target.write_all(&bytes).await.is_err()
                {
                    stdin.take();
                }
            }
            Some(ExecInputKind::StdinClosed(_)) => match &terminal {
                Some(terminal) if last => drop(terminal.write_all(&[END_OF_INPUT]).await),
                Some(_) => {}
                None => drop(stdin.take()),
            },
            Some(ExecInputKind::Resize(size)) => resize(terminal.as_deref(), Some(size)),
            _ => return,
        }
    }
}

/// What a terminal takes for the end of its input (control-D).
const END_OF_INPUT: u8 = 4;

fn resize(terminal: Option<&Stream>, size: Option<TerminalSize>) {
    let (Some(terminal), Some(size)) = (terminal, size) else { return };
    let cells = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: cells(size.rows), ws_col: cells(size.columns), ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal.get(), size);
}

fn output(stream: LogStream, bytes: Bytes) -> ExecOutputKind {
    if stream == LogStream::Stderr { ExecOutputKind::Stderr(bytes) } else { ExecOutputKind::Stdout(bytes) }
}

async fn pass_on(from: Arc<Stream>, stream: LogStream, sender: Sender<ExecOutput>) {
    let mut buffer = vec![0; limit::CHUNK_BYTES];
    while let Ok(length) = from.read(&mut buffer).await {
        let kind = Some(output(stream, Bytes::copy_from_slice(&buffer[..length])));
        if length == 0 || sender.send(Ok(ExecOutput { kind })).await.is_err() {
            return;
        }
    }
}

/// Connects to a port on the pod's loopback; answers when it is connected.
pub(crate) async fn connect(
    agent: Arc<Agent>,
    mut inputs: Streaming<ConnectInput>,
) -> Result<Output<ConnectOutput>, Status> {
    let permit = agent.session()?;
    let (pod_uid, port) = match inputs.message().await?.and_then(|input| input.kind) {
        Some(ConnectInputKind::Port(port)) => (String::new(), port),
        Some(ConnectInputKind::Target(target)) => (target.pod_uid, target.port),
        _ => (String::new(), 0),
    };
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Fault::invalid("a forwarded connection begins with a port between 1 and 65535"))?;
    let stream = dial(&agent, &pod_uid, port).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Says that it is connected.
    let _ = sender.send(Ok(ConnectOutput::default())).await;
    tokio::spawn(async move {
        forward(stream, inputs, sender).await;
        drop(permit);
    });
    Ok(ReceiverStream::new(receiver))
}

/// A connection to a port on a pod's loopback, by IPv4 or else IPv6.
async fn dial(agent: &Agent, pod_uid: &str, port: u16) -> Result<TcpStream, Fault> {
    // A socket belongs to the network that it was made in, wherever it is used.
    let sockets = in_pod(agent, pod_uid, || Ok((TcpSocket::new_v4()?, TcpSocket::new_v6()?)))?;
    let (v4, v6) = sockets.map_err(Fault::internal("socket"))?;
    match v4.connect((Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => Ok(stream),
        Err(first) => v6.connect((Ipv6Addr::LOCALHOST, port).into()).await.map_err(|_| {
            Fault::new(
                ErrorKind::ConnectionRefused,
                format!("failed to connect to localhost:{port} inside the pod: {first}"),
            )
        }),
    }
}

/// Does something in a pod's namespaces.
fn in_pod<T>(agent: &Agent, uid: &str, act: impl FnOnce() -> T) -> Result<T, Fault> {
    let sandbox = agent.tenants().pod(uid)?.0.sandbox.clone();
    match sandbox {
        Some(sandbox) => sandbox.within(act),
        None => Ok(act()),
    }
}

/// Each direction ends by itself: a server that has closed its side may still be written to.
async fn forward(stream: TcpStream, mut inputs: Streaming<ConnectInput>, sender: Sender<ConnectOutput>) {
    let (mut reader, mut writer) = stream.into_split();
    let to_pod = async {
        while let Some(Ok(input)) = inputs.next().await {
            let Some(ConnectInputKind::Data(bytes)) = input.kind else { return };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    let to_host = async move {
        let mut buffer = vec![0; limit::CHUNK_BYTES];
        loop {
            let length = tokio::select! {
                read = reader.read(&mut buffer) => read.unwrap_or(0),
                () = sender.closed() => 0,
            };
            let data = Bytes::copy_from_slice(&buffer[..length]);
            if length == 0 || sender.send(Ok(ConnectOutput { data })).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(to_host, to_pod);
}
