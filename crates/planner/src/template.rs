//! Pods from templates, and what tells templates apart.

use std::collections::BTreeMap;

use isopod_types::pod::Pod;
use isopod_types::{Key, Object, OwnerReference};
use serde_json::{Value, json};

use crate::plan::{Target, Write};

/// Characters of generated names: no vowels, nothing that can be mistaken.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A pod that an owner makes from its template. With `name` empty the API makes a name from `generate_name`.
pub(crate) struct NewPod {
    /// The document.
    pub(crate) object: Value,
    namespace: String,
}

impl NewPod {
    /// A pod of a template, controlled by the owner.
    pub(crate) fn of<O: Object>(owner: &O, template: &Value) -> Self {
        let meta = owner.meta();
        let reference = OwnerReference::controller(&O::api_version(), O::KIND, meta);
        let mut metadata = json!({"namespace": meta.namespace, "ownerReferences": [reference]});
        for field in ["labels", "annotations", "finalizers"] {
            if !template["metadata"][field].is_null() {
                metadata[field] = template["metadata"][field].clone();
            }
        }
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]});
        Self { object, namespace: meta.namespace.clone() }
    }

    /// With a name that begins like this.
    pub(crate) fn generated(mut self, prefix: &str) -> Self {
        self.object["metadata"]["generateName"] = json!(prefix);
        self
    }

    /// With this name.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.object["metadata"]["name"] = json!(name);
        self
    }

    /// With a further label.
    pub(crate) fn label(mut self, key: &str, value: impl Into<String>) -> Self {
        self.object["metadata"]["labels"][key] = json!(value.into());
        self
    }

    /// With a further annotation.
    pub(crate) fn annotation(mut self, key: &str, value: impl Into<String>) -> Self {
        self.object["metadata"]["annotations"][key] = json!(value.into());
        self
    }

    /// The write that makes it.
    pub(crate) fn write(self) -> Write {
        let name = self.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let target = Target::named::<Pod>(Key::new(self.namespace, name));
        Write::Create { target, object: self.object, tolerate_existing: false }
    }
}

/// FNV-1a over the canonical text of a value, keys sorted.
fn hash_value(value: &Value, hash: &mut u32) {
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            *hash = (*hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
        }
    };
    match value {
        Value::Object(map) => {
            feed(b"{");
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            for (key, value) in sorted {
                hash_value(&Value::String(key.clone()), hash);
                hash_value(value, hash);
            }
        }
        Value::Array(items) => {
            feed(b"[");
            items.iter().for_each(|item| hash_value(item, hash));
        }
        scalar => feed(format!("{scalar};").as_bytes()),
    }
}

/// The label value that tells templates apart. Stable across versions of Isopod.
pub(crate) fn hash(template: &Value, collisions: i64) -> String {
    let mut hash = 2_166_136_261;
    hash_value(template, &mut hash);
    if collisions > 0 {
        hash_value(&json!(collisions), &mut hash);
    }
    hash.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

/// Equality of documents in which absent, null and empty are the same.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a
            .keys()
            .chain(b.keys())
            .all(|key| equal(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))),
        (Value::Object(map), Value::Null) | (Value::Null, Value::Object(map)) => map.values().all(Value::is_null),
        (Value::Array(items), Value::Null) | (Value::Null, Value::Array(items)) => items.is_empty(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_template_alone() {
        let a = json!({"a": 1, "b": {"c": [1, 2]}});
        let b = json!({"b": {"c": [1, 2]}, "a": 1});
        assert_eq!(hash(&a, 0), hash(&b, 0));
        assert_ne!(hash(&a, 0), hash(&a, 1));
        assert_ne!(hash(&a, 0), hash(&json!({"a": 2}), 0));
    }

    #[test]
    fn absent_and_empty_are_equal() {
        for (a, b, expected) in [
            (json!({"a": null}), json!({}), true),
            (json!({"a": []}), json!({}), true),
            (json!({"a": {"b": null}}), json!({}), true),
            (json!({"a": 1}), json!({}), false),
            (json!([1]), json!([1, 2]), false),
        ] {
            assert_eq!(equal(&a, &b), expected, "{a} {b}");
        }
    }
}
