//! Any bytes as objects of any built-in kind in JSON, YAML and protobuf, and as configurations to apply: what is decoded can
//! be written, and is then the same; what is applied can be applied again.
#![no_main]

use isopod_schema::apply::{self, Managers, Writer};
use isopod_schema::decode::{self, Format};
use isopod_schema::{Kind, Table, defaults, protobuf, tables, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn keeps(kind: &Kind, mut object: Value) {
    let again = decode::json(kind.root(), object.to_string().as_bytes()).expect("what was decoded is a document");
    assert_eq!(again.value, object, "decoding twice changes nothing");
    defaults::apply(kind, &mut object);
    drop(validate::create(kind, &object));
    drop(validate::update(kind, &object, &json!({"metadata": {"name": "x"}})));
    let options =
        tables::Options { now: jiff::Timestamp::UNIX_EPOCH, include: tables::IncludeObject::Object, headers: true };
    drop(tables::render(kind, [&object], &options));
    if let Ok(message) = protobuf::encode(&object) {
        protobuf::decode(kind.root(), &message).expect("what was encoded is a message");
    }
}

fn applies(kind: &Kind, config: &Value) {
    let api_version = kind.api_version();
    if apply::check(kind, config, &api_version).is_err() {
        return;
    }
    let writer = Writer { name: "a", api_version: &api_version, subresource: "", time: "2026-01-01T00:00:00Z" };
    let once =
        apply::apply(kind, &json!({}), config, Managers::default(), writer, false).expect("nobody owns anything");
    let twice = apply::apply(kind, &once.object, config, once.managers.clone(), writer, false);
    assert_eq!(twice, Ok(once));
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let table = Table::builtin();
    let kind = table.kinds().nth(usize::from(input.0) % table.kinds().count()).expect("a built-in kind");
    let of_text = |format| decode::object(kind, format, input.2).ok();
    let decoded = match input.1 % 4 {
        0 => of_text(Format::Json),
        1 => of_text(Format::Yaml),
        2 => protobuf::decode(kind.root(), input.2)
            .ok()
            .and_then(|document| decode::object(kind, Format::Json, document.to_string().as_bytes()).ok()),
        _ => {
            let config = decode::unique_json(input.2).or_else(|_| decode::untyped(Format::Yaml, input.2));
            return config.iter().for_each(|config| applies(kind, config));
        }
    };
    if let Some(decoded) = decoded {
        keeps(kind, decoded.value);
    }
});
