//! Label selectors as text: `app=web,tier in (a,b),!old`, the form of queries and of scales.

use std::fmt;
use std::str::FromStr;

use crate::workload::{LabelRequirement, LabelSelector};

/// A part of a selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a requirement on a label: write key, !key, key=value, key!=value, key in (a,b) or key notin (a,b)"
)]
pub struct ParseSelectorError(pub String);

/// Splits at commas outside of parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Option<LabelRequirement> {
    let of = |key: &str, operator: &str, values: Vec<String>| {
        let key = key.trim().to_owned();
        let plain = !key.is_empty() && !key.contains(|letter: char| letter.is_whitespace() || "()=!,".contains(letter));
        plain.then(|| LabelRequirement { key, operator: operator.into(), values })
    };
    let list = |text: &str| -> Option<Vec<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some(key) = text.strip_prefix('!') {
        return of(key, "DoesNotExist", Vec::new());
    }
    if let Some((key, values)) = text.split_once(" notin ") {
        return of(key, "NotIn", list(values)?);
    }
    if let Some((key, values)) = text.split_once(" in ") {
        return of(key, "In", list(values)?);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return of(key, "NotIn", vec![value.trim().into()]);
    }
    match text.split_once("==").or_else(|| text.split_once('=')) {
        Some((key, value)) => of(key, "In", vec![value.trim().into()]),
        None => of(text, "Exists", Vec::new()),
    }
}

impl FromStr for LabelSelector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut selector = Self::default();
        for part in parts(text) {
            let found = requirement(part).ok_or_else(|| ParseSelectorError(part.into()))?;
            match found.values.as_slice() {
                // One value is a label, by which indexes find it.
                [value] if found.operator == "In" && !selector.match_labels.contains_key(&found.key) => {
                    selector.match_labels.insert(found.key, value.clone());
                }
                _ => selector.match_expressions.push(found),
            }
        }
        Ok(selector)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().map(|one| match one.operator.as_str() {
            "In" => format!("{} in ({})", one.key, one.values.join(",")),
            "NotIn" => format!("{} notin ({})", one.key, one.values.join(",")),
            "DoesNotExist" => format!("!{}", one.key),
            _ => one.key.clone(),
        });
        f.write_str(&labels.chain(expressions).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_written() {
        for (text, expected) in [
            ("", ""),
            ("app=web", "app=web"),
            ("app==web, tier in (a, b),!old,new", "app=web,tier in (a,b),!old,new"),
            ("a!=b,c notin (d,e)", "a notin (b),c notin (d,e)"),
            ("app in (web)", "app=web"),
            ("a=,example.com/b=c", "a=,example.com/b=c"),
        ] {
            let selector: LabelSelector = text.parse().unwrap();
            assert_eq!(selector.to_string(), expected);
        }
        for text in ["=a", "a b", "a in b", "!"] {
            assert_eq!(text.parse::<LabelSelector>(), Err(ParseSelectorError(text.into())));
        }
    }
}
