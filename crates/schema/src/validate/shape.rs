//! Rules that follow from the schema alone: closed sets of values and required texts. `metadata` and `status` are left out:
//! the first has its own rules, the second is written by programs that may be newer than this table.

use serde_json::Value;

use super::{Errors, FieldError, rule};
use crate::facts::{Field, Shape, TypeId, TypeSet};
use crate::table::Kind;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Required by OpenAPI, yet upstream takes an empty text.
const MAY_BE_EMPTY: [(&str, &str); 3] = [
    ("io.k8s.api.core.v1.HTTPHeader", "value"),
    ("io.k8s.api.core.v1.Sysctl", "value"),
    ("io.k8s.api.core.v1.Taint", "effect"),
];

pub(super) fn check(kind: &Kind, object: &Value, errors: &mut Errors) {
    object_at(kind.types(), kind.root, object, &mut String::new(), errors);
}

fn object_at(set: &TypeSet, id: TypeId, object: &Value, path: &mut String, errors: &mut Errors) {
    let (ty, Some(map)) = (set.get(id), object.as_object()) else { return };
    if ty.name == OBJECT_META {
        return;
    }
    let is_root = path.is_empty();
    let rules = rule::of(ty);
    if rules.is_some_and(|rules| !rules.check(ty, map, path, errors)) {
        return;
    }
    let covered = |field: &str| rules.is_some_and(|rules| rules.covers(field));
    for field in ty.fields.iter().filter(|field| field.required && field.shape == Shape::String) {
        let empty = map.get(&field.name).and_then(Value::as_str).is_none_or(str::is_empty);
        if empty && !covered(&field.name) && !MAY_BE_EMPTY.contains(&(ty.name.as_str(), field.name.as_str())) {
            errors.push(FieldError::required(joined(path, &field.name), ""));
        }
    }
    for (name, value) in map {
        if is_root && (name == "status" || name == "metadata") {
            continue;
        }
        if let Some(field) = ty.field(name) {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            value_at(set, field, &field.shape, value, covered(name), path, errors);
            path.truncate(length);
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// `covered`: rows say what the values are.
fn value_at(
    set: &TypeSet,
    field: &Field,
    shape: &Shape,
    value: &Value,
    covered: bool,
    path: &mut String,
    errors: &mut Errors,
) {
    match (shape, value) {
        (Shape::String, Value::String(text)) if !covered => {
            if let Some(closed) = &field.values
                && closed.values.binary_search(text).is_err()
            {
                let supported: Vec<&str> =
                    closed.values.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
                errors.push(FieldError::not_supported(path.clone(), text.as_str(), &supported));
            }
        }
        (Shape::Object(id), value) => object_at(set, *id, value, path, errors),
        (Shape::List(item), Value::Array(items)) if field.values.is_some() || matches!(**item, Shape::Object(_)) => {
            for (at, value) in items.iter().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{at}]"));
                value_at(set, field, item, value, covered, path, errors);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
