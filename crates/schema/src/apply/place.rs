//! What the schema says about a value for server-side apply: whether it is one unit, and how the things inside are told
//! apart.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element::{Element, Literal};
use crate::facts::{Field, ListType, Shape, Type, TypeRef, TypeSet};

/// A value's place in the schema.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) set: &'a TypeSet,
    pub(super) shape: &'a Shape,
    /// The field that holds the value; none for items and free keys.
    pub(super) field: Option<&'a Field>,
}

/// How to look at a value.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// As one unit.
    Leaf,
    /// Field by field.
    Struct(&'a Type),
    /// Key by key.
    Map(&'a Shape),
    /// Item by item: by these keys, or in a set (no keys) by value.
    List(&'a [String], &'a Shape),
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Map::new().into());

impl<'a> Place<'a> {
    /// A whole object. `shape` is that of the type.
    pub(super) fn root(ty: TypeRef<'a>, shape: &'a Shape) -> Self {
        Self { set: ty.set, shape, field: None }
    }

    /// An item of a list or the value of a free key.
    pub(super) fn item(self, shape: &'a Shape) -> Self {
        Self { shape, field: None, ..self }
    }

    /// A field of a struct. What a type keeps without knowing it is free JSON.
    pub(super) fn field(self, ty: &'a Type, name: &str) -> Self {
        match ty.field(name) {
            Some(field) => Self { shape: &field.shape, field: Some(field), ..self },
            None => self.item(&Shape::Json),
        }
    }

    /// How values here are looked at. `value` is one of them (null when there is none): free JSON is what it looks like.
    pub(super) fn form(self, value: &Value) -> Form<'a> {
        let granular = self.field.is_some_and(|field| field.granular);
        if self.field.is_some_and(|field| field.atomic) && !granular {
            return Form::Leaf;
        }
        let known = match self.shape {
            Shape::Object(id) => {
                let ty = self.set.get(*id);
                if ty.atomic && !granular { Form::Leaf } else { Form::Struct(ty) }
            }
            Shape::Map(item) => Form::Map(item),
            Shape::List(item) => self.list(item),
            Shape::Json if value.is_object() => Form::Map(&Shape::Json),
            _ => Form::Leaf,
        };
        match known {
            Form::Struct(_) | Form::Map(_) if value.is_object() || value.is_null() => known,
            Form::List(..) if value.is_array() || value.is_null() => known,
            _ => Form::Leaf,
        }
    }

    /// Something with contents that nobody looks into.
    pub(super) fn is_unit(self) -> bool {
        let has_contents = matches!(self.shape, Shape::Object(_) | Shape::Map(_) | Shape::List(_));
        has_contents && matches!(self.form(&Value::Null), Form::Leaf)
    }

    fn list(self, item: &'a Shape) -> Form<'a> {
        match self.field {
            Some(Field { list_type: ListType::Set, .. }) => Form::List(&[], item),
            Some(Field { list_type: ListType::Map, list_map_keys, .. }) => Form::List(list_map_keys, item),
            _ => Form::Leaf,
        }
    }

    /// What tells this item of the list here apart.
    ///
    /// # Errors
    /// The text that says why nothing does.
    pub(super) fn identity(self, keys: &[String], item: &Value) -> Result<Element, String> {
        if keys.is_empty() {
            return set_identity(item);
        }
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let value = |key: &str| fields.get(key).cloned().or_else(|| self.default(key));
        let found: Vec<(String, Literal)> =
            keys.iter().filter_map(|key| Some((key.clone(), Literal(value(key)?)))).collect();
        if found.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            let lead = "associative list with keys has an element that omits all key fields";
            return Err(format!("{lead} [{}] (and doesn't have default values for any key fields)", keys.join(" ")));
        }
        Ok(Element::of_keys(found))
    }

    /// The default of a field of the list's items.
    fn default(self, key: &str) -> Option<Value> {
        let Shape::List(item) = self.shape else { return None };
        let Shape::Object(id) = **item else { return None };
        self.set.get(id).field(key)?.default.clone()
    }
}

fn set_identity(item: &Value) -> Result<Element, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
        scalar => Ok(Element::of_value(scalar.clone())),
    }
}

/// The field of a struct that is there. Go always writes structs that are no pointers and fields without omitempty, so
/// those count as present although documents need not have them.
pub(super) fn field_of<'v>(ty: &Type, fields: Option<&'v Value>, name: &str) -> Option<&'v Value> {
    let fields = fields?;
    fields.get(name).or_else(|| match ty.field(name) {
        _ if ty.custom => None,
        Some(Field { shape: Shape::Object(_), pointer: false, .. }) => Some(&EMPTY),
        Some(Field { shape: Shape::List(_) | Shape::Map(_), omit_empty: false, .. }) => Some(&Value::Null),
        _ => None,
    })
}

/// Names in either object, each once, those of the first one first.
pub(super) fn names<'v>(left: Option<&'v Value>, right: Option<&'v Value>) -> impl Iterator<Item = &'v String> {
    let own = left.and_then(Value::as_object);
    let others = right.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
    let fresh = others.filter(move |name| own.is_none_or(|own| !own.contains_key(*name)));
    own.into_iter().flatten().map(|(name, _)| name).chain(fresh)
}

/// Nothing inside.
pub(super) fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}
