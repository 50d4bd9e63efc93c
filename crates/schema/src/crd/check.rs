//! Validation of definitions themselves: names, versions, subresources, columns, conversion, status.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{APPROVAL, is_established, is_protected};
use super::schema::Schema;
use super::{JsonPath, structural};
use crate::names;
use crate::validate::FieldError;
use crate::walk;

const SCOPES: [&str; 2] = ["Cluster", "Namespaced"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password", "string"];
const SELECTABLE_FIELDS_MAX: usize = 8;
const VERSIONS_MAX: usize = 64;

/// Checks a new definition.
pub(crate) fn create(definition: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(definition, &mut errors);
    errors
}

/// Checks a changed definition.
pub(crate) fn update(definition: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = create(definition);
    let text = |object: &Value, path: &[&str]| walk::text(object, path).to_owned();
    let mut frozen: Vec<&[&str]> = vec![&["spec", "group"], &["spec", "names", "plural"]];
    if is_established(old) {
        frozen.extend([&["spec", "scope"][..], &["spec", "names", "kind"]]);
    }
    for path in frozen {
        let new = text(definition, path);
        if new != text(old, path) {
            errors.push(FieldError::invalid(path.join("."), new, "field is immutable"));
        }
    }
    stored_versions(definition, &mut errors);
    errors
}

/// What objects are stored in cannot be taken away.
pub(crate) fn stored_versions(definition: &Value, errors: &mut Vec<FieldError>) {
    let names: Vec<&str> = versions(definition).iter().map(|version| walk::text(version, &["name"])).collect();
    let stored = walk::items(definition, &["status", "storedVersions"]).iter().filter_map(Value::as_str);
    for (at, version) in stored.enumerate().filter(|(_, version)| !names.contains(version)) {
        let path = format!("status.storedVersions[{at}]");
        errors.push(FieldError::invalid(
            path,
            version,
            "missing from spec.versions; all stored versions must be listed",
        ));
    }
}

fn versions(definition: &Value) -> &[Value] {
    walk::items(definition, &["spec", "versions"])
}

fn invalid_all(path: &str, value: &str, reasons: Vec<String>, errors: &mut Vec<FieldError>) {
    errors.extend(reasons.into_iter().map(|reason| FieldError::invalid(path, value, reason)));
}

fn check(definition: &Value, errors: &mut Vec<FieldError>) {
    let group = walk::text(definition, &["spec", "group"]);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        invalid_all("spec.group", group, names::subdomain(group), errors);
        if !group.contains('.') {
            errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
    }
    if is_protected(group) && walk::text(definition, &["metadata", "annotations", APPROVAL]).is_empty() {
        let text = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                    https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVAL}]"), text));
    }
    let scope = walk::text(definition, &["spec", "scope"]);
    if scope.is_empty() {
        errors.push(FieldError::required("spec.scope", ""));
    } else if !SCOPES.contains(&scope) {
        errors.push(FieldError::not_supported("spec.scope", scope, &SCOPES));
    }
    if definition["spec"].get("preserveUnknownFields") == Some(&Value::Bool(true)) {
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, "must be false"));
    }
    accepted_names(&definition["spec"]["names"], errors);
    conversion(&definition["spec"]["conversion"], errors);
    all_versions(versions(definition), errors);
}

fn accepted_names(all: &Value, errors: &mut Vec<FieldError>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let (text, path) = (walk::text(all, &[field]), format!("spec.names.{field}"));
        if text.is_empty() && field != "singular" {
            errors.push(FieldError::required(path, ""));
        } else if !text.is_empty() {
            // Kinds are labels but for the letters' case.
            invalid_all(&path, text, names::label_1035(&text.to_lowercase()), errors);
        }
    }
    for (field, what) in
        [("shortNames", names::label_1035 as fn(&str) -> Vec<String>), ("categories", names::label_1035)]
    {
        for (at, name) in walk::items(all, &[field]).iter().filter_map(Value::as_str).enumerate() {
            invalid_all(&format!("spec.names.{field}[{at}]"), name, what(name), errors);
        }
    }
    let (kind, list) = (walk::text(all, &["kind"]), walk::text(all, &["listKind"]));
    if !kind.is_empty() && kind == list {
        errors.push(FieldError::invalid("spec.names.listKind", list, "kind and listKind may not be the same"));
    }
}

fn conversion(conversion: &Value, errors: &mut Vec<FieldError>) {
    match walk::text(conversion, &["strategy"]) {
        "" | "None" => {
            if conversion.get("webhook").is_some_and(|webhook| !webhook.is_null()) {
                let text = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden("spec.conversion.webhook", text));
            }
        }
        "Webhook" => super::conversion::check(conversion, errors),
        other => errors.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
}

