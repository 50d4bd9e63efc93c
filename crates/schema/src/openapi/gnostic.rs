//! The v2 document as protobuf, in the form of gnostic's `openapi.v2.Document`: old clients read nothing else.
//!
//! Encodes what [`super::v2_document`] writes, and what other servers refer to, not every swagger document. Field numbers
//! are gnostic's.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.varint(u64::from(tag) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn flag(&mut self, tag: u32, value: bool) {
        if value {
            self.varint(u64::from(tag) << 3);
            self.varint(1);
        }
    }

    fn text(&mut self, tag: u32, object: &Object, name: &str) {
        if let Some(text) = object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u32, object: &Object, name: &str) {
        for text in object.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn message(&mut self, tag: u32, message: Self) {
        self.bytes(tag, &message.0);
    }

    /// Each entry of a map as a message of name and value.
    fn named<'a>(
        &mut self,
        tag: u32,
        entries: impl IntoIterator<Item = (&'a String, &'a Value)>,
        encode: fn(&Object) -> Message,
    ) {
        for (name, value) in entries {
            let Some(object) = value.as_object() else { continue };
            let mut entry = Self::default();
            entry.bytes(1, name.as_bytes());
            entry.message(2, encode(object));
            self.message(tag, entry);
        }
    }

    /// Vendor extensions, whose values are YAML texts.
    fn extensions(&mut self, tag: u32, object: &Object) {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut entry = Self::default();
            entry.bytes(1, name.as_bytes());
            entry.message(2, any(value));
            self.message(tag, entry);
        }
    }
}

/// Any value as a YAML text; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, format!("{value}\n").as_bytes());
    message
}

fn entries<'a>(object: &'a Object, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(name).and_then(Value::as_object).into_iter().flatten()
}

/// The whole document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    let Some(root) = document.as_object() else { return message.0 };
    message.text(1, root, "swagger");
    if let Some(info) = root.get("info").and_then(Value::as_object) {
        let mut head = Message::default();
        head.text(1, info, "title");
        head.text(2, info, "version");
        message.message(2, head);
    }
    let mut paths = Message::default();
    paths.named(2, entries(root, "paths"), path_item);
    message.message(8, paths);
    let mut definitions = Message::default();
    definitions.named(1, entries(root, "definitions"), schema);
    message.message(9, definitions);
    if root.contains_key("parameters") {
        let mut shared = Message::default();
        shared.named(1, entries(root, "parameters"), self::parameter);
        message.message(10, shared);
    }
    message.0
}

fn path_item(item: &Object) -> Message {
    let mut message = Message::default();
    for (method, tag) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(operation) = item.get(method).and_then(Value::as_object) {
            message.message(tag, self::operation(operation));
        }
    }
    parameters(&mut message, 9, item);
    message
}

fn operation(operation: &Object) -> Message {
    let mut message = Message::default();
    message.text(5, operation, "operationId");
    message.texts(6, operation, "produces");
    message.texts(7, operation, "consumes");
    parameters(&mut message, 8, operation);
    let mut responses = Message::default();
    responses.named(1, entries(operation, "responses"), response_value);
    message.message(9, responses);
    message.extensions(13, operation);
    message
}

fn response_value(response: &Object) -> Message {
    let mut inner = Message::default();
    inner.text(1, response, "description");
    if let Some(returned) = response.get("schema").and_then(Value::as_object) {
        let mut item = Message::default();
        item.message(1, schema(returned));
        inner.message(2, item);
    }
    let mut message = Message::default();
    message.message(1, inner);
    message
}

fn parameters(message: &mut Message, tag: u32, object: &Object) {
    for parameter in object.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let Some(parameter) = parameter.as_object() else { continue };
        let mut item = Message::default();
        if parameter.contains_key("$ref") {
            let mut reference = Message::default();
            reference.text(1, parameter, "$ref");
            item.message(2, reference);
        } else {
            item.message(1, self::parameter(parameter));
        }
        message.message(tag, item);
    }
}

fn parameter(parameter: &Object) -> Message {
    let mut message = Message::default();
    match parameter.get("in").and_then(Value::as_str) {
        Some("body") => message.message(1, body_parameter(parameter)),
        place => message.message(2, plain_parameter(parameter, place == Some("path"))),
    }
    message
}

fn body_parameter(parameter: &Object) -> Message {
    let mut message = Message::default();
    message.text(2, parameter, "name");
    message.text(3, parameter, "in");
    if let Some(taken) = parameter.get("schema").and_then(Value::as_object) {
        message.message(5, schema(taken));
    }
    message
}

/// Path and query parameters differ in where the type stands.
fn plain_parameter(parameter: &Object, in_path: bool) -> Message {
    let mut inner = Message::default();
    inner.flag(1, parameter.get("required") == Some(&Value::Bool(true)));
    inner.text(2, parameter, "in");
    inner.text(4, parameter, "name");
    inner.text(if in_path { 5 } else { 6 }, parameter, "type");
    let mut message = Message::default();
    message.message(if in_path { 4 } else { 3 }, inner);
    message
}

fn schema(object: &Object) -> Message {
    let mut message = Message::default();
    message.text(1, object, "$ref");
    message.text(2, object, "format");
    message.text(4, object, "description");
    if let Some(default) = object.get("default") {
        message.message(5, any(default));
    }
    message.texts(19, object, "required");
    for value in object.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message.message(20, any(value));
    }
    if let Some(values) = object.get("additionalProperties").and_then(Value::as_object) {
        let mut item = Message::default();
        item.message(1, schema(values));
        message.message(21, item);
    }
    if let Some(ty) = object.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.bytes(1, ty.as_bytes());
        message.message(22, item);
    }
    if let Some(items) = object.get("items").and_then(Value::as_object) {
        let mut item = Message::default();
        item.message(1, schema(items));
        message.message(23, item);
    }
    if object.contains_key("properties") {
        let mut properties = Message::default();
        properties.named(1, entries(object, "properties"), schema);
        message.message(25, properties);
    }
    message.extensions(31, object);
    message
}
