//! Custom kinds from any definition, and any object against them: nothing panics, pruning and defaults settle at once.

use std::sync::Arc;

use isopod_schema::{Kind, crd, decode, defaults, validate};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const WORDS: [&str; 24] = [
    "type",
    "properties",
    "items",
    "additionalProperties",
    "default",
    "required",
    "enum",
    "pattern",
    "format",
    "minimum",
    "maxLength",
    "oneOf",
    "not",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-validations",
    "rule",
    "a",
    "b",
    "metadata",
];
const TEXTS: [&str; 12] =
    ["object", "array", "string", "integer", "map", "set", "date-time", "a", "self.a == 1", "^a", "(", "self"];

/// Documents that look like schemas and objects.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..300).prop_map(Value::from),
        (-2.0f64..2.0).prop_map(Value::from),
        prop::sample::select(&TEXTS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let fields = prop::collection::vec((prop::sample::select(&WORDS[..]), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

fn definition(schema: Value) -> Value {
    let names = json!({"plural": "tabs", "singular": "tab", "kind": "Tab", "listKind": "TabList"});
    json!({
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"acceptedNames": names},
    })
}

fn kind(schema: Value) -> Arc<Kind> {
    crd::rows(&definition(schema)).remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_definition_and_object_are_survived(schema in document(), object in document()) {
        let definitions = isopod_schema::Table::builtin().resource(crd::GROUP, "v1", crd::PLURAL).expect("built in");
        let _ = validate::create(definitions, &definition(schema.clone()));
        let kind = kind(schema);
        if let Ok(decoded) = decode::value(kind.root(), json!({"metadata": {"name": "x"}, "a": object})) {
            let mut once = decoded.value;
            defaults::apply(&kind, &mut once);
            let _ = validate::create(&kind, &once);
            let _ = validate::update(&kind, &once, &json!({"metadata": {"name": "x"}, "a": 1}));
        }
    }

    #[test]
    fn pruning_and_defaults_settle_at_once(object in document()) {
        let kind = kind(json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {
                "a": {"type": "string", "default": "x"}, "type": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}},
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object", "properties": {}}}},
            }},
            "b": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string", "nullable": true}}}},
        }}));
        let settle = |object: Value| {
            let decoded = decode::value(kind.root(), object).expect("an object with proper metadata");
            let mut value = decoded.value;
            defaults::apply(&kind, &mut value);
            value
        };
        let once = settle(json!({"metadata": {"name": "x"}, "a": object.clone(), "b": object}));
        prop_assert_eq!(settle(once.clone()), once);
    }
}
