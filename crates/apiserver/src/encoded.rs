//! Objects in protobuf: encoded when somebody first wants them so, then shared by every get, list and watch. What is kept is
//! bounded; the oldest goes first and is made again when it is wanted again. JSON needs none of this: it is what is stored.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use isopod_schema::{Kind, Status, protobuf};
use isopod_store::Entry;

use crate::codec::{self, Derived};
use crate::convert;

/// The messages that are kept, oldest first.
pub(crate) struct Encoded {
    kept: Mutex<Kept>,
    limit_bytes: usize,
}

#[derive(Default)]
struct Kept {
    order: VecDeque<(Weak<Derived>, usize)>,
    bytes: usize,
}

impl Encoded {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { kept: Mutex::default(), limit_bytes }
    }

    /// The message of an entry as this kind shows it, without an envelope.
    ///
    /// # Errors
    /// 500 when the store holds something that is not an object of the kind.
    pub(crate) fn message(&self, kind: &Arc<Kind>, entry: &Entry) -> Result<Bytes, Status> {
        let derived = codec::derived(entry);
        let made = {
            // Others who want it wait here instead of making it as well.
            let mut known = derived.message.lock().unwrap_or_else(PoisonError::into_inner);
            match &*known {
                Some((of, bytes)) if Arc::ptr_eq(of, kind) => return Ok(bytes.clone()),
                _ => {
                    let bytes = message_of(kind, &entry.value)?;
                    *known = Some((Arc::clone(kind), bytes.clone()));
                    bytes
                }
            }
        };
        self.keep(&derived, made.len());
        Ok(made)
    }

    fn keep(&self, derived: &Arc<Derived>, bytes: usize) {
        let mut dropped = Vec::new();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.order.push_back((Arc::downgrade(derived), bytes));
        while kept.bytes > self.limit_bytes
            && let Some((oldest, bytes)) = kept.order.pop_front()
        {
            kept.bytes -= bytes;
            dropped.push(oldest);
        }
        drop(kept);
        for derived in dropped.iter().filter_map(Weak::upgrade) {
            derived.message.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// The message of stored bytes that no entry holds any more, or not yet.
///
/// # Errors
/// As [`Encoded::message`].
pub(crate) fn message_of(kind: &Kind, stored: &[u8]) -> Result<Bytes, Status> {
    let object = convert::from_stored(kind, codec::decode(stored)?);
    protobuf::message(kind.root(), &object).map(Bytes::from).map_err(Status::internal)
}

/// A message in the envelope of its kind.
pub(crate) fn whole(kind: &Kind, message: Bytes) -> [Bytes; 3] {
    let (head, end) = protobuf::envelope_ends(&kind.api_version(), &kind.kind, message.len());
    [Bytes::from(head), message, Bytes::from_static(end)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_schema::Table;
    use isopod_store::{Expect, Limits, Outcome, Store, Write};
    use serde_json::json;

    #[tokio::test]
    async fn messages_are_shared_and_bounded() {
        let kind = Table::builtin().resource("", "v1", "configmaps").unwrap();
        let store = Store::memory(Limits::default());
        let mut entries = Vec::new();
        for name in ["a", "b", "c"] {
            let object = json!({"metadata": {"name": name}, "data": {"k": "v".repeat(1_000)}});
            let write = Write::put(codec::key(kind, "default", name), Expect::Any, codec::encode(&object));
            let Outcome::Committed(entry) = store.commit(write).await.unwrap() else { panic!("the put lost") };
            entries.push(entry);
        }
        let encoded = Encoded::new(2_500);
        let first = encoded.message(kind, &entries[0]).unwrap();
        assert_eq!(encoded.message(kind, &entries[0]).unwrap().as_ptr(), first.as_ptr());
        for entry in &entries {
            encoded.message(kind, entry).unwrap();
        }
        let is_kept = |entry: &Entry| codec::derived(entry).message.lock().unwrap().is_some();
        assert_eq!(entries.iter().map(|entry| is_kept(entry)).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(encoded.message(kind, &entries[0]).unwrap(), first);
        assert!(encoded.kept.lock().unwrap().bytes <= 2_500);
    }
}
