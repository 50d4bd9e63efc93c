//! Discovery and the index of OpenAPI, with what extensions say of themselves. Pure but for reading the routes.

use isopod_schema::openapi::Document;
use serde_json::{Value, json};

use super::routes::{Extension, Routes};

fn group_value(name: &str, versions: &[Value]) -> Value {
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn version_values(extensions: &[&std::sync::Arc<Extension>]) -> Vec<Value> {
    let value = |extension: &&std::sync::Arc<Extension>| {
        let group_version = format!("{}/{}", extension.group, extension.version);
        json!({"groupVersion": group_version, "version": extension.version})
    };
    extensions.iter().map(value).collect()
}

/// Adds groups of extensions to an APIGroupList.
pub(crate) fn add_groups(routes: &Routes, mut list: Value) -> Value {
    let Some(groups) = list["groups"].as_array_mut() else { return list };
    for (name, extensions) in routes.groups() {
        let versions = version_values(&extensions);
        match groups.iter_mut().find(|group| group["name"] == name).map(|group| &mut group["versions"]) {
            Some(Value::Array(known)) => {
                known.extend(versions.into_iter().filter(|new| !known.contains(new)).collect::<Vec<_>>())
            }
            _ => groups.push(group_value(name, &versions)),
        }
    }
    list
}

/// The APIGroup of a group that extensions alone make up.
pub(crate) fn group(routes: &Routes, name: &str) -> Option<Value> {
    let groups = routes.groups();
    let mut value = group_value(name, &version_values(groups.get(name)?));
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// Adds what extensions serve to an aggregated document.
pub(crate) fn aggregated_items(routes: &Routes, mut document: Value) -> Value {
    let Some(items) = document["items"].as_array_mut() else { return document };
    for (name, extensions) in routes.groups() {
        let stale =
            |extension: &Extension| json!({"version": extension.version, "resources": [], "freshness": "Stale"});
        let shown = extensions.iter().map(|extension| match &extension.discovery {
            Value::Null => stale(extension),
            known => known.clone(),
        });
        let versions: Vec<Value> = shown.collect();
        match items.iter_mut().find(|item| item["metadata"]["name"] == name).map(|item| &mut item["versions"]) {
            Some(Value::Array(known)) => known.extend(versions),
            _ => items.push(json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})),
        }
    }
    document
}

/// Adds the documents of extensions to the index of OpenAPI version 3, where they themselves say that these are.
pub(crate) fn add_index(routes: &Routes, index: Document) -> Document {
    let found = |extension: &std::sync::Arc<Extension>| {
        let (key, url) = (format!("apis/{}/{}", extension.group, extension.version), extension.openapi_v3.clone()?);
        let plain = format!("/openapi/v3/{key}");
        let rest = url.strip_prefix(&plain);
        let url = if rest.is_some_and(|rest| rest.starts_with('?')) { url } else { plain };
        Some((key, json!({"serverRelativeURL": url})))
    };
    let more: Vec<(String, Value)> = routes.all().filter_map(found).collect();
    if more.is_empty() {
        return index;
    }
    let mut value: Value = serde_json::from_slice(&index.bytes).unwrap_or_default();
    for (key, entry) in more {
        value["paths"][&key] = entry;
    }
    Document::json(&value)
}
