//! Values. Documents are not copied: lists and maps of a document are looked into where they are.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine as _;
use isopod_types::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use crate::crd::{JsonType, Schema, nanoseconds};

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Cel<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Rc<Vec<u8>>),
    List(List<'a>),
    Map(Map<'a>),
    /// Nanoseconds.
    Duration(i64),
    Time(Timestamp),
    Type(&'static str),
    Optional(Option<Rc<Cel<'a>>>),
    Quantity(Quantity),
    Ip(IpAddr),
    /// Address and prefix length.
    Cidr(IpAddr, u8),
    Url(Rc<super::network::Url>),
}

/// A list of a document or one that was made.
#[derive(Clone, Debug)]
pub(crate) enum List<'a> {
    Document(&'a [Value], Option<&'a Schema>),
    Made(Rc<Vec<Cel<'a>>>),
}

/// A map of a document or one that was made.
#[derive(Clone, Debug)]
pub(crate) enum Map<'a> {
    Document(&'a serde_json::Map<String, Value>, Option<&'a Schema>),
    Made(Rc<Vec<(Cel<'a>, Cel<'a>)>>),
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Document(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<Cel<'a>> {
        match self {
            Self::Document(items, schema) => {
                items.get(at).map(|item| Cel::of(item, schema.and_then(|schema| schema.items.as_deref())))
            }
            Self::Made(items) => items.get(at).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Cel<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Document(fields, _) => fields.len(),
            Self::Made(fields) => fields.len(),
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &Cel<'a>) -> Option<Cel<'a>> {
        match (self, key) {
            (Self::Document(fields, schema), Cel::Text(name)) => {
                let value = fields.get(&**name)?;
                Some(Cel::of(value, schema.and_then(|schema| schema.field(name))))
            }
            (Self::Document(..), _) => None,
            (Self::Made(fields), key) => fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()),
        }
    }

    /// The value of a field: of a described object by its escaped name, and null is no value there.
    pub(crate) fn field(&self, name: &str) -> Option<Cel<'a>> {
        match self {
            Self::Document(fields, Some(schema)) if !schema.properties.is_empty() => {
                let name = unescape(name);
                let value = fields.get(&*name).filter(|value| !value.is_null())?;
                Some(Cel::of(value, schema.field(&name)))
            }
            _ => self.get(&Cel::Text(Cow::Owned(name.to_owned()))),
        }
    }

    pub(crate) fn keys(&self) -> Vec<Cel<'a>> {
        match self {
            Self::Document(fields, _) => fields.keys().map(|key| Cel::Text(Cow::Borrowed(key))).collect(),
            Self::Made(fields) => fields.iter().map(|(key, _)| key.clone()).collect(),
        }
    }
}

const ESCAPES: [(&str, &str); 4] = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
const KEYWORDS: [&str; 28] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
];

/// A field's name behind the one that expressions use for it.
pub(crate) fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains("__") {
        return Cow::Borrowed(name);
    }
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && KEYWORDS.contains(&word)
    {
        return Cow::Borrowed(word);
    }
    let (mut out, mut rest) = (String::new(), name);
    while let Some(first) = rest.chars().next() {
        match ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, plain)) => {
                out.push_str(plain);
                rest = &rest[escape.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    Cow::Owned(out)
}

impl<'a> Cel<'a> {
    /// A value of a document; the schema says what texts and numbers mean.
    pub(crate) fn of(value: &'a Value, schema: Option<&'a Schema>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => {
                let is_double = schema.is_some_and(|schema| schema.ty == Some(JsonType::Number));
                match number.as_i64() {
                    Some(whole) if !is_double => Self::Int(whole),
                    _ => Self::Double(number.as_f64().unwrap_or_default()),
                }
            }
            Value::String(text) => Self::of_text(text, schema.and_then(|schema| schema.limits.format.as_deref())),
            Value::Array(items) => Self::List(List::Document(items, schema)),
            Value::Object(fields) => Self::Map(Map::Document(fields, schema)),
        }
    }

    fn of_text(text: &'a str, format: Option<&str>) -> Self {
        let special = match format {
            Some("date-time") => text.parse().ok().map(Self::Time),
            Some("date") => format!("{text}T00:00:00Z").parse().ok().map(Self::Time),
            Some("duration") => nanoseconds(text).map(Self::Duration),
            Some("byte") => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
                bytes.map(|bytes| Self::Bytes(Rc::new(bytes)))
            }
            _ => None,
        };
        special.unwrap_or(Self::Text(Cow::Borrowed(text)))
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    pub(crate) fn list(items: Vec<Cel<'a>>) -> Self {
        Self::List(List::Made(Rc::new(items)))
    }

    pub(crate) fn optional(value: Option<Cel<'a>>) -> Self {
        Self::Optional(value.map(Rc::new))
    }

    /// Name of the type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
        }
    }

    /// Rough size, which is what looking at the whole value costs.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len() / 10 + 1,
            Self::Bytes(bytes) => bytes.len() / 10 + 1,
            Self::List(list) => list.len() + 1,
            Self::Map(map) => map.len() + 1,
            _ => 1,
        }
    }
}

impl PartialEq for Cel<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, n), Self::Cidr(b, m)) => a == b && n == m,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a == b),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.keys().iter().all(|key| a.get(key).is_some() && a.get(key) == b.get(key))
            }
            _ => super::operators::compare(self, other) == Some(std::cmp::Ordering::Equal),
        }
    }
}
