//! Admission: what the cluster adds to a request, and whether it lets it pass.
//!
//! One chain for all kinds, in the order of upstream's built-in plugins (facts, section 1.17). A decider looks at the
//! request, the object, and facts that it asks for; it never writes anything but the object it was given. Configured
//! admission (webhooks, policies) is not here: it needs selectors and expressions.

mod limits;
mod nodes;
mod pods;
mod runtime;
mod security;
mod storage;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use pods::service_account_name;

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// An object comes.
    Create,
    /// An object changes.
    Update,
    /// An object goes.
    Delete,
    /// A stream to an object is opened.
    Connect,
}

impl Operation {
    /// As in rules and reviews.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A request as deciders see it, besides the object.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is about to be done.
    pub operation: Operation,
    /// API group of the kind.
    pub group: &'a str,
    /// Plural of the kind.
    pub resource: &'a str,
    /// Part of the object that is addressed; empty for all of it.
    pub subresource: &'a str,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// The object as it was.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub user: &'a str,
    /// Groups of who asks.
    pub groups: &'a [String],
    /// Five random characters for names of what is added.
    pub suffix: &'a str,
}

impl Request<'_> {
    /// It is about objects of this kind as a whole.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.group == group && self.resource == resource
    }

    /// It makes an object of this kind.
    pub fn creates(&self, group: &str, resource: &str) -> bool {
        self.operation == Operation::Create && self.is(group, resource)
    }
}

/// What deciders may ask of the cluster. All answers during one request are of about the same moment.
pub trait Facts {
    /// The named object. `resource` is as in `priorityclasses.scheduling.k8s.io`; `namespace` is empty for
    /// cluster-scoped kinds.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// All objects of a kind, in one namespace or, with an empty `namespace`, in all.
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>>;
}

/// Why a request may not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// 403 Forbidden: the text after `pods "x" is forbidden: `.
    #[error("{0}")]
    Forbidden(String),
    /// 422: one field is wrong.
    #[error("{field}: Invalid value: {value:?}: {why}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

fn forbidden<T>(message: impl Into<String>) -> Result<T, Denied> {
    Err(Denied::Forbidden(message.into()))
}

/// Fills in; says whether anything was filled in.
type Mutator = fn(&mut Value, &Request<'_>, &dyn Facts) -> Result<bool, Denied>;
/// Lets pass, with warnings.
type Validator = fn(&Value, &Request<'_>, &dyn Facts) -> Result<Vec<String>, Denied>;

/// In upstream's order; Fargate's step is what the mutating webhook of EKS does, before priorities are resolved.
const MUTATORS: [Mutator; 9] = [
    limits::fill_in,
    pods::add_service_account,
    pods::add_topology,
    pods::add_fargate,
    pods::add_priority,
    pods::add_tolerations,
    storage::add_storage_class,
    runtime::fill_in,
    storage::add_ingress_class,
];

const VALIDATORS: [Validator; 5] =
    [nodes::restrict, limits::check, security::check, storage::check_size, runtime::check];

/// Fills in what the cluster decides about a new or changed object; says whether anything was filled in.
///
/// # Errors
/// Why the object may not be.
pub fn mutate(object: &mut Value, request: &Request<'_>, facts: &dyn Facts) -> Result<bool, Denied> {
    MUTATORS.iter().try_fold(false, |changed, mutator| Ok(mutator(object, request, facts)? || changed))
}

/// What the audit log should say about pod security; it refuses nothing.
pub fn noted(object: &Value, request: &Request<'_>, facts: &dyn Facts) -> Option<String> {
    security::noted(object, request, facts)
}

/// Decides about the final object (null for a deletion); returns warnings for who asked.
///
/// # Errors
/// Why the request may not be carried out.
pub fn validate(object: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    let mut warnings = Vec::new();
    for validator in VALIDATORS {
        warnings.extend(validator(object, request, facts)?);
    }
    Ok(warnings)
}

fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if !value.get(field).is_some_and(Value::is_object) {
        value[field] = Value::Object(Map::new());
    }
    &mut value[field]
}

fn array<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    if !value.get(field).is_some_and(Value::is_array) {
        value[field] = Value::Array(Vec::new());
    }
    value.get_mut(field).and_then(Value::as_array_mut)
}

/// Items of a list; none when it is absent.
fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
