//! Taking over a client's connection: WebSocket and SPDY upgrades of HTTP/1.1, and WebSocket messages as a byte stream.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use isopod_schema::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::body::{Body, RequestBody};
use crate::respond::Response;

/// Largest message from a client in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes between a WebSocket and what reads it as a stream.
const PIPE_BYTES: usize = 64 << 10;

pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// How a client wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    WebSocket,
    Spdy,
}

/// What the client asks to upgrade to.
///
/// # Errors
/// 400 when it is neither, or when there is no connection to take over.
pub(crate) fn asked(request: &Request<RequestBody>) -> Result<Kind, Status> {
    let upgrade = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = if upgrade.eq_ignore_ascii_case("websocket") {
        Kind::WebSocket
    } else if upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        Kind::Spdy
    } else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    if request.extensions().get::<OnUpgrade>().is_none() {
        let text = "streams need an HTTP/1.1 connection of their own; use the server's network address";
        return Err(Status::bad_request(text));
    }
    Ok(kind)
}

/// The protocols a client offers in a header, in its order.
pub(crate) fn offered<'a>(headers: &'a HeaderMap, name: &'a str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty()).collect()
}

/// The 101 answer.
fn switching(upgrade: &'static str) -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(upgrade));
    response
}

fn protocol_value(protocol: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(protocol).map_err(|_| Status::bad_request("the protocol is no header value"))
}

/// What a client's messages and frames may be.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// Answers a WebSocket handshake; `run` gets the connection once the answer is out.
///
/// # Errors
/// 400 when it is no proper handshake.
pub(crate) fn websocket<F: Future<Output = ()> + Send + 'static>(
    mut request: Request<RequestBody>,
    protocol: &str,
    run: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Result<Response, Status> {
    let missing = || Status::bad_request("the WebSocket handshake has no Sec-WebSocket-Key");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).ok_or_else(missing)?;
    let mut response = switching("websocket");
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| missing())?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol_value(protocol)?);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => {
                let connection = TokioIo::new(connection);
                run(WebSocketStream::from_raw_socket(connection, Role::Server, Some(limits())).await).await;
            }
            Err(error) => tracing::debug!(%error, "a WebSocket upgrade failed"),
        }
    });
    Ok(response)
}

/// Answers a SPDY upgrade.
///
/// # Errors
/// 400 for a protocol name that fits in no header.
pub(crate) fn spdy<F: Future<Output = ()> + Send + 'static>(
    mut request: Request<RequestBody>,
    protocol: &str,
    run: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Result<Response, Status> {
    let mut response = switching("SPDY/3.1");
    if !protocol.is_empty() {
        response.headers_mut().insert("x-stream-protocol-version", protocol_value(protocol)?);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => run(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "a SPDY upgrade failed"),
        }
    });
    Ok(response)
}

/// The normal end of a WebSocket; kubectl takes any other for a failure.
pub(crate) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") }))
}

/// A WebSocket whose binary messages are pieces of one byte stream, as that stream.
pub(crate) fn tunnel(socket: WebSocket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (mut from_near, mut to_near) = tokio::io::split(far);
    let (mut sink, mut source) = socket.split();
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let written = match message {
                Message::Binary(data) => to_near.write_all(&data).await,
                Message::Close(_) => break,
                _ => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        let _ = to_near.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; PIPE_BYTES / 2];
        while let Ok(read) = from_near.read(&mut buffer).await
            && read > 0
        {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..read]))).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    });
    near
}
