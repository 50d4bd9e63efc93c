//! Any text as a validation rule of a custom resource: it compiles or is refused, and its evaluation ends within its budget.
#![no_main]

use isopod_schema::{Table, crd, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn definition(rule: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Tab", "plural": "tabs", "singular": "tab", "listKind": "TabList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-validations": [{"rule": rule}],
                "properties": {
                    "text": {"type": "string"}, "count": {"type": "integer"}, "share": {"type": "number"},
                    "list": {"type": "array", "items": {"type": "string"}},
                    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                },
            }}}],
        },
    })
}

fuzz_target!(|rule: &str| {
    let definition = definition(rule);
    let kind = Table::builtin().resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").expect("built in");
    if !validate::create(kind, &definition).is_empty() {
        return;
    }
    let Some(row) = crd::storage_row(&definition) else { return };
    let tab = json!({
        "apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"name": "t", "namespace": "x", "uid": "u"},
        "text": "a-b", "count": 3, "share": 0.5, "list": ["a", "b", "c"], "map": {"k": 1, "l": 2},
    });
    drop(validate::create(&row, &tab));
});
