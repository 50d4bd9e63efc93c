//! Objects in a form that is not the stored one: in protobuf, or in JSON of a kind that is converted. Encoded when somebody
//! first wants them so, then shared by every get, list and watch. What is kept is bounded; the oldest goes first and is made
//! again when it is wanted again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use isopod_schema::{Kind, Status, protobuf};
use isopod_store::Entry;

use crate::codec::{self, Derived, Slot};
use crate::convert;
use crate::server::ApiServer;

/// So many objects of a list that nobody has encoded yet are encoded on threads that others do not wait for.
const MANY: usize = 256;

/// The encodings that are kept, oldest first.
pub(crate) struct Encoded {
    kept: Mutex<Kept>,
    limit_bytes: usize,
}

#[derive(Default)]
struct Kept {
    order: VecDeque<(Weak<Derived>, Forget, usize)>,
    bytes: usize,
}

/// Where an encoding is kept.
type Which = fn(&Derived) -> &Slot;
/// Gives up what is kept.
type Forget = fn(&Derived);

impl Encoded {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { kept: Mutex::default(), limit_bytes }
    }

    /// The message of an entry in protobuf as this kind shows it, without an envelope.
    ///
    /// # Errors
    /// 500 when the store holds something that is not an object of the kind.
    pub(crate) fn message(&self, kind: &Arc<Kind>, entry: &Entry) -> Result<Bytes, Status> {
        self.shared(kind, entry, (|derived| &derived.message, forget_message), || message_of(kind, &entry.value))
    }

    /// The bytes of an entry in JSON as this kind shows it; most kinds show what is stored.
    ///
    /// # Errors
    /// 500 when the store holds something that does not parse.
    pub(crate) fn json(&self, kind: &Arc<Kind>, entry: &Entry) -> Result<Bytes, Status> {
        if !convert::is_needed(kind) {
            return Ok(entry.value.clone());
        }
        self.shared(kind, entry, (|derived| &derived.served, forget_served), || {
            let object = convert::from_stored(kind, codec::decode(&entry.value)?);
            let made = serde_json::to_vec(&object).map_err(Status::internal)?;
            Ok(if made == *entry.value { entry.value.clone() } else { Bytes::from(made) })
        })
    }

    fn shared(
        &self,
        kind: &Arc<Kind>,
        entry: &Entry,
        (which, forget): (Which, Forget),
        make: impl FnOnce() -> Result<Bytes, Status>,
    ) -> Result<Bytes, Status> {
        let derived = codec::derived(entry);
        let made = {
            // Others who want it wait here instead of making it as well.
            let mut known = which(&derived).lock().unwrap_or_else(PoisonError::into_inner);
            match &*known {
                Some((of, bytes)) if Arc::ptr_eq(of, kind) => return Ok(bytes.clone()),
                _ => {
                    let bytes = make()?;
                    *known = Some((Arc::clone(kind), bytes.clone()));
                    bytes
                }
            }
        };
        // The stored bytes themselves cost nothing more.
        if made.as_ptr() != entry.value.as_ptr() {
            self.keep(&derived, forget, made.len());
        }
        Ok(made)
    }

    /// Remembers that so many bytes are kept, and gives up the oldest when they are too many.
    pub(crate) fn keep(&self, derived: &Arc<Derived>, forget: Forget, bytes: usize) {
        let mut dropped = Vec::new();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.order.push_back((Arc::downgrade(derived), forget, bytes));
        while kept.bytes > self.limit_bytes
            && let Some((oldest, forget, bytes)) = kept.order.pop_front()
        {
            kept.bytes -= bytes;
            dropped.push((oldest, forget));
        }
        drop(kept);
        for (derived, forget) in dropped {
            if let Some(derived) = derived.upgrade() {
                forget(&derived);
            }
        }
    }
}

/// The messages of many entries, as [`Encoded::message`]. Many that are not encoded yet are encoded by all processors at once.
///
/// # Errors
/// As [`Encoded::message`].
pub(crate) async fn messages(
    server: &Arc<ApiServer>,
    kind: &Arc<Kind>,
    entries: &[Arc<Entry>],
) -> Result<Vec<Bytes>, Status> {
    let is_new = |entry: &&Arc<Entry>| {
        let derived = codec::derived(entry);
        let known = derived.message.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, kind))
    };
    if entries.iter().filter(is_new).take(MANY).count() < MANY {
        return entries.iter().map(|entry| server.encoded.message(kind, entry)).collect();
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = entries.chunks(entries.len().div_ceil(processors)).map(|part| {
        let (server, kind, part) = (Arc::clone(server), Arc::clone(kind), part.to_vec());
        tokio::task::spawn_blocking(move || -> Result<Vec<Bytes>, Status> {
            part.iter().map(|entry| server.encoded.message(&kind, entry)).collect()
        })
    });
    let mut messages = Vec::with_capacity(entries.len());
    for part in parts.collect::<Vec<_>>() {
        messages.extend(part.await.map_err(Status::internal)??);
    }
    Ok(messages)
}

fn forget_message(derived: &Derived) {
    derived.message.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn forget_served(derived: &Derived) {
    derived.served.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        // In JSON the kind shows what is stored; another would share the same bound.
        assert_eq!(encoded.json(kind, &entries[1]).unwrap().as_ptr(), entries[1].value.as_ptr());
        let other = Table::builtin().resource("events.k8s.io", "v1", "events").unwrap();
        let shown = encoded.json(other, &entries[1]).unwrap();
        assert_eq!(encoded.json(other, &entries[1]).unwrap().as_ptr(), shown.as_ptr());
        assert_eq!(codec::decode(&shown).unwrap()["apiVersion"], "events.k8s.io/v1");
        assert!(encoded.kept.lock().unwrap().bytes <= 2_500);
    }
}
