//! What upstream asks of single fields, wherever their type is embedded: rows of type, field and rule in [`table`], and what
//! several fields of a type must be together in [`together`]. Never looks outside the object of the type.

pub(super) use together::SOURCES as VOLUME_SOURCES;

mod address;
mod table;
mod text;
mod together;
mod together_more;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use isopod_types::Quantity;
use serde_json::{Map, Value};

use super::container::port_name;
use super::{Errors, FieldError, metadata};
use crate::facts::Type;

/// Fields of one object.
type Object = Map<String, Value>;
/// What is wrong with a text.
type Check = fn(&str) -> Vec<String>;
/// What several fields must be together; whether what is below is looked at as well.
type Together = fn(&Object, &str, &mut Errors) -> bool;

const PORT: &str = "must be between 1 and 65535, inclusive";
const MAX_PORT: i64 = 65_535;

/// What a field must be.
#[derive(Clone, Copy)]
enum Rule {
    /// A text that passes. An empty one is none, unless the field tells absent from empty.
    Text(Check),
    /// A text that passes, and an absent one counts as empty.
    Named(Check),
    /// Each text of a list passes.
    Each(Check),
    /// Present and not empty; with what the message adds.
    Required(&'static str),
    /// Present, were it empty; with what the message adds.
    Present(&'static str),
    /// Absent, or not empty; with what the message adds.
    Filled(&'static str),
    /// One of these, in the order of the message; absent is fine.
    OneOf(&'static [&'static str]),
    /// One of these, in the order of the message.
    Choice(&'static [&'static str]),
    /// Each of a list is one of these; the message names the list.
    EachOf(&'static [&'static str]),
    /// At least this, and what is said otherwise.
    AtLeast(i64, &'static str),
    /// At most this, and what is said otherwise.
    AtMost(i64, &'static str),
    /// The same for an absent number, which counts as 0.
    Counted(i64, &'static str),
    /// A port's number, or its name.
    Port,
    /// No longer than this in bytes.
    MaxBytes(usize),
    /// Items differ in this field, or are texts that differ.
    Unique(&'static str),
    /// Keys and values are those of labels.
    Labels,
    /// A quantity above zero.
    Positive,
    /// Nothing, though OpenAPI calls it required.
    Free,
}

/// Type, field and what the field must be. Types without `io.k8s.api.`.
type Row = (&'static str, &'static str, &'static [Rule]);

/// Everything that is known about the fields of one type.
#[derive(Default)]
pub(super) struct Rules {
    fields: Vec<(&'static str, &'static [Rule])>,
    together: Option<Together>,
}

impl Rules {
    /// Whether the schema's own demands on a field (required, a closed set) are said here in upstream's words.
    pub(super) fn covers(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, rules)| *name == field && rules.iter().any(Rule::replaces_schema))
    }

    /// Checks the fields of an object at a path. Whether what is below is looked at as well.
    pub(super) fn check(&self, ty: &Type, object: &Object, path: &str, errors: &mut Errors) -> bool {
        for (name, rules) in &self.fields {
            let pointer = ty.field(name).is_some_and(|field| field.pointer);
            let value = object.get(*name).filter(|value| !value.is_null());
            let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
            let found = errors.list.len();
            for rule in *rules {
                // What is missing has no form.
                if errors.list.len() == found || !matches!(rule, Rule::Text(_)) {
                    rule.check(value, pointer, &path, errors);
                }
            }
        }
        self.together.is_none_or(|together| together(object, path, errors))
    }
}

/// The rules of a type, if there are any.
pub(super) fn of(ty: &Type) -> Option<&'static Rules> {
    static RULES: OnceLock<BTreeMap<&'static str, Rules>> = OnceLock::new();
    RULES.get_or_init(build).get(ty.name.strip_prefix("io.k8s.api.").unwrap_or(&ty.name))
}

fn build() -> BTreeMap<&'static str, Rules> {
    let mut all: BTreeMap<&'static str, Rules> = BTreeMap::new();
    for (ty, field, rules) in table::ROWS.iter().flat_map(|rows| rows.iter()) {
        all.entry(ty).or_default().fields.push((field, rules));
    }
    for (ty, together) in together::ROWS.iter().chain(together_more::ROWS) {
        all.entry(ty).or_default().together = Some(*together);
    }
    all
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

fn as_text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = (usize, &str)> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).enumerate()
}

