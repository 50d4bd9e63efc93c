//! The walk over a document and its type at the same time. One pass, no intermediate document.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{FieldProblem, MAX_PROBLEMS, scalar};
use crate::facts::{Field, Shape, Type, TypeRef, TypeSet};

/// What the walk finds besides the document.
#[derive(Default)]
pub(super) struct Context {
    pub(super) problems: RefCell<Vec<FieldProblem>>,
    pub(super) error: RefCell<Option<String>>,
}

impl Context {
    fn problem(&self, problem: FieldProblem) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Keeps the text out of the reader's hands, which would add a line and column to it.
    fn fail<E: Error>(&self, text: String) -> E {
        *self.error.borrow_mut() = Some(text);
        E::custom("refused")
    }
}

/// Where the walk is; lives on the stack.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    /// `spec.containers[0].image`.
    fn full(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(Path::Root, name) => (*name).to_owned(),
            Path::Field(parent, name) => format!("{}.{name}", parent.full()),
            Path::Index(parent, at) => format!("{}[{at}]", parent.full()),
        }
    }

    /// `spec.containers.image`: Go names fields only.
    fn fields(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(parent, name) => match parent.fields() {
                lead if lead.is_empty() => (*name).to_owned(),
                lead => format!("{lead}.{name}"),
            },
            Path::Index(parent, _) => parent.fields(),
        }
    }
}

/// The walker for one value. Yields none for null.
#[derive(Clone, Copy)]
pub(super) struct Walker<'a> {
    set: &'a TypeSet,
    shape: &'a Shape,
    /// The type whose field is being read, and the field.
    owner: Option<(&'a Type, &'a Field)>,
    path: &'a Path<'a>,
    context: &'a Context,
}

/// The walker for a whole document.
pub(super) fn root<'a>(ty: TypeRef<'a>, context: &'a Context) -> Root<'a> {
    Root { ty, shape: Shape::Object(ty.id), context }
}

/// The walker for a document of any form; it finds keys that are given twice.
pub(super) fn free<'a>(ty: TypeRef<'a>, context: &'a Context) -> Root<'a> {
    Root { ty, shape: Shape::Json, context }
}

/// Owns what the first walker borrows.
pub(super) struct Root<'a> {
    ty: TypeRef<'a>,
    shape: Shape,
    context: &'a Context,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let (set, context) = (self.ty.set, self.context);
        Walker { set, shape: &self.shape, owner: None, path: &Path::Root, context }.deserialize(deserializer)
    }
}

