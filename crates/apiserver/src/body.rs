//! Bodies: what comes in is read up to a limit, what goes out is a few shared chunks or a stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use isopod_schema::Status;

/// Largest request body in bytes; upstream's limit.
pub(crate) const BODY_LIMIT_BYTES: usize = 3 << 20;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request's body, whatever door it came through.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A response's body.
pub struct Body {
    inner: Inner,
    /// Dropped with the body: what is to happen when it is sent, or is not.
    _kept: Option<Box<dyn Send>>,
}

enum Inner {
    Chunks(VecDeque<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>),
}

/// An answer ended before it was whole; its connection is closed so that nobody takes it for whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off; ask again")]
pub struct Broken;

impl Body {
    pub(crate) fn empty() -> Self {
        Inner::Chunks(VecDeque::new()).into()
    }

    pub(crate) fn chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        Inner::Chunks(chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect()).into()
    }

    /// How long it is; none for a stream.
    pub(crate) fn known_bytes(&self) -> Option<u64> {
        match &self.inner {
            Inner::Chunks(chunks) => Some(chunks.iter().map(|chunk| chunk.len() as u64).sum()),
            Inner::Stream(_) => None,
        }
    }

    /// The chunks of a body that is known whole; none of a stream.
    pub(crate) fn whole(&self) -> Option<Vec<Bytes>> {
        match &self.inner {
            Inner::Chunks(chunks) => Some(chunks.iter().cloned().collect()),
            Inner::Stream(_) => None,
        }
    }

    /// The same body, which keeps something for as long as it is sent.
    pub(crate) fn with(self, kept: impl Send + 'static) -> Self {
        Self { _kept: Some(Box::new(kept)), ..self }
    }

    /// The chunks of a body that is known whole; a stream has none yet.
    pub(crate) fn into_chunks(self) -> VecDeque<Bytes> {
        match self.inner {
            Inner::Chunks(chunks) => chunks,
            Inner::Stream(_) => VecDeque::new(),
        }
    }

    pub(crate) fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Inner::Stream(stream.map(Ok).boxed()).into()
    }

    /// A stream that may break off.
    pub(crate) fn fallible<E>(stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self {
        Inner::Stream(stream.map(|chunk| chunk.map_err(|_| Broken)).boxed()).into()
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Self { inner, _kept: None }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::chunks([bytes])
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.inner {
            Inner::Chunks(chunks) => Poll::Ready(chunks.pop_front().map(|chunk| Ok(Frame::data(chunk)))),
            Inner::Stream(stream) => {
                stream.poll_next_unpin(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.inner, Inner::Chunks(chunks) if chunks.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Chunks(_) => SizeHint::with_exact(self.known_bytes().unwrap_or_default()),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

/// Reads a request's body.
///
/// # Errors
/// 413 when it is too large, 400 when the client broke off.
pub(crate) fn read(body: RequestBody) -> BoxFuture<'static, Result<Bytes, Status>> {
    let collected = Limited::new(body, BODY_LIMIT_BYTES).collect();
    Box::pin(collected.map(|collected| match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_LIMIT_BYTES)),
        Err(error) => Err(Status::bad_request(format!("unable to read the request body: {error}"))),
    }))
}

/// Joins many small pieces into few chunks, so that a long list is not sent object by object.
pub(crate) struct Joiner {
    chunks: Vec<Bytes>,
    current: BytesMut,
}

const CHUNK_BYTES: usize = 128 << 10;

impl Joiner {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), current: BytesMut::new() }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.current.len() + piece.len() > CHUNK_BYTES && !self.current.is_empty() {
            self.chunks.push(self.current.split().freeze());
        }
        if self.current.capacity() == 0 {
            self.current.reserve(piece.len().clamp(1 << 10, CHUNK_BYTES));
        }
        self.current.extend_from_slice(piece);
    }

    pub(crate) fn finish(mut self) -> Body {
        self.chunks.push(self.current.freeze());
        Body::chunks(self.chunks)
    }
}
