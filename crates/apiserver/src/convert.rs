//! Kinds that are served in two versions but stored in one: `events.k8s.io/v1 Event` is stored as the core group's.
//! Pure renaming of fields; everything else is stored as it is served.

use isopod_schema::{Kind, Table};
use serde_json::{Map, Value};

/// Field of `events.k8s.io/v1`, field of `v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Objects of this kind are stored as another.
pub(crate) fn is_needed(kind: &Kind) -> bool {
    kind.is("events.k8s.io", "events")
}

/// The kind that objects of this kind are stored as.
pub(crate) fn stored_kind(kind: &'static Kind) -> &'static Kind {
    if is_needed(kind) { Table::builtin().resource("", "v1", "events").unwrap_or(kind) } else { kind }
}

/// From the stored form to the served one.
pub(crate) fn from_stored(kind: &Kind, object: Value) -> Value {
    if !is_needed(kind) {
        return object;
    }
    rename(object, &kind.api_version(), |name| EVENT_FIELDS.iter().find(|(_, core)| *core == name).map(|(new, _)| *new))
}

/// From the served form to the stored one.
pub(crate) fn to_stored(kind: &Kind, object: Value) -> Value {
    if !is_needed(kind) {
        return object;
    }
    rename(object, "v1", |name| EVENT_FIELDS.iter().find(|(new, _)| *new == name).map(|(_, core)| *core))
}

fn rename(object: Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = object else { return object };
    let renamed = |key: String| name(&key).map_or(key, str::to_owned);
    let mut renamed: Map<String, Value> = fields.into_iter().map(|(key, value)| (renamed(key), value)).collect();
    renamed.insert("apiVersion".into(), api_version.into());
    renamed.into()
}
