//! Cells of custom kinds: the first value at each column's path, in the column's type.

use jiff::Timestamp;
use serde_json::Value;

use super::age;
use crate::crd::PrinterColumn;

/// The cell of a column; null shows nothing.
pub(super) fn cell(column: &PrinterColumn, object: &Value, now: Timestamp) -> Value {
    let Some(value) = column.path.first(object) else { return Value::Null };
    match (column.kind.as_str(), value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().map_or(Value::Null, |number| (number as i64).into()),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match age::since(text, now) {
            unknown if unknown == age::UNKNOWN => "<invalid>".into(),
            age => age.into(),
        },
        _ => Value::Null,
    }
}
