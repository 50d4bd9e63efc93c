//! A structural schema, read once from its document into what pruning, defaults and validation walk over.
//!
//! Reading never fails: what admission of the definition would refuse is left out, so that a definition stored by an
//! older program cannot stop the server.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::{self, Rule};
use crate::facts::ListType;

/// JSON type as OpenAPI names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
}

impl JsonType {
    /// From its name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What values an object may have under keys that are not named.
#[derive(Debug)]
pub enum Additional {
    /// Anything.
    Any,
    /// Values of this schema.
    Of(Box<Schema>),
}

/// A regular expression with its text.
#[derive(Debug)]
pub struct Pattern {
    /// As written.
    pub text: String,
    /// Compiled.
    pub regex: Regex,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub struct Schema {
    /// Type; none where anything goes and below logical junctors.
    pub ty: Option<JsonType>,
    /// Null is a value.
    pub nullable: bool,
    /// A number or a text.
    pub int_or_string: bool,
    /// Unknown fields stay.
    pub preserve_unknown: bool,
    /// A whole Kubernetes object.
    pub embedded: bool,
    /// Named fields.
    pub properties: BTreeMap<String, Schema>,
    /// Other fields.
    pub additional: Option<Additional>,
    /// Items of a list.
    pub items: Option<Box<Schema>>,
    /// Value of an absent field.
    pub default: Option<Value>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// How lists are merged; none when not written out.
    pub list_type: Option<ListType>,
    /// Keys of items.
    pub list_keys: Vec<String>,
    /// The object is one unit for server-side apply.
    pub map_atomic: bool,
    /// Limits on values.
    pub limits: Limits,
    /// All must hold.
    pub all_of: Vec<Schema>,
    /// At least one must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one must hold.
    pub one_of: Vec<Schema>,
    /// Must not hold.
    pub not: Option<Box<Schema>>,
    /// Rules in CEL.
    pub rules: Vec<Rule>,
    /// There are rules here or below.
    pub has_rules: bool,
}

/// Limits on values; sizes count characters, items or fields.
#[derive(Debug, Default)]
pub struct Limits {
    /// Smallest number.
    pub minimum: Option<f64>,
    /// The smallest number itself is too small.
    pub exclusive_minimum: bool,
    /// Largest number.
    pub maximum: Option<f64>,
    /// The largest number itself is too large.
    pub exclusive_maximum: bool,
    /// Divisor.
    pub multiple_of: Option<f64>,
    /// Shortest text.
    pub min_length: Option<u64>,
    /// Longest text.
    pub max_length: Option<u64>,
    /// Fewest items.
    pub min_items: Option<u64>,
    /// Most items.
    pub max_items: Option<u64>,
    /// Fewest fields.
    pub min_properties: Option<u64>,
    /// Most fields.
    pub max_properties: Option<u64>,
    /// What texts look like.
    pub pattern: Option<Pattern>,
    /// What texts or numbers are.
    pub format: Option<String>,
    /// The only values.
    pub values: Option<Vec<Value>>,
}

impl Schema {
    /// Reads the `JSONSchemaProps` document of a whole object, and compiles its rules.
    pub fn read(document: &Value) -> Self {
        let mut schema = Self::plain(document);
        schema.compile(document, true);
        schema
    }

    /// Compiles the rules of this node and those below.
    fn compile(&mut self, document: &Value, whole: bool) {
        for (name, below) in fields(document) {
            if let Some(schema) = self.properties.get_mut(name) {
                schema.compile(below, false);
                self.has_rules |= schema.has_rules;
            }
        }
        if let (Some(Additional::Of(schema)), Some(below)) =
            (&mut self.additional, document.get("additionalProperties"))
        {
            schema.compile(below, false);
            self.has_rules |= schema.has_rules;
        }
        if let (Some(schema), Some(below)) = (&mut self.items, document.get("items")) {
            schema.compile(below, false);
            self.has_rules |= schema.has_rules;
        }
        self.rules = rules::read(document, self, whole);
        self.has_rules |= !self.rules.is_empty();
    }

    /// Reads a document without its rules.
    pub(super) fn plain(document: &Value) -> Self {
        let flag = |name: &str| document.get(name) == Some(&Value::Bool(true));
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let one =
            |name: &str| document.get(name).filter(|value| value.is_object()).map(|value| Box::new(Self::plain(value)));
        Self {
            ty: text("type").and_then(JsonType::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties: fields(document).map(|(name, value)| (name.clone(), Self::plain(value))).collect(),
            additional: document.get("additionalProperties").and_then(Additional::read),
            items: one("items"),
            default: document.get("default").cloned(),
            required: texts(document, "required"),
            list_type: text("x-kubernetes-list-type").and_then(list_type),
            list_keys: texts(document, "x-kubernetes-list-map-keys"),
            map_atomic: text("x-kubernetes-map-type") == Some("atomic"),
            limits: Limits::read(document),
            all_of: many(document, "allOf"),
            any_of: many(document, "anyOf"),
            one_of: many(document, "oneOf"),
            not: one("not"),
            rules: Vec::new(),
            has_rules: false,
        }
    }

    /// The schema of a field; none when it is not described.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Of(schema)) => Some(schema),
            _ => None,
        })
    }
}

impl Additional {
    fn read(document: &Value) -> Option<Self> {
        match document {
            Value::Bool(true) => Some(Self::Any),
            Value::Object(_) => Some(Self::Of(Box::new(Schema::plain(document)))),
            _ => None,
        }
    }
}

impl Limits {
    fn read(document: &Value) -> Self {
        let number = |name: &str| document.get(name).and_then(Value::as_f64);
        let count = |name: &str| document.get(name).and_then(Value::as_u64);
        let flag = |name: &str| document.get(name) == Some(&Value::Bool(true));
        let pattern = document.get("pattern").and_then(Value::as_str).filter(|text| !text.is_empty());
        Self {
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            pattern: pattern.and_then(|text| Some(Pattern { text: text.into(), regex: regex(text).ok()? })),
            format: document.get("format").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned),
            values: document.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()).cloned(),
        }
    }
}

/// Largest compiled regular expression.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Compiles a regular expression, with a limit on its size.
pub(crate) fn regex(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build()
}

fn fields(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn texts(document: &Value, name: &str) -> Vec<String> {
    let items = document.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn many(document: &Value, name: &str) -> Vec<Schema> {
    document.get(name).and_then(Value::as_array).into_iter().flatten().map(Schema::plain).collect()
}

fn list_type(text: &str) -> Option<ListType> {
    Some(match text {
        "atomic" => ListType::Atomic,
        "set" => ListType::Set,
        "map" => ListType::Map,
        _ => return None,
    })
}
