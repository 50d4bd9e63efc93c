//! The preface: how the two sides find the start of a conversation in a stream that never was a connection.
//!
//! A virtio-serial port keeps what an earlier conversation left in it: after a host reconnects, both sides may
//! first read the tail of a broken HTTP/2 stream, megabytes of it. So a conversation begins with one frame each way
//! that cannot be mistaken for anything else:
//!
//! ```text
//! magic (16) | version u16 | kind u8 | zero u8 | nonce (16) | check u32        little endian, always 40 bytes
//! ```
//!
//! The length is fixed on purpose: whatever precedes a frame, even something made to look like the start of one, the
//! frame is recognised with its own last byte, never later.
//!
//! The host sends `Request` with a nonce it has just drawn; the guest answers `Reply` with the same nonce. The host
//! skips everything up to the reply with *its* nonce, which nothing inside the guest can have guessed. The guest goes
//! on looking for a request while a conversation is open: a valid one means that the host has begun anew. The check
//! (and the whole frame, not only the magic) keeps copies of this program's own bytes from ending a conversation.
//!
//! Bytes in, frames out; nothing is read or written here. A scanner never holds more than one frame.

/// First bytes of a frame. The first of them occurs only once in it, which keeps the scanner simple.
pub const MAGIC: [u8; 16] = *b"\xf1isopod-guest\r\n\x1a";

/// Version of the frame.
pub const VERSION: u16 = 1;

const CHECK_BYTES: usize = 4;

/// Length of a frame in bytes.
pub const FRAME_BYTES: usize = MAGIC.len() + 2 + 1 + 1 + 16 + CHECK_BYTES;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Host to guest: begin.
    Request,
    /// Guest to host: begun.
    Reply,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preface {
    /// Who speaks.
    pub kind: Kind,
    /// Drawn by the host for this conversation.
    pub nonce: [u8; 16],
}

impl Preface {
    /// The frame that begins a conversation.
    #[must_use]
    pub fn request(nonce: [u8; 16]) -> Self {
        Self { kind: Kind::Request, nonce }
    }

    /// The answer to a request with this nonce.
    #[must_use]
    pub fn reply(nonce: [u8; 16]) -> Self {
        Self { kind: Kind::Reply, nonce }
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&VERSION.to_le_bytes());
        frame.extend_from_slice(&[self.kind.code(), 0]);
        frame.extend_from_slice(&self.nonce);
        let check = check(&frame);
        frame.extend_from_slice(&check.to_le_bytes());
        frame
    }
}

/// Finds frames in a stream. Feed it every byte in order.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// A prefix of a possible frame: always starts like `MAGIC`.
    candidate: Vec<u8>,
}

/// A frame that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The frame.
    pub preface: Preface,
    /// Bytes of this input up to and including the frame's last one. What follows belongs to the conversation.
    pub consumed: usize,
}

impl Scanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; returns the first whole, valid frame that ends in them. After a find, feed the input
    /// from `consumed` on to look for more.
    pub fn feed(&mut self, input: &[u8]) -> Option<Found> {
        let mut at = 0;
        while at < input.len() {
            if self.candidate.is_empty() {
                at += input[at..].iter().position(|&byte| byte == MAGIC[0])?;
            }
            self.candidate.push(input[at]);
            at += 1;
            if let Some(preface) = self.settle() {
                return Some(Found { preface, consumed: at });
            }
        }
        None
    }

    /// Drops what cannot become a frame from the front of the candidate; returns the frame if it is one.
    fn settle(&mut self) -> Option<Preface> {
        loop {
            match judge(&self.candidate) {
                Verdict::Open => return None,
                Verdict::Frame(preface) => {
                    self.candidate.clear();
                    return Some(preface);
                }
                Verdict::Not => {
                    let next = self.candidate.iter().skip(1).position(|&byte| byte == MAGIC[0]);
                    match next {
                        Some(skip) => drop(self.candidate.drain(..=skip)),
                        None => self.candidate.clear(),
                    }
                }
            }
        }
    }
}

