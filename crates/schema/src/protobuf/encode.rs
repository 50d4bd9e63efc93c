//! From JSON documents to protobuf. Like Go's, the encoding has every plain field, also those that are zero, in the order of
//! their numbers; pointers, lists and maps only where they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{DEPTH_MAX, frame, is_wrapped};
use crate::facts::{Field, Shape, TypeRef};
use crate::partial;
use crate::table::{self, Gvk, Table};

/// A document that is not of its type. Documents that were decoded and validated are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The field's value is not what the table says it is.
    #[error("field {0} holds a value that protobuf cannot express")]
    Value(String),
    /// The kind has no messages.
    #[error("no kind {kind:?} in version {api_version:?} can be encoded as protobuf")]
    Kind {
        /// Its group and version.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// Deeper than any object is.
    #[error("the object is nested too deeply for protobuf")]
    Depth,
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// A whole document: its message in an envelope with its `apiVersion` and `kind`. Knows every built-in kind, lists of
/// them, and `PartialObjectMetadata`.
///
/// # Errors
/// [`EncodeError`].
pub fn encode(document: &Value) -> Result<Vec<u8>, EncodeError> {
    let name = |field: &str| document[field].as_str().unwrap_or_default();
    let (api_version, kind) = (name("apiVersion"), name("kind"));
    let (group, version) = table::split_api_version(api_version);
    let raw = match (group, kind) {
        (partial::GROUP, partial::KIND) => frame::partial(document)?,
        (partial::GROUP, partial::LIST_KIND) => partial_list(document)?,
        _ => {
            let ty = Table::builtin().type_of(&Gvk::new(group, version, kind)).filter(|ty| super::is_encodable(*ty));
            let unknown = || EncodeError::Kind { api_version: api_version.into(), kind: kind.into() };
            message(ty.ok_or_else(unknown)?, document)?
        }
    };
    Ok(frame::envelope(api_version, kind, &raw))
}

fn partial_list(document: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = frame::list_head(&document["metadata"])?;
    for item in document["items"].as_array().into_iter().flatten() {
        bytes(&mut out, 2, &frame::partial(item)?);
    }
    Ok(out)
}

/// An object's message without the envelope, as it stands in lists.
///
/// # Errors
/// [`EncodeError`].
pub fn message(ty: TypeRef<'_>, object: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(512);
    write_message(&mut out, ty, object, "", 0)?;
    Ok(out)
}

pub(super) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn key(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, u64::from(number << 3 | wire));
}

pub(super) fn bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    key(out, number, BYTES);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

pub(super) fn number(out: &mut Vec<u8>, field: u32, value: i64) {
    key(out, field, VARINT);
    varint(out, value as u64);
}

/// A field whose length is known only when it is written.
fn delimited(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    key(out, number, BYTES);
    let at = out.len();
    write(out)?;
    let mut length = Vec::with_capacity(5);
    varint(&mut length, (out.len() - at) as u64);
    out.splice(at..at, length);
    Ok(())
}

fn write_message(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    object: &Value,
    name: &str,
    depth: usize,
) -> Result<(), EncodeError> {
    if depth > DEPTH_MAX {
        return Err(EncodeError::Depth);
    }
    let object = match object {
        Value::Object(object) => Some(object),
        Value::Null => None,
        _ => return Err(EncodeError::Value(name.into())),
    };
    level(out, ty, &ty.get().proto_order, object, 0, depth)
}

/// Writes fields that have the first `around` numbers of their paths in common.
fn level(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    mut order: &[usize],
    object: Option<&Map<String, Value>>,
    around: usize,
    depth: usize,
) -> Result<(), EncodeError> {
    let fields = &ty.get().fields;
    let via = |at: &usize| fields[*at].proto.as_ref().and_then(|proto| proto.via.get(around)).copied();
    while let Some(first) = order.first() {
        let outer = via(first);
        let same = if outer.is_some() { order.iter().take_while(|at| via(at) == outer).count() } else { 1 };
        let (group, rest) = order.split_at(same);
        match outer {
            Some(number) => delimited(out, number, |out| level(out, ty, group, object, around + 1, depth))?,
            None => {
                let field = &fields[*first];
                write_field(out, ty, field, object.and_then(|object| object.get(&field.name)), depth)?;
            }
        }
        order = rest;
    }
    Ok(())
}

fn write_field(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    field: &Field,
    value: Option<&Value>,
    depth: usize,
) -> Result<(), EncodeError> {
    let number = field.proto.as_ref().map_or(0, |proto| proto.tag);
    let name = field.name.as_str();
    match (&field.shape, value.filter(|value| !value.is_null())) {
        (Shape::List(shape), Some(Value::Array(items))) if is_wrapped(ty, name) => delimited(out, number, |out| {
            items.iter().try_for_each(|item| write_value(out, ty, shape, (1, name), item, depth))
        }),
        (Shape::List(shape), Some(Value::Array(items))) => {
            items.iter().try_for_each(|item| write_value(out, ty, shape, (number, name), item, depth))
        }
        (Shape::Map(shape), Some(Value::Object(entries))) => {
            let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            sorted.into_iter().try_for_each(|entry| write_entry(out, ty, shape, (number, name), entry, depth))
        }
        (Shape::List(_) | Shape::Map(_), Some(_)) => Err(EncodeError::Value(name.into())),
        (shape, Some(value)) => write_value(out, ty, shape, (number, name), value, depth),
        (Shape::List(_) | Shape::Map(_) | Shape::Bytes, None) => Ok(()),
        (_, None) if field.pointer => Ok(()),
        (shape, None) => write_zero(out, ty, shape, (number, name), depth),
    }
}

