//! Any bytes as objects in JSON, YAML and protobuf: what is decoded can be written, and is then the same.
#![no_main]

use isopod_schema::decode::{self, Format};
use isopod_schema::{Kind, Table, defaults, protobuf, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const KINDS: [(&str, &str, &str); 8] = [
    ("", "v1", "pods"),
    ("", "v1", "configmaps"),
    ("", "v1", "secrets"),
    ("apps", "v1", "deployments"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("rbac.authorization.k8s.io", "v1", "clusterroles"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
];

fn keeps(kind: &Kind, mut object: Value) {
    let again = decode::json(kind.root(), object.to_string().as_bytes()).expect("what was decoded is a document");
    assert_eq!(again.value, object, "decoding twice changes nothing");
    defaults::apply(kind, &mut object);
    drop(validate::create(kind, &object));
    if let Ok(message) = protobuf::encode(&object) {
        protobuf::decode(kind.root(), &message).expect("what was encoded is a message");
    }
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (group, version, plural) = KINDS[usize::from(input.0) % KINDS.len()];
    let kind = Table::builtin().resource(group, version, plural).expect("a built-in kind");
    let decoded = match input.1 % 3 {
        0 => decode::object(kind, Format::Json, input.2).ok(),
        1 => decode::object(kind, Format::Yaml, input.2).ok(),
        _ => protobuf::decode(kind.root(), input.2)
            .ok()
            .and_then(|document| decode::object(kind, Format::Json, document.to_string().as_bytes()).ok()),
    };
    if let Some(decoded) = decoded {
        keeps(kind, decoded.value);
    }
});
