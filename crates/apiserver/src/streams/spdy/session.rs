//! A SPDY/3.1 connection in the server's role: the peer opens streams, both sides write on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::{self, Frame, SEND_BYTES_MAX};
use super::headers::{Headers, Reader, Writer};

/// Streams open at once on one connection.
const STREAMS_MAX: usize = 1_024;
/// Pieces of data that wait on one stream before the connection is not read any further.
const RECEIVE_QUEUE: usize = 64;
/// Frames that wait to be written.
const SEND_QUEUE: usize = 64;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;

/// A stream that the peer opened.
pub(crate) struct Stream {
    pub(crate) headers: Headers,
    /// What the peer sends; closed when it has sent all.
    pub(crate) reader: mpsc::Receiver<Bytes>,
    pub(crate) writer: StreamWriter,
}

/// Our side of a stream. The stream ends with [`StreamWriter::finish`] or when this is dropped.
pub(crate) struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Frame>,
    open: Arc<AtomicUsize>,
    finished: bool,
}

/// The connection is gone.
#[derive(Debug)]
pub(crate) struct Closed;

impl StreamWriter {
    /// Sends bytes, waiting while the connection is slow.
    pub(crate) async fn send(&self, mut data: Bytes) -> Result<(), Closed> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(SEND_BYTES_MAX));
            let frame = Frame::Data { stream: self.id, fin: false, data: piece };
            self.frames.send(frame).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    pub(crate) async fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            // A connection that is gone needs no end mark.
            let _ = self.frames.send(Frame::Data { stream: self.id, fin: true, data: Bytes::new() }).await;
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if !self.finished {
            let _ = self.frames.try_send(Frame::Data { stream: self.id, fin: true, data: Bytes::new() });
        }
    }
}

/// A connection. Dropping it cuts it off; [`Session::close`] lets what was sent arrive first.
pub(crate) struct Session {
    incoming: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Frame>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Session {
    pub(crate) fn start(connection: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(connection);
        let (frames, outgoing) = mpsc::channel(SEND_QUEUE);
        let (opened, incoming) = mpsc::channel(16);
        let state = State {
            opened,
            frames: frames.clone(),
            streams: BTreeMap::new(),
            open: Arc::default(),
            headers: Reader::new(),
            replies: Writer::new().ok(),
        };
        let reader = tokio::spawn(state.read(read));
        let writer = tokio::spawn(write_frames(write, outgoing));
        Self { incoming, frames, reader, writer }
    }

    /// The next stream that the peer opens; `None` when the connection has ended.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Says goodbye, waits until everything is written, and closes. All streams must have been dropped or finished.
    pub(crate) async fn close(mut self) {
        let _ = self.frames.send(Frame::GoAway { last_stream: 0, status: 0 }).await;
        self.reader.abort();
        // The writer ends when the last sender is gone; this one is replaced so that it can be dropped.
        let (gone, _) = mpsc::channel(1);
        self.frames = gone;
        self.incoming.close();
        while self.incoming.try_recv().is_ok() {}
        let _ = (&mut self.writer).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

async fn write_frames(mut connection: impl AsyncWrite + Unpin, mut outgoing: mpsc::Receiver<Frame>) {
    let mut buffer = BytesMut::new();
    while let Some(first) = outgoing.recv().await {
        frame::encode(&first, &mut buffer);
        while buffer.len() < 2 * SEND_BYTES_MAX
            && let Ok(next) = outgoing.try_recv()
        {
            frame::encode(&next, &mut buffer);
        }
        if connection.write_all(&buffer).await.is_err() || connection.flush().await.is_err() {
            return;
        }
        buffer.clear();
    }
    let _ = connection.shutdown().await;
}

/// What the reading side knows.
struct State {
    opened: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
    streams: BTreeMap<u32, mpsc::Sender<Bytes>>,
    open: Arc<AtomicUsize>,
    headers: Reader,
    replies: Option<Writer>,
}

impl State {
    async fn read(mut self, mut connection: impl AsyncRead + Unpin) {
        let mut buffer = BytesMut::with_capacity(SEND_BYTES_MAX);
        loop {
            match frame::decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if self.handle(frame).await.is_none() {
                        return;
                    }
                }
                Ok(None) => {
                    buffer.reserve(SEND_BYTES_MAX);
                    if !matches!(connection.read_buf(&mut buffer).await, Ok(read) if read > 0) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a SPDY connection is broken off");
                    let _ = self.frames.send(Frame::GoAway { last_stream: 0, status: PROTOCOL_ERROR }).await;
                    return;
                }
            }
        }
    }

    /// `None` ends the connection.
    async fn handle(&mut self, frame: Frame) -> Option<()> {
        match frame {
            Frame::SynStream { stream, fin, block } => self.open(stream, fin, &block).await?,
            Frame::Data { stream, fin, data } => {
                if let Some(queue) = self.streams.get(&stream)
                    && !data.is_empty()
                {
                    // Nobody reads any more: the data is dropped, other streams go on.
                    let _ = queue.send(data).await;
                }
                if fin {
                    self.streams.remove(&stream);
                }
            }
            Frame::Headers { stream, fin, block } => {
                // Read for the sake of the shared compression context.
                self.headers.read(&block).ok()?;
                if fin {
                    self.streams.remove(&stream);
                }
            }
            Frame::SynReply { block, .. } => {
                self.headers.read(&block).ok()?;
            }
            Frame::Reset { stream, .. } => {
                self.streams.remove(&stream);
            }
            // Odd ids are the peer's own pings; even ones would be answers to ours, which we never send.
            Frame::Ping { id } if id % 2 == 1 => self.frames.send(Frame::Ping { id }).await.ok()?,
            Frame::GoAway { .. } | Frame::Ping { .. } | Frame::Ignored => {}
        }
        Some(())
    }

    async fn open(&mut self, id: u32, fin: bool, block: &[u8]) -> Option<()> {
        let headers = self.headers.read(block).ok()?;
        if self.open.load(Ordering::Acquire) >= STREAMS_MAX || self.streams.contains_key(&id) {
            return self.frames.send(Frame::Reset { stream: id, status: REFUSED_STREAM }).await.ok();
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        let block = self.replies.as_mut()?.write(&Headers::new()).ok()?;
        self.frames.send(Frame::SynReply { stream: id, fin: false, block }).await.ok()?;
        let (queue, reader) = mpsc::channel(RECEIVE_QUEUE);
        if !fin {
            self.streams.insert(id, queue);
        }
        let writer = StreamWriter { id, frames: self.frames.clone(), open: Arc::clone(&self.open), finished: false };
        self.opened.send(Stream { headers, reader, writer }).await.ok()
    }
}
