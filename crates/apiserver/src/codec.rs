//! Objects as stored bytes: JSON with the resourceVersion at a known place, so that it can be written by the store's
//! writer and replaced without parsing. Also the layout of keys.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::{Bytes, BytesMut};
use isopod_schema::{Kind, Status};
use isopod_store::{Entry, Value as Stored};
use serde_json::Value;

use crate::addresses::Claims;
use crate::node_rights::References;
use crate::rbac::Policy;
use crate::selection::Facts;

const STAMP: &[u8] = br#""metadata":{"resourceVersion":""#;

/// Encodes an object for the store: `apiVersion`, `kind`, then `metadata` that begins with the resourceVersion, which
/// the writer fills in.
pub(crate) fn encode(object: &Value) -> Stored {
    let mut text = Vec::with_capacity(512);
    text.push(b'{');
    for name in ["apiVersion", "kind"] {
        if let Some(value) = object.get(name) {
            push_field(&mut text, name, value);
            text.push(b',');
        }
    }
    text.extend_from_slice(STAMP);
    let stamp_at = text.len();
    text.push(b'"');
    for (name, value) in object["metadata"].as_object().into_iter().flatten() {
        if name != "resourceVersion" {
            text.push(b',');
            push_field(&mut text, name, value);
        }
    }
    text.push(b'}');
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            text.push(b',');
            push_field(&mut text, name, value);
        }
    }
    text.push(b'}');
    Stored::stamped(text, stamp_at)
}

fn push_field(text: &mut Vec<u8>, name: &str, value: &Value) {
    const WHY: &str = "writing a document into memory cannot fail";
    serde_json::to_writer(&mut *text, name).expect(WHY);
    text.push(b':');
    serde_json::to_writer(text, value).expect(WHY);
}

/// The same object with another resourceVersion; `bytes` are as [`encode`] made them.
pub(crate) fn restamp(bytes: &Bytes, revision: u64) -> Bytes {
    let Some(start) = find(bytes, STAMP).map(|at| at + STAMP.len()) else { return bytes.clone() };
    let Some(length) = bytes[start..].iter().position(|byte| *byte == b'"') else { return bytes.clone() };
    let digits = revision.to_string();
    let mut stamped = BytesMut::with_capacity(bytes.len() + digits.len());
    stamped.extend_from_slice(&bytes[..start]);
    stamped.extend_from_slice(digits.as_bytes());
    stamped.extend_from_slice(&bytes[start + length..]);
    stamped.freeze()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// Parses stored bytes.
///
/// # Errors
/// 500: the store holds something that this program did not write.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|error| Status::internal(format!("a stored object does not parse: {error}")))
}

/// `PLURAL[.GROUP]/[NAMESPACE/]NAME`.
pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix(kind, namespace))
}

/// Where the objects of a kind are; in one namespace, or with an empty `namespace` in all.
pub(crate) fn prefix(kind: &Kind, namespace: &str) -> String {
    match (kind.namespaced, namespace) {
        (true, namespace) if !namespace.is_empty() => format!("{}/{namespace}/", kind.resource_text()),
        _ => format!("{}/", kind.resource_text()),
    }
}

/// An encoding of an entry, as the kind that was asked for last shows it.
pub(crate) type Slot = Mutex<Option<(Arc<Kind>, Bytes)>>;

/// What is computed from an entry once and kept with it.
#[derive(Default)]
pub(crate) struct Derived {
    pub(crate) facts: OnceLock<Facts>,
    pub(crate) policy: OnceLock<Policy>,
    /// Of a Service: its addresses and node ports.
    pub(crate) claims: OnceLock<Arc<Claims>>,
    /// Of a namespace: it is going away.
    pub(crate) terminating: OnceLock<bool>,
    /// The whole object, of kinds that admission looks at.
    object: OnceLock<Option<Arc<Value>>>,
    /// In JSON, where that is not what is stored.
    pub(crate) served: Slot,
    /// In protobuf.
    pub(crate) message: Slot,
    /// Of a pod: what it refers to.
    pub(crate) references: OnceLock<Arc<References>>,
    /// As a webhook converted it for a kind.
    pub(crate) shown: Mutex<Option<(Arc<Kind>, Arc<Entry>)>>,
}

pub(crate) fn derived(entry: &Entry) -> Arc<Derived> {
    entry.memo(|_| Derived::default()).expect("nothing else keeps memos in this store")
}

/// The object of an entry, parsed once and kept: for the few objects that are looked at again and again. None for one
/// that does not parse, which is logged.
pub(crate) fn object(entry: &Entry) -> Option<Arc<Value>> {
    let parse = || {
        let parsed = decode(&entry.value).map_err(|error| tracing::error!(key = %entry.key, %error, "unreadable"));
        parsed.ok().map(Arc::new)
    };
    derived(entry).object.get_or_init(parse).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_store::{Expect, Limits, Outcome, Store, Write};
    use serde_json::json;

    #[tokio::test]
    async fn the_resource_version_is_stamped_and_replaced() {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "data": {"metadata": "\"metadata\":{\"resourceVersion\":\"1\"", "é\"": "\n"},
            "metadata": {"name": "x", "resourceVersion": "old"},
        });
        let store = Store::memory(Limits::default());
        let outcome = store.commit(Write::put("a/x", Expect::Any, encode(&object))).await.unwrap();
        let Outcome::Committed(entry) = outcome else { panic!("the put lost") };
        let mut expected = object.clone();
        for (bytes, version) in [(entry.value.clone(), "1"), (restamp(&entry.value, 12_345), "12345")] {
            expected["metadata"]["resourceVersion"] = version.into();
            assert_eq!(decode(&bytes).unwrap(), expected);
        }
    }
}
