//! What a MutatingAdmissionPolicy changes: expressions that make a configuration to merge, or a list of JSON patch steps.

use serde_json::Value;

use super::expressions::{Expression, Scope};
use crate::apply;
use crate::cel::{Type, to_document};
use crate::facts::TypeRef;
use crate::patch;
use crate::validate::FieldError;
use crate::walk;

const TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];

/// One step of a policy.
#[derive(Debug)]
pub(super) enum Mutation {
    /// Makes what is merged into the object.
    Apply(Expression),
    /// Makes the steps of a JSON patch.
    Patch(Expression),
}

/// The expression of a mutation, with where it is and what it makes.
fn source(item: &Value) -> Option<(&'static str, &str, Type<'static>)> {
    match walk::text(item, &["patchType"]) {
        "ApplyConfiguration" => {
            let text = walk::text(item, &["applyConfiguration", "expression"]);
            Some(("applyConfiguration", text, Type::Map(Box::new(Type::Dyn))))
        }
        "JSONPatch" => {
            Some(("jsonPatch", walk::text(item, &["jsonPatch", "expression"]), Type::List(Box::new(Type::Dyn))))
        }
        _ => None,
    }
}

impl Mutation {
    /// # Errors
    /// Why its expression does not compile.
    pub(super) fn read(item: &Value, names: &[&str]) -> Result<Self, String> {
        let (field, text, made) = source(item).ok_or("a mutation has an unknown patchType")?;
        let expression = Expression::compile(text, names, &made)?;
        Ok(if field == "jsonPatch" { Self::Patch(expression) } else { Self::Apply(expression) })
    }

    /// The object after this step. Only what has a type can be merged into.
    ///
    /// # Errors
    /// What the expression runs into, and what it makes that does not fit the object.
    pub(super) fn apply<'a>(
        &'a self,
        shape: Option<TypeRef<'_>>,
        object: &Value,
        scope: &mut Scope<'a>,
    ) -> Result<Value, String> {
        let (Self::Apply(expression) | Self::Patch(expression)) = self;
        let failed = |why: &dyn std::fmt::Display| format!("expression '{}' resulted in error: {why}", expression.text);
        let made = scope.evaluate(expression).map_err(|error| failed(&error))?;
        let made = to_document(&made).map_err(|why| failed(&why))?;
        match self {
            Self::Apply(_) => shape
                .ok_or_else(|| "it cannot be applied to; use a JSONPatch".to_owned())
                .and_then(|shape| apply::merge_configuration(shape, object, &made))
                .map_err(|why| format!("error applying patch: invalid ApplyConfiguration: {why}")),
            Self::Patch(_) => {
                patch::json_patch(object, &made).map_err(|error| format!("error applying patch: JSON Patch: {error}"))
            }
        }
    }
}

/// What is wrong with the mutations of a policy.
pub(super) fn check(list: &[Value], names: &[&str], errors: &mut Vec<FieldError>) {
    if list.is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (at, item) in list.iter().enumerate() {
        let path = format!("spec.mutations[{at}]");
        match (walk::text(item, &["patchType"]), source(item)) {
            ("", _) => errors.push(FieldError::required(format!("{path}.patchType"), "")),
            (other, None) => errors.push(FieldError::not_supported(format!("{path}.patchType"), other, &TYPES)),
            (_, Some((field, text, _))) if text.trim().is_empty() => {
                errors.push(FieldError::required(format!("{path}.{field}.expression"), ""));
            }
            (_, Some((field, text, made))) => {
                if let Err(why) = Expression::compile(text, names, &made) {
                    errors.push(FieldError::invalid(format!("{path}.{field}.expression"), text, why));
                }
            }
        }
    }
}
