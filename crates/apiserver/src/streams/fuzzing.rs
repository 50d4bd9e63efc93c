//! Parsers of upgraded connections, for fuzz targets.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::channels::Protocol;
use super::spdy::frame::{Frame, decode};
use super::spdy::headers::Reader;
use super::spdy::session::Session;
use super::upgrade;

/// Bytes on their way in one direction; more wait.
const PIPE_BYTES: usize = 1 << 16;

/// The frames in these bytes, as text, when they come in pieces of this size.
#[must_use]
pub fn spdy_frames(bytes: &[u8], piece_bytes: usize) -> Vec<String> {
    let (mut buffer, mut reader, mut found) = (BytesMut::new(), Reader::new(), Vec::new());
    for piece in bytes.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Frame::SynStream { block, .. } = &frame {
                        found.push(format!("{:?}", reader.read(block)));
                    }
                    found.push(format!("{frame:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }
    found
}

/// Reads bytes as a message of each protocol.
pub fn channel_message(bytes: &[u8]) {
    for message in
        [Message::Binary(Bytes::copy_from_slice(bytes)), Message::text(String::from_utf8_lossy(bytes).into_owned())]
    {
        Protocol::all().for_each(|protocol| drop(protocol.input(message.clone())));
    }
}

/// A peer that sends these bytes, hears what is said, and goes; our end of the connection.
fn peer(bytes: &[u8]) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (mut read, mut write) = tokio::io::split(theirs);
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        let mut heard = Vec::new();
        let said = async {
            let _ = write.write_all(&bytes).await;
            let _ = write.shutdown().await;
        };
        let _ = tokio::join!(said, read.read_to_end(&mut heard));
    });
    ours
}

/// Plays a connection until its peer has gone: each stream is read to its end and answered with what it said.
pub(crate) async fn spdy_connection(bytes: &[u8]) {
    let mut session = Session::start(peer(bytes));
    let mut echoes = tokio::task::JoinSet::new();
    while let Some(mut stream) = session.accept().await {
        echoes.spawn(async move {
            while let Some(data) = stream.reader.recv().await {
                if stream.writer.send(data).await.is_err() {
                    return;
                }
            }
            stream.writer.finish().await;
        });
    }
    while echoes.join_next().await.is_some() {}
    session.close().await;
}

/// Plays a connection of each protocol until its peer has gone.
pub(crate) async fn websocket_connection(bytes: &[u8]) {
    for protocol in Protocol::all() {
        let mut socket = WebSocketStream::from_raw_socket(peer(bytes), Role::Server, Some(upgrade::limits())).await;
        while let Some(Ok(message)) = socket.next().await {
            drop(protocol.input(message));
        }
    }
}
