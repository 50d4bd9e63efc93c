//! Any configuration applied to a pod by one manager after another: applying again changes nothing, and nobody loses fields
//! that he alone owns.
#![no_main]

use isopod_schema::apply::{self, Managers, Writer};
use isopod_schema::decode::{self, Format};
use isopod_schema::{Kind, Table};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn applied(kind: &Kind, live: &Value, config: &Value, managers: Managers, name: &str) -> Option<(Value, Managers)> {
    let writer = Writer { name, api_version: "v1", subresource: "", time: "2026-01-01T00:00:00Z" };
    apply::check(kind, config, "v1").ok()?;
    let applied = apply::apply(kind, live, config, managers, writer, true).ok()?;
    Some((applied.object, applied.managers))
}

fuzz_target!(|input: (bool, &[u8])| {
    let kind = Table::builtin().resource("", "v1", "pods").expect("pods");
    let format = if input.0 { Format::Json } else { Format::Yaml };
    let Ok(mut config) = decode::untyped(format, input.1) else { return };
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    let first = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"only": "mine"}}});
    let Some((live, managers)) = applied(kind, &json!({}), &first, Managers::default(), "first") else { return };
    let Some((once, owners)) = applied(kind, &live, &config, managers, "second") else { return };
    let (twice, _) = applied(kind, &once, &config, owners, "second").expect("what was applied can be applied again");
    assert_eq!(once, twice);
    let is_touched = config["metadata"]["labels"].get("only").is_some();
    let kept = &once["metadata"]["labels"]["only"];
    assert!(is_touched || kept == "mine" || !config["metadata"]["labels"].is_object(), "{once}");
});
