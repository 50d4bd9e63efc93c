//! The client of one guest agent: handshake, calls, streams. Used by the pod lifecycle, logs, exec and statistics.
//!
//! It holds one HTTP/2 connection over the byte stream that `Machine::agent` gives. It never reconnects by itself and
//! never trusts an answer's size: when the stream ends, every call fails with `GuestError::Lost`, `closed` resolves,
//! and the owner of the machine decides what happens next.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use isopod_guest_api::{
    self as api, AttachRequest, ConnectInput, ConnectInputKind, ConnectOutput, ConnectTarget, ContainerConfig,
    ContainerId, DiskSlot, Empty, ErrorKind, Event, EventsRequest, ExecInputKind, ExecOutputKind, ExecStart,
    GuestFault, HelloRequest, HelloResponse, LogChunk, LogsRequest, NodeConfig, PROTOCOL_VERSION, PodConfig, PodUid,
    PrepareRequest, SignalContainerRequest, StartContainerResponse, StatsResponse, TerminalSize,
    UpdateContainerRequest, UpdateVolumeRequest, limit, method,
    preface::{Kind, Preface, Scanner},
};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;

/// How long `connect` waits for the guest to answer: a cold boot on a machine with a hundred others.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// Silence on the connection after which it is tested, and how long the answer may take. Generous: a guest of a
/// loaded host may not run for seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// HTTP/2 windows: what one stream, and all of them, may have in flight towards us, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Messages of one session waiting on either side.
const SESSION_QUEUE: usize = 16;

/// A call to a guest did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The byte stream failed before the guest answered.
    #[error("guest agent: the channel failed during the handshake")]
    Handshake(#[source] io::Error),
    /// The guest did not answer.
    #[error("guest agent: no answer within {0:?}; see the machine's console log")]
    Timeout(Duration),
    /// The guest speaks another version.
    #[error("guest agent: speaks protocol {guest}, this host {PROTOCOL_VERSION}; recreate the pod")]
    Protocol {
        /// The guest's version.
        guest: u32,
    },
    /// The guest refused or failed the call; the text is the guest's, bounded.
    #[error("{message}")]
    Fault {
        /// What kind of fault.
        kind: ErrorKind,
        /// The guest's text.
        message: String,
    },
    /// The connection ended, or what came over it was not understood.
    #[error("guest agent: connection lost: {0}")]
    Lost(String),
}

impl GuestError {
    /// The fault's kind, if the guest itself answered.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Fault { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

impl From<Status> for GuestError {
    fn from(status: Status) -> Self {
        match GuestFault::decode(status.details()) {
            Ok(fault) if !status.details().is_empty() => {
                Self::Fault { kind: fault.kind(), message: bounded(&fault.message) }
            }
            _ if status.code() == Code::InvalidArgument => {
                Self::Fault { kind: ErrorKind::InvalidArgument, message: bounded(status.message()) }
            }
            _ => Self::Lost(format!("{}: {}", status.code(), bounded(status.message()))),
        }
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(limit::FAULT_BYTES / 4).collect()
}

/// A stream of answers; its end is the end of what there was to say.
pub type GuestStream<T> = BoxStream<'static, Result<T, GuestError>>;

/// Into an exec or attach session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// No more input.
    StdinClosed,
    /// The terminal has a new size, in characters.
    Resize {
        /// Width.
        columns: u16,
        /// Height.
        rows: u16,
    },
}

/// Out of an exec or attach session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Standard output; everything, with a terminal.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The process ended (exec), or the container did (attach). Last.
    Exited {
        /// Exit code as a shell has it.
        code: i32,
    },
    /// The session broke; how the process ended is not known. Last.
    Failed(String),
}

/// An open exec or attach session. Dropping `output` ends it, and the guest kills an exec's process.
#[derive(Debug)]
pub struct ExecSession {
    /// Send here. Dropping it closes standard input.
    pub input: mpsc::Sender<ExecInput>,
    /// Receive here.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// A forwarded TCP connection: bytes to and from a port on the pod's loopback.
#[derive(Debug)]
pub struct PortConnection {
    /// Send here. Dropping it shuts down the sending half.
    pub input: mpsc::Sender<Bytes>,
    /// Receive here; its end is the other side's end.
    pub output: mpsc::Receiver<Result<Bytes, String>>,
}

/// One conversation with one guest. Clones share the connection.
#[derive(Clone, Debug)]
pub struct GuestClient {
    grpc: Grpc<Link>,
    hello: Arc<HelloResponse>,
    closed: watch::Receiver<bool>,
}

impl GuestClient {
    /// Begins a conversation on a fresh stream to the guest and greets it. Bytes that an earlier conversation left in
    /// the channel are skipped.
    ///
    /// # Errors
    /// `Handshake`, `Timeout` after `HANDSHAKE_TIMEOUT`, `Protocol`, or `Lost`.
    pub async fn connect(stream: UnixStream) -> Result<Self, GuestError> {
        Self::connect_within(stream, HANDSHAKE_TIMEOUT).await
    }

