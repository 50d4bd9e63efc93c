//! `PartialObjectMetadata`: objects reduced to their metadata.

use serde_json::{Value, json};

/// Group of the kinds here.
pub(crate) const GROUP: &str = "meta.k8s.io";
/// Kind of one object's metadata.
pub(crate) const KIND: &str = "PartialObjectMetadata";
/// Kind of several.
pub(crate) const LIST_KIND: &str = "PartialObjectMetadataList";

/// The metadata of one object, as `meta.k8s.io/v1 PartialObjectMetadata`.
pub fn object(object: &Value) -> Value {
    json!({"kind": KIND, "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
}

/// Several, as `PartialObjectMetadataList`; `list_metadata` is the metadata of the list.
pub fn list<'a>(items: impl IntoIterator<Item = &'a Value>, list_metadata: Value) -> Value {
    let items: Vec<Value> = items.into_iter().map(object).collect();
    json!({"kind": LIST_KIND, "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata, "items": items})
}
