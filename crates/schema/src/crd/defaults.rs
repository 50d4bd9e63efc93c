//! Defaults of custom resources: absent fields, and nulls where null is no value, become the default of the schema.

use serde_json::Value;

use super::schema::{Additional, Schema};

/// Fills in what is absent. Idempotent.
pub(super) fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, below) in &schema.properties {
                let Some(default) = &below.default else { continue };
                let is_absent = fields.get(name).is_none_or(|value| value.is_null() && !below.nullable);
                if is_absent {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(below), _) => apply(below, value),
                    (None, Some(Additional::Of(below))) => element(below, value),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                items.iter_mut().for_each(|item| element(below, item));
            }
        }
        _ => {}
    }
}

/// An item of a list or map: a null that is no value becomes the default, if there is one.
fn element(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    apply(schema, value);
}
