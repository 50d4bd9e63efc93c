//! Bytes to documents, checked against a type: unknown and duplicate fields, wrong JSON types, quantities, times.
//!
//! Never applies defaults and never decides whether a field problem is an error: the caller does (strict, warn, ignore).

mod scalar;
mod unique;
mod visit;

use std::cell::RefCell;
use std::fmt;

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

use crate::facts::TypeRef;
use crate::status::Status;
use crate::table::{Kind, split_api_version};

/// Most field problems that are reported of one document.
pub const MAX_PROBLEMS: usize = 100;

/// A decoded document.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The document, normalised as upstream does (canonical quantities, UTC times, no nulls, no empty optional scalars).
    pub value: Value,
    /// Unknown and duplicate fields, in document order, at most [`MAX_PROBLEMS`].
    pub problems: Vec<FieldProblem>,
}

impl Decoded {
    /// All problems joined, empty when there are none: what follows `strict decoding error: `.
    pub fn problems_text(&self) -> String {
        self.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The document if it has no field problem.
    ///
    /// # Errors
    /// A 400 Status that names the problems.
    pub fn strict(self, kind: &Kind) -> Result<Value, Status> {
        if self.problems.is_empty() {
            return Ok(self.value);
        }
        Err(cannot_be_handled(kind, &format!("strict decoding error: {}", self.problems_text())))
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

/// Decodes a request body as an object of this kind. `apiVersion` and `kind` are taken from the kind when absent and refused
/// when they are others.
///
/// # Errors
/// A 400 Status with upstream's text.
pub fn object(kind: &Kind, format: Format, bytes: &[u8]) -> Result<Decoded, Status> {
    let decoded = match format {
        Format::Json => json(kind.root(), bytes),
        Format::Yaml => yaml(kind.root(), bytes),
    };
    let mut decoded = decoded.map_err(|error| match untyped(format, bytes) {
        // The wrong kind explains a wrong field better than the field does.
        Ok(document) => {
            check_kind(kind, &document).err().unwrap_or_else(|| cannot_be_handled(kind, &error.to_string()))
        }
        Err(error) => cannot_be_handled(kind, &error.to_string()),
    })?;
    complete(kind, &mut decoded.value)?;
    Ok(decoded)
}

/// Checks and normalises a document in memory as an object of this kind (see [`object`] and [`value`]).
///
/// # Errors
/// A 400 Status with upstream's text.
pub fn object_value(kind: &Kind, document: Value) -> Result<Decoded, Status> {
    check_kind(kind, &document)?;
    let mut decoded = value(kind.root(), document).map_err(|error| cannot_be_handled(kind, &error.to_string()))?;
    complete(kind, &mut decoded.value)?;
    Ok(decoded)
}

fn complete(kind: &Kind, document: &mut Value) -> Result<(), Status> {
    check_kind(kind, document)?;
    if let Some(map) = document.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        map.entry("kind").or_insert_with(|| kind.kind.as_str().into());
    }
    Ok(())
}

fn cannot_be_handled(kind: &Kind, why: &str) -> Status {
    let (name, version) = (&kind.kind, &kind.version);
    Status::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
}

/// Refuses a document whose `apiVersion` or `kind` is another's.
fn check_kind(kind: &Kind, document: &Value) -> Result<(), Status> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let expected = kind.api_version();
    let given = text("apiVersion").unwrap_or(&expected);
    if given != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    match text("kind") {
        Some(other) if other != kind.kind => {
            let (_, version) = split_api_version(given);
            let (name, version) = (&kind.kind, version);
            Err(Status::bad_request(format!(
                "{other} in version {version:?} cannot be handled as a {name}: the kind in the data ({other}) does not match the expected kind ({name})"
            )))
        }
        _ => Ok(()),
    }
}

/// Decodes JSON as this type.
///
/// # Errors
/// Syntax errors, wrong JSON types, invalid scalars, too deep nesting.
pub fn json(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    read(bytes, |context, reader| visit::root(ty, context).deserialize(reader))
}

/// Decodes a patch of an object of this type: any JSON; keys that are given twice are its problems.
///
/// # Errors
/// Syntax errors, too deep nesting.
pub fn patch(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    read(bytes, |context, reader| visit::free(ty, context).deserialize(reader))
}

type Reader<'b> = serde_json::Deserializer<serde_json::de::SliceRead<'b>>;

fn read<'b>(
    bytes: &'b [u8],
    walk: impl FnOnce(&visit::Context, &mut Reader<'b>) -> Result<Option<Value>, serde_json::Error>,
) -> Result<Decoded, DecodeError> {
    let context = visit::Context::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let document = walk(&context, &mut reader).and_then(|document| reader.end().map(|()| document));
    finish(context, document)
}

/// Decodes YAML as this type.
///
/// # Errors
/// As [`json`]; duplicate keys are syntax errors.
pub fn yaml(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    value(ty, untyped(Format::Yaml, bytes)?)
}

/// Checks and normalises a document that is already in memory (the result of a patch or of a webhook).
///
/// # Errors
/// As [`json`], without syntax errors.
pub fn value(ty: TypeRef<'_>, value: Value) -> Result<Decoded, DecodeError> {
    let context = visit::Context::default();
    let document = visit::root(ty, &context).deserialize(value);
    finish(context, document)
}

/// Decodes JSON or YAML without a type (apply bodies before their kind is known, patches).
///
/// # Errors
/// Syntax errors, too deep nesting.
pub fn untyped(format: Format, bytes: &[u8]) -> Result<Value, DecodeError> {
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| syntax(&error)),
        Format::Yaml => {
            let options = serde_saphyr::options! { legacy_octal_numbers: true };
            serde_saphyr::from_slice_with_options(bytes, options)
                .map_err(|error| DecodeError::Syntax(format!("error converting YAML to JSON: {}", told(&error))))
        }
    }
}

/// What is wrong with a YAML document, in one line; a key that is given twice in upstream's words.
fn told(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } = error.without_snippet() {
        return format!("yaml: unmarshal errors: line {}: key {key:?} already set in map", location.line());
    }
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Decodes JSON without a type and refuses keys that are given twice.
///
/// # Errors
/// Syntax errors, duplicate keys, too deep nesting.
pub fn unique_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    serde_json::from_slice(bytes).map(|unique::Unique(document)| document).map_err(|error| syntax(&error))
}

fn finish(context: visit::Context, document: Result<Option<Value>, serde_json::Error>) -> Result<Decoded, DecodeError> {
    let visit::Context { problems, error } = context;
    match document {
        Ok(value) => Ok(Decoded { value: value.unwrap_or_else(|| Map::new().into()), problems: problems.into_inner() }),
        Err(from_reader) => Err(RefCell::into_inner(error).map_or_else(|| syntax(&from_reader), DecodeError::Value)),
    }
}

fn syntax(error: &serde_json::Error) -> DecodeError {
    let text = error.to_string();
    if text.starts_with("recursion limit") {
        return DecodeError::TooLarge(format!("the document is nested too deep: {text}"));
    }
    DecodeError::Syntax(format!("invalid JSON: {text}"))
}
