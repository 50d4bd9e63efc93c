//! Kubernetes' protobuf encoding of objects, from and to JSON documents, by the table's field numbers (facts, section 1.6).
//!
//! One decoder and one encoder for all kinds. A whole object is a message in an envelope that names its type; lists and
//! watch events are put together around messages that are encoded already. Kinds without field numbers, such as custom
//! ones, have no messages and are never encoded.

mod decode;
mod encode;
mod frame;

pub use decode::decode;
pub use encode::{EncodeError, encode, message};
pub use frame::{envelope_ends, event_head, item_head, list_head, partial};

use crate::facts::TypeRef;

/// What every object begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages; JSON documents have a limit of the same order.
const DEPTH_MAX: usize = 64;

/// Bytes that are no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Something else was sent under protobuf's name.
    #[error("the body does not begin with the protobuf magic bytes k8s\\0")]
    Magic,
    /// The bytes end inside a field.
    #[error("a protobuf message is cut short")]
    Short,
    /// A number where a text is expected, or the like.
    #[error("protobuf field {field} has the wrong encoding")]
    Wire {
        /// JSON name of the field.
        field: String,
    },
    /// Deeper than any object is.
    #[error("protobuf messages are nested too deeply")]
    Depth,
    /// Text that is no UTF-8.
    #[error("the protobuf text of field {0} is no UTF-8")]
    Text(String),
    /// Embedded JSON that is none.
    #[error("the JSON inside protobuf field {0} does not parse")]
    Json(String),
    /// An embedded object of a kind that does not exist.
    #[error("no kind {kind:?} in version {api_version:?} is registered")]
    Kind {
        /// Its group and version.
        api_version: String,
        /// Its kind.
        kind: String,
    },
}

/// The list stands in a message of its own, as Go's named type for it has one.
fn is_wrapped(ty: TypeRef<'_>, field: &str) -> bool {
    field == "verbs" && ty.get().name.ends_with(".meta.v1.APIResource")
}

/// Whether objects of this type have messages. Types of custom kinds and of our own have none.
pub fn is_encodable(ty: TypeRef<'_>) -> bool {
    !ty.get().proto_order.is_empty()
}
