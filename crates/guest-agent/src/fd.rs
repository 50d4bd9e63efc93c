//! Pipes and terminals as asynchronous streams, and the one place that registers descriptors with the runtime.
#![expect(unsafe_code, reason = "registering a descriptor with the runtime is a promise about its lifetime")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::io::Errno;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A descriptor that the runtime watches and that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Registered<T: AsRawFd>(AsyncFd<T>);

impl<T: AsRawFd + AsFd> Registered<T> {
    pub(crate) fn new(inner: T) -> io::Result<Self> {
        // SAFETY: `inner` owns its descriptor, and nothing here replaces or closes it before `AsyncFd` is dropped.
        let registered = unsafe { AsyncFd::register(inner) };
        registered.map(Self).map_err(|error| error.into_parts().1)
    }

    pub(crate) fn poll_read_ready<'a>(
        &'a self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<AsyncFdReadyGuard<'a, T>>> {
        self.0.poll_read_ready(context)
    }

    /// Does something that reads, as often as it takes until it does not have to wait.
    pub(crate) async fn read_with<R>(&self, read: impl Fn(&T) -> rustix::io::Result<R>) -> io::Result<R> {
        loop {
            let mut guard = self.0.readable().await?;
            match read(guard.get_inner()) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Our end of a pipe or a terminal.
#[derive(Debug)]
pub(crate) struct Stream(Registered<OwnedFd>);

impl Stream {
    /// Takes a descriptor and makes it non-blocking. That is a property of the open file: ours, not the container's.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Registered::new(fd).map(Self)
    }

    /// Bytes; 0: the other end is closed.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.0.0.readable().await?;
            match rustix::io::read(guard.get_inner(), &mut *buffer) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                // A terminal whose other end nobody has open.
                Err(Errno::IO) => return Ok(0),
                result => return Ok(result?),
            }
        }
    }

    /// Writes all of it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.0.0.writable().await?;
            match rustix::io::write(guard.get_inner(), bytes) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                result => bytes = &bytes[result?..],
            }
        }
        Ok(())
    }

    /// Another descriptor of the same open file.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Self::new(self.get().try_clone()?)
    }

    pub(crate) fn get(&self) -> &OwnedFd {
        self.0.0.get_ref()
    }
}
