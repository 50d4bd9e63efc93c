//! Objects as the API sends them to a watch: text that is read into the view of its kind at once, without a document in
//! between. Changes nothing in it.

use std::borrow::Cow;

use isopod_types::Key;
use kube::Resource;
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cache::Known;
use crate::watches::Seen;

/// One object; of its metadata, what a watch goes by.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    text: Box<RawValue>,
    meta: ObjectMeta,
}

#[derive(serde::Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Identity,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let head: Head = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let Identity { name, namespace, uid, resource_version } = head.metadata;
        Ok(Self { text, meta: ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() } })
    }
}

impl Document {
    pub(crate) fn key(&self) -> Key {
        let ObjectMeta { name, namespace, .. } = &self.meta;
        Key::new(namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// The view of its kind; none of one that cannot be read, which is logged.
    fn read(&self, kind: &str) -> Option<Known> {
        let name = self.meta.name.as_deref().unwrap_or_default();
        Known::read(kind, &mut serde_json::Deserializer::from_str(self.text.get()), name)
    }

    /// The view of its kind, or what else can be known of it.
    pub(crate) fn seen(&self, kind: &'static str) -> Option<Seen> {
        if let Some(known) = self.read(kind) {
            return Some(Seen::Object(known));
        }
        let meta = serde_json::from_value(self.value()?["metadata"].take()).ok()?;
        Some(Seen::Unreadable { kind, meta })
    }

    /// All that was sent.
    pub(crate) fn value(&self) -> Option<Value> {
        serde_json::from_str(self.text.get()).ok()
    }
}

impl Resource for Document {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(kind)
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(kind)
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(kind)
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::WatchEvent;

    #[test]
    fn events_are_read_into_the_view_of_their_kind() {
        let object = r#"{"kind":"Pod","metadata":{"name":"p","namespace":"x","uid":"u","resourceVersion":"7"},"spec":{"nodeName":"n"}}"#;
        let event = serde_json::from_str(&format!(r#"{{"type":"ADDED","object":{object}}}"#)).unwrap();
        let WatchEvent::<Document>::Added(document) = event else { panic!("another event") };
        assert_eq!((document.key().to_string().as_str(), document.uid()), ("x/p", "u"));
        assert_eq!(document.meta().resource_version.as_deref(), Some("7"));
        let Some(Known::Pod(pod)) = document.read("Pod") else { panic!("another kind") };
        assert_eq!(pod.spec.node_name, "n");
        assert_eq!(document.value().map(|value| value.to_string()).as_deref(), Some(object));
        assert!(matches!(document.seen("Tab"), Some(Seen::Unreadable { kind: "Tab", meta }) if meta.uid == "u"));
    }
}
