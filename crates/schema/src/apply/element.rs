//! One step of a path into an object: a field, a list item by its keys or its value, or a position. Also its text forms:
//! the one in `managedFields` and the one in messages.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Number, Value};

/// One step of a path. Ordered as upstream orders what it writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a struct or a key of a map.
    Field(String),
    /// The item of a list with these values in its key fields, in order of their names.
    Key(Vec<(String, Literal)>),
    /// The item of a set that is this value.
    Value(Box<Literal>),
    /// The item at a position. Kubernetes writes none, but reads them.
    Index(i64),
}

/// Text that is no path element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no path element of managed fields: {why}")]
pub struct ElementError {
    /// What was read.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl Element {
    /// The item with these keys, in any order.
    pub(super) fn of_keys(mut keys: Vec<(String, Literal)>) -> Self {
        keys.sort();
        Self::Key(keys)
    }

    /// The item that is this value.
    pub(super) fn of_value(value: Value) -> Self {
        Self::Value(Box::new(Literal(value)))
    }

    /// From the form in `managedFields`: `f:NAME`, `k:KEYS`, `v:VALUE` or `i:POSITION`.
    ///
    /// # Errors
    /// Another prefix, or no JSON or number after it.
    pub fn parse(text: &str) -> Result<Self, ElementError> {
        let refuse = |why: String| ElementError { text: text.to_owned(), why };
        let json = |rest: &str| serde_json::from_str::<Value>(rest).map_err(|error| refuse(error.to_string()));
        match text.split_at_checked(2) {
            Some(("f:", name)) => Ok(Self::Field(name.to_owned())),
            Some(("k:", rest)) => match json(rest)? {
                Value::Object(keys) => {
                    Ok(Self::of_keys(keys.into_iter().map(|(name, value)| (name, Literal(value))).collect()))
                }
                _ => Err(refuse("the keys of a list item are an object".into())),
            },
            Some(("v:", rest)) => Ok(Self::of_value(json(rest)?)),
            Some(("i:", rest)) => match rest.parse() {
                Ok(at) => Ok(Self::Index(at)),
                Err(_) => Err(refuse("the position is no number".into())),
            },
            _ => Err(refuse("it begins with none of f:, k:, v:, i:".into())),
        }
    }

    /// The form in `managedFields`.
    pub fn to_key(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(keys) => {
                let keys: Map<String, Value> =
                    keys.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(keys))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(at) => format!("i:{at}"),
        }
    }
}

/// The form in messages: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// A JSON value with upstream's order: numbers, texts, booleans, lists, objects, null.
#[derive(Clone, Debug)]
pub struct Literal(pub Value);

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Literal {}

impl PartialOrd for Literal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Literal {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let unequal = left.iter().zip(right).map(|(left, right)| compare(left, right)).find(|order| order.is_ne());
            unequal.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => sorted(left).cmp(&sorted(right)),
        _ => rank(left).cmp(&rank(right)),
    }
}

fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.as_f64().unwrap_or_default().total_cmp(&right.as_f64().unwrap_or_default()),
    }
}

fn sorted(map: &Map<String, Value>) -> BTreeMap<&str, Literal> {
    map.iter().map(|(name, value)| (name.as_str(), Literal(value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_upstreams_order_and_texts() {
        let texts = [
            (r"f:a", ".a"),
            (r"f:a.b/c", ".a.b/c"),
            (r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"[containerPort=80,protocol="TCP"]"#),
            (r#"k:{"containerPort":80,"protocol":"UDP"}"#, r#"[containerPort=80,protocol="UDP"]"#),
            (r#"k:{"name":"x"}"#, r#"[name="x"]"#),
            ("v:1", "[=1]"),
            ("v:2.5", "[=2.5]"),
            (r#"v:"a""#, r#"[="a"]"#),
            ("v:true", "[=true]"),
            ("i:0", "[0]"),
            ("i:12", "[12]"),
        ];
        let elements: Vec<Element> = texts.iter().map(|(key, _)| Element::parse(key).unwrap()).collect();
        assert!(elements.is_sorted());
        for (element, (key, path)) in elements.iter().zip(texts) {
            assert_eq!((element.to_key().as_str(), element.to_string().as_str()), (key, path));
        }
        assert_eq!(Element::parse(r#"k:{"b":1,"a":2}"#).unwrap().to_key(), r#"k:{"a":2,"b":1}"#);
        for wrong in ["", ".", "f", "x:a", "k:[]", "k:{", "v:", "v:1 2", "i:x", "é:"] {
            assert!(Element::parse(wrong).is_err(), "{wrong}");
        }
    }
}
