//! Label selectors and field selectors: the text grammar, the object form, and matching (facts, section 1.13).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::names;

/// A selector that cannot be used (400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// What a requirement asks of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// `k=v`, `k in (a,b)`.
    In(BTreeSet<String>),
    /// `k!=v`, `k notin (a,b)`; absence matches.
    NotIn(BTreeSet<String>),
    /// `k`.
    Exists,
    /// `!k`.
    DoesNotExist,
    /// `k>1`.
    GreaterThan(i64),
    /// `k<1`.
    LessThan(i64),
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// What is asked.
    pub operator: LabelOperator,
}

/// All of its requirements must hold. Without requirements it matches everything, unless made by
/// [`LabelSelector::nothing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing (an absent selector in most objects).
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// From the query-parameter form, such as `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    /// A text that is not in the grammar, with its place.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text };
        let requirements = parser.requirements()?;
        Ok(Self { requirements, nothing: false })
    }

    /// From the object form: `matchLabels` and `matchExpressions`. Null matches nothing, `{}` everything.
    ///
    /// # Errors
    /// Unknown operators, bad keys or values, values where none may be.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        if value.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, label) in value.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let label = label.as_str().unwrap_or_default();
            requirements.push(requirement(key, "In", vec![label.to_owned()])?);
        }
        for expression in value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// From a plain map of labels (`ReplicationController`, `Service`): all must be equal; an empty map matches nothing.
    pub fn from_map(value: &Value) -> Self {
        let labels = value.as_object().into_iter().flatten();
        let requirements: Vec<LabelRequirement> = labels
            .map(|(key, label)| {
                let value = label.as_str().unwrap_or_default().to_owned();
                LabelRequirement { key: key.clone(), operator: LabelOperator::In(BTreeSet::from([value])) }
            })
            .collect();
        Self { nothing: requirements.is_empty(), requirements }
    }

    /// The requirements.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// It matches everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The labels satisfy it; `labels` is `metadata.labels`, or none.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// The object's `metadata.labels` satisfy it.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(crate::walk::at(object, &["metadata", "labels"]).and_then(Value::as_object))
    }
}

