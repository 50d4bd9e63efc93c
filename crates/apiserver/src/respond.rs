//! Answers: objects, lists and errors in the form the client asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use isopod_schema::tables::{self, IncludeObject, Options};
use isopod_schema::{Kind, Status, partial, protobuf};
use isopod_store::Entry;
use jiff::Timestamp;
use serde_json::Value;

use crate::body::Body;
use crate::negotiate::{Encoding, Form, Output};
use crate::query::Query;
use crate::server::ApiServer;
use crate::{codec, encoded};

/// An answer.
pub type Response = http::Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
const PROTOBUF_WATCH: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(crate) fn with(code: u16, content_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = http::Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

pub(crate) fn text(code: u16, text: impl Into<String>) -> Response {
    let mut response = with(code, TEXT, text.into());
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A path that does not exist; clients make a NotFound of it.
pub(crate) fn no_such_path() -> Response {
    text(404, "404 page not found\n")
}

pub(crate) fn json_body(body: Body) -> Response {
    with(200, JSON, body)
}

pub(crate) fn protobuf_body(code: u16, body: Body) -> Response {
    with(code, PROTOBUF, body)
}

/// A watch's answer.
pub(crate) fn events(encoding: Encoding, body: Body) -> Response {
    with(200, if encoding == Encoding::Protobuf { PROTOBUF_WATCH } else { JSON }, body)
}

/// Any document.
pub(crate) fn document(code: u16, value: &Value, output: &Output) -> Response {
    match output.encoding {
        Encoding::Yaml => {
            if let Ok(yaml) = serde_saphyr::to_string(value) {
                return with(code, YAML, yaml);
            }
        }
        Encoding::Protobuf => match protobuf::encode(value) {
            Ok(bytes) => return protobuf_body(code, Bytes::from(bytes).into()),
            // Negotiation offers protobuf only where there is some; JSON says at least what happened.
            Err(error) => tracing::error!(%error, "an answer cannot be encoded as protobuf"),
        },
        Encoding::Json => {}
    }
    let mut text = if output.pretty { format!("{value:#}") } else { value.to_string() };
    text.push('\n');
    with(code, JSON, text)
}

pub(crate) fn refusal(status: &Status, output: &Output) -> Response {
    let mut response = document(status.code, &status.to_value(), output);
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, retry.into());
    }
    response
}

/// One object, from its stored bytes.
///
/// # Errors
/// 500 when the bytes do not parse.
pub(crate) fn object(code: u16, kind: &Kind, bytes: Bytes, shape: &Shape) -> Result<Response, Status> {
    if shape.output.is_message() {
        return Ok(protobuf_body(code, Body::chunks(encoded::whole(kind, encoded::message_of(kind, &bytes)?))));
    }
    if shape.output.is_plain() && !crate::convert::is_needed(kind) {
        return Ok(with(code, JSON, Body::chunks([bytes, Bytes::from_static(b"\n")])));
    }
    let value = crate::convert::from_stored(kind, codec::decode(&bytes)?);
    Ok(document(code, &shape.object(kind, value, true), &shape.output))
}

/// The same of an entry, whose encoding is shared with other readers.
///
/// # Errors
/// 500 when the bytes do not parse.
pub(crate) fn entry(server: &ApiServer, kind: &Arc<Kind>, entry: &Entry, shape: &Shape) -> Result<Response, Status> {
    if !shape.output.is_message() {
        return object(200, kind, entry.value.clone(), shape);
    }
    let message = server.encoded.message(kind, entry)?;
    Ok(protobuf_body(200, Body::chunks(encoded::whole(kind, message))))
}

/// How objects are shown, with what tables need.
pub(crate) struct Shape {
    pub(crate) output: Output,
    pub(crate) include: IncludeObject,
    pub(crate) now: Timestamp,
}

impl Shape {
    /// # Errors
    /// 400 for an unknown `includeObject`.
    pub(crate) fn parse(output: Output, query: &Query, now: Timestamp) -> Result<Self, Status> {
        let include = match query.get("includeObject") {
            None | Some("Metadata") => IncludeObject::Metadata,
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                )));
            }
        };
        Ok(Self { output, include, now })
    }

    /// One object in the form asked for; `headers` is whether a table names its columns.
    pub(crate) fn object(&self, kind: &Kind, object: Value, headers: bool) -> Value {
        match self.output.form {
            Form::Object => object,
            Form::Metadata => partial::object(&object),
            Form::Table => {
                let mut table = self.table(kind, std::slice::from_ref(&object), headers);
                table["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
                table
            }
        }
    }

    /// A Scale in the form asked for.
    pub(crate) fn scale(&self, scale: Value) -> Value {
        match self.output.form {
            Form::Object => scale,
            Form::Metadata => partial::object(&scale),
            Form::Table => tables::scale(&scale, &self.options(true)),
        }
    }

    pub(crate) fn list(&self, kind: &Kind, items: &[Value], metadata: Value) -> Value {
        match self.output.form {
            Form::Object => {
                serde_json::json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
            }
            Form::Metadata => partial::list(items, metadata),
            Form::Table => {
                let mut table = self.table(kind, items, true);
                table["metadata"] = metadata;
                table
            }
        }
    }

    fn table(&self, kind: &Kind, items: &[Value], headers: bool) -> Value {
        tables::render(kind, items, &self.options(headers))
    }

    fn options(&self, headers: bool) -> Options {
        Options { now: self.now, include: self.include, headers }
    }
}
