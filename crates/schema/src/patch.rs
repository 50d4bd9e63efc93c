//! JSON patch, merge patch and strategic merge patch on documents.
//!
//! A failed patch leaves the caller's document as it was. Never checks names or versions; the registry does.

use serde_json::Value;

use crate::table::Kind;

/// Most operations in one JSON patch.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// A patch that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch (400).
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// More than [`MAX_JSON_PATCH_OPERATIONS`] (413).
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// An operation failed on this document (422).
    #[error("{0}")]
    Failed(String),
    /// A strategic merge directive is wrong (400).
    #[error("{0}")]
    Directive(String),
}

/// RFC 6902. `patch` is the parsed request body.
///
/// # Errors
/// A malformed patch, or an operation that failed.
pub fn json_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (document, patch);
    todo!()
}

/// RFC 7386, in place.
pub fn merge_patch(document: &mut Value, patch: &Value) {
    let _ = (document, patch);
    todo!()
}

/// Kubernetes' strategic merge patch by the schema's strategies.
///
/// # Errors
/// Wrong directives, list items without their merge key.
pub fn strategic_merge(kind: &Kind, document: Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (kind, document, patch);
    todo!()
}