fn all_versions(versions: &[Value], errors: &mut Vec<FieldError>) {
    if versions.len() > VERSIONS_MAX {
        errors.push(FieldError::too_many("spec.versions", versions.len(), VERSIONS_MAX));
        return;
    }
    let has = |flag: &str| versions.iter().filter(|version| version.get(flag) == Some(&Value::Bool(true))).count();
    let mut seen = BTreeSet::new();
    let unique = versions.iter().all(|version| seen.insert(walk::text(version, &["name"])));
    let list = || Value::from(versions.iter().map(|version| version["name"].clone()).collect::<Vec<_>>());
    if !unique {
        errors.push(FieldError::invalid("spec.versions", list(), "must contain unique version names"));
    }
    if has("storage") != 1 {
        let text = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", list(), text));
    }
    if has("served") == 0 && !versions.is_empty() {
        errors.push(FieldError::invalid("spec.versions", list(), "must have at least one version served"));
    }
    for (at, version) in versions.iter().enumerate() {
        self::version(version, &format!("spec.versions[{at}]"), errors);
    }
}

fn version(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let name = walk::text(version, &["name"]);
    invalid_all(&format!("{path}.name"), name, names::label_1035(name), errors);
    let warning = walk::text(version, &["deprecationWarning"]);
    if !warning.is_empty() && version.get("deprecated") != Some(&Value::Bool(true)) {
        let text = "can only be set for deprecated versions";
        errors.push(FieldError::invalid(format!("{path}.deprecationWarning"), warning, text));
    }
    let document = &version["schema"]["openAPIV3Schema"];
    if document.is_object() {
        structural::check(document, &format!("{path}.schema.openAPIV3Schema"), errors);
    } else {
        errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), "schemas are required"));
    }
    for (at, column) in walk::items(version, &["additionalPrinterColumns"]).iter().enumerate() {
        self::column(column, &format!("{path}.additionalPrinterColumns[{at}]"), errors);
    }
    scale(&version["subresources"]["scale"], &format!("{path}.subresources.scale"), errors);
    selectable(version, document, path, errors);
}

fn column(column: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for field in ["name", "type", "jsonPath"] {
        if walk::text(column, &[field]).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
    let (ty, format, json_path) =
        (walk::text(column, &["type"]), walk::text(column, &["format"]), walk::text(column, &["jsonPath"]));
    if !ty.is_empty() && !COLUMN_TYPES.contains(&ty) {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            ty,
            format!("must be one of {}", COLUMN_TYPES.join(",")),
        ));
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let text = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.push(FieldError::invalid(format!("{path}.format"), format, text));
    }
    if !json_path.is_empty()
        && let Err(error) = JsonPath::parse(json_path)
    {
        errors.push(FieldError::invalid(format!("{path}.jsonPath"), json_path, error.to_string()));
    }
}

fn scale(scale: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !scale.is_object() {
        return;
    }
    let rows = [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."], true),
        ("labelSelectorPath", &[".spec.", ".status."], false),
    ];
    for (field, leads, required) in rows {
        let (text, at) = (walk::text(scale, &[field]), format!("{path}.{field}"));
        if text.is_empty() {
            errors.extend(required.then(|| FieldError::required(at, "")));
            continue;
        }
        let simple = JsonPath::parse(text).is_ok_and(|path| path.fields().is_some());
        if !simple {
            errors.push(FieldError::invalid(&*at, text, "should be a simple json path in dot notation"));
        }
        if !leads.iter().any(|lead| text.starts_with(lead)) {
            let text_of =
                format!("should be a json path under {}", leads.join(" or ").replace(". ", " ").trim_end_matches('.'));
            errors.push(FieldError::invalid(at, text, text_of));
        }
    }
}

/// Fields for selectors: text, whole number or boolean, not in lists, not in metadata.
fn selectable(version: &Value, document: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fields = walk::items(version, &["selectableFields"]);
    let path = format!("{path}.selectableFields");
    if fields.len() > SELECTABLE_FIELDS_MAX {
        errors.push(FieldError::too_many(path, fields.len(), SELECTABLE_FIELDS_MAX));
        return;
    }
    let schema = Schema::plain(document);
    let mut seen = BTreeSet::new();
    for (at, field) in fields.iter().enumerate() {
        let (text, at) = (walk::text(field, &["jsonPath"]), format!("{path}[{at}].jsonPath"));
        if text.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        if !seen.insert(text) {
            errors.push(FieldError::duplicate(at, text));
            continue;
        }
        let steps = JsonPath::parse(text).ok().and_then(|path| {
            path.fields().map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        });
        let node = steps.iter().flatten().try_fold(&schema, |schema, name| schema.properties.get(name));
        let is_scalar =
            node.and_then(|node| node.ty).is_some_and(|ty| !matches!(ty.as_str(), "object" | "array" | "number"));
        if steps.is_none() {
            errors.push(FieldError::invalid(
                at,
                text,
                "is an invalid path: must be a simple json path in dot notation",
            ));
        } else if text.starts_with(".metadata") {
            errors.push(FieldError::invalid(at, text, "must not point to fields in metadata"));
        } else if !is_scalar {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                       are allowed.";
            errors.push(FieldError::invalid(at, text, why));
        }
    }
}
