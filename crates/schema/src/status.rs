//! The `Status` object: what every refused request is answered with (facts, section 1.3).
//!
//! Constructors give upstream's texts, because clients and tests match them.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::table::Kind;
use crate::validate::FieldError;

/// Machine-readable reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 404.
    NotFound,
    /// 409 on create.
    AlreadyExists,
    /// 409 on a stale write.
    Conflict,
    /// 422.
    Invalid,
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 415.
    UnsupportedMediaType,
    /// 413.
    RequestEntityTooLarge,
    /// 410, a version that has been compacted.
    Expired,
    /// 410.
    Gone,
    /// 429.
    TooManyRequests,
    /// 504.
    Timeout,
    /// 400, refused by somebody who gave no reason.
    Unknown,
    /// 500, worth a retry.
    ServerTimeout,
    /// 500.
    InternalError,
    /// 503.
    ServiceUnavailable,
}

impl Reason {
    /// The HTTP status code that goes with it.
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest | Self::Unknown => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired | Self::Gone => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::ServerTimeout | Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::Unknown { Ok(()) } else { fmt::Debug::fmt(self, f) }
    }
}

impl Reason {
    /// From its text; [`Reason::Unknown`] for any other.
    pub fn parse(text: &str) -> Self {
        const ALL: [Reason; 19] = [
            Reason::NotFound,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Invalid,
            Reason::BadRequest,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::UnsupportedMediaType,
            Reason::RequestEntityTooLarge,
            Reason::Expired,
            Reason::Gone,
            Reason::TooManyRequests,
            Reason::Timeout,
            Reason::ServerTimeout,
            Reason::InternalError,
            Reason::ServiceUnavailable,
            Reason::Unknown,
        ];
        ALL.into_iter().find(|reason| format!("{reason:?}") == text).unwrap_or(Self::Unknown)
    }
}

/// One cause in the details.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Cause type, such as `FieldValueInvalid`.
    pub reason: String,
    /// Text.
    pub message: String,
    /// Field path.
    pub field: String,
}

