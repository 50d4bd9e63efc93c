//! ValidatingAdmissionPolicy: rules in CEL that a cluster's owner writes, and the bindings that put them into force.

use std::rc::Rc;

use serde_json::Value;

use super::expressions::{self, Expression, Scope};
use super::mutation::{self, Mutation};
use super::{Matching, Objects, Request};
use crate::cel::{Cel, Type, made_map};
use crate::facts::TypeRef;
use crate::selector::LabelSelector;
use crate::status::{Reason, Status};
use crate::table::Kind;
use crate::validate::FieldError;
use crate::walk;

/// What expressions may speak of; `params` only where the policy has parameters.
const NAMES: [&str; 6] = ["object", "oldObject", "request", "namespaceObject", "variables", "params"];
/// The same where objects and steps of patches are made.
const MAKING: [&str; 8] =
    ["Object", "JSONPatch", "object", "oldObject", "request", "namespaceObject", "variables", "params"];

/// Longest note; what is longer is cut, as upstream does.
const NOTE_CHARS_MAX: usize = 10 << 10;

fn names(policy: &Value) -> &'static [&'static str] {
    let names: &[&str] = if policy["spec"]["mutations"].is_array() { &MAKING } else { &NAMES };
    if policy["spec"]["paramKind"].is_null() { &names[..names.len() - 1] } else { names }
}

#[derive(Debug)]
struct Validation {
    rule: Expression,
    message: String,
    message_rule: Option<Expression>,
    reason: String,
}

/// A policy.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `apiVersion` and `kind` of its parameters, if it has any.
    pub parameters: Option<(String, String)>,
    /// A failure lets the request pass.
    pub ignores_failure: bool,
    matching: Matching,
    conditions: Vec<(String, Expression)>,
    variables: Vec<(String, Expression)>,
    validations: Vec<Validation>,
    mutations: Vec<Mutation>,
    /// Values for the audit log by key.
    notes: Vec<(String, Expression)>,
    /// It wants to see what others changed after it.
    pub is_reinvoked: bool,
    /// Expressions that do not compile with this program: an older one stored them.
    broken: Option<String>,
}

/// What is done about a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The request is refused.
    Deny,
    /// Who asked is warned.
    Warn,
    /// It is noted.
    Audit,
}

/// What puts a policy into force.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// Name of the policy.
    pub policy: String,
    /// Which objects are its parameters.
    pub parameters: Parameters,
    /// What is done about broken rules.
    pub actions: Vec<Action>,
    matching: Matching,
}

/// Which objects a binding gives to its policy.
#[derive(Debug, Default)]
pub struct Parameters {
    /// The one with this name.
    pub name: Option<String>,
    /// Those that this selects.
    pub selector: Option<LabelSelector>,
    /// Where they are; empty: where the request is.
    pub namespace: String,
    /// Without any, the request passes.
    pub may_be_absent: bool,
}

/// What a policy says about a request: one broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The text for people.
    pub message: String,
    /// Which of the policy's rules it is.
    pub index: usize,
    reason: Reason,
}

/// What a policy says about a request, for one set of parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opinion {
    /// Rules that are broken.
    pub verdicts: Vec<Verdict>,
    /// Key and value of its notes for the audit log.
    pub notes: Vec<(String, String)>,
}

impl Verdict {
    /// The refusal of a request.
    pub fn refusal(&self, kind: &Kind, name: &str, policy: &str, binding: &str) -> Status {
        let message = &self.message;
        let why = format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}");
        let cause = why.clone();
        let status = Status::forbidden(kind, name, &why).with_cause("", &cause, "");
        Status { code: self.reason.code(), reason: self.reason, ..status }
    }

    /// The warning for who asked.
    pub fn warning(&self, policy: &str, binding: &str) -> String {
        let message = &self.message;
        format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}")
    }
}

