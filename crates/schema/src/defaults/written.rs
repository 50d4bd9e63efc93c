//! Fields that Go writes whether they are set or not: structs that are no pointers, times, and what lacks `omitempty`. So
//! clients see them in every object. Never touches a field that is there.

use serde_json::{Map, Value};

use super::Object;
use crate::facts::{Field, Shape, Type};

/// Types of upstream; ours are written as they are.
const UPSTREAM: &str = "io.k8s.";

/// Fills in what would be written.
pub(super) fn apply(ty: &Type, object: &mut Object) {
    if !ty.name.starts_with(UPSTREAM) {
        return;
    }
    for field in &ty.fields {
        if let Some(value) = written(field).filter(|_| !object.contains_key(&field.name)) {
            object.insert(field.name.clone(), value);
        }
    }
}

/// What stands for an absent field; none when it is left out.
fn written(field: &Field) -> Option<Value> {
    if field.name == "creationTimestamp" {
        return None;
    }
    match &field.shape {
        Shape::Object(_) if !field.pointer => Some(Map::new().into()),
        Shape::Time | Shape::MicroTime if !field.pointer => Some(Value::Null),
        Shape::Quantity if !field.pointer => Some("0".into()),
        _ if field.omit_empty => None,
        // A struct that has to be there is: nothing is stored without it.
        Shape::Object(_) => None,
        _ if field.pointer => Some(Value::Null),
        Shape::String => Some("".into()),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => Some(0.into()),
        Shape::Bool => Some(false.into()),
        Shape::List(_) | Shape::Map(_) | Shape::Bytes => Some(Value::Null),
        _ => None,
    }
}
