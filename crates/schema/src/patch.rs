//! JSON patch, merge patch and strategic merge patch on documents.
//!
//! A failed patch leaves the caller's document as it was. Never checks names or versions; the registry does.

mod order;
mod strategic;

use serde_json::{Map, Value};

use crate::status::{Reason, Status};
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

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        let reason = match error {
            PatchError::Malformed(_) | PatchError::Directive(_) => Reason::BadRequest,
            PatchError::TooManyOperations(_) => Reason::RequestEntityTooLarge,
            PatchError::Failed(_) => Reason::Invalid,
        };
        Self::new(reason, error.to_string())
    }
}

/// RFC 6902. `patch` is the parsed request body.
///
/// # Errors
/// A malformed patch, or an operation that failed.
pub fn json_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations =
        patch.as_array().ok_or_else(|| PatchError::Malformed("a JSON patch is a list of operations".into()))?;
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let parsed: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut result = document.clone();
    json_patch::patch(&mut result, &parsed).map_err(|error| {
        let text = match error.kind {
            json_patch::PatchErrorKind::TestFailed => format!("testing value {} failed", error.path),
            other => format!("{other}: {}", error.path),
        };
        PatchError::Failed(format!("the server rejected our request due to an error in our request: {text}"))
    })?;
    Ok(result)
}

/// RFC 7386, in place.
pub fn merge_patch(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Map::new().into();
    }
    let Some(target) = document.as_object_mut() else { return };
    for (key, change) in patch {
        if change.is_null() {
            target.shift_remove(key);
        } else if let Some(value) = target.get_mut(key) {
            merge_patch(value, change);
        } else {
            let mut value = Value::Null;
            merge_patch(&mut value, change);
            target.insert(key.clone(), value);
        }
    }
}

/// Kubernetes' strategic merge patch by the schema's strategies.
///
/// # Errors
/// Wrong directives, list items without their merge key.
pub fn strategic_merge(kind: &Kind, document: Value, patch: &Value) -> Result<Value, PatchError> {
    strategic::apply(kind.root(), document, patch)
}
