//! Documents that fit a type, made of any bytes, for property tests and fuzz targets. Names and values are few, so that two
//! documents of the same type are often about the same things. Says nothing about what validation demands.

use isopod_schema::facts::{Field, ListType};
use isopod_schema::{Shape, TypeRef, TypeSet};
use serde_json::{Map, Value, json};

/// Deepest nesting.
const DEPTH_MAX: usize = 10;
/// Names of keys, and texts.
const WORDS: [&str; 5] = ["a", "b", "c", "a/b", ""];
/// Fields of an object, and of its metadata, that nobody owns.
const UNOWNED: [&str; 2] = ["apiVersion", "kind"];
const UNOWNED_METADATA: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Bytes that decide; when they are used up, everything is the least that there can be.
pub struct Source<'b>(&'b [u8]);

impl<'b> Source<'b> {
    /// Decisions by these bytes.
    pub const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Nothing is left to decide.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number less than the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % limit.max(1)
    }

    fn pick(&mut self, words: &[&'static str]) -> Value {
        words[self.below(words.len())].into()
    }
}

/// An object of a type, without what nobody owns.
pub fn document(ty: TypeRef<'_>, source: &mut Source<'_>) -> Value {
    let mut document = fields(ty, source, DEPTH_MAX);
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|name, _| !UNOWNED.contains(&name.as_str()));
    }
    if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !UNOWNED_METADATA.contains(&name.as_str()));
    }
    document
}

fn fields(ty: TypeRef<'_>, source: &mut Source<'_>, depth: usize) -> Value {
    let (all, mut object) = (&ty.get().fields, Map::new());
    if ty.get().open && source.below(2) == 1 {
        object.insert("free".into(), free(source, depth));
    }
    if all.is_empty() || depth == 0 {
        return object.into();
    }
    for _ in 0..source.below(5) {
        let field = &all[source.below(all.len())];
        object.insert(field.name.clone(), of_field(ty.set, field, source, depth - 1));
    }
    object.into()
}

fn of_field(set: &TypeSet, field: &Field, source: &mut Source<'_>, depth: usize) -> Value {
    if source.below(24) == 23 {
        return Value::Null;
    }
    match (&field.shape, &field.values) {
        (Shape::String, Some(values)) => values.values[source.below(values.values.len())].as_str().into(),
        (Shape::List(item), _) => list(set, field, item, source, depth),
        (shape, _) => value(set, shape, source, depth),
    }
}

fn list(set: &TypeSet, field: &Field, item: &Shape, source: &mut Source<'_>, depth: usize) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for _ in 0..source.below(4) {
        let mut made = value(set, item, source, depth);
        give_keys(set, field, item, &mut made, source);
        if field.list_type == ListType::Atomic || !items.iter().any(|other| is_same(set, field, item, other, &made)) {
            items.push(made);
        }
    }
    items.into()
}

/// An item of a list that is told apart by keys has them, but for those that have defaults.
fn give_keys(set: &TypeSet, field: &Field, item: &Shape, made: &mut Value, source: &mut Source<'_>) {
    let (Shape::Object(id), Value::Object(fields)) = (item, made) else { return };
    for key in &field.list_map_keys {
        let Some(key) = set.get(*id).field(key) else { continue };
        if key.default.is_none() || source.below(2) == 1 {
            fields.insert(key.name.clone(), value(set, &key.shape, source, 1));
        } else {
            fields.shift_remove(&key.name);
        }
    }
}

/// Two items of a list that nothing tells apart.
fn is_same(set: &TypeSet, field: &Field, item: &Shape, left: &Value, right: &Value) -> bool {
    let Shape::Object(id) = item else { return left == right };
    let default = |key: &str| set.get(*id).field(key).and_then(|field| field.default.clone()).unwrap_or_default();
    let of = |item: &Value, key: &str| item.get(key).cloned().unwrap_or_else(|| default(key));
    field.list_map_keys.iter().all(|key| of(left, key) == of(right, key))
}

fn value(set: &TypeSet, shape: &Shape, source: &mut Source<'_>, depth: usize) -> Value {
    match shape {
        Shape::String => source.pick(&WORDS),
        Shape::Bytes => source.pick(&["", "YQ==", "Yg=="]),
        Shape::Int32 | Shape::Int64 => source.below(4).into(),
        Shape::Double => json!(source.below(4) as f64 / 2.0),
        Shape::Bool => (source.below(2) == 1).into(),
        Shape::Quantity => source.pick(&["1", "1000m", "1Gi", "0"]),
        Shape::IntOrString => [json!(1), json!("50%"), json!(80), json!("a")][source.below(4)].clone(),
        Shape::Time => source.pick(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
        Shape::MicroTime => source.pick(&["2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000001Z"]),
        Shape::Json | Shape::RawExtension | Shape::FieldsV1 | Shape::ObjectOr(..) => free(source, depth.min(3)),
        Shape::Object(id) => fields(TypeRef { set, id: *id }, source, depth),
        Shape::List(item) => (0..source.below(3)).map(|_| value(set, item, source, depth.saturating_sub(1))).collect(),
        Shape::Map(item) => map(source, |source| value(set, item, source, depth.saturating_sub(1))),
    }
}

fn map(source: &mut Source<'_>, mut value: impl FnMut(&mut Source<'_>) -> Value) -> Value {
    let count = source.below(4);
    let entries = (0..count).map(|_| (WORDS[source.below(4)].to_owned(), value(source)));
    entries.collect::<Map<_, _>>().into()
}

/// Any JSON.
fn free(source: &mut Source<'_>, depth: usize) -> Value {
    match source.below(if depth == 0 { 4 } else { 7 }) {
        0 => Value::Null,
        1 => source.pick(&WORDS),
        2 => source.below(3).into(),
        3 => true.into(),
        4 => (0..source.below(3)).map(|_| free(source, depth - 1)).collect(),
        _ => map(source, |source| free(source, depth - 1)),
    }
}
