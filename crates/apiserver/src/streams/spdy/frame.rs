//! SPDY/3.1 frames to and from bytes. Pure; every byte comes from a peer that is not trusted.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest data frame in bytes that is taken.
const DATA_BYTES_MAX: usize = 4 << 20;
/// Longest control frame in bytes that is taken.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Longest piece of data that is sent in one frame.
pub(crate) const SEND_BYTES_MAX: usize = 32 << 10;

const VERSION: u16 = 3;
const HEAD_BYTES: usize = 8;
pub(crate) const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// One frame. Header blocks are still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_stream: u32,
        status: u32,
    },
    /// SETTINGS, WINDOW_UPDATE and kinds that do not exist: nothing is done about them.
    Ignored,
}

/// What is no SPDY/3.1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes is larger than allowed")]
    TooLarge(usize),
    #[error("SPDY version {0} is not supported, only 3")]
    Version(u16),
    #[error("a control frame of type {0} is too short")]
    Short(u16),
}

/// Takes the next whole frame off the buffer; `None` when more bytes are needed.
///
/// # Errors
/// [`FrameError`]; the connection is of no more use then.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(head) = buffer.get(..HEAD_BYTES) else { return Ok(None) };
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    let control = first >> 31 == 1;
    if length > if control { CONTROL_BYTES_MAX } else { DATA_BYTES_MAX } {
        return Err(FrameError::TooLarge(length));
    }
    if buffer.len() < HEAD_BYTES + length {
        buffer.reserve(HEAD_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    let body = buffer.split_to(length).freeze();
    let fin = flags & FIN != 0;
    if !control {
        return Ok(Some(Frame::Data { stream: first, fin, data: body }));
    }
    let version = (first >> 16) as u16 & 0x7fff;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    control_frame(first as u16, fin, body).map(Some)
}

fn control_frame(kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, FrameError> {
    let needed = match kind {
        SYN_STREAM => 10,
        SYN_REPLY | HEADERS | PING => 4,
        RST_STREAM | GOAWAY => 8,
        _ => return Ok(Frame::Ignored),
    };
    if body.len() < needed {
        return Err(FrameError::Short(kind));
    }
    let id = body.get_u32();
    let stream = id & 0x7fff_ffff;
    Ok(match kind {
        SYN_STREAM => {
            // Associated stream, priority, credential slot: unused by Kubernetes.
            body.advance(6);
            Frame::SynStream { stream, fin, block: body }
        }
        SYN_REPLY => Frame::SynReply { stream, fin, block: body },
        HEADERS => Frame::Headers { stream, fin, block: body },
        PING => Frame::Ping { id },
        RST_STREAM => Frame::Reset { stream, status: body.get_u32() },
        _ => Frame::GoAway { last_stream: stream, status: body.get_u32() },
    })
}

/// Appends a frame to the buffer.
pub(crate) fn encode(frame: &Frame, buffer: &mut BytesMut) {
    match frame {
        Frame::Data { stream, fin, data } => {
            buffer.put_u32(stream & 0x7fff_ffff);
            put_length(buffer, *fin, data.len());
            buffer.put_slice(data);
        }
        Frame::SynStream { stream, fin, block } => {
            put_head(buffer, SYN_STREAM, *fin, 10 + block.len());
            buffer.put_u32(*stream);
            buffer.put_bytes(0, 6);
            buffer.put_slice(block);
        }
        Frame::SynReply { stream, fin, block } => put_block(buffer, SYN_REPLY, *stream, *fin, block),
        Frame::Headers { stream, fin, block } => put_block(buffer, HEADERS, *stream, *fin, block),
        Frame::Reset { stream, status } => put_pair(buffer, RST_STREAM, *stream, *status),
        Frame::GoAway { last_stream, status } => put_pair(buffer, GOAWAY, *last_stream, *status),
        Frame::Ping { id } => {
            put_head(buffer, PING, false, 4);
            buffer.put_u32(*id);
        }
        Frame::Ignored => {}
    }
}

fn put_head(buffer: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    buffer.put_u16(VERSION | 0x8000);
    buffer.put_u16(kind);
    put_length(buffer, fin, length);
}

fn put_length(buffer: &mut BytesMut, fin: bool, length: usize) {
    buffer.put_u8(if fin { FIN } else { 0 });
    buffer.put_uint(length as u64, 3);
}

fn put_block(buffer: &mut BytesMut, kind: u16, stream: u32, fin: bool, block: &Bytes) {
    put_head(buffer, kind, fin, 4 + block.len());
    buffer.put_u32(stream);
    buffer.put_slice(block);
}

fn put_pair(buffer: &mut BytesMut, kind: u16, first: u32, second: u32) {
    put_head(buffer, kind, false, 8);
    buffer.put_u32(first);
    buffer.put_u32(second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_survive_any_cut() {
        let block = Bytes::from_static(b"block");
        let frames = [
            Frame::SynStream { stream: 1, fin: false, block: block.clone() },
            Frame::SynReply { stream: 1, fin: true, block: block.clone() },
            Frame::Headers { stream: 3, fin: false, block },
            Frame::Data { stream: 0x7fff_ffff, fin: true, data: Bytes::from_static(b"data") },
            Frame::Data { stream: 5, fin: false, data: Bytes::new() },
            Frame::Reset { stream: 5, status: 2 },
            Frame::Ping { id: 0xffff_fffe },
            Frame::GoAway { last_stream: 7, status: 0 },
        ];
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| encode(frame, &mut bytes));
        for step in [1, 2, 7, 1_000] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames, "in pieces of {step}");
        }
    }

    #[test]
    fn what_is_refused_and_what_is_skipped() {
        let check = |bytes: &[u8], expected: Result<Option<Frame>, FrameError>| {
            assert_eq!(decode(&mut BytesMut::from(bytes)), expected, "{bytes:?}");
        };
        check(&[0x80, 2, 0, 1, 0, 0, 0, 0], Err(FrameError::Version(2)));
        check(&[0x80, 3, 0, 1, 0, 0, 0, 1, 0], Err(FrameError::Short(1)));
        check(&[0x80, 3, 0, 1, 0, 2, 0, 0], Err(FrameError::TooLarge(0x2_0000)));
        check(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], Err(FrameError::TooLarge(0xff_ffff)));
        check(&[0x80, 3, 0, 9, 0, 0, 0, 1, 0], Ok(Some(Frame::Ignored)));
        check(&[0x80, 3, 0], Ok(None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }
}
