//! Typed faults: what the guest could not do, as data. They travel in the details of a gRPC status.

/// What went wrong, as far as the host acts differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorKind {
    /// Not one of the others, or sent by a newer guest.
    Unspecified = 0,
    /// The program is not in the image: exit code 127 or 128, reason `StartError` or `ContainerCannotRun`.
    CommandNotFound = 1,
    /// The program may not be executed, exit code 126.
    PermissionDenied = 2,
    /// The user or group is not in the image's `/etc/passwd` or `/etc/group`.
    NoSuchUser = 3,
    /// A volume, image or pseudo file system could not be mounted.
    MountFailed = 4,
    /// The disk slot holds no disk that the guest can read.
    NoSuchImage = 5,
    /// No container of that id.
    NoSuchContainer = 6,
    /// A container of that id exists, or the pod is configured differently already.
    AlreadyExists = 7,
    /// `ConfigurePod` was not called yet.
    NotConfigured = 8,
    /// A field of the request is missing or out of range; the text names it.
    InvalidArgument = 9,
    /// Address, route or interface could not be set.
    NetworkFailed = 10,
    /// The container is not running.
    NotRunning = 11,
    /// A limit of `limit` was reached.
    LimitReached = 12,
    /// No volume of that name.
    NoSuchVolume = 13,
    /// The working directory cannot be entered.
    WorkingDirectory = 14,
    /// Nothing listens on the port.
    ConnectionRefused = 15,
    /// The guest itself failed; the text says where.
    Internal = 16,
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct GuestFault {
    /// An `ErrorKind`.
    #[prost(enumeration = "ErrorKind", tag = "1")]
    pub kind: i32,
    /// What failed and on what, at most `limit::FAULT_BYTES`.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl GuestFault {
    /// A fault of this kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        truncate(&mut message, crate::limit::FAULT_BYTES);
        Self { kind: kind.into(), message }
    }
}

/// Cuts at a character boundary at or below `bytes`.
fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        for (text, expected) in [("abc", 3), ("äbc", 3), ("aäc", 1)] {
            let mut cut = text.to_owned();
            truncate(&mut cut, if expected == 3 { 3 } else { 2 });
            assert_eq!(cut.len(), expected, "{text}");
        }
    }
}
