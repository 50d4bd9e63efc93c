//! The store as deciders see it: objects that are parsed once for as long as they do not change.

use std::sync::Arc;

use isopod_planner::admission::Facts;
use isopod_store::{Entry, ListQuery, Store};
use serde_json::Value;

use crate::codec;

/// Answers from the store.
pub(crate) struct Stored<'a>(pub(crate) &'a Store);

impl Facts for Stored<'_> {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = match namespace {
            "" => format!("{resource}/{name}"),
            namespace => format!("{resource}/{namespace}/{name}"),
        };
        codec::object(&*self.0.get(&key)?)
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = match namespace {
            "" => format!("{resource}/"),
            namespace => format!("{resource}/{namespace}/"),
        };
        let list = self.0.list(&ListQuery { prefix, ..ListQuery::default() });
        let entries = list.map(|list| list.entries).unwrap_or_default();
        // There may be very many pods; they are not kept.
        let once = |entry: &Entry| codec::decode(&entry.value).ok().map(Arc::new);
        entries.iter().filter_map(|entry| if resource == "pods" { once(entry) } else { codec::object(entry) }).collect()
    }
}
