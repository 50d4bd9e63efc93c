//! What a container wrote, kept in a bounded ring and told to whoever listens. Offsets count bytes since the container
//! started and never go back; what was dropped to make room is a gap that a reader can see.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use isopod_guest_api::{LogChunk, LogStream, limit};
use tokio::sync::watch;

/// The output of one container.
#[derive(Debug)]
pub(crate) struct Log {
    ring: Mutex<Ring>,
    /// End of the output; closed when there will be no more.
    end: Mutex<Option<watch::Sender<u64>>>,
    changes: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<LogChunk>,
    bytes: usize,
    end: u64,
}

impl Ring {
    fn push(&mut self, stream: LogStream, unix_nanos: i64, data: Bytes) {
        let record = LogChunk { offset: self.end, stream: stream.into(), unix_nanos, data };
        self.bytes += record.data.len();
        self.end += record.data.len() as u64;
        self.records.push_back(record);
        while self.bytes > limit::LOG_RING_BYTES || self.records.len() > limit::LOG_RING_RECORDS {
            let Some(dropped) = self.records.pop_front() else { break };
            self.bytes -= dropped.data.len();
        }
    }

    /// The first record that has bytes at or after the offset, without what lies before it.
    fn at(&self, offset: u64) -> Option<LogChunk> {
        let position = self.records.partition_point(|record| record.offset + record.data.len() as u64 <= offset);
        let mut record = self.records.get(position)?.clone();
        if let Some(skip) = offset.checked_sub(record.offset).and_then(|skip| usize::try_from(skip).ok()) {
            record.data = record.data.slice(skip..);
            record.offset = offset;
        }
        Some(record)
    }
}

impl Default for Log {
    fn default() -> Self {
        let (sender, changes) = watch::channel(0);
        Self { ring: Mutex::default(), end: Mutex::new(Some(sender)), changes }
    }
}

impl Log {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the container wrote.
    pub(crate) fn push(&self, stream: LogStream, unix_nanos: i64, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let end = {
            let mut ring = self.ring();
            ring.push(stream, unix_nanos, data);
            ring.end
        };
        if let Some(sender) = &*self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            sender.send_replace(end);
        }
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        drop(self.end.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Bytes written so far.
    pub(crate) fn end(&self) -> u64 {
        self.ring().end
    }

    /// The chunk at an offset. None: there is none, and there will be none, or nobody wants to wait for it.
    pub(crate) async fn next(&self, offset: u64, follow: bool) -> Option<LogChunk> {
        let mut changes = self.changes.clone();
        loop {
            if let Some(record) = self.ring().at(offset) {
                return Some(record);
            }
            if !follow || changes.wait_for(|end| *end > offset).await.is_err() {
                // Closed; a last record may have come between the look and the wait.
                return self.ring().at(offset);
            }
        }
    }

    /// The last lines, for a termination message: at most so many lines and bytes, as text.
    pub(crate) fn tail(&self, lines: usize, bytes: usize) -> String {
        let ring = self.ring();
        let mut tail: Vec<u8> = Vec::new();
        for record in ring.records.iter().rev() {
            tail.splice(0..0, record.data.iter().copied());
            if tail.len() >= bytes {
                break;
            }
        }
        tail.drain(..tail.len().saturating_sub(bytes));
        let text = String::from_utf8_lossy(&tail).into_owned();
        let kept: Vec<&str> = text.lines().rev().take(lines).collect();
        kept.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(log: &Log, text: &'static str) {
        log.push(LogStream::Stdout, 1, Bytes::from_static(text.as_bytes()));
    }

    #[tokio::test]
    async fn chunks_are_cut_at_the_offset_and_end_with_the_log() {
        let log = Log::default();
        push(&log, "hello ");
        push(&log, "world");
        for (offset, expected) in [(0, Some((0, "hello "))), (3, Some((3, "lo "))), (6, Some((6, "world"))), (11, None)]
        {
            let chunk = log.next(offset, false).await;
            let found = chunk.as_ref().map(|chunk| (chunk.offset, std::str::from_utf8(&chunk.data).unwrap()));
            assert_eq!(found, expected, "{offset}");
        }
        log.close();
        assert_eq!(log.next(11, true).await, None);
        assert_eq!(log.next(9, true).await.unwrap().data, "ld");
        assert_eq!(log.tail(1, 100), "hello world");
        assert_eq!(log.tail(5, 3), "rld");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_a_gap() {
        let log = Log::default();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..6 {
            log.push(LogStream::Stderr, 1, piece.clone());
        }
        assert_eq!(log.next(0, false).await.unwrap().offset, 2 << 20);
        assert_eq!(log.end(), 6 << 20);
    }

    #[tokio::test]
    async fn a_follower_is_woken() {
        let log = std::sync::Arc::new(Log::default());
        let follower = tokio::spawn({
            let log = log.clone();
            async move { log.next(0, true).await }
        });
        tokio::task::yield_now().await;
        push(&log, "x");
        assert_eq!(follower.await.unwrap().unwrap().data, "x");
    }
}
