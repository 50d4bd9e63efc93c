//! Values that expressions made, as documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::value::Cel;

/// Deepest nesting of a document that is made.
const MAX_DEPTH: usize = 64;

/// The document that a value is.
///
/// # Errors
/// What has no form in documents.
pub(crate) fn to_document(value: &Cel<'_>) -> Result<Value, String> {
    document(value, MAX_DEPTH)
}

fn document(value: &Cel<'_>, depth: usize) -> Result<Value, String> {
    let depth = depth.checked_sub(1).ok_or_else(|| format!("a value is nested more than {MAX_DEPTH} deep"))?;
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(value) => Value::Bool(*value),
        Cel::Int(number) => (*number).into(),
        Cel::Uint(number) => (*number).into(),
        Cel::Double(number) => (*number).into(),
        Cel::Text(text) => Value::from(&**text),
        Cel::Bytes(bytes) => STANDARD.encode(&**bytes).into(),
        Cel::List(list) => list.iter().map(|item| document(&item, depth)).collect::<Result<_, _>>()?,
        Cel::Map(map) => {
            let fields = map.keys().into_iter().map(|key| match (&key, map.get(&key)) {
                (Cel::Text(name), Some(value)) => Ok((name.to_string(), document(&value, depth)?)),
                _ => Err(format!("a key of type {} is no name of a field", key.type_name())),
            });
            fields.collect::<Result<Map<_, _>, String>>()?.into()
        }
        Cel::Duration(nanoseconds) => format!("{}s", *nanoseconds as f64 / 1e9).into(),
        Cel::Time(time) => time.to_string().into(),
        Cel::Quantity(quantity) => quantity.to_string().into(),
        Cel::Ip(address) => address.to_string().into(),
        Cel::Cidr(address, length) => format!("{address}/{length}").into(),
        Cel::Optional(Some(value)) => document(value, depth)?,
        other => return Err(format!("a value of type {} has no form in an object", other.type_name())),
    })
}
