//! Bytes to documents, checked against a type: unknown and duplicate fields, wrong JSON types, quantities, times.
//!
//! Never applies defaults and never decides whether a field problem is an error: the caller does (strict, warn, ignore).

use std::fmt;

use serde_json::Value;

use crate::facts::TypeRef;
use crate::status::Status;
use crate::table::Kind;

/// A decoded document.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The document, normalised as upstream does (canonical quantities, UTC times, nulls gone).
    pub value: Value,
    /// Unknown and duplicate fields, in document order, at most 100.
    pub problems: Vec<FieldProblem>,
}

impl Decoded {
    /// The text of a strict decoding error: all problems joined, empty when there are none.
    pub fn problems_text(&self) -> String {
        self.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// A field that strict decoding refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldProblem {
    /// Not in the schema; the unknown part was dropped.
    Unknown(String),
    /// Given twice; the last one was kept.
    Duplicate(String),
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field {path:?}"),
            Self::Duplicate(path) => write!(f, "duplicate field {path:?}"),
        }
    }
}

/// A document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong JSON type or an invalid scalar; the text is upstream's.
    #[error("{0}")]
    Value(String),
    /// Too deep, too many nodes.
    #[error("{0}")]
    TooLarge(String),
}

/// The encoding of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// Decodes a request body as an object of this kind: reads `apiVersion` and `kind` first (absent ones are taken from
/// the kind, others refused), then the rest.
///
/// # Errors
/// A 400 Status with upstream's text.
pub fn object(kind: &Kind, format: Format, bytes: &[u8]) -> Result<Decoded, Status> {
    let _ = (kind, format, bytes);
    todo!()
}

/// Decodes JSON as this type.
///
/// # Errors
/// Syntax errors, wrong JSON types, invalid scalars, too deep nesting.
pub fn json(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let _ = (ty, bytes);
    todo!()
}

/// Decodes YAML as this type.
///
/// # Errors
/// As [`json`]; duplicate keys are syntax errors.
pub fn yaml(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let _ = (ty, bytes);
    todo!()
}

/// Checks and normalises a document that is already in memory (the result of a patch or of a webhook).
///
/// # Errors
/// As [`json`], without syntax errors.
pub fn value(ty: TypeRef<'_>, value: Value) -> Result<Decoded, DecodeError> {
    let _ = (ty, value);
    todo!()
}

/// Decodes JSON or YAML without a type (apply bodies before their kind is known, patches).
///
/// # Errors
/// Syntax errors, too deep nesting.
pub fn untyped(format: Format, bytes: &[u8]) -> Result<Value, DecodeError> {
    let _ = (format, bytes);
    todo!()
}
