//! Paths and operations of kinds, in either dialect.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::schemas::Builder;
use crate::table::{Gvk, Kind, Verb};

const OBJECT_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What an operation is about.
struct Operation<'a> {
    /// HTTP method in lower case.
    method: &'a str,
    /// `x-kubernetes-action`.
    action: &'a str,
    /// Name, unique in the document.
    id: String,
    /// What it takes or returns.
    gvk: Gvk,
    /// What it returns, if something else.
    returns: Option<Gvk>,
    /// The kind of the path is a custom one.
    custom: bool,
}

/// Adds the paths of a kind.
pub(super) fn add(kind: &Kind, builder: &mut Builder<'_>, paths: &mut Map<String, Value>) {
    let base = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", kind.plural);
    let list = Gvk::new(&kind.group, &kind.version, &kind.list_kind());
    let prefix = if kind.namespaced { "Namespaced" } else { "" };
    let of_collection = [
        (Verb::List, "get", "list", Some(list.clone())),
        (Verb::Create, "post", "post", None),
        (Verb::DeleteCollection, "delete", "deletecollection", Some(status())),
    ];
    add_path(kind, builder, paths, &collection, prefix, &of_collection);
    if kind.namespaced && kind.allows(Verb::List) {
        let everywhere = format!("{base}/{}", kind.plural);
        let all = [(Verb::List, "get", "list", Some(list))];
        add_path(kind, builder, paths, &everywhere, "AllNamespaces", &all);
    }
    let of_object = [
        (Verb::Get, "get", "get", None),
        (Verb::Update, "put", "put", None),
        (Verb::Patch, "patch", "patch", None),
        (Verb::Delete, "delete", "delete", Some(status())),
    ];
    let object = format!("{collection}/{{name}}");
    add_path(kind, builder, paths, &object, prefix, &of_object);
    for sub in &kind.subresources {
        let operations = sub.verbs.iter().map(|verb| {
            let (method, action) = method(*verb);
            let id = operation_id(kind, action, &format!("{prefix}{}", capital(&sub.name)));
            Operation { method, action, id, gvk: sub.gvk.clone(), returns: None, custom: kind.custom.is_some() }
        });
        let operations: Vec<Operation<'_>> = operations.collect();
        insert(builder, paths, &format!("{object}/{}", sub.name), &operations);
    }
}

fn status() -> Gvk {
    Gvk::new("", "v1", "Status")
}

