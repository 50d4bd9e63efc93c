//! Expressions of webhooks and policies: compiled when a configuration is read, evaluated over one request.

use serde_json::Value;

use crate::cel::{Budget, Cel, EvalError, Program, Type, of_document};
use crate::validate::FieldError;
use crate::walk;

/// Cost of all expressions of one policy or of the conditions of one webhook; upstream's.
const BUDGET: u64 = 10_000_000;

/// An expression with its text.
#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) text: String,
    program: Program,
}

/// What expressions are about. Names that are not given are unknown to the expressions.
pub(crate) struct Scope<'a> {
    variables: Vec<(&'static str, Cel<'a>)>,
    budget: Budget,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(documents: &[(&'static str, &'a Value)]) -> Self {
        let variables = documents.iter().map(|(name, value)| (*name, of_document(value, None))).collect();
        Self { variables, budget: Budget(BUDGET) }
    }

    pub(super) fn set(&mut self, name: &'static str, value: Cel<'a>) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value));
    }

    pub(crate) fn evaluate(&mut self, expression: &'a Expression) -> Result<Cel<'a>, EvalError> {
        expression.program.evaluate(self.variables.clone(), &mut self.budget)
    }
}

impl Expression {
    pub(crate) fn compile(text: &str, names: &[&str], wanted: &Type<'_>) -> Result<Self, String> {
        let variables: Vec<(&str, Type<'_>)> = names.iter().map(|name| (*name, Type::Dyn)).collect();
        let program =
            Program::compile(text, &variables, wanted).map_err(|error| format!("compilation failed: {error}"))?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// A yes or no.
    pub(super) fn holds<'a>(&'a self, scope: &mut Scope<'a>) -> Result<bool, String> {
        match scope.evaluate(self) {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(_) => Err(format!("expression '{}' resulted in error: it is neither true nor false", self.text)),
            Err(error) => Err(format!("expression '{}' resulted in error: {error}", self.text)),
        }
    }
}

/// The expressions of a list, by a field of its items; those that do not compile were refused when they were written.
pub(super) fn read(list: &[Value], field: &str, names: &[&str], wanted: &Type<'_>) -> Vec<(String, Expression)> {
    let compiled = |item: &Value| {
        let expression = Expression::compile(walk::text(item, &[field]), names, wanted).ok()?;
        Some((walk::text(item, &["name"]).to_owned(), expression))
    };
    list.iter().filter_map(compiled).collect()
}

/// What is wrong with the expressions of a list.
pub(super) fn check(
    list: &[Value],
    (path, field): (&str, &str),
    names: &[&str],
    wanted: &Type<'_>,
    errors: &mut Vec<FieldError>,
) {
    for (at, item) in list.iter().enumerate() {
        let (text, path) = (walk::text(item, &[field]), format!("{path}[{at}].{field}"));
        if text.trim().is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if let Err(why) = Expression::compile(text, names, wanted) {
            errors.push(FieldError::invalid(path, text, why));
        }
    }
}

/// All conditions hold. One that says no decides, whatever becomes of the others.
///
/// # Errors
/// What the first one ran into.
pub(super) fn all_hold<'a>(conditions: &'a [(String, Expression)], scope: &mut Scope<'a>) -> Result<bool, String> {
    let mut failed = None;
    for (_, condition) in conditions {
        match condition.holds(scope) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(true), Err)
}
