//! Container output on disk: as the guest sent it, with its offsets, so that nothing is lost or doubled by a restart of
//! the agent.
//!
//! A file is a sequence of records: offset (8 bytes), time (8), stream (1), length (4), bytes; integers little-endian. A
//! record cut off by a crash is ignored and written anew. Each run has two files at most, of [`FILE_BYTES_MAX`] each.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

/// Bytes of one file; the older of two goes when the newer is full.
const FILE_BYTES_MAX: u64 = 10 << 20;
/// Runs of a container whose output is kept.
const RUNS_KEPT: u32 = 2;
const HEADER_BYTES: usize = 21;
/// Longest record that is read back.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) unix_nanos: i64,
    pub(crate) stderr: bool,
    pub(crate) data: Bytes,
}

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Stay and send what comes.
    pub follow: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<usize>,
    /// Only what was written since.
    pub since: Option<Timestamp>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
    /// `Stdout`, `Stderr`, or both when none.
    pub stderr_only: Option<bool>,
}

/// The logs of one host.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    directory: PathBuf,
    /// How much was written, per run that is being written; closed when the run is over.
    live: Arc<Mutex<BTreeMap<PathBuf, watch::Sender<u64>>>>,
}

impl Logs {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, live: Arc::default() }
    }

    fn path(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.directory.join(uid).join(format!("{container}.{attempt}.log"))
    }

    /// Opens a run's log to append to; says where it ends.
    pub(crate) fn writer(&self, uid: &str, container: &str, attempt: u32) -> io::Result<(Writer, u64)> {
        let path = self.path(uid, container, attempt);
        fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
        if let Some(old) = attempt.checked_sub(RUNS_KEPT) {
            for path in [self.path(uid, container, old), older(&self.path(uid, container, old))] {
                if path.exists() {
                    fs::remove_file(path)?;
                }
            }
        }
        let (end, length) = scan(&path)?;
        let file = File::options().create(true).append(true).open(&path)?;
        file.set_len(length)?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = watch::Sender::new(end);
        live.insert(path.clone(), progress.clone());
        Ok((Writer { path, file, length, progress, live: self.live.clone() }, end))
    }

    /// Removes all logs of a pod.
    pub(crate) fn remove(&self, uid: &str) {
        let path = self.directory.join(uid);
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "logs cannot be removed");
        }
    }

    /// Sends a run's log as text, and what follows if that is wanted.
    pub(crate) async fn read(
        &self,
        uid: &str,
        container: &str,
        attempt: u32,
        options: LogOptions,
        to: mpsc::Sender<Result<Bytes, String>>,
    ) {
        let path = self.path(uid, container, attempt);
        let progress =
            self.live.lock().unwrap_or_else(PoisonError::into_inner).get(&path).map(watch::Sender::subscribe);
        let mut reader =
            Reader { path, options: options.clone(), formatter: Formatter::new(&options), sent: 0, next_offset: 0 };
        if reader.send_history(&to).await.is_none() || !options.follow {
            return;
        }
        let Some(mut progress) = progress else { return };
        loop {
            // An error means that the run is over: one more look, then the end.
            let over = progress.changed().await.is_err();
            if reader.send_new(&to).await.is_none() || over {
                return;
            }
        }
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("old")
}

/// Appends to a run's log.
pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
    progress: watch::Sender<u64>,
    live: Arc<Mutex<BTreeMap<PathBuf, watch::Sender<u64>>>>,
}

impl Writer {
    /// Appends one piece.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        if self.length > FILE_BYTES_MAX {
            fs::rename(&self.path, older(&self.path))?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.length = 0;
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + record.data.len());
        bytes.extend_from_slice(&record.offset.to_le_bytes());
        bytes.extend_from_slice(&record.unix_nanos.to_le_bytes());
        bytes.push(u8::from(record.stderr));
        bytes.extend_from_slice(&u32::try_from(record.data.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&record.data);
        self.file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        self.progress.send_replace(record.offset + record.data.len() as u64);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// Reads one record; none at the end or at a cut-off one.
fn read_record(from: &mut impl Read) -> Option<Record> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header).ok()?;
    let length = usize::try_from(u32::from_le_bytes(header[17..21].try_into().ok()?)).ok()?;
    if length > RECORD_BYTES_MAX {
        return None;
    }
    let mut data = vec![0; length];
    from.read_exact(&mut data).ok()?;
    Some(Record {
        offset: u64::from_le_bytes(header[..8].try_into().ok()?),
        unix_nanos: i64::from_le_bytes(header[8..16].try_into().ok()?),
        stderr: header[16] != 0,
        data: data.into(),
    })
}

