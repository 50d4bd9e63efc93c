//! Behaviours as data: each file of `tests/behaviours` is a story of requests and what must come back, on a server of its own.
//! A step says `send: METHOD URL`, and what it likes of the fields of [`Step`]. `$name` stands for what a step before it kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use isopod_apiserver::UserInfo;
use isopod_schema::decode::{self, Format};
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{Answer, Cluster};

/// How often, and how far apart, an answer is asked for that takes a moment.
const TRIES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    /// Method and URL.
    send: String,
    /// Name of the user; an administrator unless given.
    user: String,
    /// Groups of the user.
    groups: Vec<String>,
    headers: BTreeMap<String, String>,
    /// A document that is sent as JSON.
    body: Value,
    /// What is sent as it stands.
    text: String,
    /// It takes a moment until the answer is this one.
    soon: bool,
    /// Code of the answer.
    code: u16,
    /// What the answer has, and maybe more; lists have no more items. `*` is anything.
    has: Value,
    /// The same of each line of a watch.
    lines: Vec<Value>,
    /// JSON pointers of what the answer has not.
    lacks: Vec<String>,
    /// Parts of the answer's text.
    says: Vec<String>,
    /// Part of the warning that comes with it.
    warns: String,
    /// JSON pointers of what later steps speak of, by name.
    keep: BTreeMap<String, String>,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            send: String::new(),
            user: "admin".into(),
            groups: vec!["system:masters".into()],
            headers: BTreeMap::new(),
            body: Value::Null,
            text: String::new(),
            soon: false,
            code: 200,
            has: Value::Null,
            lines: Vec::new(),
            lacks: Vec::new(),
            says: Vec::new(),
            warns: String::new(),
            keep: BTreeMap::new(),
        }
    }
}

/// A document in which `$name` is what was kept under that name.
fn filled(value: &Value, kept: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => {
            kept.iter().rev().fold(text.clone(), |text, (name, value)| text.replace(&format!("${name}"), value)).into()
        }
        Value::Array(items) => items.iter().map(|item| filled(item, kept)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), filled(value, kept))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// Where a document has not what it must have.
fn missing(found: &Value, wanted: &Value, at: &str) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let at = format!("{at}/{key}");
            missing(found.get(key).unwrap_or(&Value::Null), wanted, &at)
        }),
        (Value::Array(found), Value::Array(wanted)) if found.len() == wanted.len() => found
            .iter()
            .zip(wanted)
            .enumerate()
            .find_map(|(index, (found, wanted))| missing(found, wanted, &format!("{at}/{index}"))),
        (found, Value::String(any)) if any == "*" && !found.is_null() => None,
        (found, wanted) if found == wanted => None,
        _ => Some(format!("{at} is {found}, not {wanted}")),
    }
}

fn verdict(step: &Step, answer: &Answer) -> Result<(), String> {
    let document = || serde_json::from_str(&answer.text).unwrap_or(Value::Null);
    if answer.code != step.code {
        return Err(format!("answered {}", answer.code));
    }
    if !step.has.is_null()
        && let Some(why) = missing(&document(), &step.has, "")
    {
        return Err(why);
    }
    if !step.lines.is_empty() {
        let found = answer.text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect();
        if let Some(why) = missing(&found, &Value::Array(step.lines.clone()), "lines") {
            return Err(why);
        }
    }
    if let Some(there) = step.lacks.iter().find(|pointer| document().pointer(pointer).is_some()) {
        return Err(format!("has {there}"));
    }
    if let Some(part) = step.says.iter().find(|part| !answer.text.contains(*part)) {
        return Err(format!("does not say {part:?}"));
    }
    let warning = answer.headers.get("warning").map_or("", |warning| warning.to_str().unwrap());
    match step.warns.is_empty() {
        true if !warning.is_empty() => Err(format!("warns: {warning}")),
        false if !warning.contains(&step.warns) => Err(format!("does not warn: {warning:?}")),
        _ => Ok(()),
    }
}

/// Tells one story; why it went otherwise.
async fn tell(file: &Path) -> Result<(), String> {
    let document = decode::untyped(Format::Yaml, &std::fs::read(file).unwrap()).map_err(|error| error.to_string())?;
    let steps = document.as_array().ok_or("a story is a list of steps")?;
    let cluster = Cluster::new().await;
    let mut kept = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        let step = Step::deserialize(filled(step, &kept)).map_err(|error| format!("step {}: {error}", number + 1))?;
        let body = if step.body.is_null() { step.text.clone() } else { step.body.to_string() };
        let headers: Vec<(&str, &str)> =
            step.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let asking = cluster.user(UserInfo::new(step.user.as_str(), step.groups.iter().map(String::as_str)));
        let mut tries = if step.soon { TRIES } else { 1 };
        let (answer, judged) = loop {
            let answer = asking.ask(&step.send, &headers, &body).await;
            let judged = verdict(&step, &answer);
            tries -= 1;
            if judged.is_ok() || tries == 0 {
                break (answer, judged);
            }
            tokio::time::sleep(PAUSE).await;
        };
        judged.map_err(|why| format!("step {}, {}: {why}\n  {}", number + 1, step.send, answer.text))?;
        for (name, pointer) in &step.keep {
            let document: Value = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
            let value =
                document.pointer(pointer).ok_or_else(|| format!("step {}: no {pointer} to keep", number + 1))?;
            kept.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
    }
    Ok(())
}

#[tokio::test]
async fn stories_go_as_they_are_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviours");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let told = join_all(files.iter().map(|file| tell(file))).await;
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let told = files.iter().zip(told);
    let wrong: Vec<String> = told.filter_map(|(file, told)| Some(format!("{}: {}", name(file), told.err()?))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
