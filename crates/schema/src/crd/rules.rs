//! Validation rules in CEL (`x-kubernetes-validations`): compiled when a schema is read, evaluated with a budget.

use serde_json::Value;

use super::schema::{Additional, Schema};
use super::values::counterpart;
use crate::cel::{self, Budget, Cel, EvalError, Program, Type};
use crate::facts::ListType;
use crate::validate::{ErrorType, FieldError};
use crate::walk;

/// Cost of one expression; upstream's.
const EXPRESSION_BUDGET: u64 = 1_000_000;
/// Cost of all expressions of one object; upstream's.
const OBJECT_BUDGET: u64 = 10_000_000;
/// What stands for the path of an error that is about no field.
const NO_PATH: &str = "<nil>";
/// Name of the keyword.
pub(super) const KEYWORD: &str = "x-kubernetes-validations";

/// One rule.
#[derive(Debug)]
pub struct Rule {
    text: String,
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: ErrorType,
    field_path: String,
    /// There is a rule about the object before.
    uses_old: bool,
    /// It holds for new objects as well, with nothing before.
    optional_old: bool,
}

/// What is wrong with one rule: field of the rule, and why.
pub(super) type Problem = (&'static str, String);

fn variables<'a>(schema: &'a Schema, whole: bool, optional_old: bool) -> [(&'static str, Type<'a>); 2] {
    let ty = Type::of(schema, whole);
    let old = if optional_old { Type::Optional(Box::new(ty.clone())) } else { ty.clone() };
    [("self", ty), ("oldSelf", old)]
}

fn reason(text: &str) -> ErrorType {
    match text {
        "FieldValueForbidden" => ErrorType::Forbidden,
        "FieldValueRequired" => ErrorType::Required,
        "FieldValueDuplicate" => ErrorType::Duplicate,
        _ => ErrorType::Invalid,
    }
}

