//! A guest's console: what its agent says when it cannot say it any other way. A pipe that holds the first 64 KiB and takes no
//! more until someone reads: a guest can neither fill the host with it nor wait on it.

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::directory::tail;

/// Bytes that are kept for messages: the last so many.
const KEPT_BYTES: usize = 4096;

/// Our end of a console.
#[derive(Debug)]
pub(crate) struct Console(Mutex<(std::fs::File, Vec<u8>)>);

impl Console {
    /// A console, and the end that the machine writes to.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Self(Mutex::new((reader.into(), Vec::new()))), writer))
    }

    /// The last of what was said so far.
    pub(crate) fn text(&self) -> String {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pipe, kept) = &mut *state;
        let mut buffer = [0; 4096];
        // An error is an empty pipe, or one that will never say more.
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..length]);
            kept.drain(..kept.len().saturating_sub(KEPT_BYTES));
        }
        tail(kept, KEPT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_bounded_and_read_without_waiting() {
        let (console, writer) = Console::new().unwrap();
        assert_eq!(console.text(), "");
        rustix::io::write(&writer, b"first\n").unwrap();
        assert_eq!(console.text(), "first");
        while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
        assert_eq!(console.text().len(), KEPT_BYTES);
        drop(writer);
        assert_eq!(console.text().len(), KEPT_BYTES);
    }
}