impl LabelRequirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match &self.operator {
            LabelOperator::In(values) => label.is_some_and(|label| values.contains(label)),
            LabelOperator::NotIn(values) => label.is_none_or(|label| !values.contains(label)),
            LabelOperator::Exists => label.is_some(),
            LabelOperator::DoesNotExist => label.is_none(),
            LabelOperator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            LabelOperator::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn expression_requirement(expression: &Value) -> Result<LabelRequirement, SelectorError> {
    let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
    let values = crate::walk::items(expression, &["values"]);
    let values = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    requirement(text("key"), text("operator"), values)
}

/// Checks and builds one requirement.
fn requirement(key: &str, operator: &str, values: Vec<String>) -> Result<LabelRequirement, SelectorError> {
    let refuse = |text: String| Err(SelectorError(text));
    if let Some(wrong) = names::qualified(key).first() {
        return refuse(format!("key: Invalid value: {key:?}: {wrong}"));
    }
    for value in &values {
        if let Some(wrong) = names::label_value(value).first() {
            return refuse(format!("values[0][{key}]: Invalid value: {value:?}: {wrong}"));
        }
    }
    let empty = values.is_empty();
    let set: BTreeSet<String> = values.into_iter().collect();
    let operator = match (operator, empty) {
        ("In", false) => LabelOperator::In(set),
        ("NotIn", false) => LabelOperator::NotIn(set),
        ("In" | "NotIn", true) => {
            return refuse("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
        }
        ("Exists", true) => LabelOperator::Exists,
        ("DoesNotExist", true) => LabelOperator::DoesNotExist,
        ("Exists" | "DoesNotExist", false) => {
            return refuse("values: Invalid value: values set must be empty for exists and does not exist".into());
        }
        (other, _) => return refuse(format!("{other:?} is not a valid label selector operator")),
    };
    Ok(LabelRequirement { key: key.into(), operator })
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let joined = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.operator {
            LabelOperator::In(values) if values.len() == 1 => write!(f, "{key}={}", joined(values)),
            LabelOperator::In(values) => write!(f, "{key} in ({})", joined(values)),
            LabelOperator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", joined(values)),
            LabelOperator::NotIn(values) => write!(f, "{key} notin ({})", joined(values)),
            LabelOperator::Exists => write!(f, "{key}"),
            LabelOperator::DoesNotExist => write!(f, "!{key}"),
            LabelOperator::GreaterThan(bound) => write!(f, "{key}>{bound}"),
            LabelOperator::LessThan(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// Reads the text grammar from left to right.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirements(&mut self) -> Result<Vec<LabelRequirement>, SelectorError> {
        let mut requirements = Vec::new();
        self.space();
        while !self.rest.is_empty() {
            requirements.push(self.requirement()?);
            self.space();
            if self.rest.is_empty() {
                break;
            }
            self.expect(',')?;
            self.space();
            if self.rest.is_empty() {
                return self.refuse("found '', expected: identifier after ','");
            }
        }
        Ok(requirements)
    }

    fn requirement(&mut self) -> Result<LabelRequirement, SelectorError> {
        if self.eat("!") {
            let key = self.word("identifier")?;
            return requirement(key, "DoesNotExist", Vec::new());
        }
        let key = self.word("identifier")?;
        self.space();
        for (symbol, operator) in [("==", "In"), ("=", "In"), ("!=", "NotIn")] {
            if self.eat(symbol) {
                let value = self.value();
                return requirement(key, operator, vec![value.to_owned()]);
            }
        }
        if self.eat(">") {
            return Ok(LabelRequirement { operator: LabelOperator::GreaterThan(self.number(key)?), key: key.into() });
        }
        if self.eat("<") {
            return Ok(LabelRequirement { operator: LabelOperator::LessThan(self.number(key)?), key: key.into() });
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return requirement(key, "Exists", Vec::new());
        }
        match self.word("in, notin, =, ==, !=, gt, lt")? {
            "in" => requirement(key, "In", self.values()?),
            "notin" => requirement(key, "NotIn", self.values()?),
            other => self.refuse(&format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        self.space();
        self.expect('(')?;
        let mut values = Vec::new();
        loop {
            values.push(self.value().to_owned());
            self.space();
            if self.eat(")") {
                return Ok(values);
            }
            self.expect(',')?;
        }
    }

    fn number(&mut self, key: &str) -> Result<i64, SelectorError> {
        let text = self.value();
        text.parse().map_err(|_| {
            let rule = "for 'Gt', 'Lt' operators, the value must be an integer";
            SelectorError(format!("values[0][{key}]: Invalid value: {text:?}: {rule}"))
        })
    }

    fn word(&mut self, expected: &str) -> Result<&'a str, SelectorError> {
        let word = self.value();
        if word.is_empty() {
            let found: String = self.rest.chars().take(1).collect();
            return self.refuse(&format!("found '{found}', expected: {expected}"));
        }
        Ok(word)
    }

    /// The next run of ordinary characters, possibly empty.
    fn value(&mut self) -> &'a str {
        self.space();
        let special = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(special).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let rest = self.rest.strip_prefix(symbol);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, symbol: char) -> Result<(), SelectorError> {
        if self.eat(symbol.encode_utf8(&mut [0; 4])) {
            return Ok(());
        }
        let found: String = self.rest.chars().take(1).collect();
        self.refuse(&format!("found '{found}', expected: '{symbol}'"))
    }

    fn refuse<T>(&self, why: &str) -> Result<T, SelectorError> {
        Err(SelectorError(format!("unable to parse requirement: {why}")))
    }
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Field label, such as `spec.nodeName`.
    pub key: String,
    /// The value.
    pub value: String,
    /// `=` (true) or `!=`.
    pub equal: bool,
}

/// All of its terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// From the query-parameter form, such as `spec.nodeName=a,status.phase!=Failed`; `\` escapes `,`, `=` and itself.
    ///
    /// # Errors
    /// A term without an operator, a wrong escape.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = split_unescaped(text).into_iter().filter(|term| !term.is_empty());
        Ok(Self { terms: terms.map(field_term).collect::<Result<_, _>>()? })
    }

    /// It matches everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that the field must be equal to, if there is one: lets the caller use an index.
    pub fn exact(&self, key: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.key == key).map(|term| term.value.as_str())
    }

    /// The fields (of [`crate::fields::selectable`]) satisfy it; an absent field is an empty text.
    pub fn matches(&self, fields: &BTreeMap<String, String>) -> bool {
        let field = |key: &str| fields.get(key).map_or("", String::as_str);
        self.terms.iter().all(|term| (field(&term.key) == term.value) == term.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let sign = |term: &FieldTerm| if term.equal { "=" } else { "!=" };
        let texts: Vec<String> =
            self.terms.iter().map(|term| format!("{}{}{}", term.key, sign(term), escape(&term.value))).collect();
        f.write_str(&texts.join(","))
    }
}

/// Parts between commas that are not escaped.
fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn field_term(term: &str) -> Result<FieldTerm, SelectorError> {
    for (at, _) in term.match_indices(['!', '=']) {
        for (symbol, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[at..].strip_prefix(symbol) {
                return Ok(FieldTerm { key: term[..at].into(), value: unescape(value)?, equal });
            }
        }
    }
    Err(SelectorError(format!("invalid selector: '{term}'; can't understand '{term}'")))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                _ => {
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence in {value:?}")));
                }
            },
            ('=', false) => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {value:?}")));
            }
            (plain, false) => text.push(plain),
        }
    }
    Ok(text)
}
