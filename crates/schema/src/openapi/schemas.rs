//! Schemas of types: what the facts say, in either dialect. Only types that were asked for, and what they refer to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Dialect, custom, prose};
use crate::facts::{Field, ListType, PatchStrategy, Shape, Type, TypeId};
use crate::table::{Gvk, Table};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
/// Free JSON in fields of custom resource definitions.
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// Collects the definitions of a document.
pub(super) struct Builder<'a> {
    table: &'a Table,
    /// What is written.
    pub(super) dialect: Dialect,
    pending: Vec<TypeId>,
    seen: BTreeSet<TypeId>,
    special: BTreeSet<&'static str>,
    custom: BTreeMap<String, Value>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(table: &'a Table, dialect: Dialect) -> Self {
        Self {
            table,
            dialect,
            pending: Vec::new(),
            seen: BTreeSet::new(),
            special: BTreeSet::new(),
            custom: BTreeMap::new(),
        }
    }

    /// A reference to the type of a kind; none when it has no type (options given as query parameters).
    pub(super) fn kind(&mut self, gvk: &Gvk) -> Option<Value> {
        match self.table.type_of(gvk) {
            Some(ty) => Some(self.object(ty.id)),
            None => self.custom(gvk),
        }
    }

    /// A reference to a custom kind or its list.
    fn custom(&mut self, gvk: &Gvk) -> Option<Value> {
        let mut of_version = self.table.rows().filter(|kind| kind.group == gvk.group && kind.version == gvk.version);
        let kind =
            of_version.find(|kind| kind.custom.is_some() && (kind.kind == gvk.kind || kind.list_kind() == gvk.kind))?;
        let definition = kind.custom.as_ref()?;
        let name = custom::name(kind, &gvk.kind);
        if !self.custom.contains_key(&name) {
            let is_list = gvk.kind != kind.kind;
            let standard = if is_list { custom::LIST_META } else { custom::OBJECT_META };
            let standard = self.table.types().named(standard)?.id;
            let metadata = self.object(standard);
            let make = if is_list { custom::list } else { custom::object };
            self.custom.insert(name.clone(), make(kind, definition, self.dialect, &metadata));
        }
        Some(self.reference(&name))
    }

    fn object(&mut self, id: TypeId) -> Value {
        if self.seen.insert(id) {
            self.pending.push(id);
        }
        self.reference(&self.table.types().get(id).name)
    }

    fn reference(&self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.dialect.reference())})
    }

    fn special(&mut self, name: &'static str) -> Value {
        self.special.insert(name);
        self.reference(name)
    }

    /// All definitions that were referred to, by name.
    pub(super) fn finish(mut self) -> Value {
        let mut all = std::mem::take(&mut self.custom);
        while let Some(id) = self.pending.pop() {
            let table = self.table;
            let ty = table.types().get(id);
            all.insert(ty.name.clone(), self.definition(ty));
        }
        for name in std::mem::take(&mut self.special) {
            all.insert(name.to_owned(), self.special_definition(name));
        }
        all.into_iter().collect::<Map<_, _>>().into()
    }

    fn definition(&mut self, ty: &Type) -> Value {
        let mut map = Map::new();
        if let Some(text) = prose::text(self.table, &ty.name, "") {
            map.insert("description".into(), text.into());
        }
        map.insert("type".into(), "object".into());
        let required: Vec<&str> =
            ty.fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        if !required.is_empty() {
            map.insert("required".into(), required.into());
        }
        if !ty.fields.is_empty() {
            let fields = ty.fields.iter().map(|field| (field.name.clone(), self.property(ty, field)));
            map.insert("properties".into(), fields.collect::<Map<_, _>>().into());
        }
        if !ty.gvks.is_empty() {
            let gvk = |gvk: &Gvk| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
            map.insert("x-kubernetes-group-version-kind".into(), ty.gvks.iter().map(gvk).collect());
        }
        if ty.atomic {
            map.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        map.into()
    }

    fn special_definition(&self, name: &str) -> Value {
        let v3 = self.dialect == Dialect::V3;
        let mut value = match name {
            QUANTITY if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            QUANTITY => json!({"type": "string"}),
            INT_OR_STRING if v3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            INT_OR_STRING => json!({"type": "string", "format": "int-or-string"}),
            TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
            RAW_EXTENSION | FIELDS_V1 => json!({"type": "object"}),
            _ => json!({}),
        };
        if let Some(text) = prose::text(self.table, name, "") {
            value["description"] = text.into();
        }
        value
    }

    fn property(&mut self, ty: &Type, field: &Field) -> Value {
        let mut map = match self.shape(&field.shape) {
            Value::Object(map) => map,
            other => return other,
        };
        self.values(field, &mut map);
        let mut beside = Map::new();
        if let Some(text) = prose::text(self.table, &ty.name, &field.name) {
            beside.insert("description".into(), text.into());
        }
        if let Some(default) = &field.default {
            beside.insert("default".into(), default.clone());
        } else if self.dialect == Dialect::V3 && matches!(field.shape, Shape::Object(_)) && !field.pointer {
            beside.insert("default".into(), json!({}));
        }
        extensions(field, &mut beside);
        // OpenAPI 3 ignores what stands beside a reference, so the reference is wrapped.
        if self.dialect == Dialect::V3 && map.contains_key("$ref") && !beside.is_empty() {
            map = Map::from_iter([("allOf".to_owned(), json!([map]))]);
        }
        map.extend(beside);
        map.into()
    }

    /// The closed set of a text, or of the items of a list.
    fn values(&self, field: &Field, map: &mut Map<String, Value>) {
        let Some(closed) = &field.values else { return };
        let values: Value = closed.values.clone().into();
        match map.get_mut("items") {
            Some(items) => items["enum"] = values,
            None => drop(map.insert("enum".into(), values)),
        }
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => self.special(QUANTITY),
            Shape::IntOrString => self.special(INT_OR_STRING),
            Shape::Time => self.special(TIME),
            Shape::MicroTime => self.special(MICRO_TIME),
            Shape::RawExtension => self.special(RAW_EXTENSION),
            Shape::FieldsV1 => self.special(FIELDS_V1),
            Shape::Json | Shape::ObjectOr(..) => self.special(JSON),
            Shape::Object(id) => self.object(*id),
            Shape::List(item) => json!({"type": "array", "items": self.shape(item)}),
            Shape::Map(item) => json!({"type": "object", "additionalProperties": self.shape(item)}),
        }
    }
}

/// What apply and strategic merge need to know of a field.
fn extensions(field: &Field, map: &mut Map<String, Value>) {
    let mut put = |name: &str, value: Value| drop(map.insert(format!("x-kubernetes-{name}"), value));
    if field.list_type_declared && matches!(field.shape, Shape::List(_)) {
        let ty = match field.list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        put("list-type", ty.into());
        if !field.list_map_keys.is_empty() {
            put("list-map-keys", field.list_map_keys.clone().into());
        }
    }
    if field.atomic || field.granular {
        put("map-type", if field.atomic { "atomic" } else { "granular" }.into());
    }
    if let Some(key) = &field.merge_key {
        put("patch-merge-key", key.as_str().into());
    }
    if let Some(PatchStrategy { merge, retain_keys, replace }) = field.patch_strategy {
        let words = [(merge, "merge"), (retain_keys, "retainKeys"), (replace, "replace")];
        let strategy: Vec<&str> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
        put("patch-strategy", strategy.join(",").into());
    }
}