/// What the refusal is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Plural resource name, except for `Invalid`: the kind.
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// Causes.
    pub causes: Vec<Cause>,
    /// When to try again; zero means unsaid.
    pub retry_after_seconds: u32,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Reason.
    pub reason: Reason,
    /// Text for people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A reason with its usual code.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { code: reason.code(), reason, message: message.into(), details: None }
    }

    fn about(reason: Reason, kind: &Kind, name: &str, message: String) -> Self {
        let details =
            Details { name: name.into(), group: kind.group.clone(), kind: kind.plural.clone(), ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(reason, message) }
    }

    /// 404: no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::about(Reason::NotFound, kind, name, format!("{} {name:?} not found", kind.resource_text()))
    }

    /// 404: no such path, group or resource.
    pub fn no_such_resource() -> Self {
        let text = "the server could not find the requested resource";
        Self { details: Some(Box::default()), ..Self::new(Reason::NotFound, text) }
    }

    /// 409: the name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::about(Reason::AlreadyExists, kind, name, format!("{} {name:?} already exists", kind.resource_text()))
    }

    /// 409: the name is taken by an object that is being deleted.
    pub fn already_exists_deleting(kind: &Kind, name: &str) -> Self {
        let status = Self::already_exists(kind, name);
        Self { message: format!("object is being deleted: {}", status.message), ..status }
    }

    /// 409: no free name was found for a `generateName`.
    pub fn generate_name_exhausted(kind: &Kind, name: &str) -> Self {
        let status = Self::already_exists(kind, name).retry_after(1);
        Self {
            message: format!("{}, the server was not able to generate a unique name for the object", status.message),
            ..status
        }
    }

    /// 409: the object changed meanwhile, or a precondition failed.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource_text());
        Self::about(Reason::Conflict, kind, name, message)
    }

    /// 409: the resourceVersion is not the current one.
    pub fn stale(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// 422: fields are wrong.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_kind(&kind.group, &kind.kind, name, errors)
    }

    /// The same of something that is no row of the table, such as `ListOptions`.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let text = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let causes = errors.iter().map(FieldError::to_cause).collect();
        let details =
            Details { name: name.into(), group: group.into(), kind: kind.into(), causes, ..Details::default() };
        let status = Self::new(Reason::Invalid, format!("{qualified} {name:?} is invalid: {text}"));
        Self { details: Some(Box::new(details)), ..status }
    }

    /// 400 with free text.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 403 about an object: `pods "x" is forbidden: why`.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", kind.resource_text())
        } else {
            format!("{} {name:?} is forbidden: {why}", kind.resource_text())
        };
        Self::about(Reason::Forbidden, kind, name, message)
    }

    /// 403 about a resource that need not be in the table: `resource` is `pods` or `pods/log`.
    pub fn forbidden_resource(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let subject = if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
        let details = Details { name: name.into(), group: group.into(), kind: resource.into(), ..Details::default() };
        let status = Self::new(Reason::Forbidden, format!("{subject} is forbidden: {why}"));
        Self { details: Some(Box::new(details)), ..status }
    }

    /// 403 about a path: `forbidden: why`.
    pub fn forbidden_path(why: &str) -> Self {
        let status = Self::new(Reason::Forbidden, format!("forbidden: {why}"));
        Self { details: Some(Box::default()), ..status }
    }

    /// 405: the resource does not offer this.
    pub fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self { details: Some(Box::default()), ..Self::new(Reason::MethodNotAllowed, text) }
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let types = accepted.join(", ");
        Self::new(Reason::NotAcceptable, format!("only the following media types are accepted: {types}"))
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let lead = "the body of the request was in an unknown format - accepted media types include";
        Self::new(Reason::UnsupportedMediaType, format!("{lead}: {}", accepted.join(", ")))
    }

    /// 413: the body is larger than the limit in bytes.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit_bytes}"))
    }

    /// 410 for watches: events after `requested` are gone, the oldest kept one is `oldest`.
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::new(Reason::Expired, format!("too old resource version: {requested} ({oldest})"))
    }

    /// 410 with free text (lists, continue tokens).
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 410 for things that are no more.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(Reason::Gone, message)
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// 504: the deadline passed.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Reason::Timeout, format!("Timeout: {}", message.into()))
    }

    /// 504: a resourceVersion from the future.
    pub fn version_too_large(requested: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {requested}, current: {current}");
        Self::timeout(message).with_cause("ResourceVersionTooLarge", "Too large resource version", "").retry_after(1)
    }

    /// 500 that is worth a retry.
    pub fn server_timeout(kind: &Kind, action: &str) -> Self {
        let resource = kind.resource_text();
        let message =
            format!("The {action} operation against {resource} could not be completed at this time, please try again.");
        Self::about(Reason::ServerTimeout, kind, "", message)
    }

    /// 500.
    pub fn internal(what: impl fmt::Display) -> Self {
        let text = what.to_string();
        Self::new(Reason::InternalError, format!("Internal error occurred: {text}")).with_cause("", &text, "")
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// The same with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same with a time to wait before the next try.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The body of the answer.
    pub fn to_value(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.to_string(),
        });
        if let Some(details) = &self.details {
            body["details"] = details.to_value();
        }
        body["code"] = self.code.into();
        body
    }

    /// The body of an answer that says that something was done and returns no object (DELETE).
    pub fn success(kind: &Kind, name: &str, uid: &str) -> Value {
        let details = Details {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.plural.clone(),
            uid: uid.into(),
            ..Details::default()
        };
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_value()})
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let texts = [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            map.insert(key.into(), text.as_str().into());
        }
        if !self.causes.is_empty() {
            map.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        map.into()
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let texts = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        let present = texts.into_iter().filter(|(_, text)| !text.is_empty());
        present.map(|(key, text)| (key.to_owned(), Value::from(text.as_str()))).collect::<Map<_, _>>().into()
    }
}