enum Verdict {
    /// Could become a frame with more bytes.
    Open,
    /// Never a frame.
    Not,
    Frame(Preface),
}

fn judge(bytes: &[u8]) -> Verdict {
    let prefix = bytes.len().min(MAGIC.len());
    if bytes[..prefix] != MAGIC[..prefix] {
        return Verdict::Not;
    }
    match bytes.first_chunk::<FRAME_BYTES>() {
        None => Verdict::Open,
        Some(frame) => parse(frame).map_or(Verdict::Not, Verdict::Frame),
    }
}

fn parse(frame: &[u8; FRAME_BYTES]) -> Option<Preface> {
    let (checked, stated) = frame.split_last_chunk::<CHECK_BYTES>()?;
    if u32::from_le_bytes(*stated) != check(checked) {
        return None;
    }
    let rest = checked.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (kind, nonce) = match rest.split_first_chunk::<2>()? {
        ([1, 0], nonce) => (Kind::Request, nonce),
        ([2, 0], nonce) => (Kind::Reply, nonce),
        _ => return None,
    };
    Some(Preface { kind, nonce: nonce.try_into().ok()? })
}

/// FNV-1a, 32 bits: enough to tell a frame from bytes that happen to look like its start. No security lies in it.
fn check(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `stream` in pieces of `piece` bytes; returns every frame found and where each ended.
    fn scan(stream: &[u8], piece: usize) -> Vec<(Preface, usize)> {
        let (mut scanner, mut found, mut base) = (Scanner::new(), Vec::new(), 0);
        for part in stream.chunks(piece) {
            let mut at = 0;
            while let Some(hit) = scanner.feed(&part[at..]) {
                at += hit.consumed;
                found.push((hit.preface, base + at));
            }
            assert!(scanner.candidate.len() < FRAME_BYTES);
            base += part.len();
        }
        found
    }

    fn garbage() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..40),
            2 => (0usize..16).prop_map(|n| MAGIC[..n].to_vec()),
            1 => Just(MAGIC.to_vec()),
            2 => (0usize..FRAME_BYTES).prop_map(|n| Preface::request([7; 16]).encode()[..n].to_vec()),
            1 => Just({ let mut f = Preface::reply([9; 16]).encode(); f[20] ^= 1; f }),
        ];
        proptest::collection::vec(pieces, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_frame_is_found_behind_any_garbage(
            before in garbage(), after in garbage(), nonce in any::<[u8; 16]>(), reply in any::<bool>(), piece in 1usize..80,
        ) {
            let preface = if reply { Preface::reply(nonce) } else { Preface::request(nonce) };
            let mut stream = before;
            stream.extend(preface.encode());
            let end = stream.len();
            stream.extend(&after);
            prop_assert_eq!(scan(&stream, piece), vec![(preface, end)]);
        }

        #[test]
        fn no_frame_is_found_where_none_is(bytes in proptest::collection::vec(any::<u8>(), 0..2000), piece in 1usize..300) {
            prop_assert_eq!(scan(&bytes, piece), vec![]);
        }
    }

    #[test]
    fn the_magic_starts_with_a_byte_that_does_not_come_again() {
        assert_eq!(MAGIC.iter().filter(|&&byte| byte == MAGIC[0]).count(), 1);
    }

    #[test]
    fn the_frame_has_the_documented_layout() {
        let frame = Preface::request([5; 16]).encode();
        assert_eq!(frame.len(), 40);
        assert_eq!(frame[..16], MAGIC);
        assert_eq!(frame[16..20], [1, 0, 1, 0]);
        assert_eq!(frame[20..36], [5; 16]);
    }

    #[test]
    fn damaged_frames_are_not_frames() {
        let whole = Preface::reply([3; 16]).encode();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert_eq!(scan(&damaged, 7), vec![], "byte {at}");
        }
    }
}
