//! Values against a schema, in the words that upstream's clients know. What an update leaves as it was is not looked at
//! again.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::formats;
use super::schema::{Additional, JsonType, Limits, Schema};
use crate::facts::ListType;
use crate::validate::{ErrorType, FieldError};

/// Most errors that are reported of one object.
const MAX_ERRORS: usize = 100;
/// What stands for the path of an error that is about no field.
const NO_PATH: &str = "<nil>";

/// Checks a whole object.
pub(super) fn check(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walk = Walk { path: String::new(), errors: Vec::new() };
    walk.object_fields(schema, object.as_object().unwrap_or(&Map::new()), old, true);
    walk.junctors(schema, object);
    if let (Some(fields), Limits { max_properties: Some(_), .. }) = (object.as_object(), &schema.limits) {
        walk.counts(&schema.limits, fields.len(), "properties");
    }
    walk.errors.truncate(MAX_ERRORS);
    walk.errors
}

/// A default or an example against its schema, at a path.
pub(super) fn check_part(schema: &Schema, value: &Value, path: &str) -> Vec<FieldError> {
    let mut walk = Walk { path: path.to_owned(), errors: Vec::new() };
    walk.value(schema, value, None);
    walk.errors
}

/// The name of a value's type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_type(ty: JsonType, value: &Value) -> bool {
    match (ty, value) {
        (JsonType::Object, Value::Object(_))
        | (JsonType::Array, Value::Array(_))
        | (JsonType::String, Value::String(_))
        | (JsonType::Boolean, Value::Bool(_))
        | (JsonType::Number, Value::Number(_)) => true,
        (JsonType::Integer, Value::Number(number)) => number.as_f64().is_none_or(|number| number.fract() == 0.0),
        _ => false,
    }
}

/// Where the walk is, and what it found.
struct Walk {
    path: String,
    errors: Vec<FieldError>,
}

impl Walk {
    fn invalid(&mut self, value: &Value, text: &str) {
        let path = if self.path.is_empty() { NO_PATH } else { &self.path };
        let error = FieldError::invalid(path, value.clone(), format!("{} in body {text}", self.path));
        self.errors.push(error);
    }

    /// An error of a whole part, which upstream reports without a path.
    fn about(&mut self, text: &str) {
        self.errors.push(FieldError::invalid(NO_PATH, "", format!("{:?} {text}", self.path)));
    }

    fn wrong_type(&mut self, expected: &str, shown: Value) {
        let detail = format!("{} in body must be of type {expected}: {shown}", self.path);
        self.errors
            .push(FieldError { value: Some(shown), ..FieldError::new(ErrorType::TypeInvalid, &*self.path, detail) });
    }

