//! Discovery documents.

use isopod_schema::{Table, discovery};
use serde_json::{Value, json};

fn check(document: Option<Value>, pointer: &str, expected: Value) {
    let document = document.expect("a document");
    assert_eq!(document.pointer(pointer).unwrap_or(&Value::Null), &expected, "{pointer}");
}

#[test]
fn plain_documents() {
    let table = Table::builtin();
    check(Some(discovery::api_versions("h:1")), "/versions", json!(["v1"]));
    check(Some(discovery::api_group_list(table)), "/groups/0/name", json!("apiregistration.k8s.io"));
    check(
        discovery::api_group(table, "autoscaling"),
        "/preferredVersion",
        json!({"groupVersion": "autoscaling/v2", "version": "v2"}),
    );
    check(discovery::api_group(table, "autoscaling"), "/versions/1/version", json!("v1"));
    assert_eq!(discovery::api_group(table, "nothing"), None);
    assert_eq!(discovery::api_resource_list(table, "apps", "v9"), None);
    let core = discovery::api_resource_list(table, "", "v1").expect("core");
    let find = |name: &str| {
        core["resources"].as_array().and_then(|list| list.iter().find(|item| item["name"] == name)).cloned()
    };
    check(find("pods"), "/shortNames", json!(["po"]));
    check(find("pods"), "/categories", json!(["all"]));
    check(find("pods/eviction"), "/version", json!("v1"));
    check(find("pods/eviction"), "/group", json!("policy"));
    check(find("pods/exec"), "/verbs", json!(["create", "get"]));
    check(find("pods/status"), "/group", Value::Null);
    check(find("bindings"), "/storageVersionHash", Value::Null);
    check(find("componentstatuses"), "/storageVersionHash", Value::Null);
}

#[test]
fn hashes_of_stored_versions_are_upstreams() {
    for (group, version, plural, hash) in [
        ("", "v1", "events", "r2yiGXH7wu8="),
        ("events.k8s.io", "v1", "events", "r2yiGXH7wu8="),
        ("autoscaling", "v1", "horizontalpodautoscalers", "qwQve8ut294="),
        ("autoscaling", "v2", "horizontalpodautoscalers", "qwQve8ut294="),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "jfWCUB31mvA="),
        ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", "LYmCf+UMVdg="),
        ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings", "90V5FRZZ3Zg="),
    ] {
        let list = discovery::api_resource_list(Table::builtin(), group, version).expect("a group");
        let mut items = list["resources"].as_array().into_iter().flatten();
        let found = items.find(|item| item["name"] == plural).map(|item| &item["storageVersionHash"]);
        assert_eq!(found, Some(&json!(hash)), "{plural}.{version}.{group}");
    }
}

#[test]
fn aggregated_documents() {
    let table = Table::builtin();
    let core = discovery::aggregated(table, discovery::Aggregated::V2, true);
    check(Some(core.clone()), "/items/0/metadata/name", json!(""));
    check(Some(core), "/items/1", Value::Null);
    let groups = discovery::aggregated(table, discovery::Aggregated::V2beta1, false);
    assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    let own =
        groups["items"].as_array().and_then(|items| items.iter().find(|item| item["metadata"]["name"] == "isopod.dev"));
    check(own.cloned(), "/versions/0/resources/1/responseKind/kind", json!("FargateProfile"));
    check(own.cloned(), "/versions/0/resources/1/scope", json!("Cluster"));
}
