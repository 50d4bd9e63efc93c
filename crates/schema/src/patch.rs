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
        let details = (reason == Reason::Invalid).then(Box::default);
        Self { details, ..Self::new(reason, error.to_string()) }
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
    let mut result = document.clone();
    for operation in operations {
        // Upstream tells no more than this, whatever is wrong with an operation.
        let failed = || PatchError::Failed("the server rejected our request due to an error in our request".into());
        let step = json_patch::Patch(vec![serde_json::from_value(operation.clone()).map_err(|_| failed())?]);
        let step = with_additions(&result, step);
        json_patch::patch(&mut result, &step).map_err(|_| failed())?;
    }
    Ok(result)
}

/// Replacing what is not there puts it there, if it is in an object: the library that upstream patches with has it so.
fn with_additions(document: &Value, mut patch: json_patch::Patch) -> json_patch::Patch {
    for operation in &mut patch.0 {
        if let json_patch::PatchOperation::Replace(replace) = operation
            && document.pointer(replace.path.as_str()).is_none()
            && replace.path.parent().and_then(|parent| document.pointer(parent.as_str())).is_some_and(Value::is_object)
        {
            let add = json_patch::AddOperation { path: replace.path.clone(), value: replace.value.clone() };
            *operation = json_patch::PatchOperation::Add(add);
        }
    }
    patch
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
