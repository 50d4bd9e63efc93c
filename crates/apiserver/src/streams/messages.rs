//! Answers that last, as messages of a WebSocket, for clients that read nothing else bit by bit: logs and watches. What the
//! client says is not listened to; when it goes, the answer ends.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::BodyExt;
use isopod_schema::Status;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::exec::OPEN_TIMEOUT;
use super::upgrade::{self, WebSocket, goodbye};
use crate::body::{Body, RequestBody};
use crate::negotiate::Encoding;
use crate::respond::Response;

/// How an answer is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Bytes as they come, after an empty message that says that there is somebody.
    Binary,
    /// The same in base64, which is text.
    Base64,
    /// One event each: text.
    Lines,
    /// One event each, without its length.
    Prefixed,
}

impl Framing {
    /// How a watch in this encoding is cut.
    pub(crate) fn of_events(encoding: Encoding) -> Self {
        if encoding == Encoding::Protobuf { Self::Prefixed } else { Self::Lines }
    }

    fn first(self) -> Option<Message> {
        match self {
            Self::Binary => Some(Message::Binary(Bytes::new())),
            Self::Base64 => Some(Message::text("")),
            Self::Lines | Self::Prefixed => None,
        }
    }

    /// The messages of a piece of the answer; an event is never in two pieces.
    fn messages(self, mut piece: Bytes) -> VecDeque<Message> {
        let mut messages = VecDeque::new();
        while !piece.is_empty() {
            messages.push_back(match self {
                Self::Binary => Message::Binary(std::mem::take(&mut piece)),
                Self::Base64 => Message::text(STANDARD.encode(std::mem::take(&mut piece))),
                Self::Lines => {
                    let end = piece.iter().position(|byte| *byte == b'\n').map_or(piece.len(), |at| at + 1);
                    text_message(piece.split_to(end))
                }
                Self::Prefixed => {
                    let length = piece.try_get_u32().map_or(0, |length| length as usize);
                    Message::Binary(piece.split_to(length.min(piece.len())))
                }
            });
        }
        messages
    }
}

fn text_message(bytes: Bytes) -> Message {
    match Utf8Bytes::try_from(bytes.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}

/// How a log is cut, by the first of the client's protocols that is known, and its name.
///
/// # Errors
/// 400 when none is.
fn of_bytes(offered: &[&str]) -> Result<(&'static str, Framing), Status> {
    let known = |name: &&str| match *name {
        "" => Some(("", Framing::Binary)),
        "binary.k8s.io" => Some(("binary.k8s.io", Framing::Binary)),
        "base64.binary.k8s.io" => Some(("base64.binary.k8s.io", Framing::Base64)),
        _ => None,
    };
    let offered = if offered.is_empty() { &[""] } else { offered };
    let unknown = || Status::bad_request(format!("none of the WebSocket protocols {offered:?} is supported"));
    offered.iter().find_map(known).ok_or_else(unknown)
}

/// Whether the client wants the answer so.
pub(crate) fn is_wanted(request: &Request<RequestBody>) -> bool {
    matches!(upgrade::asked(request), Ok(upgrade::Kind::WebSocket))
}

/// Sends a log over a WebSocket instead, if that is asked for.
///
/// # Errors
/// 400 when it is no proper handshake, or for unknown protocols.
pub(crate) fn log(request: Request<RequestBody>, answer: Response) -> Result<Response, Status> {
    if !is_wanted(&request) {
        return Ok(answer);
    }
    let (name, framing) = of_bytes(&upgrade::offered(request.headers(), "sec-websocket-protocol"))?;
    upgrade::websocket(request, name, move |socket| run(socket, answer.into_body(), framing))
}

/// Sends a watch over a WebSocket instead, if that is asked for. A single protocol is taken whatever its name.
///
/// # Errors
/// 400 when it is no proper handshake.
pub(crate) fn watch(request: Request<RequestBody>, answer: Response, encoding: Encoding) -> Result<Response, Status> {
    if !is_wanted(&request) {
        return Ok(answer);
    }
    let offered = upgrade::offered(request.headers(), "sec-websocket-protocol");
    let protocol = offered.first().copied().unwrap_or_default().to_owned();
    let framing = Framing::of_events(encoding);
    upgrade::websocket(request, &protocol, move |socket| run(socket, answer.into_body(), framing))
}

/// Carries an answer to its end or until the client has gone.
async fn run(socket: WebSocket, mut body: Body, framing: Framing) {
    let (mut sink, mut source) = socket.split();
    let sending = async {
        if let Some(first) = framing.first() {
            sink.send(first).await.ok()?;
        }
        while let Some(frame) = body.frame().await {
            // One that broke off has no proper end.
            let Ok(piece) = frame.ok()?.into_data() else { continue };
            let messages = framing.messages(piece);
            sink.send_all(&mut futures::stream::iter(messages).map(Ok)).await.ok()?;
        }
        sink.send(goodbye()).await.ok()
    };
    let gone = async {
        while let Some(Ok(message)) = source.next().await
            && !message.is_close()
        {}
    };
    let is_whole = tokio::select! {
        sent = sending => sent.is_some(),
        () = gone => false,
    };
    if is_whole {
        // The client answers the goodbye; closing earlier could lose what it has not read yet.
        let answer = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = tokio::time::timeout(OPEN_TIMEOUT, answer).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_messages() {
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        let table: [(Framing, &'static [u8], Vec<Message>); 7] = [
            (Framing::Binary, b"one\ntwo\n", vec![binary(b"one\ntwo\n")]),
            (Framing::Binary, b"", vec![]),
            (Framing::Base64, b"hi\n", vec![Message::text("aGkK")]),
            (Framing::Lines, b"{}\n{\"a\":1}\n", vec![Message::text("{}\n"), Message::text("{\"a\":1}\n")]),
            (Framing::Lines, b"{}", vec![Message::text("{}")]),
            (Framing::Prefixed, b"\0\0\0\x02hi\0\0\0\x03you", vec![binary(b"hi"), binary(b"you")]),
            // No length that lies leads out of the piece.
            (Framing::Prefixed, b"\0\0\0\x09hi", vec![binary(b"hi")]),
        ];
        for (framing, piece, expected) in table {
            assert_eq!(framing.messages(Bytes::from_static(piece)), expected, "{framing:?} {piece:?}");
        }
    }

    #[test]
    fn logs_are_cut_as_the_client_knows() {
        let check = |offered: &[&str], expected: Option<(&str, Framing)>| {
            assert_eq!(of_bytes(offered).ok(), expected, "{offered:?}");
        };
        check(&[], Some(("", Framing::Binary)));
        check(&["binary.k8s.io"], Some(("binary.k8s.io", Framing::Binary)));
        check(&["v9", "base64.binary.k8s.io"], Some(("base64.binary.k8s.io", Framing::Base64)));
        check(&["base64.binary.k8s.io", "binary.k8s.io"], Some(("base64.binary.k8s.io", Framing::Base64)));
        check(&["v4.channel.k8s.io"], None);
    }
}
