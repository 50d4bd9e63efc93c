//! Every object of Kubernetes' own fixtures that the table knows decodes without a problem and comes out as it went in.
//!
//! The fixtures are fetched by `cargo xtask schema` and are not part of the repository; without them the test says so and
//! checks nothing.

use std::path::PathBuf;

use isopod_schema::{Table, decode};
use serde_json::Value;

fn fixtures() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/schema/debs/x/usr/share/gocode/src/k8s.io/api/testdata/HEAD");
    path.is_dir().then_some(path)
}

/// What the decoder leaves out on purpose: nulls, empty optional scalars, lists and maps.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Every value of the fixture is in the decoded document.
fn assert_kept(path: &str, expected: &Value, found: Option<&Value>) {
    match (expected, found) {
        (Value::Object(map), Some(Value::Object(_))) => {
            for (key, value) in map {
                assert_kept(&format!("{path}.{key}"), value, found.and_then(|found| found.get(key)));
            }
        }
        (Value::Array(items), Some(Value::Array(decoded))) if items.len() == decoded.len() => {
            for (at, value) in items.iter().enumerate() {
                assert_kept(&format!("{path}[{at}]"), value, decoded.get(at));
            }
        }
        (expected, None) => assert!(is_empty(expected), "{path}: {expected} is lost"),
        (expected, Some(found)) => assert_eq!(found, expected, "{path}"),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "fixtures are files")]
fn fixtures_decode_and_survive() {
    let Some(directory) = fixtures() else {
        println!("no fixtures: run `cargo xtask schema` to fetch them");
        return;
    };
    let mut checked = 0;
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a fixture");
        let fixture: Value = serde_json::from_slice(&bytes).expect("JSON");
        let text = |name: &str| fixture[name].as_str().unwrap_or_default();
        let Some(kind) = Table::builtin().object_kind(text("apiVersion"), text("kind")) else { continue };
        let decoded = decode::json(kind.root(), &bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(decoded.problems, [], "{}", path.display());
        assert_kept(text("kind"), &fixture, Some(&decoded.value));
        checked += 1;
    }
    assert!(checked >= 60, "only {checked} fixtures belong to kinds of the table");
}