/// The supported values as given: upstream sorts only some of its lists.
pub(super) fn unsupported(path: &str, text: &str, known: &[&str]) -> FieldError {
    let known: Vec<String> = known.iter().map(|text| format!("{text:?}")).collect();
    let detail = format!("supported values: {}", known.join(", "));
    FieldError { value: Some(text.into()), ..FieldError::new(super::ErrorType::NotSupported, path, detail) }
}

impl Rule {
    fn replaces_schema(&self) -> bool {
        matches!(
            self,
            Self::Named(_) | Self::Required(_) | Self::OneOf(_) | Self::Choice(_) | Self::EachOf(_) | Self::Free
        )
    }

    fn check(self, value: Option<&Value>, pointer: bool, path: &str, errors: &mut Errors) {
        match self {
            Self::Text(check) if value.is_some() && (pointer || !is_empty(value)) => {
                errors.invalid_all(path, as_text(value), check(as_text(value)));
            }
            Self::Named(check) => errors.invalid_all(path, as_text(value), check(as_text(value))),
            Self::Each(check) => {
                texts(value).for_each(|(at, text)| errors.invalid_all(&format!("{path}[{at}]"), text, check(text)))
            }
            Self::Required(_) if pointer && value.is_some() => {}
            Self::Required(detail) if is_empty(value) => errors.push(FieldError::required(path, detail)),
            Self::Present(detail) if value.is_none() => errors.push(FieldError::required(path, detail)),
            Self::Filled(detail) if value.is_some() && is_empty(value) => {
                errors.push(FieldError::required(path, detail))
            }
            Self::OneOf(_) if value.is_none() || !pointer && is_empty(value) => {}
            Self::OneOf(known) | Self::Choice(known) if !known.contains(&as_text(value)) => {
                errors.push(unsupported(path, as_text(value), known));
            }
            Self::EachOf(known) => texts(value)
                .filter(|(_, text)| !known.contains(text))
                .for_each(|(_, text)| errors.push(unsupported(path, text, known))),
            Self::Positive => positive(as_text(value), path, errors),
            Self::Unique(field) => unique(value, field, path, errors),
            Self::Labels => metadata::labels(value, path, errors),
            Self::MaxBytes(limit) if as_text(value).len() > limit => errors.push(FieldError::too_long(path, limit)),
            _ => self.number(value, path, errors),
        }
    }

    fn number(self, value: Option<&Value>, path: &str, errors: &mut Errors) {
        let number = value.and_then(Value::as_i64);
        let (wrong, text) = match self {
            Self::AtLeast(least, text) => (number.is_some_and(|number| number < least), text),
            Self::Counted(least, text) => (number.unwrap_or_default() < least, text),
            Self::AtMost(most, text) => (number.is_some_and(|number| number > most), text),
            Self::Port if value.is_some_and(Value::is_string) => {
                return errors.invalid_all(path, as_text(value), port_name(as_text(value)));
            }
            Self::Port => (number.is_some_and(|number| !(1..=MAX_PORT).contains(&number)), PORT),
            _ => return,
        };
        if wrong {
            errors.push(FieldError::invalid(path, number.unwrap_or_default(), text));
        }
    }
}

fn positive(text: &str, path: &str, errors: &mut Errors) {
    if text.parse::<Quantity>().is_ok_and(|amount| amount <= Quantity::ZERO) {
        errors.push(FieldError::invalid(path, text, "must be positive"));
    }
}

fn unique(list: Option<&Value>, field: &str, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, item) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let (key, path) = match field {
            "" => (Some(item), format!("{path}[{at}]")),
            field => (item.get(field), format!("{path}[{at}].{field}")),
        };
        if !seen.insert(key.unwrap_or(&Value::Null).to_string()) {
            errors.push(FieldError::duplicate(path, key.cloned().unwrap_or_else(|| "".into())));
        }
    }
}
