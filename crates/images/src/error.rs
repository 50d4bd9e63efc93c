//! What can go wrong with an image.

use std::path::PathBuf;

/// Of what kind a trouble is; decides what the pod's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The reference is not one.
    InvalidName,
    /// The registry has no such image.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry cannot be reached.
    Unreachable,
    /// The image is not on this host and may not be pulled.
    NeverPull,
    /// The image or archive is broken or hostile.
    Invalid,
    /// The image passes a limit.
    TooLarge,
    /// This machine could not store it.
    Local,
}

/// A trouble with an image: what kind, and a sentence for the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// Its kind.
    pub kind: Kind,
    /// What failed, where, why.
    pub message: String,
}

impl ImageError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(Kind::TooLarge, message)
    }

    pub(crate) fn local(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::new(Kind::Local, format!("{}: {error} (hint: is the disk full or read-only?)", path.into().display()))
    }
}