fn write_entry(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    shape: &Shape,
    (number, name): (u32, &str),
    (key, value): (&String, &Value),
    depth: usize,
) -> Result<(), EncodeError> {
    delimited(out, number, |out| {
        bytes(out, 1, key.as_bytes());
        match (shape, value) {
            // A message that wraps a list, as for the `extra` of users.
            (Shape::List(item), Value::Array(items)) => delimited(out, 2, |out| {
                items.iter().try_for_each(|value| write_value(out, ty, item, (1, name), value, depth + 1))
            }),
            (shape, Value::Null) => write_zero(out, ty, shape, (2, name), depth),
            (shape, value) => write_value(out, ty, shape, (2, name), value, depth),
        }
    })
}

/// A plain field that the document leaves out.
fn write_zero(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    shape: &Shape,
    (field, name): (u32, &str),
    depth: usize,
) -> Result<(), EncodeError> {
    match shape {
        Shape::String => bytes(out, field, b""),
        Shape::Int32 | Shape::Int64 | Shape::Bool => number(out, field, 0),
        Shape::Double => double(out, field, 0.0),
        Shape::Quantity => write_value(out, ty, shape, (field, name), &Value::from("0"), depth)?,
        Shape::IntOrString => write_value(out, ty, shape, (field, name), &Value::from(0), depth)?,
        Shape::Object(id) => {
            delimited(out, field, |out| write_message(out, ty.with(*id), &Value::Null, name, depth + 1))?
        }
        // An empty message is the zero time, and an object or JSON value that is none.
        _ => bytes(out, field, b""),
    }
    Ok(())
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn write_value(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    shape: &Shape,
    (field, name): (u32, &str),
    value: &Value,
    depth: usize,
) -> Result<(), EncodeError> {
    let wrong = || EncodeError::Value(name.into());
    match shape {
        Shape::String => bytes(out, field, value.as_str().ok_or_else(wrong)?.as_bytes()),
        Shape::Int32 | Shape::Int64 => number(out, field, value.as_i64().ok_or_else(wrong)?),
        Shape::Bool => number(out, field, value.as_bool().ok_or_else(wrong)?.into()),
        Shape::Double => double(out, field, value.as_f64().ok_or_else(wrong)?),
        Shape::Bytes => {
            let decoded = STANDARD.decode(value.as_str().ok_or_else(wrong)?).map_err(|_| wrong())?;
            bytes(out, field, &decoded);
        }
        Shape::Quantity => {
            let text = value.as_str().map(str::to_owned).or_else(|| value.as_number().map(ToString::to_string));
            let mut inner = Vec::new();
            bytes(&mut inner, 1, text.ok_or_else(wrong)?.as_bytes());
            bytes(out, field, &inner);
        }
        Shape::IntOrString => bytes(out, field, &int_or_string(value).ok_or_else(wrong)?),
        Shape::Time | Shape::MicroTime => {
            let time = value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).ok_or_else(wrong)?;
            bytes(out, field, &time_message(time, *shape == Shape::MicroTime));
        }
        Shape::RawExtension | Shape::FieldsV1 | Shape::Json => {
            let mut inner = Vec::new();
            bytes(&mut inner, 1, value.to_string().as_bytes());
            bytes(out, field, &inner);
        }
        Shape::ObjectOr(id, go_name) => {
            delimited(out, field, |out| write_union(out, ty.with(*id), go_name, (name, value), depth))?;
        }
        Shape::Object(id) => delimited(out, field, |out| write_message(out, ty.with(*id), value, name, depth + 1))?,
        Shape::List(_) | Shape::Map(_) => return Err(wrong()),
    }
    Ok(())
}

/// Which of the two it is, then both.
fn int_or_string(value: &Value) -> Option<Vec<u8>> {
    let (kind, whole, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        value => (0, value.as_i64()?, ""),
    };
    let mut out = Vec::new();
    number(&mut out, 1, kind);
    number(&mut out, 2, whole);
    bytes(&mut out, 3, text.as_bytes());
    Some(out)
}

fn time_message(time: Timestamp, micro: bool) -> Vec<u8> {
    // Rounded down, so that the rest is never negative.
    let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
    let seconds = (time.as_nanosecond() - nanos) / 1_000_000_000;
    let mut out = Vec::new();
    number(&mut out, 1, seconds as i64);
    number(&mut out, 2, if micro { nanos as i64 / 1_000 * 1_000 } else { 0 });
    out
}

/// The unions of `JSONSchemaProps`; see the decoder.
fn write_union(
    out: &mut Vec<u8>,
    ty: TypeRef<'_>,
    go_name: &str,
    (name, value): (&str, &Value),
    depth: usize,
) -> Result<(), EncodeError> {
    let or_bool = go_name.ends_with("OrBool");
    let schema = |out: &mut Vec<u8>, number: u32, value: &Value| {
        delimited(out, number, |out| write_message(out, ty, value, name, depth + 1))
    };
    match value {
        // Go's decoder sets the flag to true beside a schema.
        Value::Object(_) if or_bool => {
            number(out, 1, 1);
            schema(out, 2, value)
        }
        Value::Object(_) => schema(out, 1, value),
        Value::Bool(flag) if or_bool => {
            number(out, 1, (*flag).into());
            Ok(())
        }
        Value::Array(items) if go_name.ends_with("OrStringArray") => items.iter().try_for_each(|item| {
            bytes(out, 2, item.as_str().ok_or_else(|| EncodeError::Value(name.into()))?.as_bytes());
            Ok(())
        }),
        Value::Array(items) if !or_bool => items.iter().try_for_each(|item| schema(out, 2, item)),
        _ => Err(EncodeError::Value(name.into())),
    }
}
