//! Which schemas a definition may have: structural ones, in upstream's sense and words. A schema is structural when every
//! node says its type and logical junctors only add limits.

use serde_json::Value;

use super::rules::{self, Rule};
use super::schema::{self, JsonType, Schema};
use super::{JsonPath, values};
use crate::validate::FieldError;
use crate::walk;

/// Deepest nesting of a schema.
const MAX_DEPTH: usize = 48;
/// Most nodes of a schema.
const MAX_NODES: usize = 20_000;
/// Most rules of one node.
const MAX_RULES: usize = 200;
const UNSUPPORTED: [&str; 7] =
    ["$ref", "$schema", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// What may not be said below a logical junctor.
const OUTSIDE_ONLY: [&str; 13] = [
    "type",
    "title",
    "description",
    "default",
    "nullable",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    rules::KEYWORD,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Checks the schema of a version.
pub(super) fn check(document: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut check = Check { errors, nodes: 0, unrelated: None };
    check.node(document, path, Level::Root, 0);
}

struct Check<'a> {
    errors: &'a mut Vec<FieldError>,
    nodes: usize,
    /// Path of the list around whose items have no identity, if there is one.
    unrelated: Option<String>,
}

fn text<'a>(node: &'a Value, name: &str) -> &'a str {
    walk::text(node, &[name])
}

fn is_true(node: &Value, name: &str) -> bool {
    node.get(name) == Some(&Value::Bool(true))
}

fn fields(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.get("properties").and_then(Value::as_object).into_iter().flatten()
}