/// The offset at which a log ends, and the length of its file without a cut-off record.
fn scan(path: &Path) -> io::Result<(u64, u64)> {
    let (mut end, mut length) = (0, 0);
    for path in [older(path), path.to_path_buf()] {
        let Ok(file) = File::open(&path) else { continue };
        length = 0;
        let mut reader = io::BufReader::new(file);
        while let Some(record) = read_record(&mut reader) {
            end = record.offset + record.data.len() as u64;
            length += (HEADER_BYTES + record.data.len()) as u64;
        }
    }
    if !path.exists() {
        length = 0;
    }
    Ok((end, length))
}

fn records(path: &Path, from_offset: u64) -> Vec<Record> {
    let mut found = Vec::new();
    for path in [older(path), path.to_path_buf()] {
        let Ok(file) = File::open(&path) else { continue };
        let mut reader = io::BufReader::new(file);
        while let Some(record) = read_record(&mut reader) {
            if record.offset >= from_offset {
                found.push(record);
            }
        }
    }
    found
}

/// Turns pieces into lines of text.
struct Formatter {
    timestamps: bool,
    since: Option<Timestamp>,
    stderr_only: Option<bool>,
    /// Whether the next byte of a stream begins a line.
    at_line_start: [bool; 2],
}

impl Formatter {
    fn new(options: &LogOptions) -> Self {
        let LogOptions { timestamps, since, stderr_only, .. } = options.clone();
        Self { timestamps, since, stderr_only, at_line_start: [true; 2] }
    }

    fn format(&mut self, record: &Record) -> Vec<u8> {
        let at = Timestamp::from_nanosecond(i128::from(record.unix_nanos)).unwrap_or_default();
        if self.since.is_some_and(|since| at < since) || self.stderr_only.is_some_and(|stderr| stderr != record.stderr)
        {
            return Vec::new();
        }
        if !self.timestamps {
            return record.data.to_vec();
        }
        let mut text = Vec::with_capacity(record.data.len() + 64);
        for line in record.data.split_inclusive(|byte| *byte == b'\n') {
            let start = &mut self.at_line_start[usize::from(record.stderr)];
            if *start {
                text.extend_from_slice(format!("{at:.9} ").as_bytes());
            }
            text.extend_from_slice(line);
            *start = line.ends_with(b"\n");
        }
        text
    }
}

struct Reader {
    path: PathBuf,
    options: LogOptions,
    formatter: Formatter,
    sent: u64,
    next_offset: u64,
}

impl Reader {
    /// What is there already, cut to the lines that are wanted.
    async fn send_history(&mut self, to: &mpsc::Sender<Result<Bytes, String>>) -> Option<()> {
        let mut text = self.take();
        if let Some(lines) = self.options.tail_lines {
            text = tail(&text, lines).to_vec();
        }
        self.send(text, to).await
    }

    async fn send_new(&mut self, to: &mpsc::Sender<Result<Bytes, String>>) -> Option<()> {
        let text = self.take();
        self.send(text, to).await
    }

    fn take(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for record in records(&self.path, self.next_offset) {
            self.next_offset = record.offset + record.data.len() as u64;
            text.extend(self.formatter.format(&record));
        }
        text
    }

    /// None: the reader left, or has all it wanted.
    async fn send(&mut self, mut text: Vec<u8>, to: &mpsc::Sender<Result<Bytes, String>>) -> Option<()> {
        if let Some(limit) = self.options.limit_bytes {
            text.truncate(usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX));
        }
        self.sent += text.len() as u64;
        if !text.is_empty() {
            to.send(Ok(text.into())).await.ok()?;
        }
        (self.options.limit_bytes.is_none_or(|limit| self.sent < limit)).then_some(())
    }
}

