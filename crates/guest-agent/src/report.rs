//! What a new process says on its way to `exec`, over a socket that closes when it gets there: its terminal, that it is about
//! to execute its program, or a fault.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use isopod_guest_api::GuestFault;
use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::fault::Fault;

/// Longest report in bytes.
const REPORT_BYTES: usize = 8 << 10;

const TERMINAL: u8 = b'T';
const EXECUTING: u8 = b'E';
const FAULT: u8 = b'F';

/// One report.
#[derive(Debug)]
pub(crate) enum Report {
    /// The terminal's other side.
    Terminal(OwnedFd),
    /// The next thing is `exec`; the end of the reports after this means that it happened.
    Executing,
    /// It failed.
    Fault(Fault),
}

/// The agent's end and the process's.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one. If nobody listens any more, nobody can be told.
pub(crate) fn send(to: BorrowedFd<'_>, report: &Report) {
    let (bytes, fd) = match report {
        Report::Terminal(fd) => (vec![TERMINAL], Some(fd.as_fd())),
        Report::Executing => (vec![EXECUTING], None),
        Report::Fault(fault) => ([&[FAULT], &fault.0.encode_to_vec()[..]].concat(), None),
    };
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let _ = sendmsg(to, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
}

/// Receives one; none: there will be no more.
pub(crate) fn receive(from: BorrowedFd<'_>) -> rustix::io::Result<Option<Report>> {
    let mut bytes = [0; REPORT_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(match (&bytes[..received.bytes], fd) {
        ([], _) => None,
        ([TERMINAL], Some(fd)) => Some(Report::Terminal(fd)),
        ([EXECUTING], _) => Some(Report::Executing),
        ([FAULT, fault @ ..], _) => {
            let fault = GuestFault::decode(fault).map_err(|_| rustix::io::Errno::BADMSG)?;
            Some(Report::Fault(Fault(fault)))
        }
        _ => return Err(rustix::io::Errno::BADMSG),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_guest_api::ErrorKind;

    #[test]
    fn reports_arrive_in_order_and_end() {
        let (ours, theirs) = pair().unwrap();
        let fault = Fault::new(ErrorKind::CommandNotFound, "x");
        send(theirs.as_fd(), &Report::Terminal(theirs.try_clone().unwrap()));
        send(theirs.as_fd(), &Report::Executing);
        send(theirs.as_fd(), &Report::Fault(fault.clone()));
        rustix::net::send(&theirs, b"nonsense", SendFlags::empty()).unwrap();
        drop(theirs);
        assert!(matches!(receive(ours.as_fd()), Ok(Some(Report::Terminal(_)))));
        assert!(matches!(receive(ours.as_fd()), Ok(Some(Report::Executing))));
        assert!(matches!(receive(ours.as_fd()), Ok(Some(Report::Fault(received))) if received == fault));
        assert!(receive(ours.as_fd()).is_err());
        assert!(matches!(receive(ours.as_fd()), Ok(None)));
    }
}
