//! What stands around messages: envelopes, lists, watch events. The messages themselves are never copied here, so that one
//! encoding serves every list and every watcher.

use serde_json::Value;

use super::MAGIC;
use super::encode::{EncodeError, bytes, message, varint};
use crate::facts::TypeRef;
use crate::table::Table;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// The envelope's content encoding and content type, which are empty.
const ENVELOPE_END: &[u8] = &[0x1a, 0, 0x22, 0];
/// Key of field 2 with a length.
const SECOND: u8 = 0x12;
/// Key of field 1 with a length.
const FIRST: u8 = 0x0a;

fn meta_type(name: &str) -> TypeRef<'static> {
    Table::builtin().types().named(&format!("{META}{name}")).expect("the committed facts have the types of metadata")
}

/// What an object has before and after its message of so many bytes.
pub fn envelope_ends(api_version: &str, kind: &str, message_bytes: usize) -> (Vec<u8>, &'static [u8]) {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    let mut head = Vec::with_capacity(type_meta.len() + 16);
    head.extend_from_slice(MAGIC);
    bytes(&mut head, 1, &type_meta);
    head.push(SECOND);
    varint(&mut head, message_bytes as u64);
    (head, ENVELOPE_END)
}

pub(super) fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let (mut whole, end) = envelope_ends(api_version, kind, message.len());
    whole.extend_from_slice(message);
    whole.extend_from_slice(end);
    whole
}

/// The beginning of a list's message: its metadata. Items follow, each after its [`item_head`].
///
/// # Errors
/// [`EncodeError`] when `metadata` is not the metadata of a list.
pub fn list_head(metadata: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut head = Vec::new();
    bytes(&mut head, 1, &message(meta_type("ListMeta"), metadata)?);
    Ok(head)
}

/// What stands before an item of so many bytes in a list's message.
pub fn item_head(message_bytes: usize) -> Vec<u8> {
    let mut head = vec![SECOND];
    varint(&mut head, message_bytes as u64);
    head
}

/// What stands before a whole object of so many bytes in a watch: the frame's length and the event's type.
pub fn event_head(event: &str, object_bytes: usize) -> Vec<u8> {
    let mut raw = vec![FIRST];
    varint(&mut raw, object_bytes as u64);
    let mut body = Vec::new();
    bytes(&mut body, 1, event.as_bytes());
    body.push(SECOND);
    varint(&mut body, (raw.len() + object_bytes) as u64);
    body.extend_from_slice(&raw);
    // Objects are limited to a few megabytes.
    let frame_bytes = u32::try_from(body.len() + object_bytes).unwrap_or(u32::MAX);
    [&frame_bytes.to_be_bytes(), body.as_slice()].concat()
}

/// The message of a `PartialObjectMetadata` of an object.
///
/// # Errors
/// [`EncodeError`] when the object has no metadata of an object.
pub fn partial(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    bytes(&mut out, 1, &message(meta_type("ObjectMeta"), &object["metadata"])?);
    Ok(out)
}
