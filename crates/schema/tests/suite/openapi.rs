//! OpenAPI documents: what kubectl looks for is there, references resolve, the protobuf form says the same as the JSON form.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use isopod_schema::Table;
use isopod_schema::openapi::Documents;
use serde_json::{Value, json};

fn documents() -> &'static Documents {
    static DOCUMENTS: OnceLock<Documents> = OnceLock::new();
    DOCUMENTS.get_or_init(|| Documents::new(std::sync::Arc::new(Table::builtin().clone()), None))
}

fn v3(key: &str) -> Value {
    serde_json::from_slice(&documents().v3(key).expect(key).bytes).expect("JSON")
}

fn at<'a>(document: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(document, |value, name| &value[*name])
}

/// All `$ref` texts below a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    fn check(document: &Value, prefix: &str, names: &Value) {
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let name = reference.strip_prefix(prefix).expect(&reference);
            assert!(names.get(name).is_some(), "{reference}");
        }
    }
    let index: Value = serde_json::from_slice(&documents().v3_index().bytes).expect("JSON");
    for (key, entry) in index["paths"].as_object().expect("paths") {
        let document = v3(key);
        check(&document, "#/components/schemas/", at(&document, &["components", "schemas"]));
        let hash = &documents().v3(key).expect("listed").hash;
        assert_eq!(entry["serverRelativeURL"], format!("/openapi/v3/{key}?hash={hash}"));
    }
    let v2: Value = serde_json::from_slice(&documents().v2_json().bytes).expect("JSON");
    check(&v2, "#/definitions/", &v2["definitions"]);
    assert!(documents().v3("apis/none/v1").is_none());
}

#[test]
fn patches_say_what_they_support() {
    fn check(key: &str, path: &str, kind: &str) {
        let document = v3(key);
        let patch = at(&document, &["paths", path, "patch"]);
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], kind);
        let names: Vec<&str> =
            patch["parameters"].as_array().expect(path).iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    }
    check("api/v1", "/api/v1/namespaces/{namespace}/pods/{name}", "Pod");
    check("api/v1", "/api/v1/namespaces/{name}", "Namespace");
    check("apis/apps/v1", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "Scale");
    check("apis/isopod.dev/v1alpha1", "/apis/isopod.dev/v1alpha1/fargateprofiles/{name}", "FargateProfile");
}

#[test]
fn schemas_carry_the_facts() {
    let core = v3("api/v1");
    let check = |ty: &str, field: &str, expected: Value| {
        let mut found = at(&core, &["components", "schemas", ty, "properties", field]).clone();
        found.as_object_mut().expect(field).shift_remove("description");
        assert_eq!(found, expected, "{ty}.{field}");
    };
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    check(
        "io.k8s.api.core.v1.PodSpec",
        "containers",
        json!({"type": "array", "items": reference("io.k8s.api.core.v1.Container"),
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"}),
    );
    check(
        "io.k8s.api.core.v1.Container",
        "imagePullPolicy",
        json!({"type": "string", "enum": ["Always", "IfNotPresent", "Never"]}),
    );
    check(
        "io.k8s.api.core.v1.ServicePort",
        "protocol",
        json!({"type": "string", "enum": ["SCTP", "TCP", "UDP"], "default": "TCP"}),
    );
    check("io.k8s.api.core.v1.Pod", "spec", json!({"allOf": [reference("io.k8s.api.core.v1.PodSpec")], "default": {}}));
    check(
        "io.k8s.api.core.v1.ServiceSpec",
        "selector",
        json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"}),
    );
    let pod = at(&core, &["components", "schemas", "io.k8s.api.core.v1.Pod"]);
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    assert_eq!(at(&core, &["components", "schemas", "io.k8s.api.core.v1.Container", "required"]), &json!(["name"]));
    let own = v3("apis/isopod.dev/v1alpha1");
    let text =
        at(&own, &["components", "schemas", "dev.isopod.v1alpha1.HostVmm", "properties", "simulated", "description"]);
    assert_eq!(text, "Nothing really runs.");
}

/// Fields of a protobuf message: number and payload, length-delimited ones only.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("not cut off");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let payload = varint(&mut bytes);
        if key & 7 == 2 {
            let (value, rest) = bytes.split_at(usize::try_from(payload).expect("fits"));
            found.push((key >> 3, value));
            bytes = rest;
        }
    }
    found
}

fn one(bytes: &[u8], tag: u64) -> &[u8] {
    fields(bytes).into_iter().find(|(found, _)| *found == tag).map(|(_, value)| value).unwrap_or_default()
}

fn text(bytes: &[u8], tag: u64) -> &str {
    std::str::from_utf8(one(bytes, tag)).expect("text")
}

/// Entries of a message that stands for a map: name to value.
fn map(bytes: &[u8], tag: u64) -> BTreeMap<&str, &[u8]> {
    fields(bytes)
        .into_iter()
        .filter(|(found, _)| *found == tag)
        .map(|(_, entry)| (text(entry, 1), one(entry, 2)))
        .collect()
}

#[test]
fn the_protobuf_form_says_the_same() {
    let bytes = documents().v2_protobuf().bytes;
    let json: Value = serde_json::from_slice(&documents().v2_json().bytes).expect("JSON");
    assert_eq!(text(&bytes, 1), "2.0");
    let (definitions, paths) = (map(one(&bytes, 9), 1), map(one(&bytes, 8), 2));
    let names = |value: &Value| value.as_object().map(|map| map.len());
    assert_eq!((Some(definitions.len()), Some(paths.len())), (names(&json["definitions"]), names(&json["paths"])));
    let spec = definitions["io.k8s.api.core.v1.PodSpec"];
    let containers = map(one(spec, 25), 1)["containers"];
    assert_eq!(text(one(containers, 22), 1), "array");
    assert_eq!(text(one(one(containers, 23), 1), 1), "#/definitions/io.k8s.api.core.v1.Container");
    let extension = map(containers, 31)["x-kubernetes-patch-merge-key"];
    assert_eq!(text(extension, 2), "\"name\"\n");
    let patch = one(paths["/api/v1/namespaces/{namespace}/pods/{name}"], 8);
    let kind: Value =
        serde_json::from_str(text(map(patch, 13)["x-kubernetes-group-version-kind"], 2)).expect("JSON is YAML");
    assert_eq!(kind, json!({"group": "", "version": "v1", "kind": "Pod"}));
    // ParametersItem.parameter.non_body_parameter.query_parameter_sub_schema.name
    assert_eq!(text(one(one(one(one(patch, 8), 1), 2), 3), 4), "dryRun");
}

#[test]
fn operation_names_are_unique() {
    let v2: Value = serde_json::from_slice(&documents().v2_json().bytes).expect("JSON");
    let mut seen = std::collections::BTreeSet::new();
    for item in v2["paths"].as_object().expect("paths").values() {
        for operation in
            item.as_object().into_iter().flatten().filter_map(|(_, operation)| operation.get("operationId"))
        {
            assert!(seen.insert(operation.to_string()), "{operation}");
        }
    }
}
