//! pods/portforward: SPDY streams in pairs, raw or inside a WebSocket; and the older form with two WebSocket channels
//! per port.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::Request;
use isopod_schema::Status;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::Placed;
use super::spdy::{Session, Stream};
use super::upgrade::{self, Kind, WebSocket, goodbye};
use crate::body::RequestBody;
use crate::context::Context;
use crate::kubelets::{Duplex, Kubelets, PortForwardRequest, Target};
use crate::respond::Response;

const SPDY_PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNEL_PROTOCOLS: [&str; 2] = ["v4.channel.k8s.io", ""];
/// Connections whose second stream has not come yet.
const HALF_OPEN_MAX: usize = 256;
/// Ports in one WebSocket of the older form: two channels each, numbered by a byte.
const PORTS_MAX: usize = 64;
const PIECE_BYTES: usize = 32 << 10;

/// What connections go to.
#[derive(Clone)]
struct Destination {
    kubelets: Arc<dyn Kubelets>,
    node: String,
    target: Target,
}

impl Destination {
    async fn connect(&self, port: u16) -> Result<Box<dyn Duplex>, Status> {
        let request = PortForwardRequest { target: self.target.clone(), port };
        self.kubelets.port_forward(&self.node, request).await
    }
}

/// Forwards to what the admitted options name.
///
/// # Errors
/// 400, 403, 404.
pub(super) async fn answer(
    context: &Context<'_>,
    request: Request<RequestBody>,
    options: &Value,
) -> Result<Response, Status> {
    let kind = upgrade::asked(&request)?;
    context.demand_verb("create")?;
    let placed = Placed::find(context)?;
    if placed.pod["status"]["phase"] != "Running" {
        let phase = placed.pod["status"]["phase"].as_str().unwrap_or("Unknown");
        return Err(Status::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let destination =
        Destination { kubelets: Arc::clone(context.server.kubelets()?), target: placed.target(""), node: placed.node };
    match kind {
        Kind::Spdy => upgrade::spdy(request, SPDY_PROTOCOL, move |connection| pairs(connection, destination)),
        Kind::WebSocket => {
            let offered = upgrade::offered(request.headers(), "sec-websocket-protocol");
            if offered.contains(&TUNNEL_PROTOCOL) {
                let run = move |socket| pairs(upgrade::tunnel(socket), destination);
                return upgrade::websocket(request, TUNNEL_PROTOCOL, run);
            }
            let known = |name: &&str| offered.contains(name) || name.is_empty() && offered.is_empty();
            let Some(protocol) = CHANNEL_PROTOCOLS.into_iter().find(known) else {
                return Err(Status::bad_request(format!("none of the WebSocket protocols {offered:?} is supported")));
            };
            let ports = ports(options)?;
            upgrade::websocket(request, protocol, move |socket| channels(socket, ports, destination))
        }
    }
}

fn ports(options: &Value) -> Result<Vec<u16>, Status> {
    let ports = options["ports"].as_array().into_iter().flatten();
    let ports: Vec<u16> = ports.filter_map(|port| port.as_u64()?.try_into().ok()).collect();
    match ports.len() {
        0 => Err(Status::bad_request("query parameter \"ports\" is required")),
        1..=PORTS_MAX => Ok(ports),
        _ => Err(Status::bad_request(format!("at most {PORTS_MAX} ports can be forwarded at once"))),
    }
}

// === SPDY ===

/// Two streams that belong to one connection.
#[derive(Default)]
struct Pair {
    error: Option<Stream>,
    data: Option<Stream>,
}

async fn pairs(connection: impl AsyncRead + AsyncWrite + Send + 'static, destination: Destination) {
    let mut spdy = Session::start(connection);
    let mut half_open: BTreeMap<String, Pair> = BTreeMap::new();
    let mut connections = JoinSet::new();
    while let Some(stream) = spdy.accept().await {
        while connections.try_join_next().is_some() {}
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let (kind, id, port) = (header("streamtype"), header("requestid"), header("port").parse().unwrap_or(0));
        let mut pair = half_open.remove(&id).unwrap_or_default();
        match kind.as_str() {
            "error" => pair.error = Some(stream),
            "data" => pair.data = Some(stream),
            other => tracing::debug!(other, "a port-forward stream of an unknown type is ignored"),
        }
        match pair {
            Pair { error: Some(error), data: Some(data) } => {
                connections.spawn(forward(error, data, port, destination.clone()));
            }
            half => {
                half_open.insert(id, half);
            }
        }
        if half_open.len() > HALF_OPEN_MAX {
            tracing::debug!("a client opens port-forward streams without their partners");
            return;
        }
    }
}

async fn forward(mut error: Stream, data: Stream, port: u16, destination: Destination) {
    match destination.connect(port).await {
        Ok(connection) => {
            copy_pair(data, connection).await;
            error.writer.finish().await;
        }
        Err(status) => {
            let text = format!("error forwarding port {port} to pod {}: {status}", destination.target.pod);
            // A client that has gone does not want to know.
            let _ = error.writer.send(text.into()).await;
            error.writer.finish().await;
        }
    }
}

async fn copy_pair(stream: Stream, connection: Box<dyn Duplex>) {
    let Stream { mut reader, mut writer, .. } = stream;
    let (mut from, mut to) = tokio::io::split(connection);
    let up = async {
        while let Some(data) = reader.recv().await {
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        while matches!(from.read_buf(&mut buffer).await, Ok(read) if read > 0) {
            if writer.send(buffer.split().freeze()).await.is_err() {
                return;
            }
            buffer.reserve(PIECE_BYTES);
        }
        writer.finish().await;
    };
    // When the pod has sent all, the connection is over whatever the client still has to say.
    tokio::pin!(up);
    tokio::select! {
        () = down => {}
        () = async { up.await; std::future::pending::<()>().await } => {}
    }
}

// === WebSocket channels ===

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

async fn channels(socket: WebSocket, ports: Vec<u16>, destination: Destination) {
    let (mut sink, mut source) = socket.split();
    let (outgoing, mut messages) = mpsc::channel::<Message>(16);
    let mut inputs = Vec::new();
    let mut tasks = JoinSet::new();
    for (number, port) in ports.into_iter().enumerate() {
        let (input, received) = mpsc::channel(16);
        inputs.push(input);
        tasks.spawn(channel(2 * number as u8, port, destination.clone(), received, outgoing.clone()));
    }
    drop(outgoing);
    let send = async {
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    };
    let receive = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            let input = bytes
                .first()
                .filter(|channel| *channel % 2 == 0)
                .and_then(|channel| inputs.get(usize::from(channel / 2)));
            if let Some(input) = input {
                let _ = input.send(bytes.slice(1..)).await;
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
}

/// One port: its channel for data, the next for errors. Both begin with the port's number.
async fn channel(
    number: u8,
    port: u16,
    destination: Destination,
    mut received: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Message>,
) {
    for channel in [number, number + 1] {
        if outgoing.send(message(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let connection = match destination.connect(port).await {
        Ok(connection) => connection,
        Err(status) => {
            let _ = outgoing.send(message(number + 1, status.to_string().as_bytes())).await;
            return;
        }
    };
    let (mut from, mut to) = tokio::io::split(connection);
    let up = async {
        while let Some(data) = received.recv().await {
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        while matches!(from.read_buf(&mut buffer).await, Ok(read) if read > 0) {
            if outgoing.send(message(number, &buffer.split())).await.is_err() {
                return;
            }
            buffer.reserve(PIECE_BYTES);
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