impl Rule {
    /// Compiles a rule of a node.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(super) fn read(rule: &Value, schema: &Schema, whole: bool) -> Result<Self, Problem> {
        let text = |field: &str| walk::text(rule, &[field]).to_owned();
        let (source, message_source) = (text("rule"), text("messageExpression"));
        let optional_old = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
        let variables = variables(schema, whole, optional_old);
        let failed = |error: cel::CompileError| format!("compilation failed: {error}");
        let program = Program::compile(&source, &variables, &Type::Bool).map_err(|error| ("rule", failed(error)))?;
        let message_program = (!message_source.trim().is_empty())
            .then(|| Program::compile(&message_source, &variables, &Type::Text))
            .transpose()
            .map_err(|error| ("messageExpression", format!("messageExpression {}", failed(error))))?;
        Ok(Self {
            uses_old: program.mentions("oldSelf"),
            text: source,
            program,
            message: text("message").trim().to_owned(),
            message_program,
            reason: reason(&text("reason")),
            field_path: text("fieldPath"),
            optional_old,
        })
    }

    /// It compares with what was before.
    pub(super) fn is_transition(&self) -> bool {
        self.uses_old
    }

    fn variables<'a>(&self, schema: &'a Schema, value: &'a Value, old: Option<&'a Value>) -> Vec<(&'a str, Cel<'a>)> {
        let of = |value| cel::of_document(value, Some(schema));
        let before = match self.optional_old {
            true => Cel::optional(old.map(of)),
            false => old.map_or(Cel::Null, of),
        };
        vec![("self", of(value)), ("oldSelf", before)]
    }

    /// The message of a broken rule: computed, given, or the rule itself.
    fn explain(&self, variables: Vec<(&str, Cel<'_>)>) -> String {
        let computed = self.message_program.as_ref().and_then(|program| {
            let variables = variables.iter().map(|(name, value)| (*name, value.clone())).collect();
            match program.evaluate(variables, &mut Budget(EXPRESSION_BUDGET)) {
                Ok(Cel::Text(text)) if !text.trim().is_empty() && !text.contains('\n') => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        computed.unwrap_or_else(|| self.given())
    }

    fn given(&self) -> String {
        if self.message.is_empty() { format!("failed rule: {}", self.text.trim()) } else { self.message.clone() }
    }
}

/// The rules of a node that compile; admission has refused those that do not.
pub(super) fn read(document: &Value, schema: &Schema, whole: bool) -> Vec<Rule> {
    let rules = walk::items(document, &[KEYWORD]).iter();
    rules.filter_map(|rule| Rule::read(rule, schema, whole).ok()).collect()
}

/// Checks the rules of a node and all below.
pub(super) fn check(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walk = Walk { path: String::new(), errors: Vec::new(), budget: OBJECT_BUDGET };
    // Without a budget nothing is said to be valid: the error is already in the list.
    let _ = walk.node(schema, value, old);
    walk.errors
}

struct Walk {
    path: String,
    errors: Vec<FieldError>,
    budget: u64,
}

impl Walk {
    fn fail(&mut self, schema: &Schema, rule: &Rule, value: &Value, kind: ErrorType, text: String) {
        let path = match (self.path.as_str(), rule.field_path.trim_start_matches('.')) {
            ("", "") => NO_PATH.to_owned(),
            ("", below) => below.to_owned(),
            (path, "") => path.to_owned(),
            (path, below) => format!("{path}.{below}"),
        };
        let shown = match kind {
            ErrorType::Duplicate => Some(value.clone()),
            ErrorType::Invalid => Some(schema.ty.map_or("", super::schema::JsonType::as_str).into()),
            _ => None,
        };
        self.errors.push(FieldError { value: shown, ..FieldError::new(kind, path, text) });
    }

    fn rule(&mut self, schema: &Schema, rule: &Rule, value: &Value, old: Option<&Value>) -> Result<(), EvalError> {
        let is_known = old == Some(value) && !rule.uses_old;
        if is_known || (rule.uses_old && !rule.optional_old && old.is_none()) {
            return Ok(());
        }
        let allowed = self.budget.min(EXPRESSION_BUDGET);
        let mut budget = Budget(allowed);
        let result = rule.program.evaluate(rule.variables(schema, value, old), &mut budget);
        self.budget -= allowed - budget.0;
        match result {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(_) => {
                let text = rule.explain(rule.variables(schema, value, old));
                self.fail(schema, rule, value, rule.reason, text);
                Ok(())
            }
            Err(EvalError::Budget) => {
                let text =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                self.fail(schema, rule, value, ErrorType::Invalid, text.into());
                Err(EvalError::Budget)
            }
            Err(error) => {
                let text = format!("{error} evaluating rule: {}", rule.given());
                self.fail(schema, rule, value, ErrorType::Invalid, text);
                Ok(())
            }
        }
    }

    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>) -> Result<(), EvalError> {
        if !schema.has_rules || value.is_null() {
            return Ok(());
        }
        for rule in &schema.rules {
            self.rule(schema, rule, value, old)?;
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let below = match (schema.properties.get(name), &schema.additional) {
                        (Some(below), _) => below,
                        (None, Some(Additional::Of(below))) => below,
                        _ => continue,
                    };
                    let old = old.and_then(|old| old.get(name));
                    let step = if self.path.is_empty() { name.clone() } else { format!(".{name}") };
                    self.below(&step, below, value, old)?;
                }
            }
            Value::Array(items) => {
                let Some(below) = &schema.items else { return Ok(()) };
                let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                for (at, item) in items.iter().enumerate() {
                    let old = match schema.list_type {
                        Some(ListType::Map) => counterpart(schema, item, at, before),
                        _ => None,
                    };
                    self.below(&format!("[{at}]"), below, item, old)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn below(&mut self, step: &str, schema: &Schema, value: &Value, old: Option<&Value>) -> Result<(), EvalError> {
        let length = self.path.len();
        self.path.push_str(step);
        let result = self.node(schema, value, old);
        self.path.truncate(length);
        result
    }
}
