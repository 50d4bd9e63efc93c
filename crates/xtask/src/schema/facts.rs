//! The committed form of the facts: short keys, references as positions, no prose.

use serde_json::{Map, Value, json};

/// One field.
#[derive(Default, Clone)]
pub struct Field {
    /// JSON name.
    pub name: String,
    /// Shape: see the schema crate's loader for the letters.
    pub shape: String,
    /// Letters: `p` pointer, `o` omitempty, `r` required, `a` atomic, `g` granular for server-side apply.
    pub flags: String,
    /// Tags of inlined messages on the way, then the field's own tag; empty when not in protobuf.
    pub tags: Vec<u64>,
    /// Wire letter: `v` varint, `b` bytes, `f` fixed64.
    pub wire: char,
    /// Position of the closed set.
    pub values: Option<usize>,
    /// `atomic`, `set` or `map:key,key`.
    pub list: Option<String>,
    /// Patch strategy as in the tag.
    pub strategy: Option<String>,
    /// Merge key.
    pub merge_key: Option<String>,
    /// Default.
    pub default: Option<Value>,
}

/// One type.
pub struct Type {
    /// Definition name.
    pub name: String,
    /// Whole object is one unit for server-side apply.
    pub atomic: bool,
    /// Group, version, kind.
    pub gvks: Vec<[String; 3]>,
    /// Fields, sorted by name.
    pub fields: Vec<Field>,
}

/// Everything.
#[derive(Default)]
pub struct Facts {
    /// Closed sets: Go name and values.
    pub enums: Vec<(String, Vec<String>)>,
    /// Types, sorted by name.
    pub types: Vec<Type>,
}

impl Facts {
    /// The document that is committed.
    pub fn to_value(&self, release: &str) -> Value {
        let types: Vec<Value> = self.types.iter().map(Type::to_value).collect();
        json!({"release": release, "enums": self.enums, "types": types})
    }
}

impl Type {
    fn to_value(&self) -> Value {
        let fields: Vec<Value> = self.fields.iter().map(Field::to_value).collect();
        json!({"n": self.name, "a": self.atomic, "k": self.gvks, "f": fields})
    }
}

impl Field {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("n".into(), self.name.as_str().into());
        map.insert("s".into(), self.shape.as_str().into());
        let mut put =
            |key: &str, value: Option<Value>| value.into_iter().for_each(|value| drop(map.insert(key.into(), value)));
        put("f", (!self.flags.is_empty()).then(|| self.flags.as_str().into()));
        put("t", (!self.tags.is_empty()).then(|| self.tags.clone().into()));
        put("w", (!self.tags.is_empty()).then(|| self.wire.to_string().into()));
        put("e", self.values.map(Value::from));
        put("l", self.list.as_deref().map(Value::from));
        put("p", self.strategy.as_deref().map(Value::from));
        put("m", self.merge_key.as_deref().map(Value::from));
        put("d", self.default.clone());
        map.into()
    }
}
