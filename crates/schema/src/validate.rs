//! Validation of objects (facts, section 4): metadata rules for all kinds, then rules per kind, in upstream's texts.

mod config;
mod container;
mod ephemeral;
mod extension;
mod immutable;
mod limits;
mod metadata;
mod network;
mod other;
mod own;
mod pod;
mod pod_spec;
mod rbac;
mod resize;
pub mod reviews;
mod rule;
mod service;
mod shape;
mod signing;
mod volume;
mod workload;

use std::fmt;

use serde_json::Value;

use crate::crd;
use crate::status::Cause;
use crate::table::Kind;

/// The class of a field error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Missing.
    Required,
    /// Present and wrong.
    Invalid,
    /// Not one of the allowed values.
    NotSupported,
    /// May not be set.
    Forbidden,
    /// Given twice.
    Duplicate,
    /// Refers to something that is not there.
    NotFound,
    /// Text too long.
    TooLong,
    /// Too many items.
    TooMany,
    /// Wrong type.
    TypeInvalid,
    /// Our fault.
    Internal,
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path of the field, such as `spec.containers[0].image`.
    pub path: String,
    /// Class.
    pub kind: ErrorType,
    /// The offending value, for the classes that show it.
    pub value: Option<Value>,
    /// What is wrong with it.
    pub detail: String,
}

impl ErrorType {
    /// The name of the class in the causes of a Status.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    /// The words that open its message.
    const fn lead(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

impl FieldError {
    /// An error that shows no value.
    pub fn new(kind: ErrorType, path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind, value: None, detail: detail.into() }
    }

    /// `Required value`.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, path, detail)
    }