const fn method(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Create => ("post", "post"),
        Verb::Update => ("put", "put"),
        Verb::Patch => ("patch", "patch"),
        Verb::Delete | Verb::DeleteCollection => ("delete", "delete"),
        Verb::Get | Verb::List | Verb::Watch => ("get", "get"),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// Such as `patchAppsV1NamespacedDeployment`.
fn operation_id(kind: &Kind, action: &str, suffix: &str) -> String {
    // Groups of custom kinds may begin alike.
    let group = match (kind.group.as_str(), &kind.custom) {
        ("", _) => "core".to_owned(),
        (group, None) => group.split('.').next().unwrap_or_default().to_owned(),
        (group, Some(_)) => group.split(['.', '-']).map(capital).collect(),
    };
    let (version, name) = (capital(&kind.version), &kind.kind);
    let (lead, end) = match suffix.strip_prefix("Namespaced") {
        Some(end) => ("Namespaced", end),
        None => ("", suffix),
    };
    format!("{action}{}{version}{lead}{name}{end}", capital(&group))
}

type Row<'a> = (Verb, &'a str, &'a str, Option<Gvk>);

fn add_path(
    kind: &Kind,
    builder: &mut Builder<'_>,
    paths: &mut Map<String, Value>,
    path: &str,
    suffix: &str,
    rows: &[Row<'_>],
) {
    let offered = rows.iter().filter(|(verb, ..)| kind.allows(*verb));
    let operations: Vec<Operation<'_>> = offered
        .map(|(_, method, action, returns)| Operation {
            method,
            action,
            id: operation_id(kind, action, suffix),
            gvk: kind.gvk(),
            returns: returns.clone(),
            custom: kind.custom.is_some(),
        })
        .collect();
    insert(builder, paths, path, &operations);
}

fn insert(builder: &mut Builder<'_>, paths: &mut Map<String, Value>, path: &str, operations: &[Operation<'_>]) {
    if operations.is_empty() {
        return;
    }
    let mut item: Map<String, Value> =
        operations.iter().map(|operation| (operation.method.to_owned(), operation_value(builder, operation))).collect();
    let in_path = ["namespace", "name"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    let parameters: Vec<Value> = in_path.map(|name| parameter(builder.dialect, "path", name, "string")).collect();
    if !parameters.is_empty() {
        item.insert("parameters".into(), parameters.into());
    }
    paths.insert(path.to_owned(), item.into());
}

fn parameter(dialect: Dialect, place: &str, name: &str, ty: &str) -> Value {
    let mut value = json!({"in": place, "name": name});
    match dialect {
        Dialect::V2 => value["type"] = ty.into(),
        Dialect::V3 => value["schema"] = json!({"type": ty}),
    }
    if place == "path" {
        value["required"] = true.into();
    }
    value
}

/// Query parameters by action: name and type.
fn query(action: &str) -> &'static [(&'static str, &'static str)] {
    const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
    const PATCH: &[(&str, &str)] =
        &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
    const DELETE: &[(&str, &str)] =
        &[("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")];
    const LIST: &[(&str, &str)] = &[
        ("labelSelector", "string"),
        ("fieldSelector", "string"),
        ("limit", "integer"),
        ("continue", "string"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
        ("allowWatchBookmarks", "boolean"),
        ("sendInitialEvents", "boolean"),
    ];
    match action {
        "post" | "put" => WRITE,
        "patch" => PATCH,
        "delete" => DELETE,
        "list" | "deletecollection" => LIST,
        _ => &[],
    }
}

fn operation_value(builder: &mut Builder<'_>, operation: &Operation<'_>) -> Value {
    let dialect = builder.dialect;
    let mut parameters: Vec<Value> =
        query(operation.action).iter().map(|(name, ty)| parameter(dialect, "query", name, ty)).collect();
    let takes = match operation.action {
        "post" | "put" => builder.kind(&operation.gvk),
        "patch" => Some(json!({"type": "object"})),
        "delete" | "deletecollection" => builder.kind(&Gvk::new("", "v1", "DeleteOptions")),
        _ => None,
    };
    let returned = operation.returns.as_ref().unwrap_or(&operation.gvk);
    let returns = builder.kind(returned).unwrap_or_else(|| json!({"type": "string"}));
    let patches: Vec<&str> =
        PATCH_TYPES.into_iter().filter(|ty| !(operation.custom && ty.contains("strategic"))).collect();
    let types: &[&str] = if operation.action == "patch" { &patches } else { &OBJECT_TYPES };
    let mut value = json!({"operationId": operation.id});
    match dialect {
        Dialect::V2 => {
            parameters.extend(takes.map(|schema| json!({"in": "body", "name": "body", "schema": schema})));
            value["consumes"] = types.to_vec().into();
            value["produces"] = OBJECT_TYPES.to_vec().into();
            value["responses"] = json!({"200": {"description": "OK", "schema": returns}});
        }
        Dialect::V3 => {
            let content = |types: &[&str], schema: &Value| -> Value {
                types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
            };
            if let Some(schema) = &takes {
                value["requestBody"] = json!({"content": content(types, schema)});
            }
            value["responses"] = json!({"200": {"description": "OK", "content": content(&OBJECT_TYPES, &returns)}});
        }
    }
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    value["x-kubernetes-action"] = operation.action.into();
    let Gvk { group, version, kind } = &operation.gvk;
    value["x-kubernetes-group-version-kind"] = json!({"group": group, "version": version, "kind": kind});
    value
}