    /// As `connect`, with another time limit.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_within(stream: UnixStream, limit: Duration) -> Result<Self, GuestError> {
        let nonce = *uuid::Uuid::new_v4().as_bytes();
        tokio::time::timeout(limit, Self::open(stream, nonce)).await.map_err(|_| GuestError::Timeout(limit))?
    }

    async fn open(mut stream: UnixStream, nonce: [u8; 16]) -> Result<Self, GuestError> {
        let rest = shake_hands(&mut stream, nonce).await.map_err(GuestError::Handshake)?;
        let (reader, writer) = stream.into_split();
        let io = tokio::io::join(io::Cursor::new(rest).chain(reader), writer);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| GuestError::Lost(error.to_string()))?;
        let (ended, closed) = watch::channel(false);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a guest agent ended");
            }
            ended.send_replace(true);
        });
        let grpc = Grpc::with_origin(Link(sender), Uri::from_static("http://guest"))
            .max_decoding_message_size(limit::MESSAGE_TO_HOST_BYTES)
            .max_encoding_message_size(limit::MESSAGE_TO_GUEST_BYTES);
        let mut client = Self { grpc, hello: Arc::default(), closed };
        let hello: HelloResponse =
            client.call(method::HELLO, HelloRequest { protocol_version: PROTOCOL_VERSION }).await?;
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(GuestError::Protocol { guest: hello.protocol_version });
        }
        client.hello = Arc::new(hello);
        Ok(client)
    }

    /// What the guest said when this conversation began.
    #[must_use]
    pub fn hello(&self) -> &HelloResponse {
        &self.hello
    }

    /// Resolves when the conversation has ended: the machine is gone, or the guest began anew.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the sender is gone, which is the end as well.
        let _ = closed.wait_for(|ended| *ended).await;
    }

    /// Makes the guest this pod's guest. The same configuration again is accepted.
    ///
    /// # Errors
    /// `GuestError`; kinds `AlreadyExists`, `InvalidArgument`, `MountFailed`, `NetworkFailed`, `NoSuchImage`.
    pub async fn configure_pod(&self, config: PodConfig) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::CONFIGURE_POD, config).await.map(drop)
    }

    /// Makes the guest a node that many pods share. The same configuration again is accepted.
    ///
    /// # Errors
    /// As `configure_pod`.
    pub async fn configure_node(&self, config: NodeConfig) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::CONFIGURE_NODE, config).await.map(drop)
    }

    /// Ends what runs of a shared pod and forgets it; one that is not there is no error.
    ///
    /// # Errors
    /// `GuestError`; kind `MountFailed`.
    pub async fn remove_pod(&self, uid: &str) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::REMOVE_POD, PodUid { uid: uid.to_owned() }).await.map(drop)
    }

    /// Unmounts an image that no container uses.
    ///
    /// # Errors
    /// `GuestError`; kind `MountFailed`.
    pub async fn release_image(&self, slot: u32) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::RELEASE_IMAGE, DiskSlot { slot }).await.map(drop)
    }

    /// Mounts the scratch disk of a guest that is nobody's yet, so that its pod need not wait for that.
    ///
    /// # Errors
    /// `GuestError`; kinds `AlreadyExists`, `MountFailed`, `NoSuchImage`.
    pub async fn prepare(&self, scratch_slot: u32) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::PREPARE, PrepareRequest { scratch_slot }).await.map(drop)
    }

    /// Replaces the files of a volume in one step.
    ///
    /// # Errors
    /// `GuestError`; kinds `NoSuchVolume`, `InvalidArgument`.
    pub async fn update_volume(&self, request: UpdateVolumeRequest) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::UPDATE_VOLUME, request).await.map(drop)
    }

    /// Starts a container; when this returns, its program has been executed.
    ///
    /// # Errors
    /// `GuestError`; the kinds tell a program that is not there from a user that is not there.
    pub async fn start_container(&self, config: ContainerConfig) -> Result<StartContainerResponse, GuestError> {
        self.call(method::START_CONTAINER, config).await
    }

    /// Sends a signal to a container's first process, or to all of them.
    ///
    /// # Errors
    /// `GuestError`; kinds `NoSuchContainer`, `NotRunning`.
    pub async fn signal_container(&self, id: &str, signal: u32, all: bool) -> Result<(), GuestError> {
        let request = SignalContainerRequest { id: id.to_owned(), signal, all };
        self.call::<_, Empty>(method::SIGNAL_CONTAINER, request).await.map(drop)
    }

    /// Gives a running container other limits.
    ///
    /// # Errors
    /// `GuestError`; kinds `NoSuchContainer`, `NotRunning`, and `LimitReached` for less memory than it uses.
    pub async fn update_container(&self, request: UpdateContainerRequest) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::UPDATE_CONTAINER, request).await.map(drop)
    }

    /// Forgets an exited container, its writable layer and its log.
    ///
    /// # Errors
    /// `GuestError`; kind `NoSuchContainer`, or `InvalidArgument` while it runs.
    pub async fn remove_container(&self, id: &str) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::REMOVE_CONTAINER, ContainerId { id: id.to_owned() }).await.map(drop)
    }

    /// Events after a sequence number (0: all), then those to come. Does not end by itself.
    ///
    /// # Errors
    /// `GuestError`.
    pub async fn events(&self, after_sequence: u64) -> Result<GuestStream<Event>, GuestError> {
        self.stream(method::EVENTS, EventsRequest { after_sequence }).await
    }

    /// A container's output from an absolute offset.
    ///
    /// # Errors
    /// `GuestError`; kind `NoSuchContainer`.
    pub async fn logs(&self, request: LogsRequest) -> Result<GuestStream<LogChunk>, GuestError> {
        self.stream(method::LOGS, request).await
    }

    /// Runs a command in a running container. When this returns, it has been executed.
    ///
    /// # Errors
    /// `GuestError`; kinds `NoSuchContainer`, `NotRunning`, `CommandNotFound`, `PermissionDenied`, `LimitReached`.
    pub async fn exec(&self, start: ExecStart) -> Result<ExecSession, GuestError> {
        self.session(method::EXEC, ExecInputKind::Start(start)).await
    }

    /// Attaches to a running container's input and output.
    ///
    /// # Errors
    /// `GuestError`; kinds `NoSuchContainer`, `NotRunning`, `InvalidArgument`.
    pub async fn attach(&self, request: AttachRequest) -> Result<ExecSession, GuestError> {
        self.session(method::ATTACH, ExecInputKind::Attach(request)).await
    }

    /// Connects to a TCP port on the pod's loopback. When this returns, it is connected.
    ///
    /// # Errors
    /// `GuestError`; kind `ConnectionRefused`.
    pub async fn connect_port(&self, port: u16) -> Result<PortConnection, GuestError> {
        self.connect_to(ConnectInputKind::Port(u32::from(port))).await
    }

    /// As `connect_port`, on the loopback of one pod of many.
    ///
    /// # Errors
    /// As `connect_port`.
    pub async fn connect_pod_port(&self, pod_uid: &str, port: u16) -> Result<PortConnection, GuestError> {
        let target = ConnectTarget { pod_uid: pod_uid.to_owned(), port: u32::from(port) };
        self.connect_to(ConnectInputKind::Target(target)).await
    }

    async fn connect_to(&self, target: ConnectInputKind) -> Result<PortConnection, GuestError> {
        let (input, receiver) = mpsc::channel::<Bytes>(SESSION_QUEUE);
        let (sender, output) = mpsc::channel(SESSION_QUEUE);
        let (hang_up, hung_up) = oneshot::channel::<()>();
        let first = ConnectInput { kind: Some(target) };
        let data = ReceiverStream::new(receiver)
            .flat_map(chunks)
            .map(|piece| ConnectInput { kind: Some(ConnectInputKind::Data(piece)) });
        let request = futures::stream::iter([first]).chain(data).take_until(hung_up);
        let mut answers: Streaming<ConnectOutput> = self.bidirectional(method::CONNECT, request).await?;
        answers.message().await?;
        tokio::spawn(async move {
            let _hang_up = hang_up;
            pump(answers, &sender, |output| Some(Ok(output.data)), |fault| Err(fault.to_string())).await;
        });
        Ok(PortConnection { input, output })
    }

    /// Use of resources, now.
    ///
    /// # Errors
    /// `GuestError`.
    pub async fn stats(&self) -> Result<StatsResponse, GuestError> {
        self.call(method::STATS, Empty {}).await
    }

    /// Makes the guest nobody's again, so that its disks can be taken out and another pod can have it.
    ///
    /// # Errors
    /// `GuestError`; kind `InvalidArgument` while a container runs.
    pub async fn reset(&self) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::RESET, Empty {}).await.map(drop)
    }

    /// Ends every container and powers the machine off. The answer may be lost with the machine: watch the machine.
    ///
    /// # Errors
    /// `GuestError`.
    pub async fn shutdown(&self) -> Result<(), GuestError> {
        self.call::<_, Empty>(method::SHUTDOWN, Empty {}).await.map(drop)
    }

    async fn session(&self, path: &'static str, first: ExecInputKind) -> Result<ExecSession, GuestError> {
        let (input, receiver) = mpsc::channel(SESSION_QUEUE);
        let (sender, output) = mpsc::channel(SESSION_QUEUE);
        let (hang_up, hung_up) = oneshot::channel::<()>();
        let request = futures::stream::iter([first])
            .chain(ReceiverStream::new(receiver).flat_map(exec_inputs))
            .chain(futures::stream::iter([ExecInputKind::StdinClosed(Empty {})]))
            // The request stays open until the answers end: its end would look like a caller who left.
            .chain(futures::stream::pending())
            .take_until(hung_up)
            .map(|kind| api::ExecInput { kind: Some(kind) });
        let answers: Streaming<api::ExecOutput> = self.bidirectional(path, request).await?;
        tokio::spawn(async move {
            let _hang_up = hang_up;
            pump(answers, &sender, exec_output, |fault| ExecOutput::Failed(fault.to_string())).await;
        });
        Ok(ExecSession { input, output })
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, GuestError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    async fn stream<Q, A>(&self, path: &'static str, request: Q) -> Result<GuestStream<A>, GuestError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        let answers = grpc.server_streaming(tonic::Request::new(request), path, codec).await?.into_inner();
        Ok(answers.map_err(GuestError::from).boxed())
    }

    async fn bidirectional<Q, A>(
        &self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, GuestError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.streaming(tonic::Request::new(requests), path, codec).await?.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<Link>, GuestError> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| GuestError::Lost(error.to_string()))?;
        Ok(grpc)
    }
}

