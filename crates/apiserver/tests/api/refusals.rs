//! What upstream refuses, in its words: `tests/refusals.json` has objects, and what is said of each when one field of it is
//! another. The answers were taken from a Kubernetes API server of the version we follow.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::Cluster;

#[derive(Deserialize)]
struct Object {
    /// Where it is created.
    url: String,
    base: Value,
    cases: Vec<Case>,
}

/// Path of the field, its new value (none when it is absent), what is said.
#[derive(Deserialize)]
struct Case(Vec<Value>, Option<Value>, Vec<String>);

fn changed(base: &Value, path: &[Value], value: Option<&Value>) -> Value {
    let mut object = base.clone();
    let (last, parents) = path.split_last().expect("a path names a field");
    let parent = parents.iter().fold(&mut object, |at, part| match part {
        Value::Number(number) => &mut at[usize::try_from(number.as_u64().unwrap()).unwrap()],
        name => &mut at[name.as_str().unwrap()],
    });
    match (last, value) {
        (Value::Number(number), Some(value)) => {
            parent[usize::try_from(number.as_u64().unwrap()).unwrap()] = value.clone()
        }
        (name, Some(value)) => parent[name.as_str().unwrap()] = value.clone(),
        (name, None) => drop(parent.as_object_mut().unwrap().remove(name.as_str().unwrap())),
    }
    object
}

#[tokio::test]
async fn what_upstream_refuses_is_refused_in_its_words() {
    let cluster = Cluster::new().await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/refusals.json");
    let objects: Vec<Object> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for Object { url, base, cases } in objects {
        for Case(path, value, expected) in cases {
            let body = changed(&base, &path, value.as_ref()).to_string();
            let answer = cluster.ask(&format!("POST {url}?dryRun=All"), &[], &body).await.json();
            let causes = answer["details"]["causes"].as_array().into_iter().flatten();
            let mut said: Vec<String> = causes
                .map(|cause| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap()))
                .collect();
            said.sort();
            seen += 1;
            if answer["code"] != json!(422) || said != expected {
                wrong.push(format!("{url} {path:?} {value:?}\n  said {said:?}\n  not  {expected:?}"));
            }
        }
    }
    assert!(seen > 500, "only {seen} cases");
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
}
