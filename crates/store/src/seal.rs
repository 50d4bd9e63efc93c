//! Sealing: what the disk holds of chosen keys is not what the index holds. The store knows when to seal and when to open;
//! how, its caller brings along.

use std::fmt;
use std::sync::Arc;

/// Makes values unreadable on their way to the disk, and readable on their way back.
pub trait Sealer: Send + Sync {
    /// Appends the sealed form of a value to `sealed`; false, with nothing appended, when values of this key stay as they are.
    /// `revision` and `key` belong to the value for good and may be bound into the seal.
    fn seal(&self, key: &str, revision: u64, value: &[u8], sealed: &mut Vec<u8>) -> bool;

    /// The value, and whether it was sealed as it would be now. None: no key opens it, or it was tampered with.
    fn open(&self, key: &str, revision: u64, sealed: &[u8]) -> Option<(Vec<u8>, bool)>;

    /// Whether values of this key are to be sealed.
    fn wants(&self, key: &str) -> bool;
}

/// A sealer, or none.
#[derive(Clone, Default)]
pub(crate) struct Seals(pub(crate) Option<Arc<dyn Sealer>>);

impl fmt::Debug for Seals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Seals(some)" } else { "Seals(none)" })
    }
}

impl Seals {
    pub(crate) fn seal(&self, key: &str, revision: u64, value: &[u8], sealed: &mut Vec<u8>) -> bool {
        self.0.as_ref().is_some_and(|sealer| sealer.seal(key, revision, value, sealed))
    }

    /// A stored value made readable, and whether its record is as it would be written now.
    pub(crate) fn open(
        &self,
        key: &str,
        revision: u64,
        stored: &[u8],
        is_sealed: bool,
    ) -> Result<(Vec<u8>, bool), &'static str> {
        match &self.0 {
            None if is_sealed => Err("it is sealed and no key was given"),
            None => Ok((stored.to_vec(), true)),
            Some(sealer) if !is_sealed => Ok((stored.to_vec(), !sealer.wants(key))),
            Some(sealer) => {
                let (value, current) = sealer.open(key, revision, stored).ok_or("no key opens its seal")?;
                Ok((value, current && sealer.wants(key)))
            }
        }
    }
}
