//! The port to the host: one virtio-serial port that is a byte stream without connections.
//!
//! While no host is connected, reading gives nothing and writing would block; a host that connects again continues in the
//! middle of what the last one left. So a conversation begins with a preface, and one that appears in the middle ends the
//! conversation before it.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use isopod_guest_api::preface::{Kind, Preface, Scanner};
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketFlags, SocketType, netlink},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::fd::Registered;

const NAME: &str = "isopod.agent";

/// A socket on which the kernel tells of devices that appear or change.
pub(crate) fn listen_for_devices() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

/// Opens the port, waiting for it to appear.
pub(crate) fn open(devices: &OwnedFd) -> io::Result<OwnedFd> {
    loop {
        if let Some(device) = find()? {
            return Ok(rustix::fs::open(
                format!("/dev/{device}"),
                OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
        }
        // What it says does not matter: something changed.
        let mut message = [0_u8; 4096];
        match rustix::net::recv(devices, &mut message[..], rustix::net::RecvFlags::empty()) {
            // Messages were lost: something changed as well.
            Ok(_) | Err(rustix::io::Errno::NOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn find() -> io::Result<Option<String>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == NAME) {
            return Ok(port.file_name().into_string().ok());
        }
    }
    Ok(None)
}

/// The port, watched through an epoll instance of its own: tokio's treats a hang-up as final, and here one comes with
/// every host that disconnects.
pub(crate) struct Port {
    port: OwnedFd,
    changes: Registered<OwnedFd>,
    /// Bytes behind a preface that was found in the middle of a read.
    pending: Vec<u8>,
    /// A preface that ended the conversation before it.
    next: Option<Preface>,
    scanner: Scanner,
}

impl Port {
    pub(crate) fn new(port: OwnedFd) -> io::Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&poller, &port, epoll::EventData::new_u64(0), flags)?;
        Ok(Self { port, changes: Registered::new(poller)?, pending: Vec::new(), next: None, scanner: Scanner::new() })
    }

    /// Waits for a host to begin a conversation; answers it.
    pub(crate) async fn accept(mut self) -> io::Result<Conversation> {
        let mut buffer = vec![0; 64 << 10];
        let preface = loop {
            if let Some(preface) = self.next.take() {
                break preface;
            }
            match std::future::poll_fn(|context| self.poll_bytes(context, &mut buffer)).await? {
                // No host is connected; without a wait this would be a busy loop.
                0 => std::future::poll_fn(|context| self.poll_change(context)).await?,
                length => self.scan(&buffer[..length]),
            }
        };
        let conversation = Conversation(Arc::new(Mutex::new(State { port: self, ended: false })));
        let reply = Preface::reply(preface.nonce).encode();
        tokio::io::AsyncWriteExt::write_all(&mut conversation.clone(), &reply).await?;
        Ok(conversation)
    }

    /// Bytes from the host; 0: no host is connected just now.
    fn poll_bytes(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match rustix::io::read(&self.port, &mut *buffer) {
                Ok(length) => return Poll::Ready(Ok(length)),
                Err(rustix::io::Errno::AGAIN) => ready!(self.poll_change(context))?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Ready when something about the port has changed since the last time.
    fn poll_change(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.changes.poll_read_ready(context))?;
            let mut events = Vec::with_capacity(4);
            let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            if epoll::wait(guard.get_inner().as_fd(), spare_capacity(&mut events), Some(&zero))? > 0 {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }

    /// Looks for a request in bytes that were read; the last one counts, what follows it is kept.
    fn scan(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(found) = self.scanner.feed(&bytes[at..]) {
            at += found.consumed;
            if found.preface.kind == Kind::Request {
                self.next = Some(found.preface);
                self.pending.clear();
                self.pending.extend_from_slice(&bytes[at..]);
                // Looked at again by `next`'s conversation, so the scanner must not be ahead of it.
                return;
            }
        }
    }
}

/// One conversation's stream. Ends when the host disconnects or begins anew.
#[derive(Clone)]
pub(crate) struct Conversation(Arc<Mutex<State>>);

struct State {
    port: Port,
    ended: bool,
}

impl Conversation {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port, for the next conversation. None while another handle on this one exists.
    pub(crate) fn into_port(self) -> Option<Port> {
        Arc::into_inner(self.0).map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner).port)
    }
}

impl AsyncRead for Conversation {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let space = buffer.initialize_unfilled();
        let length = if state.port.pending.is_empty() {
            ready!(state.port.poll_bytes(context, space))?
        } else {
            let length = space.len().min(state.port.pending.len());
            space[..length].copy_from_slice(&state.port.pending[..length]);
            state.port.pending.drain(..length);
            length
        };
        if length == 0 {
            state.ended = true;
            return Poll::Ready(Ok(()));
        }
        let behind = std::mem::take(&mut state.port.pending);
        state.port.scan(&buffer.initialize_unfilled()[..length]);
        if state.port.next.is_some() {
            // Whatever was still pending came after the preface that was just found.
            state.port.pending.extend(behind);
            state.ended = true;
            return Poll::Ready(Ok(()));
        }
        state.port.pending = behind;
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let state = self.lock();
        loop {
            if state.ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match rustix::io::write(&state.port.port, bytes) {
                Ok(length) => return Poll::Ready(Ok(length)),
                Err(rustix::io::Errno::AGAIN) => ready!(state.port.poll_change(context))?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().ended = true;
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Port").field("fd", &self.port.as_raw_fd()).finish_non_exhaustive()
    }
}
