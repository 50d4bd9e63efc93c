//! What is known of a value before there is one.

use crate::crd::{Additional, JsonType, Schema};

/// The type of an expression, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum Type<'a> {
    /// Anything.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Time,
    List(Box<Type<'a>>),
    Map(Box<Type<'a>>),
    /// An object with these fields; whole ones have metadata besides.
    Object(&'a Schema, bool),
    /// The metadata of a whole object.
    Metadata,
    Optional(Box<Type<'a>>),
    /// Types with functions only: quantities, addresses, URLs, types.
    Other(&'static str),
}

impl<'a> Type<'a> {
    /// The type of values of a schema.
    pub(crate) fn of(schema: &'a Schema, whole: bool) -> Self {
        if schema.int_or_string {
            return Self::Dyn;
        }
        match schema.ty {
            None => Self::Dyn,
            Some(JsonType::Boolean) => Self::Bool,
            Some(JsonType::Integer) => Self::Int,
            Some(JsonType::Number) => Self::Double,
            Some(JsonType::String) => match schema.limits.format.as_deref() {
                Some("date-time" | "date") => Self::Time,
                Some("duration") => Self::Duration,
                Some("byte") => Self::Bytes,
                _ => Self::Text,
            },
            Some(JsonType::Array) => {
                Self::List(Box::new(schema.items.as_deref().map_or(Self::Dyn, |items| Self::of(items, false))))
            }
            Some(JsonType::Object) => match &schema.additional {
                Some(Additional::Of(values)) => Self::Map(Box::new(Self::of(values, false))),
                Some(Additional::Any) => Self::Map(Box::new(Self::Dyn)),
                None => Self::Object(schema, whole || schema.embedded),
            },
        }
    }

    /// The name that messages use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Dyn => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Time => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Object(..) | Self::Metadata => "object",
            Self::Optional(_) => "optional_type",
            Self::Other(name) => name,
        }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// A value of this type may be one of that.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        let is_open = |ty: &Self| matches!(ty, Self::Dyn);
        let is_fields = |ty: &Self| matches!(ty, Self::Map(_) | Self::Object(..) | Self::Metadata);
        is_open(self)
            || is_open(other)
            || matches!((self, other), (Self::Null, other) | (other, Self::Null) if !other.is_scalar())
            || (is_fields(self) && is_fields(other))
            || self.name() == other.name()
    }

    fn is_scalar(&self) -> bool {
        matches!(self, Self::Bool | Self::Int | Self::Uint | Self::Double | Self::Text | Self::Bytes)
    }
}
