//! From protobuf to JSON documents, by the table's field numbers. Every byte comes from a client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{DEPTH_MAX, MAGIC, ProtobufError, is_wrapped};
use crate::facts::{Field, Shape, TypeRef};
use crate::table::{self, Gvk, Table};

/// An object's type as its sender names it, and its bytes.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

/// Decodes an object of a type that the caller knows. `apiVersion` and `kind` are what the sender wrote.
///
/// # Errors
/// [`ProtobufError`].
pub fn decode(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = Envelope::open(bytes)?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), envelope.api_version.into());
    object.insert("kind".into(), envelope.kind.into());
    message(ty, envelope.raw, &mut Vec::new(), &mut object, 0)?;
    Ok(object.into())
}

impl<'a> Envelope<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        while let Some((number, item)) = next(&mut rest)? {
            match (number, item) {
                (1, Item::Bytes(mut meta)) => {
                    while let Some((number, item)) = next(&mut meta)? {
                        match number {
                            1 => envelope.api_version = item.text("apiVersion")?,
                            2 => envelope.kind = item.text("kind")?,
                            _ => {}
                        }
                    }
                }
                (2, Item::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// One field's value on the wire.
#[derive(Clone, Copy)]
enum Item<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Item<'a> {
    fn bytes(self, field: &str) -> Result<&'a [u8], ProtobufError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(ProtobufError::Wire { field: field.into() }) }
    }

    fn number(self, field: &str) -> Result<u64, ProtobufError> {
        if let Self::Varint(number) = self { Ok(number) } else { Err(ProtobufError::Wire { field: field.into() }) }
    }

    fn text(self, field: &str) -> Result<String, ProtobufError> {
        let text = std::str::from_utf8(self.bytes(field)?);
        text.map(str::to_owned).map_err(|_| ProtobufError::Text(field.into()))
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for (at, byte) in rest.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at).min(63);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(number);
        }
    }
    Err(ProtobufError::Short)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], ProtobufError> {
    let (taken, left) = rest.split_at_checked(count).ok_or(ProtobufError::Short)?;
    *rest = left;
    Ok(taken)
}

/// The next field of a message.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, Item<'a>)>, ProtobufError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let item = match key & 7 {
        0 => Item::Varint(varint(rest)?),
        1 => Item::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().map_err(|_| ProtobufError::Short)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| ProtobufError::Short)?;
            Item::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Item::Fixed32
        }
        _ => return Err(ProtobufError::Wire { field: format!("number {}", key >> 3) }),
    };
    let number = u32::try_from(key >> 3).map_err(|_| ProtobufError::Short)?;
    Ok(Some((number, item)))
}

/// Reads a message into an object. `path` are the numbers of messages that JSON does not show.
fn message(
    ty: TypeRef<'_>,
    mut rest: &[u8],
    path: &mut Vec<u32>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    while let Some((number, item)) = next(&mut rest)? {
        // `apiVersion` and `kind` of whole objects are not in the message, though they have numbers that others use too.
        let is_type = |field: &&Field| matches!(field.name.as_str(), "apiVersion" | "kind");
        let fields = &ty.get().fields;
        let found =
            fields.iter().filter(|field| !is_type(field)).chain(fields.iter().filter(is_type)).find_map(|field| {
                let proto = field.proto.as_ref()?;
                let inlined = proto.via.strip_prefix(path.as_slice())?;
                match inlined.first() {
                    None => (proto.tag == number).then_some(Some(field)),
                    Some(via) => (*via == number).then_some(None),
                }
            });
        match found {
            Some(Some(field)) => set(ty, field, item, object, depth)?,
            Some(None) => {
                path.push(number);
                message(ty, item.bytes("inlined message")?, path, object, depth + 1)?;
                path.pop();
            }
            // A field that this version does not know.
            None => {}
        }
    }
    Ok(())
}

