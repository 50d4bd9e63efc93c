//! A structural schema as types of the table, so that decoding, pruning, patches and server-side apply need to know
//! nothing of custom kinds.

use std::collections::BTreeMap;

use super::schema::{Additional, JsonType, Schema};
use crate::facts::{Field, ListType, Shape, Type, TypeId, TypeSet};
use crate::table::{Gvk, Table};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Types of one version of a custom kind, and which of them is its object.
pub(super) fn build(schema: &Schema, gvk: Gvk) -> (TypeSet, TypeId) {
    let mut builder = Builder { set: TypeSet::default(), metadata: TypeId(0) };
    builder.metadata = builder.standard(Table::builtin().types(), OBJECT_META);
    let root = builder.object(schema, &gvk.kind, true);
    builder.set.types[root.0 as usize].gvks = vec![gvk];
    (builder.set, root)
}

struct Builder {
    set: TypeSet,
    metadata: TypeId,
}

impl Builder {
    /// A place for a type, so that others can refer to it before it is made.
    fn reserve(&mut self, name: &str) -> TypeId {
        let id = TypeId(u32::try_from(self.set.types.len()).expect("admission limits the nodes of a schema"));
        self.set.types.push(Type {
            name: name.to_owned(),
            go_name: "unstructured.Unstructured".into(),
            fields: Vec::new(),
            atomic: false,
            custom: true,
            open: false,
            gvks: Vec::new(),
            proto_order: Vec::new(),
        });
        id
    }

    /// Copies a built-in type and what it refers to.
    fn standard(&mut self, from: &TypeSet, name: &str) -> TypeId {
        let mut copied = BTreeMap::new();
        from.named(name).map_or(TypeId(0), |ty| self.copy(from, ty.id, &mut copied))
    }

    fn copy(&mut self, from: &TypeSet, id: TypeId, copied: &mut BTreeMap<TypeId, TypeId>) -> TypeId {
        if let Some(known) = copied.get(&id) {
            return *known;
        }
        let place = self.reserve("");
        copied.insert(id, place);
        let mut ty = from.get(id).clone();
        for field in &mut ty.fields {
            field.shape = self.moved(from, &field.shape, copied);
        }
        self.set.by_name.insert(ty.name.clone(), place);
        self.set.types[place.0 as usize] = ty;
        place
    }

    fn moved(&mut self, from: &TypeSet, shape: &Shape, copied: &mut BTreeMap<TypeId, TypeId>) -> Shape {
        match shape {
            Shape::Object(id) => Shape::Object(self.copy(from, *id, copied)),
            Shape::List(item) => Shape::List(Box::new(self.moved(from, item, copied))),
            Shape::Map(item) => Shape::Map(Box::new(self.moved(from, item, copied))),
            other => other.clone(),
        }
    }

    fn object(&mut self, schema: &Schema, name: &str, whole: bool) -> TypeId {
        let place = self.reserve(name);
        let mut fields: Vec<Field> = Vec::with_capacity(schema.properties.len());
        for (field, below) in &schema.properties {
            if !whole || !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
                fields.push(self.field(field, below, name));
            }
        }
        if whole {
            let plain = |name: &str, shape| Field { name: name.into(), shape, ..Field::blank() };
            fields.push(plain("apiVersion", Shape::String));
            fields.push(plain("kind", Shape::String));
            fields.push(plain("metadata", Shape::Object(self.metadata)));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let ty = &mut self.set.types[place.0 as usize];
        (ty.fields, ty.atomic, ty.open) = (fields, schema.map_atomic, schema.preserve_unknown);
        place
    }

    fn field(&mut self, name: &str, schema: &Schema, parent: &str) -> Field {
        let list_type = schema.list_type.unwrap_or_default();
        Field {
            name: name.to_owned(),
            shape: self.shape(schema, &format!("{parent}.{name}")),
            pointer: true,
            list_type,
            list_type_declared: schema.list_type.is_some(),
            list_map_keys: if list_type == ListType::Map { schema.list_keys.clone() } else { Vec::new() },
            atomic: schema.map_atomic,
            default: schema.default.clone(),
            ..Field::blank()
        }
    }

    fn shape(&mut self, schema: &Schema, name: &str) -> Shape {
        if schema.embedded {
            return Shape::Object(self.object(schema, name, true));
        }
        match schema.ty {
            Some(JsonType::Object) => self.object_shape(schema, name),
            Some(JsonType::Array) => match &schema.items {
                Some(items) => Shape::List(Box::new(self.shape(items, name))),
                None => Shape::Json,
            },
            Some(JsonType::String) => Shape::String,
            Some(JsonType::Integer) => Shape::Int64,
            Some(JsonType::Number) => Shape::Double,
            Some(JsonType::Boolean) => Shape::Bool,
            None if schema.int_or_string => Shape::IntOrString,
            // Described in part: what is not described stays.
            None if !schema.properties.is_empty() => Shape::Object(self.object(schema, name, false)),
            None => Shape::Json,
        }
    }

    fn object_shape(&mut self, schema: &Schema, name: &str) -> Shape {
        match &schema.additional {
            Some(Additional::Any) => Shape::Map(Box::new(Shape::Json)),
            Some(Additional::Of(values)) => Shape::Map(Box::new(self.shape(values, name))),
            None if schema.properties.is_empty() && schema.preserve_unknown => Shape::Json,
            None => Shape::Object(self.object(schema, name, false)),
        }
    }
}
