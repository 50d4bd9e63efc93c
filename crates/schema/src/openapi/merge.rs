//! Joining documents of other servers to one's own (OpenAPI version 2): of each only what it says about the paths it answers
//! for, and the definitions that this needs. A definition that differs from one of the same name gets another name, as
//! upstream's aggregator does it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Where a document has parts that are referred to.
const SECTIONS: [&str; 2] = ["definitions", "parameters"];
/// Kinds that a definition is the shape of; those of equal definitions are joined.
const KINDS: &str = "x-kubernetes-group-version-kind";

/// Section and name.
type Name = (&'static str, String);

/// What a document says about paths that begin so: these, and what they refer to.
pub fn part(document: &Value, path_prefix: &str) -> Value {
    let of_document = |section: &str| document[section].as_object();
    let paths: Map<String, Value> = of_document("paths")
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.starts_with(path_prefix))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let mut wanted: Vec<Name> = Vec::new();
    paths.values().for_each(|item| references(item, &mut wanted));
    let (mut seen, mut whole) = (BTreeSet::new(), Map::new());
    while let Some((section, name)) = wanted.pop() {
        if !seen.insert((section, name.clone())) {
            continue;
        }
        let Some(found) = of_document(section).and_then(|all| all.get(&name)) else { continue };
        references(found, &mut wanted);
        if let Some(all) = whole.entry(section).or_insert_with(|| Map::new().into()).as_object_mut() {
            all.insert(name, found.clone());
        }
    }
    whole.insert("paths".into(), paths.into());
    whole.into()
}

/// Adds a part to a document. Paths that are there already stay what they are.
pub(super) fn add(whole: &mut Value, part: &Value) {
    let renamed = renames(whole, part);
    let mut part = part.clone();
    rename(&mut part, &renamed);
    let (Some(whole), Some(part)) = (whole.as_object_mut(), part.as_object_mut()) else { return };
    let mut taken = |name: &str| match part.remove(name) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    };
    for (name, new) in SECTIONS.map(|name| (name, taken(name))) {
        if let Some(known) = section(whole, name).filter(|_| !new.is_empty()) {
            new.into_iter().for_each(|(own, value)| put(known, &renamed, (name, own), value));
        }
    }
    if let Some(known) = section(whole, "paths") {
        for (path, item) in taken("paths") {
            known.entry(path).or_insert(item);
        }
    }
}

fn put(known: &mut Map<String, Value>, renamed: &BTreeMap<Name, String>, name: Name, mut value: Value) {
    let name = renamed.get(&name).cloned().unwrap_or(name.1);
    match known.get_mut(&name) {
        Some(same) => join_kinds(same, &mut value),
        None => drop(known.insert(name, value)),
    }
}

/// A section of an own document, which is an object where it is there.
fn section<'a>(whole: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    whole.entry(name).or_insert_with(|| Map::new().into()).as_object_mut()
}

/// Everything that is referred to from here.
fn references(value: &Value, found: &mut Vec<Name>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).and_then(target));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// What a reference means.
fn target(reference: &str) -> Option<Name> {
    let (section, name) = reference.strip_prefix("#/")?.split_once('/')?;
    let section = SECTIONS.into_iter().find(|known| *known == section)?;
    Some((section, name.to_owned()))
}

/// Other names for what is called like something else in the whole.
fn renames(whole: &Value, part: &Value) -> BTreeMap<Name, String> {
    let mut renamed = BTreeMap::new();
    for section in SECTIONS {
        let (known, new) = (&whole[section], &part[section]);
        for (name, value) in new.as_object().into_iter().flatten() {
            let is_free = |name: &str| known.get(name).is_none_or(|known| is_same(known, value));
            let is_own = |name: &str| new.get(name).is_some();
            if !is_free(name) {
                let others = (2_usize..).map(|number| format!("{name}_v{number}"));
                let other = others.into_iter().find(|other| is_free(other) && !is_own(other));
                renamed.extend(other.map(|other| ((section, name.clone()), other)));
            }
        }
    }
    renamed
}

