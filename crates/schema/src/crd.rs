//! Custom kinds: from a `CustomResourceDefinition` to rows of the table, and what their objects are held to.
//!
//! Everything here is a function of documents. Who watches definitions, swaps tables and removes objects is the API
//! server.

pub mod names;

mod check;
mod conversion;
mod defaults;
mod formats;
mod jsonpath;
mod row;
mod rules;
mod schema;
mod structural;
mod types;
mod values;

use serde_json::Value;

pub use conversion::{Conversion, read_answer, review};
pub(crate) use formats::{cidr as is_cidr, nanoseconds, uri as is_uri};
pub use jsonpath::JsonPath;
pub use row::{is_terminating, rows, storage_row, version_order};
pub(crate) use schema::regex;
pub use schema::{Additional, JsonType, Schema};

pub(crate) use check::{create, stored_versions, update};

use crate::validate::{ErrorType, FieldError};

/// Group of the kind that makes kinds.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Its plural.
pub const PLURAL: &str = "customresourcedefinitions";
/// Holds a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What only custom kinds have.
#[derive(Debug)]
pub struct Custom {
    /// Name of the definition, `plural.group`.
    pub definition: String,
    /// Kind of lists.
    pub list_kind: String,
    /// The version its objects are stored in.
    pub storage_version: String,
    /// The webhook that converts between versions; without one they differ in nothing but their name.
    pub conversion: Option<Conversion>,
    /// The schema of this version.
    pub schema: Schema,
    /// The same as written, for publishing.
    pub document: Value,
    /// Printed columns after Name.
    pub columns: Vec<PrinterColumn>,
    /// Where the numbers of the scale subresource are.
    pub scale: Option<Scale>,
    /// The version is discouraged: every request gets this warning.
    pub deprecation: Option<String>,
}

/// A printed column.
#[derive(Debug)]
pub struct PrinterColumn {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// Format as in OpenAPI.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0: always shown; more: only with `-o wide`.
    pub priority: i32,
    /// Which value it shows.
    pub path: JsonPath,
}

/// Where the scale subresource reads and writes.
#[derive(Debug)]
pub struct Scale {
    /// Wanted replicas.
    pub spec_replicas: Vec<String>,
    /// Observed replicas.
    pub status_replicas: Vec<String>,
    /// Selector in its query form.
    pub label_selector: Option<Vec<String>>,
}

/// Fills in the defaults of the schema.
pub(crate) fn apply_defaults(custom: &Custom, object: &mut Value) {
    defaults::apply(&custom.schema, object);
}

/// Checks an object against the schema of its version; `old` is the stored object on update.
pub(crate) fn validate(custom: &Custom, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = values::check(&custom.schema, object, old);
    if !custom.schema.has_rules {
        return errors;
    }
    let blocks = |error: &FieldError| {
        matches!(error.kind, ErrorType::Required | ErrorType::TooLong | ErrorType::TooMany | ErrorType::TypeInvalid)
    };
    if errors.iter().any(blocks) {
        let text = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                    complete validation";
        errors.push(FieldError::invalid("<nil>", "null", text));
    } else {
        errors.extend(rules::check(&custom.schema, object, old));
    }
    errors
}
