//! Schemas of custom kinds: their definitions' own, with what every object has. Version 2 leaves out what it cannot say.

use serde_json::{Map, Value, json};

use super::{Dialect, prose};
use crate::crd::Custom;
use crate::table::{Kind, Table};

/// Standard types that custom definitions refer to.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Name of a definition: the group backwards, version and kind.
pub(super) fn name(kind: &Kind, of: &str) -> String {
    let group: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{of}", group.join("."), kind.version)
}

/// The definition of the kind itself; `metadata` is a reference to the standard type.
pub(super) fn object(kind: &Kind, custom: &Custom, dialect: Dialect, metadata: &Value) -> Value {
    let is_open = custom.document["x-kubernetes-preserve-unknown-fields"] == true;
    let mut schema = if dialect == Dialect::V2 && is_open {
        // Any field that is named here would make old clients refuse those that are not.
        json!({"type": "object"})
    } else {
        let mut schema = converted(&custom.document, dialect, metadata);
        whole(&mut schema, dialect, metadata);
        schema
    };
    schema["x-kubernetes-group-version-kind"] = gvk(kind, &kind.kind);
    schema
}

/// The definition of lists of the kind.
pub(super) fn list(kind: &Kind, custom: &Custom, dialect: Dialect, metadata: &Value) -> Value {
    let item = json!({"$ref": format!("{}{}", dialect.reference(), name(kind, &kind.kind))});
    let text = |text: &str| json!({"type": "string", "description": text});
    json!({
        "description": format!("{} is a list of {}", custom.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("Version of the schema of this representation."),
            "items": {"type": "array", "items": item, "description": format!("List of {}.", kind.plural)},
            "kind": text("Kind of this list."),
            "metadata": metadata,
        },
        "x-kubernetes-group-version-kind": gvk(kind, &custom.list_kind),
    })
}

/// What is said of a field that every object has: the same as of built-in kinds, if the build had their descriptions.
fn described(field: &str) -> &'static str {
    let own = match field {
        "apiVersion" => "Version of the schema of this representation, as GROUP/VERSION.",
        "kind" => "Kind of this object.",
        _ => "Standard object metadata.",
    };
    prose::text(Table::builtin(), "io.k8s.api.core.v1.ConfigMap", field).unwrap_or(own)
}

fn gvk(kind: &Kind, of: &str) -> Value {
    json!([{"group": kind.group, "version": kind.version, "kind": of}])
}

/// Adds what a whole object has beside its own fields.
fn whole(schema: &mut Value, dialect: Dialect, metadata: &Value) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let text = |text: &str| json!({"type": "string", "description": text});
    let own = schema["properties"]["metadata"]["description"].clone();
    let mut standard = metadata.clone();
    if dialect == Dialect::V3 {
        standard = json!({"allOf": [metadata]});
        standard["description"] = if own.is_string() { own } else { described("metadata").into() };
    }
    let fields = &mut schema["properties"];
    fields["apiVersion"] = text(described("apiVersion"));
    fields["kind"] = text(described("kind"));
    fields["metadata"] = standard;
}

fn converted(node: &Value, dialect: Dialect, metadata: &Value) -> Value {
    let Some(fields) = node.as_object() else { return node.clone() };
    let is = |name: &str| fields.get(name) == Some(&Value::Bool(true));
    let v2 = dialect == Dialect::V2;
    // What may be anything is nothing in version 2, lest old clients refuse it.
    let is_vague = v2 && (is("x-kubernetes-preserve-unknown-fields") || is("nullable"));
    let mut out = Map::new();
    for (name, value) in fields {
        match name.as_str() {
            "allOf" | "anyOf" | "oneOf" | "not" | "nullable" if v2 => {}
            "type" | "items" | "properties" | "additionalProperties" if is_vague => {}
            "properties" => {
                let below = value.as_object().into_iter().flatten();
                let below: Map<String, Value> =
                    below.map(|(name, value)| (name.clone(), converted(value, dialect, metadata))).collect();
                out.insert(name.clone(), below.into());
            }
            "items" | "additionalProperties" => {
                out.insert(name.clone(), converted(value, dialect, metadata));
            }
            _ => drop(out.insert(name.clone(), value.clone())),
        }
    }
    let mut out = Value::Object(out);
    if is("x-kubernetes-embedded-resource") && !is_vague {
        whole(&mut out, dialect, metadata);
    }
    out
}