fn set(
    ty: TypeRef<'_>,
    field: &Field,
    item: Item<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let name = field.name.as_str();
    match &field.shape {
        Shape::List(shape) => {
            let list = object.entry(name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                if !is_wrapped(ty, name) {
                    return elements(ty, shape, name, item, list, depth);
                }
                let mut items = item.bytes(name)?;
                while let Some((_, item)) = next(&mut items)? {
                    elements(ty, shape, name, item, list, depth + 1)?;
                }
            }
        }
        Shape::Map(shape) => {
            let (key, value) = entry(ty, shape, name, item.bytes(name)?, depth)?;
            object.entry(name).or_insert_with(|| json!({}))[key] = value;
        }
        shape => {
            let value = value(ty, shape, name, item, depth)?;
            // Go writes every plain field, also those it would leave out of JSON.
            if !(value.is_null() || field.omit_empty && !field.pointer && is_zero(&value)) {
                object.insert(name.into(), value);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// One element, or several packed into one field.
fn elements(
    ty: TypeRef<'_>,
    shape: &Shape,
    name: &str,
    item: Item<'_>,
    list: &mut Vec<Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match (shape, item) {
        (Shape::Int32 | Shape::Int64 | Shape::Bool, Item::Bytes(mut packed)) => {
            while !packed.is_empty() {
                list.push(value(ty, shape, name, Item::Varint(varint(&mut packed)?), depth)?);
            }
        }
        _ => list.push(value(ty, shape, name, item, depth)?),
    }
    Ok(())
}

fn entry(
    ty: TypeRef<'_>,
    shape: &Shape,
    name: &str,
    mut rest: &[u8],
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    while let Some((number, item)) = next(&mut rest)? {
        match (number, shape) {
            (1, _) => key = item.text(name)?,
            // A message that wraps a list, as for the `extra` of users.
            (2, Shape::List(element)) => {
                let (mut list, mut items) = (Vec::new(), item.bytes(name)?);
                while let Some((_, item)) = next(&mut items)? {
                    elements(ty, element, name, item, &mut list, depth + 1)?;
                }
                found = Some(list.into());
            }
            (2, shape) => found = Some(value(ty, shape, name, item, depth)?),
            _ => {}
        }
    }
    Ok((key, found.unwrap_or_else(|| empty(shape))))
}

fn empty(shape: &Shape) -> Value {
    match shape {
        Shape::List(_) => json!([]),
        Shape::Object(_) | Shape::Map(_) => json!({}),
        Shape::Int32 | Shape::Int64 | Shape::Double => json!(0),
        Shape::Bool => json!(false),
        _ => json!(""),
    }
}

fn value(ty: TypeRef<'_>, shape: &Shape, name: &str, item: Item<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match shape {
        Shape::String => item.text(name)?.into(),
        // Negative numbers are sign-extended to 64 bits, also those of 32.
        Shape::Int32 | Shape::Int64 => (item.number(name)? as i64).into(),
        Shape::Bool => (item.number(name)? != 0).into(),
        Shape::Double => match item {
            Item::Fixed64(bits) => f64::from_bits(bits).into(),
            _ => return Err(ProtobufError::Wire { field: name.into() }),
        },
        Shape::Bytes => STANDARD.encode(item.bytes(name)?).into(),
        Shape::Quantity => field_one(name, item)?.map_or(Ok(Value::Null), |item| item.text(name).map(Value::from))?,
        Shape::IntOrString => int_or_string(name, item)?,
        Shape::Time | Shape::MicroTime => time(name, item, *shape == Shape::MicroTime)?,
        Shape::RawExtension => raw_extension(name, item, depth)?,
        Shape::FieldsV1 | Shape::Json => embedded_json(name, item)?,
        Shape::ObjectOr(id, go_name) => union(ty.with(*id), go_name, name, item, depth)?,
        Shape::Object(id) => object(ty.with(*id), item.bytes(name)?, depth)?,
        Shape::List(_) | Shape::Map(_) => return Err(ProtobufError::Wire { field: name.into() }),
    })
}

fn object(ty: TypeRef<'_>, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    message(ty, bytes, &mut Vec::new(), &mut object, depth + 1)?;
    Ok(object.into())
}

/// Field 1 of a message, if it is there.
fn field_one<'a>(name: &str, item: Item<'a>) -> Result<Option<Item<'a>>, ProtobufError> {
    let (mut rest, mut found) = (item.bytes(name)?, None);
    while let Some((number, item)) = next(&mut rest)? {
        if number == 1 {
            found = Some(item);
        }
    }
    Ok(found)
}

fn int_or_string(name: &str, item: Item<'_>) -> Result<Value, ProtobufError> {
    let (mut rest, mut is_text, mut number, mut text) = (item.bytes(name)?, false, 0, String::new());
    while let Some((field, item)) = next(&mut rest)? {
        match field {
            1 => is_text = item.number(name)? == 1,
            2 => number = item.number(name)? as i64,
            3 => text = item.text(name)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// A zero time is an empty message; JSON leaves it out.
fn time(name: &str, item: Item<'_>, micro: bool) -> Result<Value, ProtobufError> {
    let (mut rest, mut seconds, mut nanos) = (item.bytes(name)?, None, 0);
    while let Some((field, item)) = next(&mut rest)? {
        match field {
            1 => seconds = Some(item.number(name)? as i64),
            2 => nanos = item.number(name)? as i32,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Wire { field: name.into() })?;
    Ok(if micro { format!("{time:.6}").into() } else { format!("{time:.0}").into() })
}

fn embedded_json(name: &str, item: Item<'_>) -> Result<Value, ProtobufError> {
    match field_one(name, item)? {
        Some(raw) => serde_json::from_slice(raw.bytes(name)?).map_err(|_| ProtobufError::Json(name.into())),
        None => Ok(Value::Null),
    }
}

/// A whole object inside another: JSON, or protobuf with its own envelope.
fn raw_extension(name: &str, item: Item<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let Some(raw) = field_one(name, item)? else { return Ok(Value::Null) };
    let raw = raw.bytes(name)?;
    if !raw.starts_with(MAGIC) {
        return serde_json::from_slice(raw).map_err(|_| ProtobufError::Json(name.into()));
    }
    let Envelope { api_version, kind, raw } = Envelope::open(raw)?;
    let (group, version) = table::split_api_version(&api_version);
    let ty = Table::builtin().type_of(&Gvk::new(group, version, &kind));
    let ty = ty.ok_or_else(|| ProtobufError::Kind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut found = object(ty, raw, depth)?;
    found["apiVersion"] = api_version.into();
    found["kind"] = kind.into();
    Ok(found)
}

/// The unions of `JSONSchemaProps`: a schema, or a flag, a list of schemas, or a list of texts.
fn union(ty: TypeRef<'_>, go_name: &str, name: &str, item: Item<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let (schema_number, or_bool) = if go_name.ends_with("OrBool") { (2, true) } else { (1, false) };
    let (mut rest, mut schema, mut flag, mut list) = (item.bytes(name)?, None, false, Vec::new());
    while let Some((number, item)) = next(&mut rest)? {
        if number == schema_number {
            schema = Some(object(ty, item.bytes(name)?, depth)?);
        } else if or_bool {
            flag = item.number(name)? != 0;
        } else if go_name.ends_with("OrStringArray") {
            list.push(item.text(name)?.into());
        } else {
            list.push(object(ty, item.bytes(name)?, depth)?);
        }
    }
    Ok(match (schema, or_bool) {
        (Some(schema), _) => schema,
        (None, true) => flag.into(),
        (None, false) => list.into(),
    })
}
