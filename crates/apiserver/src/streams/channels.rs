//! exec and attach over WebSocket: every message begins with the number of its channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use isopod_schema::Status;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::exec::{End, OPEN_TIMEOUT, Output, next_output, resize};
use super::upgrade::{WebSocket, goodbye};
use crate::kubelets::{ExecInput, ExecRequest, ExecSession};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// The channel that closes other channels, in v5.
const CLOSE: u8 = 255;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: &'static str,
    base64: bool,
    /// The end is a Status document, not text.
    status: bool,
    half_close: bool,
}

const PROTOCOLS: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", base64: false, status: true, half_close: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, status: true, half_close: false },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, status: true, half_close: false },
    Protocol { name: "channel.k8s.io", base64: false, status: false, half_close: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, status: false, half_close: false },
    Protocol { name: "", base64: false, status: false, half_close: false },
];

impl Protocol {
    #[cfg(fuzzing)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        PROTOCOLS.into_iter()
    }

    /// The first of the client's protocols that is known.
    ///
    /// # Errors
    /// 400.
    pub(super) fn choose(offered: &[&str]) -> Result<Self, Status> {
        let known = |name: &&str| PROTOCOLS.iter().find(|protocol| protocol.name == *name).copied();
        let chosen = if offered.is_empty() { PROTOCOLS.last().copied() } else { offered.iter().find_map(known) };
        chosen.ok_or_else(|| Status::bad_request(format!("none of the WebSocket protocols {offered:?} is supported")))
    }

    fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let mut bytes = BytesMut::with_capacity(data.len() + 1);
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// Channel and data of a message; none when it is no data.
    fn parse(self, message: Message) -> Option<(u8, Bytes)> {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        let channel = *bytes.first()?;
        let data = bytes.slice(1..);
        if !self.base64 {
            return Some((channel, data));
        }
        Some((channel.checked_sub(b'0')?, STANDARD.decode(data).ok()?.into()))
    }

    pub(super) fn input(self, message: Message) -> Option<ExecInput> {
        match self.parse(message)? {
            (STDIN, data) if !data.is_empty() => Some(ExecInput::Stdin(data)),
            (RESIZE, data) => resize(&serde_json::from_slice(&data).ok()?),
            (CLOSE, data) if self.half_close && data.first() == Some(&STDIN) => Some(ExecInput::StdinClosed),
            _ => None,
        }
    }

    fn end(self, end: &End) -> Option<Message> {
        if self.status {
            return Some(self.message(ERROR, end.document().to_string().as_bytes()));
        }
        let text = end.text();
        (!text.is_empty()).then(|| self.message(ERROR, text.as_bytes()))
    }
}

/// Carries a session until the command has ended or the client has gone.
pub(super) async fn run(socket: WebSocket, session: ExecSession, protocol: Protocol, request: ExecRequest) {
    let (mut sink, mut source) = socket.split();
    let input = session.input.clone();
    let done = tokio::select! {
        done = send(&mut sink, session, protocol, &request) => done,
        () = receive(&mut source, input, protocol) => false,
    };
    if done {
        // The client answers the goodbye; closing earlier could lose what it has not read yet.
        let answer = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = tokio::time::timeout(OPEN_TIMEOUT, answer).await;
    }
}

/// True when the end of the command was sent.
async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    mut session: ExecSession,
    protocol: Protocol,
    request: &ExecRequest,
) -> bool {
    let first = if request.stdout {
        STDOUT
    } else if request.stderr {
        STDERR
    } else {
        ERROR
    };
    let mut next = protocol.message(first, b"");
    loop {
        if sink.send(next).await.is_err() {
            return false;
        }
        next = match next_output(&mut session).await {
            Output::Stdout(data) => protocol.message(STDOUT, &data),
            Output::Stderr(data) => protocol.message(STDERR, &data),
            Output::End(end) => {
                if let Some(message) = protocol.end(&end)
                    && sink.send(message).await.is_err()
                {
                    return false;
                }
                return sink.send(goodbye()).await.is_ok();
            }
        };
    }
}

/// Ends when the client has gone.
async fn receive(source: &mut SplitStream<WebSocket>, input: mpsc::Sender<ExecInput>, protocol: Protocol) {
    while let Some(Ok(message)) = source.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        if let Some(event) = protocol.input(message) {
            // A command that has ended reads nothing; its output may still be on the way.
            let _ = input.send(event).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_chosen_in_the_clients_order() {
        let table: [(&[&str], Option<&str>); 5] = [
            (&[], Some("")),
            (&["v5.channel.k8s.io", "v4.channel.k8s.io"], Some("v5.channel.k8s.io")),
            (&["v9.channel.k8s.io", "base64.channel.k8s.io"], Some("base64.channel.k8s.io")),
            (&["v4.base64.channel.k8s.io"], Some("v4.base64.channel.k8s.io")),
            (&["v9.channel.k8s.io"], None),
        ];
        for (offered, expected) in table {
            assert_eq!(Protocol::choose(offered).ok().map(|protocol| protocol.name), expected, "{offered:?}");
        }
    }

    #[test]
    fn messages_become_input() {
        let [v5, v4, base64, ..] = PROTOCOLS;
        let check = |protocol: Protocol, message: Message, expected: Option<ExecInput>| {
            assert_eq!(protocol.input(message.clone()), expected, "{message:?} in {}", protocol.name);
        };
        let stdin = || Some(ExecInput::Stdin(Bytes::from_static(b"hi")));
        check(v5, Message::binary(&b"\0hi"[..]), stdin());
        check(base64, Message::text("0aGk="), stdin());
        check(base64, Message::text("0!"), None);
        check(v5, Message::binary(&b"\xff\0"[..]), Some(ExecInput::StdinClosed));
        check(v4, Message::binary(&b"\xff\0"[..]), None);
        check(v4, Message::binary(&br#"x"#[..]), None);
        let resize = Some(ExecInput::Resize { columns: 80, rows: 24 });
        check(v4, Message::binary(&b"\x04{\"Width\":80,\"Height\":24}"[..]), resize);
        check(v4, Message::binary(&b"\x04{\"Width\":80}"[..]), None);
        check(v4, Message::binary(&b""[..]), None);
    }
}
