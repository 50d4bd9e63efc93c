//! Faults on their way to the host.

use isopod_guest_api::{ErrorKind, GuestFault};
use prost::Message;
use tonic::{Code, Status};

/// Bytes of the text that also go into the status message, for logs; the whole text is in the details.
const STATUS_TEXT_BYTES: usize = 200;

/// What could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) GuestFault);

impl Fault {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(GuestFault::new(kind, message))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// A system call or file that failed.
    pub(crate) fn io(kind: ErrorKind, what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |error| Self::new(kind, format!("{what}: {error}"))
    }

    /// As `io`, for what a guest in order never fails to do.
    pub(crate) fn internal(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        Self::io(ErrorKind::Internal, what)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = match fault.0.kind() {
            ErrorKind::InvalidArgument => Code::InvalidArgument,
            ErrorKind::NoSuchContainer | ErrorKind::NoSuchVolume | ErrorKind::NoSuchImage => Code::NotFound,
            ErrorKind::AlreadyExists => Code::AlreadyExists,
            ErrorKind::LimitReached => Code::ResourceExhausted,
            ErrorKind::Internal | ErrorKind::Unspecified => Code::Internal,
            _ => Code::FailedPrecondition,
        };
        let text: String = fault.0.message.chars().take(STATUS_TEXT_BYTES / 4).collect();
        Self::with_details(code, text, fault.0.encode_to_vec().into())
    }
}
