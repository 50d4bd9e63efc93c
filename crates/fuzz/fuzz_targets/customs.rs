//! Any schema of a custom kind, and any object of it: the definition is refused or served; objects are pruned, given defaults,
//! and checked, the second time without a change; what converts them is not believed.
#![no_main]

use isopod_schema::crd;
use isopod_schema::{Table, decode, defaults, tables, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn definition(schema: &Value, path: &str) -> Value {
    let names = json!({"plural": "tabs", "singular": "tab", "kind": "Tab", "listKind": "TabList"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": names,
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": [{"name": "C", "type": "string", "jsonPath": path}],
                "selectableFields": [{"jsonPath": path}], "subresources": {"scale": {"specReplicasPath": path, "statusReplicasPath": path}},
            }],
        },
        "status": {"acceptedNames": names},
    })
}

fuzz_target!(|input: (&[u8], &str, &[u8])| {
    let (schema, path, body) = input;
    let Ok(schema) = decode::unique_json(schema) else { return };
    let definition = definition(&schema, path);
    let definitions = Table::builtin().resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let is_sound = validate::create(definitions.expect("built in"), &definition).is_empty();
    let Some(row) = crd::storage_row(&definition) else { return };
    drop(crd::read_answer(body, "u", "example.com/v1", &[json!({"kind": "Tab", "metadata": {"name": "t"}})]));
    let mut object =
        json!({"apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"name": "t", "namespace": "x"}});
    if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
        let own = ["apiVersion", "kind", "metadata"];
        fields
            .into_iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .for_each(|(name, value)| object[name] = value);
    }
    let Ok(decoded) = decode::value(row.root(), object) else { return };
    let mut once = decoded.value;
    defaults::apply(&row, &mut once);
    let errors = validate::create(&row, &once);
    let options =
        tables::Options { now: jiff::Timestamp::UNIX_EPOCH, include: tables::IncludeObject::Object, headers: true };
    drop(tables::render(&row, [&once], &options));
    let mut twice = decode::value(row.root(), once.clone()).expect("what was decoded is an object").value;
    defaults::apply(&row, &mut twice);
    if is_sound {
        assert_eq!(once, twice, "pruned and with defaults already");
        assert_eq!(errors, validate::create(&row, &twice));
    }
});
