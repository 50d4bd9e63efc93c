//! Reads the committed facts. The letters are those that `cargo xtask schema` writes.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Enum, Field, ListType, PatchStrategy, Proto, Shape, Type, TypeId, TypeSet, Wire};
use crate::table::Gvk;

static DATA: &[u8] = include_bytes!("../../data/schema.json.zst");

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    enums: Vec<(Cow<'a, str>, Vec<String>)>,
    #[serde(borrow)]
    types: Vec<RawType<'a>>,
}

#[derive(Deserialize)]
struct RawType<'a> {
    n: String,
    a: bool,
    k: Vec<[String; 3]>,
    #[serde(borrow)]
    f: Vec<RawField<'a>>,
}

#[derive(Deserialize)]
struct RawField<'a> {
    n: String,
    s: Cow<'a, str>,
    #[serde(borrow, default)]
    f: Cow<'a, str>,
    #[serde(default)]
    t: Vec<u32>,
    #[serde(default)]
    w: Cow<'a, str>,
    e: Option<usize>,
    l: Option<Cow<'a, str>>,
    p: Option<Cow<'a, str>>,
    m: Option<String>,
    d: Option<Value>,
}

/// The committed types. Panics when the data file is not what `cargo xtask schema` wrote: a test loads it.
pub(crate) fn builtin_types() -> TypeSet {
    let bytes = zstd::decode_all(DATA).expect("the committed data file is zstd");
    let document: Document<'_> =
        serde_json::from_slice(&bytes).expect("the committed data file has the generator's form");
    let enums: Vec<Arc<Enum>> =
        document.enums.into_iter().map(|(name, values)| Arc::new(Enum { name: name.into(), values })).collect();
    let names: Vec<String> = document.types.iter().map(|ty| ty.n.clone()).collect();
    let schema_props = id(&names, "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    let types = document.types.into_iter().map(|raw| ty(raw, &enums, schema_props)).collect();
    let by_name = names.into_iter().zip(0..).map(|(name, at)| (name, TypeId(at))).collect();
    TypeSet { types, by_name }
}

fn id(names: &[String], name: &str) -> TypeId {
    let at = names.binary_search_by(|known| known.as_str().cmp(name)).expect("the type is among the facts");
    TypeId(u32::try_from(at).expect("a few hundred types"))
}

fn ty(raw: RawType<'_>, enums: &[Arc<Enum>], schema_props: TypeId) -> Type {
    let gvks: Vec<Gvk> = raw.k.into_iter().map(|[group, version, kind]| Gvk { group, version, kind }).collect();
    let mut path = raw.n.rsplit('.');
    let (name, package) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
    let go_name = format!("{package}.{name}");
    let fields: Vec<Field> = raw.f.into_iter().map(|field| self::field(field, enums, schema_props)).collect();
    let proto_order = Type::proto_order(&fields, !gvks.is_empty());
    Type { name: raw.n, go_name, fields, atomic: raw.a, custom: false, open: false, gvks, proto_order }
}

fn field(raw: RawField<'_>, enums: &[Arc<Enum>], schema_props: TypeId) -> Field {
    let has = |letter: char| raw.f.contains(letter);
    let wire = match raw.w.as_ref() {
        "v" => Wire::Varint,
        "f" => Wire::Fixed64,
        _ => Wire::Bytes,
    };
    let proto = raw.t.split_last().map(|(tag, via)| Proto { tag: *tag, wire, via: via.to_vec() });
    let (list_type, list_map_keys) = raw.l.as_deref().map(list_type).unwrap_or_default();
    Field {
        shape: shape(&raw.s, schema_props),
        pointer: has('p'),
        omit_empty: has('o'),
        required: has('r'),
        atomic: has('a'),
        granular: has('g'),
        proto,
        values: raw.e.map(|at| enums[at].clone()),
        list_type,
        list_type_declared: raw.l.is_some(),
        list_map_keys,
        patch_strategy: raw.p.as_deref().map(patch_strategy),
        merge_key: raw.m,
        default: raw.d,
        name: raw.n,
    }
}

fn shape(text: &str, schema_props: TypeId) -> Shape {
    let (first, rest) = text.split_at(1);
    match first {
        "s" => Shape::String,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "d" => Shape::Double,
        "b" => Shape::Bool,
        "y" => Shape::Bytes,
        "q" => Shape::Quantity,
        "x" => Shape::IntOrString,
        "t" => Shape::Time,
        "u" => Shape::MicroTime,
        "w" => Shape::RawExtension,
        "f" => Shape::FieldsV1,
        "A" => Shape::ObjectOr(schema_props, "JSONSchemaPropsOrArray"),
        "B" => Shape::ObjectOr(schema_props, "JSONSchemaPropsOrBool"),
        "C" => Shape::ObjectOr(schema_props, "JSONSchemaPropsOrStringArray"),
        "#" => Shape::Object(TypeId(rest.parse().expect("a position follows the hash sign"))),
        "[" => Shape::List(Box::new(shape(rest, schema_props))),
        "{" => Shape::Map(Box::new(shape(rest, schema_props))),
        _ => Shape::Json,
    }
}

fn list_type(text: &str) -> (ListType, Vec<String>) {
    let (ty, keys) = text.split_once(':').unwrap_or((text, ""));
    let ty = match ty {
        "map" => ListType::Map,
        "set" => ListType::Set,
        _ => ListType::Atomic,
    };
    (ty, keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect())
}

fn patch_strategy(text: &str) -> PatchStrategy {
    let has = |word: &str| text.split(',').any(|part| part == word);
    PatchStrategy { merge: has("merge"), retain_keys: has("retainKeys"), replace: has("replace") }
}