/// The last lines of a text; an unfinished line counts.
fn tail(text: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = breaks.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(name: &str) -> Logs {
        let directory = std::env::temp_dir().join(format!("isopod-logs-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&directory));
        Logs::new(directory)
    }

    fn record(offset: u64, text: &str) -> Record {
        Record {
            offset,
            unix_nanos: 1_000_000_000 * i64::try_from(offset).unwrap(),
            stderr: false,
            data: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    async fn text(logs: &Logs, options: LogOptions) -> String {
        let (to, mut from) = mpsc::channel(16);
        logs.read("u", "c", 0, options, to).await;
        let mut text = Vec::new();
        while let Some(Ok(piece)) = from.recv().await {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_read_back_as_asked() {
        let logs = logs("read");
        let (mut writer, end) = logs.writer("u", "c", 0).unwrap();
        assert_eq!(end, 0);
        for (offset, piece) in [(0, "one\ntw"), (6, "o\nthree\n")] {
            writer.append(&record(offset, piece)).unwrap();
        }
        assert_eq!(text(&logs, LogOptions::default()).await, "one\ntwo\nthree\n");
        for (lines, expected) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")] {
            assert_eq!(text(&logs, LogOptions { tail_lines: Some(lines), ..Default::default() }).await, expected);
        }
        assert_eq!(text(&logs, LogOptions { limit_bytes: Some(5), ..Default::default() }).await, "one\nt");
        let since = Some(Timestamp::from_second(3).unwrap());
        assert_eq!(text(&logs, LogOptions { since, ..Default::default() }).await, "o\nthree\n");
        let stamped = text(&logs, LogOptions { timestamps: true, ..Default::default() }).await;
        assert_eq!(stamped.lines().next().unwrap(), "1970-01-01T00:00:00.000000000Z one");
        assert_eq!(stamped.lines().count(), 3);
        fs::remove_dir_all(&logs.directory).unwrap();
    }

    #[tokio::test]
    async fn a_crash_loses_and_doubles_nothing() {
        let logs = logs("crash");
        let (mut writer, _) = logs.writer("u", "c", 0).unwrap();
        writer.append(&record(0, "whole\n")).unwrap();
        let path = writer.path.clone();
        drop(writer);
        File::options().append(true).open(&path).unwrap().write_all(&[1, 2, 3]).unwrap();
        let (mut writer, end) = logs.writer("u", "c", 0).unwrap();
        assert_eq!(end, 6);
        writer.append(&record(6, "next\n")).unwrap();
        assert_eq!(text(&logs, LogOptions::default()).await, "whole\nnext\n");
        fs::remove_dir_all(&logs.directory).unwrap();
    }

    #[tokio::test]
    async fn followers_see_what_comes_and_end_with_the_run() {
        let logs = logs("follow");
        let (mut writer, _) = logs.writer("u", "c", 0).unwrap();
        writer.append(&record(0, "a\n")).unwrap();
        let (to, mut from) = mpsc::channel(16);
        let reader = logs.clone();
        let task = tokio::spawn(async move {
            reader.read("u", "c", 0, LogOptions { follow: true, ..Default::default() }, to).await
        });
        assert_eq!(from.recv().await.unwrap().unwrap(), "a\n");
        writer.append(&record(2, "b\n")).unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), "b\n");
        drop(writer);
        assert!(from.recv().await.is_none());
        task.await.unwrap();
        fs::remove_dir_all(&logs.directory).unwrap();
    }

    #[test]
    fn only_the_newest_runs_are_kept() {
        let logs = logs("runs");
        for attempt in 0..4 {
            logs.writer("u", "c", attempt).unwrap().0.append(&record(0, "x")).unwrap();
        }
        assert_eq!(fs::read_dir(logs.directory.join("u")).unwrap().count(), 2);
        fs::remove_dir_all(&logs.directory).unwrap();
    }
}