impl Walker<'_> {
    fn mismatch<E: Error>(&self, found: &str) -> E {
        let expected = self.go_type(self.shape);
        let at = match self.owner {
            Some((ty, _)) => {
                let name = ty.go_name.rsplit('.').next().unwrap_or_default();
                format!("Go struct field {name}.{}", self.path.fields())
            }
            None => "Go value".to_owned(),
        };
        self.context.fail(format!("json: cannot unmarshal {found} into {at} of type {expected}"))
    }

    fn go_type(&self, shape: &Shape) -> String {
        match shape {
            Shape::String => match self.owner.and_then(|(_, field)| field.values.as_ref()) {
                Some(values) => values.name.clone(),
                None => "string".into(),
            },
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Double => "float64".into(),
            Shape::Bool => "bool".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::IntOrString => "int32".into(),
            Shape::Time | Shape::MicroTime => "string".into(),
            Shape::RawExtension => "runtime.RawExtension".into(),
            Shape::FieldsV1 => "v1.FieldsV1".into(),
            Shape::Json => "interface {}".into(),
            Shape::ObjectOr(_, name) => format!("v1.{name}"),
            Shape::Object(id) => self.set.get(*id).go_name.clone(),
            Shape::List(item) => format!("[]{}", self.go_type(item)),
            Shape::Map(item) => format!("map[string]{}", self.go_type(item)),
        }
    }

    fn is_free(&self) -> bool {
        matches!(self.shape, Shape::Json | Shape::RawExtension | Shape::FieldsV1 | Shape::ObjectOr(..))
            || self.is_custom()
    }

    /// Inside a custom resource, where only unknown fields are the walk's business.
    fn is_custom(&self) -> bool {
        let is_standard = matches!(self.shape, Shape::Object(id) if !self.set.get(*id).custom);
        !is_standard && self.owner.is_some_and(|(ty, _)| ty.custom)
    }

    fn number<E: Error>(&self, number: Number) -> Result<Option<Value>, E> {
        let fits = |min: i64, max: i64| number.as_i64().is_some_and(|value| (min..=max).contains(&value));
        match self.shape {
            Shape::Int32 | Shape::IntOrString if fits(i32::MIN.into(), i32::MAX.into()) => Ok(Some(number.into())),
            Shape::Int64 if fits(i64::MIN, i64::MAX) => Ok(Some(number.into())),
            Shape::Double => Ok(Some(number.into())),
            Shape::Quantity => match scalar::quantity(&number.to_string()) {
                Ok(text) => Ok(Some(text.into())),
                Err(text) => Err(self.context.fail(text)),
            },
            _ if self.is_free() => Ok(Some(number.into())),
            Shape::Int32 | Shape::Int64 | Shape::IntOrString => Err(self.mismatch(&format!("number {number}"))),
            _ => Err(self.mismatch("number")),
        }
    }

    fn text<E: Error>(&self, text: String) -> Result<Option<Value>, E> {
        let checked = match self.shape {
            Shape::String | Shape::IntOrString => return Ok(Some(text.into())),
            Shape::Quantity => scalar::quantity(&text),
            Shape::Time => scalar::time(&text),
            Shape::MicroTime => scalar::micro_time(&text),
            Shape::Bytes => scalar::base64(text),
            _ if self.is_free() => return Ok(Some(text.into())),
            _ => return Err(self.mismatch("string")),
        };
        checked.map(|text| Some(text.into())).map_err(|text| self.context.fail(text))
    }

    /// What null means as an item of a list or map, where it cannot be left out: Go's zero value.
    fn zero(&self) -> Value {
        match self.shape {
            Shape::String => "".into(),
            Shape::Int32 | Shape::Int64 | Shape::IntOrString => 0.into(),
            Shape::Bool => false.into(),
            Shape::Quantity => "0".into(),
            Shape::Object(_) => Map::new().into(),
            _ => Value::Null,
        }
    }

    fn typed_map<'de, A: MapAccess<'de>>(&self, ty: &Type, mut access: A) -> Result<Option<Value>, A::Error> {
        let mut map = Map::with_capacity(access.size_hint().unwrap_or(ty.fields.len().min(8)));
        while let Some(key) = access.next_key_seed(KeyWalker { ty })? {
            let field = match key {
                Key::Known(at) => &ty.fields[at],
                Key::Unknown(name) if ty.open => {
                    self.open_field(&mut map, name, &mut access)?;
                    continue;
                }
                Key::Unknown(name) => {
                    access.next_value::<IgnoredAny>()?;
                    self.context.problem(FieldProblem::Unknown(Path::Field(self.path, &name).full()));
                    continue;
                }
            };
            let path = Path::Field(self.path, &field.name);
            let below = Walker { shape: &field.shape, owner: Some((ty, field)), path: &path, ..*self };
            let value =
                access.next_value_seed(below)?.filter(|value| !is_omitted(field, value) || self.is_reset(field));
            let previous = match value {
                Some(value) => map.insert(field.name.clone(), value),
                None => None,
            };
            if previous.is_some() {
                self.context.problem(FieldProblem::Duplicate(path.full()));
            }
        }
        Ok(Some(map.into()))
    }

    /// A field that the schema does not name and that is kept.
    fn open_field<'de, A: MapAccess<'de>>(
        &self,
        map: &mut Map<String, Value>,
        name: String,
        access: &mut A,
    ) -> Result<(), A::Error> {
        let path = Path::Field(self.path, &name);
        let below = Walker { shape: &Shape::Json, owner: None, path: &path, ..*self };
        let value = access.next_value_seed(below)?.unwrap_or(Value::Null);
        if map.contains_key(&name) {
            self.context.problem(FieldProblem::Duplicate(path.full()));
        }
        map.insert(name, value);
        Ok(())
    }

    /// An empty list of managed fields is not none: it asks for all owners to be forgotten.
    fn is_reset(&self, field: &Field) -> bool {
        field.name == "managedFields" && matches!(self.path, Path::Field(Path::Root, _))
    }

    fn free_map<'de, A: MapAccess<'de>>(&self, item: &Shape, mut access: A) -> Result<Option<Value>, A::Error> {
        let mut map = Map::with_capacity(access.size_hint().unwrap_or(4));
        while let Some(key) = access.next_key::<String>()? {
            let path = Path::Field(self.path, &key);
            let below = Walker { shape: item, path: &path, ..*self };
            let value = access.next_value_seed(below)?.unwrap_or_else(|| below.zero());
            if map.contains_key(&key) {
                self.context.problem(FieldProblem::Duplicate(path.full()));
            }
            map.insert(key, value);
        }
        Ok(Some(map.into()))
    }
}

/// Go leaves these out when it writes them back.
fn is_omitted(field: &Field, value: &Value) -> bool {
    if !field.omit_empty || field.pointer {
        return false;
    }
    match value {
        Value::String(text) => text.is_empty() && field.shape == Shape::String,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0) && matches!(field.shape, Shape::Int32 | Shape::Int64),
        Value::Array(items) => items.is_empty() && matches!(field.shape, Shape::List(_)),
        Value::Object(map) => map.is_empty() && matches!(field.shape, Shape::Map(_)),
        Value::Null => true,
    }
}

impl<'de> DeserializeSeed<'de> for Walker<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walker<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(if self.is_free() { Some(Value::Null) } else { None })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        if self.shape == &Shape::Bool || self.is_free() { Ok(Some(value.into())) } else { Err(self.mismatch("bool")) }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => Err(self.mismatch("number")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.text(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Self::Value, E> {
        self.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let item = match self.shape {
            Shape::List(item) => item,
            _ if self.is_free() => &Shape::Json,
            _ => return Err(self.mismatch("array")),
        };
        let mut items = Vec::with_capacity(access.size_hint().unwrap_or(0));
        loop {
            let path = Path::Index(self.path, items.len());
            let below = Walker { shape: item, path: &path, ..self };
            match access.next_element_seed(below)? {
                Some(value) => items.push(value.unwrap_or_else(|| below.zero())),
                None => return Ok(Some(items.into())),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            Shape::Object(id) | Shape::ObjectOr(id, _) => self.typed_map(self.set.get(*id), access),
            Shape::Map(item) => self.free_map(item, access),
            _ if self.is_free() => self.free_map(&Shape::Json, access),
            _ => Err(self.mismatch("object")),
        }
    }
}

/// A key of a typed object: known ones cost no allocation.
enum Key {
    Known(usize),
    Unknown(String),
}

struct KeyWalker<'a> {
    ty: &'a Type,
}

impl<'de> DeserializeSeed<'de> for KeyWalker<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyWalker<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        let found = self.ty.fields.binary_search_by(|field| field.name.as_str().cmp(name));
        Ok(found.map_or_else(|_| Key::Unknown(name.to_owned()), Key::Known))
    }
}
