//! Discovery documents, from the table.

use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::table::{Group, Gvk, Kind, Subresource, Table, Verb, api_version};

/// Version of the aggregated discovery format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`.
    V2beta1,
}

/// `/api`: APIVersions. `server_address` is `host:port` as clients reach it.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: APIGroupList.
pub fn api_group_list(table: &Table) -> Value {
    let groups: Vec<Value> = named_groups(table).map(|group| group_value(&group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`: APIGroup; none when the group does not exist.
pub fn api_group(table: &Table, group: &str) -> Option<Value> {
    let found = named_groups(table).find(|candidate| candidate.name == group)?;
    let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Some(document), Value::Object(group)) = (document.as_object_mut(), group_value(&found)) {
        document.extend(group);
    }
    Some(document)
}

fn named_groups(table: &Table) -> impl Iterator<Item = Group<'_>> {
    table.groups().into_iter().filter(|group| !group.name.is_empty())
}

fn group_value(group: &Group<'_>) -> Value {
    let version = |version: &&str| json!({"groupVersion": api_version(group.name, version), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn verb_names(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn kinds<'a>(table: &'a Table, group: &str, version: &str) -> Vec<&'a Kind> {
    table.kinds().filter(|kind| kind.group == group && kind.version == version).collect()
}

/// `/api/v1` and `/apis/{group}/{version}`: APIResourceList; none when the group version does not exist.
pub fn api_resource_list(table: &Table, group: &str, version: &str) -> Option<Value> {
    let kinds = kinds(table, group, version);
    if kinds.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for kind in kinds {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| subresource(kind, sub)));
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": resources,
    }))
}

fn resource(kind: &Kind) -> Value {
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    put("name", kind.plural.as_str().into());
    put("singularName", kind.singular.as_str().into());
    put("namespaced", kind.namespaced.into());
    put("kind", kind.kind.as_str().into());
    put("verbs", verb_names(&kind.verbs).into());
    if !kind.short_names.is_empty() {
        put("shortNames", kind.short_names.clone().into());
    }
    if !kind.categories.is_empty() {
        put("categories", kind.categories.clone().into());
    }
    // Upstream makes up the statuses of components when they are read.
    if kind.is_stored() && kind.plural != "componentstatuses" {
        put("storageVersionHash", storage_version_hash(kind).into());
    }
    map.into()
}

/// Kinds of which upstream hashes another group and version, in which it stores them or once did.
const HASHED_AS: [(&str, &str, &str); 5] = [
    ("autoscaling", "horizontalpodautoscalers", "autoscaling/v2"),
    ("events.k8s.io", "events", "/v1"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "apiextensions.k8s.io/v1beta1"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", "admissionregistration.k8s.io/v1beta1"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", "admissionregistration.k8s.io/v1beta1"),
];

/// Changes when the stored version of a kind does; clients compare it only.
fn storage_version_hash(kind: &Kind) -> String {
    let own = format!("{}/{}", kind.group, kind.version);
    let other = HASHED_AS.iter().find(|(group, plural, _)| kind.is(group, plural)).map(|(_, _, hashed)| *hashed);
    let digest = Sha256::digest(format!("{}/{}", other.unwrap_or(&own), kind.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", kind.plural, sub.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.gvk.kind,
        "verbs": verb_names(&sub.verbs),
    });
    if sub.gvk.group != kind.group || sub.gvk.version != kind.version {
        value["group"] = sub.gvk.group.as_str().into();
        value["version"] = sub.gvk.version.as_str().into();
    }
    value
}

/// The aggregated document of `/api` (`core` true) or `/apis` (`core` false).
pub fn aggregated(table: &Table, format: Aggregated, core: bool) -> Value {
    let groups = table.groups().into_iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|group| {
            let versions: Vec<Value> =
                group.versions.iter().map(|version| aggregated_version(table, group.name, version)).collect();
            json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let version = match format {
        Aggregated::V2 => "apidiscovery.k8s.io/v2",
        Aggregated::V2beta1 => "apidiscovery.k8s.io/v2beta1",
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": version, "metadata": {}, "items": items})
}

fn aggregated_version(table: &Table, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = kinds(table, group, version).into_iter().map(aggregated_resource).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn gvk_value(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut value = json!({
        "resource": kind.plural,
        "responseKind": gvk_value(&kind.gvk()),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verb_names(&kind.verbs),
    });
    if !kind.short_names.is_empty() {
        value["shortNames"] = kind.short_names.clone().into();
    }
    if !kind.categories.is_empty() {
        value["categories"] = kind.categories.clone().into();
    }
    if !kind.subresources.is_empty() {
        let subs = kind.subresources.iter().map(|sub| {
            json!({"subresource": sub.name, "responseKind": gvk_value(&sub.gvk), "verbs": verb_names(&sub.verbs)})
        });
        value["subresources"] = subs.collect();
    }
    value
}

/// An APIResourceList that another server gave, as a version in aggregated discovery.
pub fn of_resource_list(list: &Value, group: &str, version: &str) -> Value {
    let items = || list["resources"].as_array().into_iter().flatten();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let kind = |item: &Value| {
        let or = |field: &str, own: &str| match item[field].as_str() {
            None | Some("") => own.to_owned(),
            Some(other) => other.to_owned(),
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": text(item, "kind")})
    };
    let resource = |item: &Value| {
        let name = text(item, "name");
        let of = |sub: &Value| text(sub, "name").strip_prefix(&format!("{name}/")).map(str::to_owned);
        let subs = items()
            .filter_map(|sub| Some(json!({"subresource": of(sub)?, "responseKind": kind(sub), "verbs": sub["verbs"]})));
        let subs: Vec<Value> = subs.collect();
        let mut value = json!({
            "resource": name, "responseKind": kind(item), "singularResource": text(item, "singularName"),
            "scope": if item["namespaced"] == true { "Namespaced" } else { "Cluster" }, "verbs": item["verbs"],
        });
        for field in ["shortNames", "categories"].into_iter().filter(|field| item[*field].is_array()) {
            value[field] = item[field].clone();
        }
        if !subs.is_empty() {
            value["subresources"] = subs.into();
        }
        value
    };
    let resources: Vec<Value> = items().filter(|item| !text(item, "name").contains('/')).map(resource).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}
