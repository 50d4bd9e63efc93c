//! A definition as rows of the table: one per served version.

use std::sync::Arc;

use serde_json::{Value, json};

use super::schema::Schema;
use super::{Custom, JsonPath, PrinterColumn, Scale, conversion, types};
use crate::table::{Column, Flags, Gvk, Kind, Subresource, Verb};
use crate::walk;

const ALL: [Verb; 8] =
    [Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// The rows of a definition: its served versions by the names that were accepted, most preferred first.
pub fn rows(definition: &Value) -> Vec<Arc<Kind>> {
    let versions = walk::items(definition, &["spec", "versions"]);
    let mut kinds: Vec<Kind> = versions
        .iter()
        .filter(|version| version.get("served") == Some(&Value::Bool(true)))
        .map(|version| row(definition, version))
        .collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(version_order(&kind.version)));
    kinds.into_iter().map(Arc::new).collect()
}

/// The row of the version that objects are stored in, served or not.
pub fn storage_row(definition: &Value) -> Option<Arc<Kind>> {
    let version = walk::items(definition, &["spec", "versions"]).iter().find(|version| version["storage"] == true)?;
    Some(Arc::new(row(definition, version)))
}

/// Orders versions: stable before beta before alpha, each by number; anything else last and by name.
pub fn version_order(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let name = std::cmp::Reverse(version.to_owned());
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let major: u64 = rest[..digits].parse().ok()?;
        Some(match &rest[digits..] {
            "" => (3, major, 0),
            stage => match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
                (Some(minor), _) => (2, major, minor.parse().ok()?),
                (_, Some(minor)) => (1, major, minor.parse().ok()?),
                _ => return None,
            },
        })
    };
    let (stage, major, minor) = parse().unwrap_or((0, 0, 0));
    (stage, major, minor, name)
}

fn texts(value: &Value, path: &[&str]) -> Vec<String> {
    walk::items(value, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Deletion has begun.
pub fn is_terminating(definition: &Value) -> bool {
    !walk::text(definition, &["metadata", "deletionTimestamp"]).is_empty()
}

fn row(definition: &Value, version: &Value) -> Kind {
    let names = |field: &str| walk::text(definition, &["status", "acceptedNames", field]).to_owned();
    let gvk = Gvk::new(walk::text(definition, &["spec", "group"]), walk::text(version, &["name"]), &names("kind"));
    let custom = custom(definition, version, &gvk);
    let (types, root) = types::build(&custom.schema, gvk.clone());
    Kind {
        plural: names("plural"),
        singular: names("singular"),
        namespaced: walk::text(definition, &["spec", "scope"]) == "Namespaced",
        short_names: texts(definition, &["status", "acceptedNames", "shortNames"]),
        categories: texts(definition, &["status", "acceptedNames", "categories"]),
        verbs: ALL.to_vec(),
        subresources: subresources(version, &custom, &gvk),
        flags: Flags { generation: true, ..Flags::default() },
        columns: custom.columns.iter().map(column).collect(),
        field_labels: selectable(version),
        types: Arc::new(types),
        root,
        group: gvk.group,
        version: gvk.version,
        kind: gvk.kind,
        custom: Some(Arc::new(custom)),
    }
}

fn custom(definition: &Value, version: &Value, gvk: &Gvk) -> Custom {
    let stored = walk::items(definition, &["spec", "versions"]).iter().find(|version| version["storage"] == true);
    let document = version["schema"]["openAPIV3Schema"].clone();
    Custom {
        definition: walk::text(definition, &["metadata", "name"]).to_owned(),
        list_kind: walk::text(definition, &["status", "acceptedNames", "listKind"]).to_owned(),
        storage_version: stored.map_or(&gvk.version[..], |stored| walk::text(stored, &["name"])).to_owned(),
        conversion: conversion::read(definition),
        schema: Schema::read(&document),
        document,
        columns: columns(version),
        scale: walk::at(version, &["subresources", "scale"]).filter(|scale| scale.is_object()).and_then(scale),
        deprecation: deprecation(version, gvk),
    }
}

fn deprecation(version: &Value, gvk: &Gvk) -> Option<String> {
    if version.get("deprecated") != Some(&Value::Bool(true)) {
        return None;
    }
    let own = walk::text(version, &["deprecationWarning"]);
    Some(if own.is_empty() { format!("{} {} is deprecated", gvk.api_version(), gvk.kind) } else { own.to_owned() })
}

fn subresources(version: &Value, custom: &Custom, gvk: &Gvk) -> Vec<Subresource> {
    let verbs = vec![Verb::Get, Verb::Patch, Verb::Update];
    let scale = custom.scale.is_some().then(|| Gvk::new("autoscaling", "v1", "Scale"));
    let status = walk::at(version, &["subresources", "status"]).is_some_and(Value::is_object).then(|| gvk.clone());
    [("scale", scale), ("status", status)]
        .into_iter()
        .filter_map(|(name, gvk)| Some(Subresource { name: name.into(), gvk: gvk?, verbs: verbs.clone() }))
        .collect()
}

fn path(value: &Value, field: &str) -> Option<JsonPath> {
    value.get(field).and_then(Value::as_str).and_then(|text| JsonPath::parse(text).ok())
}

fn scale(scale: &Value) -> Option<Scale> {
    let fields = |name: &str| {
        let path = path(scale, name)?;
        path.fields().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    Some(Scale {
        spec_replicas: fields("specReplicasPath")?,
        status_replicas: fields("statusReplicasPath")?,
        label_selector: fields("labelSelectorPath"),
    })
}

/// Columns as written; without any, the age.
fn columns(version: &Value) -> Vec<PrinterColumn> {
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    let own = walk::items(version, &["additionalPrinterColumns"]);
    let own = if own.is_empty() { std::slice::from_ref(&age) } else { own };
    let text = |column: &Value, field: &str| walk::text(column, &[field]).to_owned();
    own.iter()
        .filter_map(|column| {
            Some(PrinterColumn {
                name: text(column, "name"),
                kind: text(column, "type"),
                format: text(column, "format"),
                description: text(column, "description"),
                priority: column["priority"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
                path: path(column, "jsonPath")?,
            })
        })
        .collect()
}

fn column(column: &PrinterColumn) -> Column {
    let kind = match column.kind.as_str() {
        "integer" => "integer",
        "number" => "number",
        "boolean" => "boolean",
        "date" => "date",
        _ => "string",
    };
    Column { name: column.name.clone(), kind, priority: column.priority }
}

/// Field labels: the paths without their first dot.
fn selectable(version: &Value) -> Vec<String> {
    let fields = walk::items(version, &["selectableFields"]).iter();
    fields.filter_map(|field| Some(field["jsonPath"].as_str()?.strip_prefix('.')?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_stability_and_number() {
        let mut versions = [
            "foo10",
            "v1alpha1",
            "v11alpha2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11beta2",
            "v1",
            "v2",
            "v10",
            "foo1",
        ];
        versions.sort_by_key(|version| std::cmp::Reverse(version_order(version)));
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "v1alpha1",
            "foo1",
            "foo10",
        ];
        assert_eq!(versions, expected);
    }
}