/// Sends the request and reads up to the reply that carries `nonce`; returns what was read behind it.
async fn shake_hands(stream: &mut UnixStream, nonce: [u8; 16]) -> io::Result<Vec<u8>> {
    stream.write_all(&Preface::request(nonce).encode()).await?;
    let (mut scanner, mut buffer) = (Scanner::new(), vec![0; 64 << 10]);
    loop {
        let length = read_some(stream, &mut buffer).await?;
        let mut rest = &buffer[..length];
        while let Some(found) = scanner.feed(rest) {
            rest = &rest[found.consumed..];
            if found.preface.kind == Kind::Reply && found.preface.nonce == nonce {
                return Ok(rest.to_vec());
            }
        }
    }
}

async fn read_some(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the machine closed the channel")),
        length => Ok(length),
    }
}

/// Passes answers on until they end, fail, or nobody listens.
async fn pump<A, T>(
    mut answers: Streaming<A>,
    sender: &mpsc::Sender<T>,
    convert: impl Fn(A) -> Option<T>,
    fail: impl Fn(GuestError) -> T,
) {
    loop {
        let next = tokio::select! {
            next = answers.message() => next,
            () = sender.closed() => return,
        };
        let item = match next {
            Ok(None) => return,
            Ok(Some(answer)) => convert(answer),
            Err(status) => {
                let _ = sender.send(fail(status.into())).await;
                return;
            }
        };
        if let Some(item) = item
            && sender.send(item).await.is_err()
        {
            return;
        }
    }
}

