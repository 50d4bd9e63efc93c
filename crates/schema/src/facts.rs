//! The facts about types: fields, shapes, list and patch strategies, protobuf tags, defaults.
//!
//! Loaded once from the committed data file (see `data/NOTICE`) and then never changed. Holds no prose; that comes from
//! [`crate::openapi`], and only when the build found it.

pub(crate) mod load;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::table::Gvk;

/// Position of a type in its [`TypeSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// What a JSON value may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Any text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A floating-point number.
    Double,
    /// `true` or `false`.
    Bool,
    /// Base64 text.
    Bytes,
    /// A resource quantity; text or number.
    Quantity,
    /// A 32-bit number or text.
    IntOrString,
    /// RFC 3339 time, whole seconds.
    Time,
    /// RFC 3339 time with six decimals.
    MicroTime,
    /// A whole foreign object (`RawExtension`).
    RawExtension,
    /// The field set of a managed-fields entry.
    FieldsV1,
    /// Any JSON value.
    Json,
    /// An object of this type, or any other JSON value (the unions of `JSONSchemaProps`); the text is Go's type name.
    ObjectOr(TypeId, &'static str),
    /// An object of this type.
    Object(TypeId),
    /// A list.
    List(Box<Shape>),
    /// An object with free keys.
    Map(Box<Shape>),
}

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced whole.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// Items identified by [`Field::list_map_keys`].
    Map,
}

/// How strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Merge list items by key (or as a set).
    pub merge: bool,
    /// The patch may carry `$retainKeys`.
    pub retain_keys: bool,
    /// Replace a map instead of merging it.
    pub replace: bool,
}

/// Where a field is in the protobuf encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proto {
    /// Field number.
    pub tag: u32,
    /// Wire encoding.
    pub wire: Wire,
    /// Field numbers of the messages around it: JSON inlines some structs that protobuf nests.
    pub via: Vec<u32>,
}

impl Proto {
    /// All numbers from the outside in.
    pub(crate) fn path(&self) -> Vec<u32> {
        self.via.iter().copied().chain([self.tag]).collect()
    }
}

/// Protobuf wire encoding of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Variable-length integer.
    Varint,
    /// Length-delimited.
    Bytes,
    /// Eight bytes (double).
    Fixed64,
}

/// One field of a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name in JSON.
    pub name: String,
    /// What it holds.
    pub shape: Shape,
    /// A Go pointer: absent and zero differ.
    pub pointer: bool,
    /// Left out of JSON when empty.
    pub omit_empty: bool,
    /// Listed as required in OpenAPI.
    pub required: bool,
    /// Protobuf position; none for fields that exist in JSON only.
    pub proto: Option<Proto>,
    /// Allowed values, for closed sets.
    pub values: Option<Arc<Enum>>,
    /// How server-side apply treats the list.
    pub list_type: ListType,
    /// The declared list type was written out in the source, so OpenAPI shows it.
    pub list_type_declared: bool,
    /// Keys of list items when [`ListType::Map`].
    pub list_map_keys: Vec<String>,
    /// The map or struct below is replaced whole by server-side apply.
    pub atomic: bool,
    /// Server-side apply looks inside although the type of the field is atomic elsewhere.
    pub granular: bool,
    /// How strategic merge patch treats it; none when the field has no annotation.
    pub patch_strategy: Option<PatchStrategy>,
    /// Key by which strategic merge patch matches list items.
    pub merge_key: Option<String>,
    /// Default that server-side apply and OpenAPI know (such as `TCP`).
    pub default: Option<Value>,
}

impl Field {
    /// A field without any fact.
    pub(crate) fn blank() -> Self {
        Self {
            name: String::new(),
            shape: Shape::Json,
            pointer: false,
            omit_empty: false,
            required: false,
            proto: None,
            values: None,
            list_type: ListType::Atomic,
            list_type_declared: false,
            list_map_keys: Vec::new(),
            atomic: false,
            granular: false,
            patch_strategy: None,
            merge_key: None,
            default: None,
        }
    }
}

/// A closed set of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enum {
    /// Go's name, such as `v1.PullPolicy`.
    pub name: String,
    /// Allowed values, sorted.
    pub values: Vec<String>,
}

/// One object type.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// OpenAPI definition name, such as `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Go's name, such as `v1.PodSpec`, used in decode errors.
    pub go_name: String,
    /// Fields, sorted by JSON name.
    pub fields: Vec<Field>,
    /// The whole object is one unit for server-side apply.
    pub atomic: bool,
    /// From the schema of a custom resource: decoding drops unknown fields and leaves every other judgement to
    /// validation, so that nulls and values of the wrong type stay.
    pub custom: bool,
    /// Unknown fields are kept.
    pub open: bool,
    /// Kinds that are encoded as this type.
    pub gvks: Vec<Gvk>,
    /// Positions of the fields that protobuf has, by their numbers on the wire.
    pub(crate) proto_order: Vec<usize>,
}

impl Type {
    /// Of these fields, those that protobuf has, in the order of their numbers. Of whole objects it has neither
    /// `apiVersion` nor `kind`: the envelope says those.
    pub(crate) fn proto_order(fields: &[Field], is_object: bool) -> Vec<usize> {
        let of_envelope = |field: &Field| is_object && matches!(field.name.as_str(), "apiVersion" | "kind");
        let mut order: Vec<usize> =
            (0..fields.len()).filter(|at| fields[*at].proto.is_some() && !of_envelope(&fields[*at])).collect();
        order.sort_by_key(|at| fields[*at].proto.as_ref().map(Proto::path));
        order
    }

    /// The field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok().map(|at| &self.fields[at])
    }
}

/// All types of a group of kinds.
#[derive(Debug, Default)]
pub struct TypeSet {
    pub(crate) types: Vec<Type>,
    pub(crate) by_name: BTreeMap<String, TypeId>,
}

impl TypeSet {
    /// The type at a position handed out by this set.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The type with this OpenAPI definition name.
    pub fn named(&self, name: &str) -> Option<TypeRef<'_>> {
        self.by_name.get(name).map(|id| TypeRef { set: self, id: *id })
    }

    /// All types, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = TypeRef<'_>> {
        self.by_name.values().map(|id| TypeRef { set: self, id: *id })
    }
}

/// A type together with the set that its references point into.
#[derive(Clone, Copy, Debug)]
pub struct TypeRef<'a> {
    /// The set.
    pub set: &'a TypeSet,
    /// The type.
    pub id: TypeId,
}

impl<'a> TypeRef<'a> {
    /// The type itself.
    pub fn get(self) -> &'a Type {
        self.set.get(self.id)
    }

    /// The same set, another type.
    pub fn with(self, id: TypeId) -> Self {
        Self { set: self.set, id }
    }

    /// The field with this JSON name.
    pub fn field(self, name: &str) -> Option<&'a Field> {
        self.get().field(name)
    }
}
