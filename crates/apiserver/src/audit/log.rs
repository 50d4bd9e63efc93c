//! The file that events go to: a thread of its own writes them in order, sets full files aside, and keeps only so many.
//! Who has something to write never waits; what does not fit into the queue is counted and dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::Audit;

/// Events that wait.
const QUEUE: usize = 16_384;
/// Bytes of all events that wait.
const QUEUE_BYTES: usize = 64 << 20;

/// The way to the file.
pub(super) struct Log {
    queue: SyncSender<Bytes>,
    waiting: Arc<AtomicUsize>,
    dropped: AtomicU64,
}

impl Log {
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(settings: &Audit) -> io::Result<Self> {
        if let Some(directory) = settings.log.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let (queue, events) = sync_channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let files = Files::open(settings)?;
        let left = Arc::clone(&waiting);
        std::thread::Builder::new().name("audit-log".into()).spawn(move || run(files, &events, &left))?;
        Ok(Self { queue, waiting, dropped: AtomicU64::new(0) })
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn push(&self, line: Bytes) {
        let bytes = line.len();
        let fits = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES;
        if fits && self.queue.try_send(line).is_ok() {
            return;
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("audit events are dropped: the disk does not keep up; see isopod_audit_dropped_total");
        }
    }
}

/// Ends when nobody can have anything to write any more, and everything is written.
fn run(mut files: Files, events: &Receiver<Bytes>, waiting: &AtomicUsize) {
    while let Ok(first) = events.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            if let Err(error) = files.write(&line) {
                tracing::error!(%error, path = %files.path.display(), "an audit event could not be written");
            }
            next = events.try_recv().ok();
        }
        if let Err(error) = files.file.flush() {
            tracing::error!(%error, path = %files.path.display(), "audit events could not be written");
        }
    }
}

struct Files {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    limit_bytes: u64,
    keep: usize,
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Files {
    fn open(settings: &Audit) -> io::Result<Self> {
        let file = append(&settings.log)?;
        let bytes = file.metadata()?.len();
        let (limit_bytes, keep) = (settings.file_bytes.max(1), settings.files);
        Ok(Self { path: settings.log.clone(), file: BufWriter::new(file), bytes, limit_bytes, keep })
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.limit_bytes {
            self.rotate()?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }

    /// The newest file set aside has number 1.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        for number in (1..self.keep).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.keep {
            0 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, self.aside(1))?,
        }
        self.file = BufWriter::new(append(&self.path)?);
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_set_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit/audit.log");
        let settings = Audit { file_bytes: 10, files: 2, ..Audit::new("", &path) };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut files = Files::open(&settings).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "a long line of its own\n", "end\n"] {
            files.write(line.as_bytes()).unwrap();
        }
        files.file.flush().unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join("audit").join(name)).ok();
        assert_eq!(read("audit.log").as_deref(), Some("end\n"));
        assert_eq!(read("audit.log.1").as_deref(), Some("a long line of its own\n"));
        assert_eq!(read("audit.log.2").as_deref(), Some("four\nfive\n"));
        assert_eq!(read("audit.log.3"), None);
        drop(files);
        assert_eq!(Files::open(&settings).unwrap().bytes, 4, "a file is gone on with");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (queue, _events) = sync_channel(2);
        let log = Log { queue, waiting: Arc::default(), dropped: AtomicU64::new(0) };
        for _ in 0..5 {
            log.push(Bytes::from_static(b"x"));
        }
        assert_eq!((log.dropped(), log.waiting.load(Ordering::Relaxed)), (3, 2));
        log.push(Bytes::from(vec![0; QUEUE_BYTES + 1]));
        assert_eq!(log.dropped(), 4);
    }
}