/// They say the same, whatever kinds they are the shape of.
fn is_same(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return one == other };
    let fields = |object: &Map<String, Value>| object.len() - usize::from(object.contains_key(KINDS));
    fields(one) == fields(other) && one.iter().all(|(name, value)| name == KINDS || other.get(name) == Some(value))
}

fn join_kinds(known: &mut Value, new: &mut Value) {
    let Some(Value::Array(more)) = new.get_mut(KINDS).map(Value::take) else { return };
    let Some(known) = known.as_object_mut() else { return };
    if let Value::Array(kinds) = known.entry(KINDS).or_insert_with(|| Value::Array(Vec::new())) {
        for kind in more {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
}

fn rename(value: &mut Value, renamed: &BTreeMap<Name, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) = target(reference)
                && let Some(other) = renamed.get(&name)
            {
                *reference = format!("#/{}/{other}", name.0);
            }
            fields.values_mut().for_each(|value| rename(value, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("#/definitions/{name}")})
    }

    #[test]
    fn a_part_has_what_its_paths_need() {
        let document = json!({
            "swagger": "2.0",
            "paths": {
                "/apis/a/v1/": {"get": {"schema": reference("A")}, "parameters": [{"$ref": "#/parameters/p"}]},
                "/apis/a/v10/": {"get": reference("B")},
                "/apis/b/v1/": {"get": reference("B")},
            },
            "definitions": {
                // Round and round, with a property that is called like a reference.
                "A": {"properties": {"a": reference("A"), "c": reference("C"), "$ref": {"type": "string"}}},
                "B": {}, "C": {"items": reference("missing")},
            },
            "parameters": {"p": {"name": "p"}, "q": {"name": "q"}},
        });
        let found = part(&document, "/apis/a/v1/");
        let expected = json!({
            "paths": {"/apis/a/v1/": document["paths"]["/apis/a/v1/"]},
            "definitions": {"A": document["definitions"]["A"], "C": document["definitions"]["C"]},
            "parameters": {"p": {"name": "p"}},
        });
        assert_eq!(found, expected);
        for garbage in [json!(null), json!([]), json!({"paths": 1}), json!({"paths": {}, "definitions": "x"})] {
            assert_eq!(part(&garbage, "/"), json!({"paths": {}}), "{garbage}");
        }
    }

    #[test]
    fn conflicts_get_other_names() {
        let whole = json!({
            "paths": {"/own": 1},
            "definitions": {
                "Same": {"type": "object", KINDS: [{"kind": "A"}]}, "Other": {"type": "string"},
                "Twice": {"type": "string"}, "Twice_v2": {"type": "integer"},
            },
        });
        let new = json!({
            "paths": {"/own": 2, "/new": {"a": reference("Same"), "b": [reference("Other")], "c": reference("Twice")}},
            "definitions": {
                "Same": {KINDS: [{"kind": "A"}, {"kind": "B"}], "type": "object"},
                "Other": {"items": reference("Other")}, "Twice": {"type": "boolean"}, "New": {},
            },
        });
        let expected = json!({
            "paths": {"/own": 1, "/new": {"a": reference("Same"), "b": [reference("Other_v2")], "c": reference("Twice_v3")}},
            "definitions": {
                "Same": {"type": "object", KINDS: [{"kind": "A"}, {"kind": "B"}]}, "Other": {"type": "string"},
                "Other_v2": {"items": reference("Other_v2")}, "New": {},
                "Twice": {"type": "string"}, "Twice_v2": {"type": "integer"}, "Twice_v3": {"type": "boolean"},
            },
        });
        let mut merged = whole;
        add(&mut merged, &new);
        assert_eq!(merged["paths"], expected["paths"]);
        assert_eq!(merged["definitions"], expected["definitions"]);
    }
}