impl Policy {
    /// From its document.
    pub fn read(policy: &Value) -> Self {
        let (spec, names) = (&policy["spec"], names(policy));
        let list = |field: &str| walk::items(spec, &[field]);
        let param = &spec["paramKind"];
        let text = |field: &str| walk::text(param, &[field]).to_owned();
        let validations: Result<Vec<Validation>, String> =
            list("validations").iter().map(|item| Validation::read(item, names)).collect();
        let mutations: Result<Vec<Mutation>, String> =
            list("mutations").iter().map(|item| Mutation::read(item, names)).collect();
        let broken = validations.as_ref().err().or(mutations.as_ref().err()).cloned();
        Self {
            name: walk::text(policy, &["metadata", "name"]).to_owned(),
            parameters: (!param.is_null()).then(|| (text("apiVersion"), text("kind"))),
            ignores_failure: walk::text(spec, &["failurePolicy"]) == "Ignore",
            matching: Matching::read(&spec["matchConstraints"]),
            conditions: expressions::read(list("matchConditions"), "expression", names, &Type::Bool),
            variables: expressions::read(list("variables"), "expression", names, &Type::Dyn),
            validations: validations.unwrap_or_default(),
            mutations: mutations.unwrap_or_default(),
            notes: read_notes(list("auditAnnotations"), names),
            is_reinvoked: walk::text(spec, &["reinvocationPolicy"]) == "IfNeeded",
            broken,
        }
    }

    /// The kind as which the policy looks at the request; none when it does not.
    pub fn concerns<'a>(&self, request: &Request<'a>, objects: &Objects<'_>) -> Option<&'a Kind> {
        self.matching.find(request, objects)
    }

    /// All rules that are broken and what is noted, for one set of parameters (null when there are none).
    pub fn opinion(&self, request: &Request<'_>, kind: &Kind, objects: &Objects<'_>, params: &Value) -> Opinion {
        let asked = Value::Object(request.document(kind));
        let documents = [
            ("object", objects.object),
            ("oldObject", objects.old),
            ("request", &asked),
            ("namespaceObject", objects.namespace),
            ("params", params),
        ];
        let failed_at = |index: usize, why: String| match self.ignores_failure {
            true => Vec::new(),
            false => vec![Verdict { message: why, index, reason: Reason::Invalid }],
        };
        let failed = |why: String| Opinion { verdicts: failed_at(0, why), notes: Vec::new() };
        if let Some(why) = &self.broken {
            return failed(why.clone());
        }
        let mut scope = Scope::new(&documents);
        self.define(&mut scope);
        match expressions::all_hold(&self.conditions, &mut scope) {
            Ok(true) => {}
            Ok(false) => return Opinion::default(),
            Err(why) => return failed(why),
        }
        let mut verdicts = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            match validation.rule.holds(&mut scope) {
                Ok(true) => {}
                Ok(false) => verdicts.push(Verdict { index, ..validation.verdict(&mut scope) }),
                Err(why) => verdicts.extend(failed_at(index, why)),
            }
        }
        let mut notes = Vec::new();
        for (key, expression) in &self.notes {
            match note(expression, &mut scope) {
                Ok(text) => notes.extend(text.map(|text| (key.clone(), text))),
                Err(why) => verdicts.extend(failed_at(0, why)),
            }
        }
        Opinion { verdicts, notes }
    }

    /// The object as the policy changes it, step by step, for one set of parameters (null when there are none); none when
    /// its conditions do not hold.
    ///
    /// # Errors
    /// What a condition or a step ran into.
    pub fn mutated(
        &self,
        request: &Request<'_>,
        (kind, shape): (&Kind, Option<TypeRef<'_>>),
        objects: &Objects<'_>,
        params: &Value,
    ) -> Result<Option<Value>, String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let asked = Value::Object(request.document(kind));
        let mut object = objects.object.clone();
        for (at, mutation) in self.mutations.iter().enumerate() {
            let documents = [
                ("object", &object),
                ("oldObject", objects.old),
                ("request", &asked),
                ("namespaceObject", objects.namespace),
                ("params", params),
            ];
            let mut scope = Scope::new(&documents);
            self.define(&mut scope);
            if at == 0 && !expressions::all_hold(&self.conditions, &mut scope)? {
                return Ok(None);
            }
            object = mutation.apply(shape, &object, &mut scope)?;
        }
        Ok(Some(object))
    }

    /// Each variable may speak of those before it. One that fails is not there.
    fn define<'a>(&'a self, scope: &mut Scope<'a>) {
        let mut made: Vec<(Cel<'a>, Cel<'a>)> = Vec::new();
        scope.set("variables", made_map(Rc::new(made.clone())));
        for (name, expression) in &self.variables {
            if let Ok(value) = scope.evaluate(expression) {
                made.push((Cel::text(name.as_str()), value));
                scope.set("variables", made_map(Rc::new(made.clone())));
            }
        }
    }
}

