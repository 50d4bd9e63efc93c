//! The Common Expression Language as Kubernetes uses it: parsing, checking against a schema, evaluation with a budget.
//!
//! A program is compiled once and can be evaluated by many at the same time. Evaluation reads documents in place, has no
//! effects, and ends: every step costs, and the budget is given by the caller.

mod check;
mod document;
mod eval;
mod functions;
mod lexer;
mod macros;
mod network;
mod operators;
mod parser;
mod strings;
#[cfg(test)]
mod tests;
mod types;
mod value;

use crate::crd::Schema;

pub(crate) use document::to_document;
pub(crate) use types::Type;
pub(crate) use value::Cel;

/// Longest expression in bytes.
const MAX_LENGTH_BYTES: usize = 16 << 10;

/// Why a text is no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERROR: <input>:{line}:{column}: {text}")]
pub struct CompileError {
    line: usize,
    column: usize,
    text: String,
}

impl CompileError {
    fn new(source: &str, at: usize, text: impl Into<String>) -> Self {
        let before = &source[..source.floor_char_boundary(at)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column, text: text.into() }
    }
}

/// Why an evaluation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The budget is used up.
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
    /// A field or key that is not there.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A function or operator got what it cannot work with.
    #[error("no such overload: {0}")]
    Overload(String),
    /// Anything else, such as a division by zero.
    #[error("{0}")]
    Other(String),
}

/// Cost that may still be spent; a unit is about one step.
#[derive(Clone, Copy, Debug)]
pub struct Budget(pub u64);

impl Budget {
    fn spend(&mut self, cost: usize) -> Result<(), EvalError> {
        match self.0.checked_sub(cost as u64) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                Err(EvalError::Budget)
            }
        }
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    expression: parser::Expr,
}

impl Program {
    /// Compiles an expression over variables of these types; it must yield the wanted type.
    ///
    /// # Errors
    /// Syntax errors, unknown names, fields that the schema does not have, operators between what does not go together.
    pub(crate) fn compile(
        source: &str,
        variables: &[(&str, Type<'_>)],
        wanted: &Type<'_>,
    ) -> Result<Self, CompileError> {
        if source.len() > MAX_LENGTH_BYTES {
            return Err(CompileError::new(source, 0, format!("expressions may have {MAX_LENGTH_BYTES} bytes at most")));
        }
        let expression = parser::parse(source)?;
        let found = check::check(source, &expression, variables)?;
        if !found.fits(wanted) {
            let text = match wanted {
                Type::Bool => "cel expression must evaluate to a bool".to_owned(),
                wanted => format!("must evaluate to {}", wanted.name()),
            };
            return Err(CompileError::new(source, 0, text));
        }
        Ok(Self { expression })
    }

    /// The variable is mentioned.
    pub(crate) fn mentions(&self, variable: &str) -> bool {
        self.expression.mentions(variable)
    }

    /// Evaluates with these variables.
    ///
    /// # Errors
    /// What the expression runs into, and an empty budget.
    pub(crate) fn evaluate<'a>(
        &'a self,
        variables: Vec<(&'a str, Cel<'a>)>,
        budget: &mut Budget,
    ) -> Result<Cel<'a>, EvalError> {
        eval::Machine::new(variables, budget).eval(&self.expression)
    }
}

/// The value of a document, seen through its schema.
pub(crate) fn of_document<'a>(value: &'a serde_json::Value, schema: Option<&'a Schema>) -> Cel<'a> {
    Cel::of(value, schema)
}

/// A map that was made, by its keys.
pub(crate) fn made_map<'a>(fields: std::rc::Rc<Vec<(Cel<'a>, Cel<'a>)>>) -> Cel<'a> {
    Cel::Map(value::Map::Made(fields))
}
