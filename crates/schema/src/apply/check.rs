//! Whether an applied configuration fits its type. The texts are upstream's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::Element;
use super::place::{Form, Place};
use crate::facts::{Shape, TypeRef};

/// Most problems that are reported.
const MAX_PROBLEMS: usize = 20;

/// Refuses a configuration with undeclared fields, values of the wrong kind, list items without keys or with the same
/// ones.
///
/// # Errors
/// The problems with their paths.
pub(super) fn check(ty: TypeRef<'_>, config: &Value) -> Result<(), String> {
    let shape = Shape::Object(ty.id);
    let mut problems = Problems::default();
    value(Place::root(ty, &shape), &Path::Root, config, &mut problems);
    match problems.0.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

/// Where the walk is; lives on the stack.
enum Path<'p> {
    Root,
    Element(&'p Path<'p>, Element),
}

impl Path<'_> {
    fn text(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Element(parent, element) => format!("{}{element}", parent.text()),
        }
    }
}

impl Problems {
    fn add(&mut self, path: &Path<'_>, problem: impl std::fmt::Display) {
        if self.0.len() >= MAX_PROBLEMS {
            return;
        }
        let path = path.text();
        self.0.push(if path.is_empty() { problem.to_string() } else { format!("{path}: {problem}") });
    }
}

fn value(place: Place<'_>, path: &Path<'_>, value: &Value, problems: &mut Problems) {
    if value.is_null() {
        return;
    }
    if let Some(expected) = mismatch(place.shape, value) {
        problems.add(path, format!("expected {expected}, got {value}"));
        return;
    }
    match value {
        Value::Object(_) => fields(place, path, value, problems),
        Value::Array(list) => items(place, path, list, problems),
        _ => {}
    }
}

/// What the schema wants instead; none when the value fits.
fn mismatch(shape: &Shape, value: &Value) -> Option<&'static str> {
    let (fits, expected) = match shape {
        Shape::String | Shape::Bytes => (value.is_string(), "string"),
        Shape::Int32 | Shape::Int64 | Shape::Double => (value.is_number(), "numeric (int or float)"),
        Shape::Bool => (value.is_boolean(), "boolean"),
        Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime => {
            (!value.is_object() && !value.is_array(), "any scalar")
        }
        Shape::Object(_) | Shape::Map(_) => (value.is_object(), "map"),
        Shape::List(_) => (value.is_array(), "list"),
        Shape::Json | Shape::RawExtension | Shape::FieldsV1 | Shape::ObjectOr(..) => return None,
    };
    (!fits).then_some(expected)
}

fn fields(place: Place<'_>, path: &Path<'_>, object: &Value, problems: &mut Problems) {
    for (name, below) in object.as_object().into_iter().flatten() {
        let path = Path::Element(path, Element::Field(name.clone()));
        match place.shape {
            Shape::Object(id) => {
                let ty = place.set.get(*id);
                match ty.field(name).is_some() || ty.open {
                    true => value(place.field(ty, name), &path, below, problems),
                    false => problems.add(&path, "field not declared in schema"),
                }
            }
            Shape::Map(item) => value(place.item(item), &path, below, problems),
            _ => {}
        }
    }
}

fn items(place: Place<'_>, path: &Path<'_>, list: &[Value], problems: &mut Problems) {
    let Shape::List(item) = place.shape else { return };
    let keys = match place.form(&Value::Null) {
        Form::List(keys, _) => Some(keys),
        _ => None,
    };
    let mut seen = BTreeSet::new();
    for (at, below) in list.iter().enumerate() {
        let element = match keys.map(|keys| place.identity(keys, below)) {
            None => Element::Index(i64::try_from(at).unwrap_or(i64::MAX)),
            Some(Ok(element)) => element,
            Some(Err(why)) => return problems.add(path, format!("element {at}: {why}")),
        };
        if keys.is_some() && !seen.insert(element.clone()) {
            problems.add(path, format!("duplicate entries for key {element}"));
        }
        value(place.item(item), &Path::Element(path, element), below, problems);
    }
}