impl Check<'_> {
    fn forbid(&mut self, path: &str, field: &str, why: &str) {
        self.errors.push(FieldError::forbidden(format!("{path}.{field}"), why));
    }

    /// The schema has become too large to go on.
    fn is_too_large(&mut self, path: &str, depth: usize) -> bool {
        self.nodes += 1;
        let (too_deep, too_many) = (depth > MAX_DEPTH, self.nodes == MAX_NODES + 1);
        if too_deep {
            self.errors.push(FieldError::forbidden(path, format!("schemas may be nested {MAX_DEPTH} deep at most")));
        }
        if too_many {
            self.errors.push(FieldError::forbidden(path, format!("schemas may have {MAX_NODES} nodes at most")));
        }
        too_deep || self.nodes > MAX_NODES
    }

    fn node(&mut self, node: &Value, path: &str, level: Level, depth: usize) {
        if self.is_too_large(path, depth) {
            return;
        }
        self.words(node, path);
        self.ty(node, path, level);
        self.lists(node, path);
        if level == Level::Root || is_true(node, "x-kubernetes-embedded-resource") {
            self.whole_object(node, path, level);
        }
        for (name, below) in fields(node) {
            self.node(below, &format!("{path}.properties[{name}]"), Level::Field, depth + 1);
        }
        if let Some(below) = node.get("additionalProperties").filter(|below| below.is_object()) {
            self.node(below, &format!("{path}.additionalProperties"), Level::Field, depth + 1);
        }
        if let Some(below) = node.get("items").filter(|below| below.is_object()) {
            let before = self.unrelated.clone();
            if text(node, "x-kubernetes-list-type") != "map" {
                self.unrelated.get_or_insert_with(|| path.to_owned());
            }
            self.node(below, &format!("{path}.items"), Level::Item, depth + 1);
            self.unrelated = before;
        }
        self.junctors(node, node, path, depth);
        self.default(node, path);
        self.rules(node, path, level == Level::Root || is_true(node, "x-kubernetes-embedded-resource"));
    }

    /// Keywords that are not known or not allowed anywhere.
    fn words(&mut self, node: &Value, path: &str) {
        for word in UNSUPPORTED.iter().filter(|word| node.get(**word).is_some()) {
            self.forbid(path, word, &format!("{word} is not supported"));
        }
        if is_true(node, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(path, "uniqueItems", why);
        }
        if node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(path, false, "must be true or undefined"));
        }
        let pattern = text(node, "pattern");
        if let Err(error) = schema::regex(pattern) {
            let why =
                format!("must be a valid regular expression, but isn't: {}", error.to_string().replace('\n', " "));
            self.errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, why));
        }
        match node.get("additionalProperties") {
            Some(Value::Bool(false)) => {
                self.forbid(path, "additionalProperties", "additionalProperties cannot be set to false");
            }
            Some(Value::Null) | None => {}
            Some(_) if fields(node).next().is_some() => {
                let why = "additionalProperties and properties are mutual exclusive";
                self.forbid(path, "additionalProperties", why);
            }
            Some(_) => {}
        }
    }

    fn ty(&mut self, node: &Value, path: &str, level: Level) {
        let (ty, at) = (text(node, "type"), format!("{path}.type"));
        let is_free =
            is_true(node, "x-kubernetes-int-or-string") || is_true(node, "x-kubernetes-preserve-unknown-fields");
        let embedded = is_true(node, "x-kubernetes-embedded-resource");
        if embedded && ty != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            self.errors.push(if ty.is_empty() {
                FieldError::required(at, why)
            } else {
                FieldError::invalid(at, ty, why)
            });
        } else if ty.is_empty() && (!is_free || level == Level::Root) {
            let why = match level {
                Level::Root => "must not be empty at the root",
                Level::Field => "must not be empty for specified object fields",
                Level::Item => "must not be empty for specified array items",
            };
            self.errors.push(FieldError::required(at, why));
        } else if level == Level::Root && ty != "object" {
            self.errors.push(FieldError::invalid(at, ty, "must be object at the root"));
        } else if !ty.is_empty() && JsonType::parse(ty).is_none() {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            self.errors.push(FieldError::not_supported(at, ty, &known));
        } else if !ty.is_empty() && is_true(node, "x-kubernetes-int-or-string") {
            self.errors.push(FieldError::invalid(at, ty, "must be empty if x-kubernetes-int-or-string is true"));
        }
        if ty == "array" && !node.get("items").is_some_and(Value::is_object) {
            self.errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
        }
    }

    fn lists(&mut self, node: &Value, path: &str) {
        let kind = text(node, "x-kubernetes-list-type");
        let at = format!("{path}.x-kubernetes-list-type");
        let keys = walk::items(node, &["x-kubernetes-list-map-keys"]);
        if !["", "atomic", "map", "set"].contains(&kind) {
            self.errors.push(FieldError::not_supported(at, kind, &["atomic", "map", "set"]));
            return;
        }
        if !kind.is_empty() && text(node, "type") != "array" {
            let ty = text(node, "type");
            let why = "must be array if x-kubernetes-list-type is specified";
            self.errors.push(FieldError::invalid(format!("{path}.type"), ty, why));
        }
        let keys_path = format!("{path}.x-kubernetes-list-map-keys");
        if kind != "map" {
            if !keys.is_empty() {
                let why = "must be empty if x-kubernetes-list-type is not map";
                self.errors.push(FieldError::invalid(keys_path, node["x-kubernetes-list-map-keys"].clone(), why));
            }
        } else if keys.is_empty() {
            self.errors.push(FieldError::required(keys_path, "must not be empty if x-kubernetes-list-type is map"));
        } else {
            self.map_keys(node, path, keys);
        }
        let map = text(node, "x-kubernetes-map-type");
        if !["", "atomic", "granular"].contains(&map) {
            let at = format!("{path}.x-kubernetes-map-type");
            self.errors.push(FieldError::not_supported(at, map, &["atomic", "granular"]));
        }
    }

    /// Keys of items must be scalar fields that are always there.
    fn map_keys(&mut self, node: &Value, path: &str, keys: &[Value]) {
        let items = &node["items"];
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(field) = items["properties"].get(key) else {
                let text = "entries must all be names of item properties";
                self.errors.push(FieldError::invalid(format!("{path}.x-kubernetes-list-map-keys"), key, text));
                continue;
            };
            if ["array", "object"].contains(&text(field, "type")) {
                let at = format!("{path}.items.properties[{key}].type");
                self.errors.push(FieldError::invalid(
                    at,
                    text(field, "type"),
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                ));
            }
            let required = walk::items(items, &["required"]).iter().any(|name| name == key);
            if !required && field.get("default").is_none() {
                let at = format!("{path}.items.properties[{key}].default");
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.push(FieldError::required(at, why));
            }
        }
    }

    /// The object itself, or one that is embedded whole.
    fn whole_object(&mut self, node: &Value, path: &str, level: Level) {
        let embedded = level != Level::Root;
        if embedded && node.get("additionalProperties").is_some() {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            self.forbid(path, "additionalProperties", why);
        }
        let open = is_true(node, "x-kubernetes-preserve-unknown-fields");
        if embedded && !open && fields(node).next().is_none() {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                       x-kubernetes-preserve-unknown-fields";
            self.errors.push(FieldError::required(format!("{path}.properties"), why));
        }
        for (name, ty) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            let Some(found) = node["properties"].get(name) else { continue };
            if text(found, "type") != ty {
                let at = format!("{path}.properties[{name}].type");
                self.errors.push(FieldError::invalid(at, text(found, "type"), format!("must be {ty}")));
            }
        }
        let metadata = &node["properties"]["metadata"];
        if fields(metadata).any(|(name, _)| name != "name" && name != "generateName") {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbid(path, "properties[metadata]", why);
        }
    }

    /// Below junctors there are limits only, and only on fields that are described outside.
    fn junctors(&mut self, outer: &Value, node: &Value, path: &str, depth: usize) {
        let int_or_string = is_true(outer, "x-kubernetes-int-or-string");
        for word in ["allOf", "anyOf", "oneOf"] {
            for (at, below) in walk::items(node, &[word]).iter().enumerate() {
                let lead = format!("{path}.{word}[{at}]");
                self.nested(outer, below, &lead, int_or_string, depth + 1);
            }
        }
        if let Some(below) = node.get("not").filter(|below| below.is_object()) {
            self.nested(outer, below, &format!("{path}.not"), false, depth + 1);
        }
    }

    fn nested(&mut self, outer: &Value, node: &Value, path: &str, int_or_string: bool, depth: usize) {
        if self.is_too_large(path, depth) {
            return;
        }
        for word in
            OUTSIDE_ONLY.iter().filter(|word| node.get(**word).is_some_and(|value| value != &Value::Bool(false)))
        {
            if *word == "type" && int_or_string && ["integer", "string"].contains(&text(node, "type")) {
                continue;
            }
            let why = match *word {
                "nullable"
                | "x-kubernetes-preserve-unknown-fields"
                | "x-kubernetes-embedded-resource"
                | "x-kubernetes-int-or-string" => "must be false to be structural",
                "default" | "additionalProperties" => "must be undefined to be structural",
                _ => "must be empty to be structural",
            };
            self.forbid(path, word, why);
        }
        self.words(node, path);
        for (name, below) in fields(node) {
            let at = format!("{path}.properties[{name}]");
            let found =
                outer["properties"].get(name).or_else(|| outer.get("additionalProperties").filter(|of| of.is_object()));
            match found {
                Some(outer) => self.nested(outer, below, &at, is_true(outer, "x-kubernetes-int-or-string"), depth + 1),
                None if is_true(outer, "x-kubernetes-preserve-unknown-fields") => {}
                None => {
                    let place = outer_path(path);
                    let why = format!("because it is defined in {at}");
                    self.errors.push(FieldError::required(format!("{place}.properties[{name}]"), why));
                }
            }
        }
        if let Some(below) = node.get("items").filter(|below| below.is_object()) {
            self.nested(&outer["items"], below, &format!("{path}.items"), false, depth + 1);
        }
        self.junctors(outer, node, path, depth);
    }

    /// Rules must compile.
    fn rules(&mut self, node: &Value, path: &str, whole: bool) {
        let rules = walk::items(node, &[rules::KEYWORD]);
        if rules.is_empty() {
            return;
        }
        if rules.len() > MAX_RULES {
            self.errors.push(FieldError::too_many(format!("{path}.{}", rules::KEYWORD), rules.len(), MAX_RULES));
            return;
        }
        let schema = Schema::plain(node);
        for (at, rule) in rules.iter().enumerate() {
            self.rule(rule, &schema, &format!("{path}.{}[{at}]", rules::KEYWORD), whole);
        }
    }

    fn rule(&mut self, rule: &Value, schema: &Schema, path: &str, whole: bool) {
        let (source, message) = (text(rule, "rule"), text(rule, "message"));
        let mut invalid = |field: &str, why: &str| {
            self.errors.push(FieldError::invalid(format!("{path}.{field}"), text(rule, field), why));
        };
        if message.trim().contains('\n') {
            invalid("message", "message must not contain line breaks");
        }
        if !message.is_empty() && message.trim().is_empty() {
            invalid("message", "message must be non-empty if specified");
        }
        let steps = text(rule, "fieldPath");
        let names = JsonPath::parse(steps).ok();
        let names = names.as_ref().and_then(JsonPath::fields);
        let target = names.and_then(|names| names.into_iter().try_fold(schema, |schema, name| schema.field(name)));
        if !steps.is_empty() && target.is_none() {
            invalid("fieldPath", "fieldPath must be a valid path");
        }
        let known = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        let reason = text(rule, "reason");
        if !reason.is_empty() && !known.contains(&reason) {
            self.errors.push(FieldError::not_supported(format!("{path}.reason"), reason, &known));
        }
        if source.trim().is_empty() {
            self.errors.push(FieldError::required(format!("{path}.rule"), "rule is not specified"));
            return;
        }
        if source.trim().contains('\n') && message.is_empty() {
            let why = "message must be specified if rule contains line breaks";
            self.errors.push(FieldError::required(format!("{path}.message"), why));
        }
        match (Rule::read(rule, schema, whole), &self.unrelated) {
            (Err((field, why)), _) => {
                self.errors.push(FieldError::invalid(format!("{path}.{field}"), text(rule, field), why));
            }
            (Ok(found), Some(place)) if found.is_transition() => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
                self.errors.push(FieldError::invalid(format!("{path}.rule"), source, why));
            }
            (Ok(_), _) => {}
        }
    }

    /// A default must be a value of its schema, with nothing that would be pruned.
    fn default(&mut self, node: &Value, path: &str) {
        let Some(default) = node.get("default") else { return };
        let schema = Schema::plain(node);
        let mut filled = default.clone();
        super::defaults::apply(&schema, &mut filled);
        self.errors.extend(values::check_part(&schema, &filled, &format!("{path}.default")));
    }
}

/// The path of the node that a junctor belongs to.
fn outer_path(path: &str) -> &str {
    let cut = [".allOf[", ".anyOf[", ".oneOf[", ".not"].iter().filter_map(|word| path.find(word)).min();
    cut.map_or(path, |at| &path[..at])
}