fn exec_inputs(input: ExecInput) -> BoxStream<'static, ExecInputKind> {
    match input {
        ExecInput::Stdin(bytes) => chunks(bytes).map(ExecInputKind::Stdin).boxed(),
        ExecInput::StdinClosed => one(ExecInputKind::StdinClosed(Empty {})),
        ExecInput::Resize { columns, rows } => {
            one(ExecInputKind::Resize(TerminalSize { columns: columns.into(), rows: rows.into() }))
        }
    }
}

fn one(kind: ExecInputKind) -> BoxStream<'static, ExecInputKind> {
    futures::stream::iter([kind]).boxed()
}

fn exec_output(output: api::ExecOutput) -> Option<ExecOutput> {
    match output.kind? {
        ExecOutputKind::Stdout(bytes) => Some(ExecOutput::Stdout(bytes)),
        ExecOutputKind::Stderr(bytes) => Some(ExecOutput::Stderr(bytes)),
        ExecOutputKind::Exited(exited) => Some(ExecOutput::Exited { code: exited.code }),
    }
}

/// Cuts bytes into pieces that the guest accepts.
fn chunks(mut bytes: Bytes) -> impl Stream<Item = Bytes> + Send + Unpin {
    futures::stream::iter(std::iter::from_fn(move || {
        (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(limit::CHUNK_BYTES)))
    }))
}

/// hyper's connection as the service that tonic's client wants.
#[derive(Clone, Debug)]
pub(crate) struct Link(pub(crate) http2::SendRequest<tonic::body::Body>);

impl tower::Service<Request<tonic::body::Body>> for Link {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}
