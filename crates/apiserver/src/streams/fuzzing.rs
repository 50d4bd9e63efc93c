//! Parsers of upgraded connections, for fuzz targets.

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

use super::channels::Protocol;
use super::spdy::frame::{Frame, decode};
use super::spdy::headers::Reader;

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