/// Key and expression of each entry that compiles; others were refused when they were written.
fn read_notes(list: &[Value], names: &[&str]) -> Vec<(String, Expression)> {
    let read = |item: &Value| {
        let expression = Expression::compile(walk::text(item, &["valueExpression"]), names, &Type::Dyn).ok()?;
        Some((walk::text(item, &["key"]).to_owned(), expression))
    };
    list.iter().filter_map(read).collect()
}

/// The value of a note; none for null.
fn note<'a>(expression: &'a Expression, scope: &mut Scope<'a>) -> Result<Option<String>, String> {
    match scope.evaluate(expression) {
        Ok(Cel::Text(text)) => Ok(Some(text.chars().take(NOTE_CHARS_MAX).collect())),
        Ok(Cel::Null) => Ok(None),
        Ok(_) => Err(format!("valueExpression '{}' resulted in error: it is neither text nor null", expression.text)),
        Err(error) => Err(format!("valueExpression '{}' resulted in error: {error}", expression.text)),
    }
}

impl Validation {
    fn read(item: &Value, names: &[&str]) -> Result<Self, String> {
        let text = |field: &str| walk::text(item, &[field]);
        let message_rule = match text("messageExpression").trim() {
            "" => None,
            source => Some(Expression::compile(source, names, &Type::Text)?),
        };
        Ok(Self {
            rule: Expression::compile(text("expression"), names, &Type::Bool)?,
            message: text("message").trim().to_owned(),
            message_rule,
            reason: text("reason").to_owned(),
        })
    }

    fn verdict<'a>(&'a self, scope: &mut Scope<'a>) -> Verdict {
        let computed = self.message_rule.as_ref().and_then(|rule| match scope.evaluate(rule) {
            Ok(Cel::Text(text)) if !text.trim().is_empty() && !text.contains('\n') => Some(text.trim().to_owned()),
            _ => None,
        });
        let given = || match self.message.as_str() {
            "" => format!("failed expression: {}", self.rule.text.trim()),
            message => message.to_owned(),
        };
        let reason = if self.reason.is_empty() { Reason::Invalid } else { Reason::parse(&self.reason) };
        Verdict { message: computed.unwrap_or_else(given), index: 0, reason }
    }
}

impl Binding {
    /// From its document.
    pub fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let reference = &spec["paramRef"];
        let action = |value: &Value| match value.as_str() {
            Some("Deny") => Some(Action::Deny),
            Some("Warn") => Some(Action::Warn),
            Some("Audit") => Some(Action::Audit),
            _ => None,
        };
        Self {
            name: walk::text(binding, &["metadata", "name"]).to_owned(),
            policy: walk::text(spec, &["policyName"]).to_owned(),
            parameters: Parameters {
                name: reference["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
                selector: reference.get("selector").and_then(|found| LabelSelector::from_value(found).ok()),
                namespace: walk::text(reference, &["namespace"]).to_owned(),
                may_be_absent: walk::text(reference, &["parameterNotFoundAction"]) == "Allow",
            },
            actions: walk::items(spec, &["validationActions"]).iter().filter_map(action).collect(),
            matching: Matching::read(&spec["matchResources"]),
        }
    }

