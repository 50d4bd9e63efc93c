//! QEMU's machine protocol: JSON lines over a socket, with file descriptors beside them (docs/interop/qmp-spec.txt).
//! One connection per machine, one task that reads; commands may be sent from anywhere. It knows no command by name.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::{broadcast, oneshot},
};

/// Longest answer in bytes.
const LINE_BYTES: u64 = 4 << 20;

/// Events kept for a subscriber that is slow.
const EVENTS: usize = 256;

/// How long a command may take. None of those used here waits for the guest.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A command to QEMU failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU is gone, or was never there.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] io::Error),
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {description}")]
    Refused {
        /// Command.
        command: String,
        /// QEMU's text.
        description: String,
    },
    /// No answer in time.
    #[error("QEMU did not answer {command} within {COMMAND_TIMEOUT:?}")]
    Timeout {
        /// Command.
        command: String,
    },
    /// QEMU ended the connection.
    #[error("QEMU ended the control connection during {command}")]
    Closed {
        /// Command.
        command: String,
    },
}

type Waiting = BTreeMap<u64, oneshot::Sender<Result<Value, String>>>;

/// A connection. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Qmp {
    writer: Arc<tokio::sync::Mutex<(OwnedWriteHalf, u64)>>,
    shared: Arc<Shared>,
}

/// What the reading task has; the writing half is not in it, because that keeps the connection open.
#[derive(Debug)]
struct Shared {
    /// None once the connection has ended.
    waiting: Mutex<Option<Waiting>>,
    events: broadcast::Sender<Value>,
}

impl Qmp {
    /// Takes a connected socket: reads the greeting, leaves negotiation mode.
    pub(crate) async fn open(stream: UnixStream) -> Result<Self, QmpError> {
        let (reader, writer) = stream.into_split();
        let (events, _) = broadcast::channel(EVENTS);
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(Waiting::new())), events });
        tokio::spawn(read(BufReader::new(reader), shared.clone()));
        let qmp = Self { writer: Arc::new(tokio::sync::Mutex::new((writer, 0))), shared };
        qmp.command("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Value> {
        self.shared.events.subscribe()
    }

    /// Sends a command, returns its answer.
    pub(crate) async fn command(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.send(command, arguments, None).await
    }

    /// Sends a command with a file descriptor beside it.
    pub(crate) async fn command_with_fd(
        &self,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, Some(fd)).await
    }

    async fn send(&self, command: &str, arguments: Value, fd: Option<BorrowedFd<'_>>) -> Result<Value, QmpError> {
        let closed = || QmpError::Closed { command: command.to_owned() };
        let (sender, receiver) = oneshot::channel();
        {
            let mut writer = self.writer.lock().await;
            writer.1 += 1;
            let id = writer.1;
            match &mut *self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(waiting) => waiting.insert(id, sender),
                None => return Err(closed()),
            };
            let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
            line.push('\n');
            write(writer.0.as_ref(), line.as_bytes(), fd).await?;
        }
        match tokio::time::timeout(COMMAND_TIMEOUT, receiver).await {
            Err(_) => Err(QmpError::Timeout { command: command.to_owned() }),
            Ok(Err(_)) => Err(closed()),
            Ok(Ok(Err(description))) => Err(QmpError::Refused { command: command.to_owned(), description }),
            Ok(Ok(Ok(answer))) => Ok(answer),
        }
    }
}

/// Writes all of it; the descriptor goes with the first byte.
async fn write(stream: &UnixStream, mut bytes: &[u8], mut fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = stream.async_io(Interest::WRITABLE, || send_once(stream, bytes, fd)).await?;
        bytes = &bytes[written..];
        fd = None;
    }
    Ok(())
}

fn send_once(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

async fn read(mut reader: BufReader<OwnedReadHalf>, shared: Arc<Shared>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(length) if length > 0 && line.ends_with(b"\n") => {}
            _ => break,
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(message) => deliver(message, &shared),
            Err(error) => {
                tracing::warn!(%error, "QEMU sent a line that is not JSON");
                break;
            }
        }
    }
    // Dropping the senders wakes everyone who waits for an answer.
    drop(shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
}

fn deliver(mut message: Value, shared: &Shared) {
    if message.get("event").is_some() {
        // No subscriber is no error.
        let _ = shared.events.send(message);
        return;
    }
    let Some(id) = message.get("id").and_then(Value::as_u64) else { return };
    let sender =
        shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|waiting| waiting.remove(&id));
    let answer = match message.get("error") {
        Some(error) => Err(error["desc"].as_str().unwrap_or("no description").to_owned()),
        None => Ok(message["return"].take()),
    };
    if let Some(sender) = sender {
        let _ = sender.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, BufReader};

    /// A QEMU that answers each command with the line that the table has for it.
    async fn fake(stream: UnixStream, answers: &'static [(&'static str, &'static str)]) {
        let (reader, mut writer) = stream.into_split();
        writer.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let request: Value = serde_json::from_str(&line).unwrap();
            let Some((_, answer)) = answers.iter().find(|(name, _)| request["execute"] == **name) else { return };
            let answer = answer.replace("ID", &request["id"].to_string());
            writer.write_all(answer.as_bytes()).await.unwrap();
            writer.write_all(b"\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn answers_events_refusals_and_the_end_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(fake(
            theirs,
            &[
                ("qmp_capabilities", r#"{"return": {}, "id": ID}"#),
                ("query", "{\"event\": \"STOP\"}\n{\"return\": 7, \"id\": ID}"),
                ("bad", r#"{"error": {"class": "GenericError", "desc": "no such thing"}, "id": ID}"#),
            ],
        ));
        let qmp = Qmp::open(ours).await.unwrap();
        let mut events = qmp.events();
        assert_eq!(qmp.command("query", json!({})).await.unwrap(), 7);
        assert_eq!(events.recv().await.unwrap()["event"], "STOP");
        let refused = qmp.command("bad", json!({})).await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused bad: no such thing");
        assert!(matches!(qmp.command("quit", json!({})).await, Err(QmpError::Closed { .. })));
        assert!(qmp.command("query", json!({})).await.is_err());
    }
}
