//! The simple JSONPath of printer columns and selectable fields: names, indexes, wildcards, equality filters.
//!
//! Scripts, unions and recursive descent are refused when the definition is admitted.

use std::fmt;

use serde_json::Value;

/// A path into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.FIELD=="VALUE")]`.
    Filter(Vec<String>, String),
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// It must begin with a dot.
    #[error("must be a simple json path starting with .")]
    NoDot,
    /// Not understood from here on.
    #[error("is an invalid JSONPath: cannot read {0:?}")]
    Syntax(String),
}

impl JsonPath {
    /// Reads a path, such as `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// What is not such a path.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        if !text.starts_with(['.', '[']) {
            return Err(JsonPathError::NoDot);
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let bad = || JsonPathError::Syntax(rest.to_owned());
            rest = match rest.strip_prefix('[') {
                Some(inside) => {
                    let end = end_of_bracket(inside).ok_or_else(bad)?;
                    steps.push(bracket(&inside[..end]).ok_or_else(bad)?);
                    &inside[end + 1..]
                }
                None => {
                    let name = rest.strip_prefix('.').ok_or_else(bad)?;
                    let (name, after) = field(name);
                    match name.as_str() {
                        "" if after.starts_with('[') || (after.is_empty() && steps.is_empty()) => {}
                        "" => return Err(bad()),
                        "*" => steps.push(Step::All),
                        _ => steps.push(Step::Field(name)),
                    }
                    after
                }
            };
        }
        Ok(Self { steps })
    }

    /// Field names, when the path is nothing else.
    pub fn fields<'a>(&'a self) -> Option<Vec<&'a str>> {
        let name = |step: &'a Step| if let Step::Field(name) = step { Some(name.as_str()) } else { None };
        self.steps.iter().map(name).collect()
    }

    /// The first value at the path.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(&self.steps, value)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(at) => write!(f, "[{at}]")?,
                Step::All => f.write_str("[*]")?,
                Step::Filter(path, value) => write!(f, "[?(@.{}=={value:?})]", path.join("."))?,
            }
        }
        Ok(())
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => find(rest, value.get(name)?),
        Step::Index(at) => {
            let items = value.as_array()?;
            let at = if *at < 0 {
                items.len().checked_sub(usize::try_from(-at).ok()?)?
            } else {
                usize::try_from(*at).ok()?
            };
            find(rest, items.get(at)?)
        }
        Step::All => match value {
            Value::Array(items) => items.iter().find_map(|item| find(rest, item)),
            Value::Object(fields) => fields.values().find_map(|item| find(rest, item)),
            _ => None,
        },
        Step::Filter(path, wanted) => {
            let fits = |item: &&Value| match path.iter().try_fold(*item, |value, name| value.get(name)) {
                Some(Value::String(text)) => text == wanted,
                Some(other) => &other.to_string() == wanted,
                None => false,
            };
            value.as_array()?.iter().filter(fits).find_map(|item| find(rest, item))
        }
    }
}

/// A name up to the next dot or bracket; a backslash takes the next letter as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(letters.next().map(|(_, next)| next)),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where the bracket that was opened before this text ends; brackets in quotes do not count.
fn end_of_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, ']') => return Some(at),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (path, value) = filter.split_once("==")?;
        let path = path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let value = value.trim();
        return Some(Step::Filter(path, unquoted(value).unwrap_or(value).to_owned()));
    }
    text.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_values() {
        let document = json!({
            "spec": {"a": 1, "x.y": "dot", "list": [{"n": "p", "v": 2}, {"n": "q", "v": 3}]},
            "metadata": {"labels": {"app.kubernetes.io/name": "z"}},
        });
        let check = |path: &str, expected: Value| {
            let found = JsonPath::parse(path).expect(path).first(&document).cloned().unwrap_or(Value::Null);
            assert_eq!(found, expected, "{path}");
        };
        check(".spec.a", json!(1));
        check(".spec.b", json!(null));
        check(".spec.list[1].n", json!("q"));
        check(".spec.list[-1].v", json!(3));
        check(".spec.list[*].n", json!("p"));
        check(".spec.list[?(@.n==\"q\")].v", json!(3));
        check(".spec.list[?(@.v==2)].n", json!("p"));
        check(".spec['x.y']", json!("dot"));
        check(".metadata.labels.app\\.kubernetes\\.io/name", json!("z"));
        for bad in ["spec", ".spec..a", ".spec[", ".spec[a:b]", ".spec[?(@.a>1)]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