    /// The actions by name.
    pub fn action_names(&self) -> Vec<&'static str> {
        let name = |action: &Action| match action {
            Action::Deny => "Deny",
            Action::Warn => "Warn",
            Action::Audit => "Audit",
        };
        self.actions.iter().map(name).collect()
    }

    /// The binding puts its policy into force for the request.
    pub fn concerns(&self, request: &Request<'_>, objects: &Objects<'_>) -> bool {
        self.matching.find(request, objects).is_some()
    }
}

/// What is wrong with a policy that its type does not say.
pub(super) fn check(policy: &Value) -> Vec<FieldError> {
    let (names, mut errors) = (names(policy), Vec::new());
    let list = |field: &str| walk::items(&policy["spec"], &[field]);
    let checks = [
        ("variables", "expression", &Type::Dyn),
        ("matchConditions", "expression", &Type::Bool),
        ("validations", "expression", &Type::Bool),
        ("auditAnnotations", "valueExpression", &Type::Dyn),
    ];
    let is_mutating = policy["spec"]["mutations"].is_array();
    for (field, expression, wanted) in checks {
        expressions::check(list(field), (&format!("spec.{field}"), expression), names, wanted, &mut errors);
    }
    for (at, item) in list("validations").iter().enumerate() {
        let text = walk::text(item, &["messageExpression"]);
        if !text.trim().is_empty()
            && let Err(why) = Expression::compile(text, names, &Type::Text)
        {
            errors.push(FieldError::invalid(format!("spec.validations[{at}].messageExpression"), text, why));
        }
    }
    if !is_mutating && list("validations").is_empty() && list("auditAnnotations").is_empty() {
        let text = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required("spec.validations", text));
    }
    if walk::items(policy, &["spec", "matchConstraints", "resourceRules"]).is_empty() {
        errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
    }
    errors
}

/// The same for one that mutates.
pub(super) fn check_mutating(policy: &Value) -> Vec<FieldError> {
    let mut with = policy.clone();
    // One without is named so, not taken for one that validates.
    if !with["spec"]["mutations"].is_array() {
        with["spec"]["mutations"] = Value::Array(Vec::new());
    }
    let mut errors = check(&with);
    mutation::check(walk::items(&with, &["spec", "mutations"]), names(&with), &mut errors);
    match walk::text(policy, &["spec", "reinvocationPolicy"]) {
        "Never" | "IfNeeded" => {}
        "" => errors.push(FieldError::required("spec.reinvocationPolicy", "")),
        other => {
            errors.push(FieldError::not_supported("spec.reinvocationPolicy", other, &["IfNeeded", "Never"]));
        }
    }
    errors
}

/// The same for a binding of one that mutates.
pub(super) fn check_mutating_binding(binding: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_reference(&binding["spec"], &mut errors);
    errors
}

fn check_reference(spec: &Value, errors: &mut Vec<FieldError>) {
    if walk::text(spec, &["policyName"]).is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    }
    let reference = &spec["paramRef"];
    if reference.is_object() && reference["name"].is_null() == reference["selector"].is_null() {
        errors.push(FieldError::required("spec.paramRef", "name or selector must be specified, and not both"));
    }
}

/// The same for a binding.
pub(super) fn check_binding(binding: &Value) -> Vec<FieldError> {
    const ACTIONS: [&str; 3] = ["Deny", "Warn", "Audit"];
    let (spec, mut errors) = (&binding["spec"], Vec::new());
    check_reference(spec, &mut errors);
    let actions = walk::items(spec, &["validationActions"]);
    if actions.is_empty() {
        errors.push(FieldError::required("spec.validationActions", "at least one validation action is required"));
    }
    for (at, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(format!("spec.validationActions[{at}]"), action, &ACTIONS));
        }
    }
    if ["Deny", "Warn"].iter().all(|action| actions.iter().any(|found| found == action)) {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid("spec.validationActions", Value::from(actions.to_vec()), text));
    }
    errors
}