    /// Runs something one step further down.
    fn below(&mut self, step: &str, run: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        run(self);
        self.path.truncate(length);
    }

    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>) {
        if old == Some(value) || self.errors.len() >= MAX_ERRORS || (value.is_null() && schema.nullable) {
            return;
        }
        if !self.is_of_type(schema, value) {
            return;
        }
        self.junctors(schema, value);
        self.closed_set(&schema.limits, value);
        match value {
            Value::String(text) => self.text(&schema.limits, text),
            Value::Number(number) => self.number(&schema.limits, value, number.as_f64().unwrap_or_default()),
            Value::Array(items) => self.items(schema, items, old),
            Value::Object(fields) => {
                self.counts(&schema.limits, fields.len(), "properties");
                self.object_fields(schema, fields, old, schema.embedded);
                if schema.embedded {
                    self.embedded(fields);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn is_of_type(&mut self, schema: &Schema, value: &Value) -> bool {
        if schema.int_or_string {
            let fits = is_type(JsonType::Integer, value) || value.is_string();
            if !fits {
                self.wrong_type("integer,string", type_name(value).into());
            }
            return fits;
        }
        match schema.ty {
            Some(ty) if !is_type(ty, value) => {
                self.wrong_type(ty.as_str(), type_name(value).into());
                false
            }
            _ => true,
        }
    }

    /// A whole object inside another needs to say what it is.
    fn embedded(&mut self, fields: &Map<String, Value>) {
        for name in ["apiVersion", "kind"] {
            if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
                self.errors.push(FieldError::required(path, "must not be empty"));
            }
        }
    }

    fn closed_set(&mut self, limits: &Limits, value: &Value) {
        let Some(values) = &limits.values else { return };
        if values.contains(value) {
            return;
        }
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let texts: Vec<String> = values.iter().map(shown).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.errors.push(FieldError::not_supported(&*self.path, value.clone(), &texts));
    }

    fn text(&mut self, limits: &Limits, text: &str) {
        let value = Value::from(text);
        let length = text.chars().count() as u64;
        if let Some(max) = limits.max_length.filter(|max| length > *max) {
            self.errors.push(FieldError::too_long(&*self.path, usize::try_from(max).unwrap_or(usize::MAX)));
        }
        if let Some(min) = limits.min_length.filter(|min| length < *min) {
            self.invalid(&value, &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.regex.is_match(text)) {
            self.invalid(&value, &format!("should match '{}'", pattern.text));
        }
        if let Some(format) = limits.format.as_ref().filter(|format| !formats::fits(format, text)) {
            self.wrong_type(format, value);
        }
    }

    fn number(&mut self, limits: &Limits, value: &Value, number: f64) {
        if let Some(max) = limits.maximum {
            match limits.exclusive_maximum {
                true if number >= max => self.invalid(value, &format!("should be less than {max}")),
                false if number > max => self.invalid(value, &format!("should be less than or equal to {max}")),
                _ => {}
            }
        }
        if let Some(min) = limits.minimum {
            match limits.exclusive_minimum {
                true if number <= min => self.invalid(value, &format!("should be greater than {min}")),
                false if number < min => self.invalid(value, &format!("should be greater than or equal to {min}")),
                _ => {}
            }
        }
        if let Some(divisor) = limits.multiple_of.filter(|divisor| *divisor > 0.0 && (number / divisor).fract() != 0.0)
        {
            self.invalid(value, &format!("should be a multiple of {divisor}"));
        }
        let fits = match limits.format.as_deref() {
            Some("int32") => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
            Some("int64") => value.as_i64().is_some() || number.fract() == 0.0 && number.abs() < i64::MAX as f64,
            _ => true,
        };
        if !fits {
            self.wrong_type(limits.format.as_deref().unwrap_or_default(), value.clone());
        }
    }

    /// Fewest and most items or fields.
    fn counts(&mut self, limits: &Limits, count: usize, what: &str) {
        let (min, max) = match what {
            "items" => (limits.min_items, limits.max_items),
            _ => (limits.min_properties, limits.max_properties),
        };
        if let Some(max) = max.and_then(|max| usize::try_from(max).ok()).filter(|max| count > *max) {
            self.errors.push(FieldError::too_many(&*self.path, count, max));
        }
        if let Some(min) = min.filter(|min| (count as u64) < *min) {
            self.invalid(&count.into(), &format!("should have at least {min} {what}"));
        }
    }

    fn items(&mut self, schema: &Schema, items: &[Value], old: Option<&Value>) {
        self.counts(&schema.limits, items.len(), "items");
        let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(below) = &schema.items {
            for (at, item) in items.iter().enumerate() {
                let old = counterpart(schema, item, at, before);
                self.below(&format!("[{at}]"), |walk| walk.value(below, item, old));
            }
        }
        match schema.list_type {
            Some(ListType::Set) => self.duplicates(items, |item| Some(item.clone())),
            Some(ListType::Map) => self.duplicates(items, |item| keys_of(schema, item)),
            _ => {}
        }
    }

    fn duplicates(&mut self, items: &[Value], key: impl Fn(&Value) -> Option<Value>) {
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            if let Some(key) = key(item)
                && !seen.insert(key.to_string())
            {
                self.errors.push(FieldError::duplicate(format!("{}[{at}]", self.path), key));
            }
        }
    }

    /// Fields of an object; those of its metadata have rules of their own when it is a whole object.
    fn object_fields(&mut self, schema: &Schema, fields: &Map<String, Value>, old: Option<&Value>, whole: bool) {
        for name in &schema.required {
            if !fields.contains_key(name) {
                let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
                self.errors.push(FieldError::required(path, ""));
            }
        }
        for (name, value) in fields {
            if whole && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            let below = match (schema.properties.get(name), &schema.additional) {
                (Some(below), _) => below,
                (None, Some(Additional::Of(below))) => below,
                _ => continue,
            };
            let old = old.and_then(|old| old.get(name));
            self.below(name, |walk| walk.value(below, value, old));
        }
    }

    /// Nothing is left out below: an alternative holds for the whole value or does not.
    fn junctors(&mut self, schema: &Schema, value: &Value) {
        let mut failures = |schema: &Schema| {
            let mut walk = Walk { path: self.path.clone(), errors: Vec::new() };
            walk.value(schema, value, None);
            walk.errors
        };
        let all: Vec<Vec<FieldError>> = schema.all_of.iter().map(&mut failures).collect();
        let any: Vec<Vec<FieldError>> = schema.any_of.iter().map(&mut failures).collect();
        let one: Vec<Vec<FieldError>> = schema.one_of.iter().map(&mut failures).collect();
        let not = schema.not.as_deref().map(&mut failures);
        let fitting = |results: &[Vec<FieldError>]| results.iter().filter(|errors| errors.is_empty()).count();
        let nearest = |results: Vec<Vec<FieldError>>| results.into_iter().min_by_key(Vec::len).unwrap_or_default();
        if fitting(&all) < all.len() {
            let none = if fitting(&all) == 0 { ". None validated" } else { "" };
            self.about(&format!("must validate all the schemas (allOf){none}"));
            self.errors.extend(all.into_iter().flatten());
        }
        if !any.is_empty() && fitting(&any) == 0 {
            self.about("must validate at least one schema (anyOf)");
            self.errors.extend(nearest(any));
        }
        match (one.is_empty(), fitting(&one)) {
            (true, _) | (false, 1) => {}
            (false, 0) => {
                self.about("must validate one and only one schema (oneOf). Found none valid");
                self.errors.extend(nearest(one));
            }
            (false, count) => {
                self.about(&format!("must validate one and only one schema (oneOf). Found {count} valid alternatives"));
            }
        }
        if not.is_some_and(|errors| errors.is_empty()) {
            self.about("must not validate the schema (not)");
        }
    }
}

/// The keys of an item of a list that is a map; keys that are absent take their defaults.
pub(super) fn keys_of(schema: &Schema, item: &Value) -> Option<Value> {
    let items = schema.items.as_ref()?;
    let mut keys = Map::new();
    for key in &schema.list_keys {
        let default = || items.properties.get(key).and_then(|schema| schema.default.clone());
        if let Some(value) = item.get(key).cloned().or_else(default) {
            keys.insert(key.clone(), value);
        }
    }
    Some(keys.into())
}

/// What an item was before: the one with the same keys, or nothing where items have no identity.
pub(super) fn counterpart<'a>(schema: &Schema, item: &Value, at: usize, before: &'a [Value]) -> Option<&'a Value> {
    match schema.list_type {
        Some(ListType::Map) => {
            let keys = keys_of(schema, item);
            before.iter().find(|candidate| keys_of(schema, candidate) == keys)
        }
        Some(ListType::Set) => before.iter().find(|candidate| *candidate == item),
        _ => before.get(at).filter(|candidate| *candidate == item),
    }
}