    /// `Forbidden`.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, path, detail)
    }

    /// `Invalid value: <json>: detail`.
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { value: Some(value.into()), ..Self::new(ErrorType::Invalid, path, detail) }
    }

    /// `Duplicate value: <json>`.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { value: Some(value.into()), ..Self::new(ErrorType::Duplicate, path, "") }
    }

    /// `Not found: <json>`.
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { value: Some(value.into()), ..Self::new(ErrorType::NotFound, path, "") }
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut supported: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        supported.sort();
        let detail = format!("supported values: {}", supported.join(", "));
        Self { value: Some(value.into()), ..Self::new(ErrorType::NotSupported, path, detail) }
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(path: impl Into<String>, limit_bytes: usize) -> Self {
        Self::new(ErrorType::TooLong, path, format!("may not be more than {limit_bytes} bytes"))
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(path: impl Into<String>, count: usize, limit: usize) -> Self {
        let detail = format!("must have at most {limit} items");
        Self { value: Some(count.into()), ..Self::new(ErrorType::TooMany, path, detail) }
    }

    /// The message without the path, as in the causes of a Status.
    pub fn body(&self) -> String {
        let value = self.value.as_ref().map(|value| format!(": {value}")).unwrap_or_default();
        let detail = if self.detail.is_empty() { String::new() } else { format!(": {}", self.detail) };
        format!("{}{value}{detail}", self.kind.lead())
    }

    /// As a cause of a Status.
    pub fn to_cause(&self) -> Cause {
        Cause { reason: self.kind.cause().into(), message: self.body(), field: self.path.clone() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Errors {
    list: Vec<FieldError>,
}

impl Errors {
    fn push(&mut self, error: FieldError) {
        self.list.push(error);
    }

    /// One `Invalid value` per reason.
    fn invalid_all(&mut self, path: &str, value: &str, reasons: Vec<String>) {
        self.list.extend(reasons.into_iter().map(|reason| FieldError::invalid(path, value, reason)));
    }

    /// `must be greater than or equal to 0` for a number below it.
    fn non_negative(&mut self, object: &Value, name: &str, path: &str) {
        if let Some(number) = object.get(name).and_then(Value::as_i64).filter(|number| *number < 0) {
            self.push(FieldError::invalid(format!("{path}.{name}"), number, "must be greater than or equal to 0"));
        }
    }

    /// `field is immutable` when the value at a dotted path of the objects changed.
    fn immutable(&mut self, object: &Value, old: &Value, path: &str) {
        let at = |value: &'_ Value| path.split('.').try_fold(value.clone(), |value, name| value.get(name).cloned());
        let (new, before) = (at(object), at(old));
        if new != before {
            let why = if path == "roleRef" { "cannot change roleRef" } else { IMMUTABLE };
            self.push(FieldError::invalid(path, new.unwrap_or(Value::Null), why));
        }
    }
}

const IMMUTABLE: &str = "field is immutable";

/// Checks a new object, with defaults applied and its name generated.
pub fn create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::create(kind, object, &mut errors);
    shape::check(kind, object, &mut errors);
    rules(kind, object, None, &mut errors);
    errors.list
}

/// Checks a question: an object of a kind that is answered and never stored.
pub fn review(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    shape::check(kind, object, &mut errors);
    reviews::check(kind, object, &mut errors);
    errors.list
}

/// Checks a changed object against the stored one (main resource).
pub fn update(kind: &Kind, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::update(kind, object, old, &mut errors);
    shape::check(kind, object, &mut errors);
    rules(kind, object, Some(old), &mut errors);
    immutable::check(kind, object, old, &mut errors);
    errors.list
}

/// Checks a change that came through the `status` subresource.
pub fn update_status(kind: &Kind, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::update(kind, object, old, &mut errors);
    if kind.is("", "pods") {
        pod::update_status(object, old, &mut errors);
    }
    if kind.is("certificates.k8s.io", "certificatesigningrequests") {
        signing::update_status(object, old, false, &mut errors);
    }
    if kind.is(crd::GROUP, crd::PLURAL) {
        crd::stored_versions(object, &mut errors.list);
    }
    if kind.custom.is_some() {
        rules(kind, object, Some(old), &mut errors);
    }
    errors.list
}

/// Checks a change that came through the `ephemeralcontainers` subresource of a pod.
pub fn update_ephemeral_containers(kind: &Kind, pod: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::update(kind, pod, old, &mut errors);
    ephemeral::update(pod, old, &mut errors);
    errors.list
}

/// Checks a change that came through the `resize` subresource of a pod.
pub fn resize(kind: &Kind, pod: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::update(kind, pod, old, &mut errors);
    resize::update(pod, old, &mut errors);
    errors.list
}

/// Checks a change that came through the `approval` subresource of a CertificateSigningRequest.
pub fn update_approval(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    signing::update_status(object, old, true, &mut errors);
    errors.list
}

/// Rules of a kind; `old` is the stored object on update.
fn rules(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    if let Some(custom) = &kind.custom {
        errors.list.extend(crd::validate(custom, object, old));
        return;
    }
    if kind.is(crd::GROUP, crd::PLURAL) {
        errors.list.extend(old.map_or_else(|| crd::create(object), |old| crd::update(object, old)));
        return;
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => match old {
            None => pod::create(object, errors),
            Some(old) => pod::update(object, old, errors),
        },
        ("", "services") => service::check(object, old, errors),
        ("", "configmaps" | "secrets") => config::check(kind, object, old, errors),
        ("", "replicationcontrollers" | "podtemplates") | ("apps" | "batch", _) => {
            workload::check(kind, object, old, errors)
        }
        ("", "nodes") => config::node(object, errors),
        ("", "persistentvolumeclaims" | "resourcequotas" | "limitranges") => config::resources(kind, object, errors),
        ("rbac.authorization.k8s.io", _) => rbac::check(kind, object, errors),
        ("isopod.dev", _) => own::check(kind, object, errors),
        _ => other::check(kind, object, errors),
    }
}

/// Something outside `metadata` and `status` differs: the generation goes up. A custom kind without a status subresource
/// has no status in this sense.
pub fn generation_changed(kind: &Kind, object: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (object.as_object(), old.as_object()) else { return true };
    let status_counts = kind.custom.is_some() && !kind.has_status_subresource();
    let counts = |(key, _): &(&String, &Value)| match key.as_str() {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => status_counts,
        _ => true,
    };
    let all = |map: &'_ serde_json::Map<String, Value>| map.iter().filter(counts).count();
    all(new) != all(old) || new.iter().filter(counts).any(|(key, value)| old.get(key) != Some(value))
}
