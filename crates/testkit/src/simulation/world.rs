//! What is in the API, and what each watch has yet to tell about it.

use std::collections::{BTreeMap, VecDeque};

use isopod_controllers::{Change, Watch};
use isopod_types::Key;
use serde_json::Value;

pub(super) const PODS: &str = "/api/v1/pods";
pub(super) const NODES: &str = "/api/v1/nodes";
pub(super) const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
pub(super) const REPLICA_SETS: &str = "/apis/apps/v1/replicasets";
pub(super) const STATEFUL_SETS: &str = "/apis/apps/v1/statefulsets";
pub(super) const DAEMON_SETS: &str = "/apis/apps/v1/daemonsets";
pub(super) const JOBS: &str = "/apis/batch/v1/jobs";
pub(super) const CRON_JOBS: &str = "/apis/batch/v1/cronjobs";
pub(super) const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
pub(super) const VOLUMES: &str = "/api/v1/persistentvolumes";
pub(super) const BUDGETS: &str = "/apis/policy/v1/poddisruptionbudgets";

/// A watch of the controllers and what it has not told yet, in order.
pub(super) struct Stream {
    pub(super) watch: Watch,
    path: String,
    pending: VecDeque<Change>,
    /// What comes next is everything there is.
    begins: bool,
}

/// Everything there is, by collection.
#[derive(Default)]
pub(super) struct World {
    collections: BTreeMap<String, BTreeMap<Key, Value>>,
    pub(super) streams: Vec<Stream>,
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(super) fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub(super) fn key(object: &Value) -> Key {
    Key::new(text(object, "/metadata/namespace"), name(object))
}

/// UID of the object that controls this one.
pub(super) fn owner(object: &Value) -> &str {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let found = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
    found.map(|owner| text(owner, "/uid")).unwrap_or_default()
}

impl World {
    pub(super) fn all(&self, path: &str) -> impl Iterator<Item = &Value> + use<'_> {
        self.collections.get(path).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn everything(&self) -> impl Iterator<Item = &Value> {
        self.collections.values().flat_map(BTreeMap::values)
    }

    pub(super) fn owned<'a>(&'a self, path: &str, by: &'a str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.all(path).filter(move |object| owner(object) == by)
    }

    /// All watches begin anew, as when the controllers start.
    pub(super) fn watch_anew(&mut self, watches: &[Watch]) {
        let stream =
            |watch: &Watch| Stream { watch: *watch, path: watch.path(), pending: VecDeque::new(), begins: true };
        self.streams = watches.iter().map(stream).collect();
    }

    /// A collection is as this now; returns what changed.
    pub(super) fn refresh(&mut self, path: &str, items: Vec<Value>) -> Vec<Change> {
        let now: BTreeMap<Key, Value> = items.into_iter().map(|item| (key(&item), item)).collect();
        let before = self.collections.insert(path.to_owned(), now.clone()).unwrap_or_default();
        let mut changes = Vec::new();
        for (key, old) in &before {
            if now.get(key).is_none_or(|new| uid(new) != uid(old)) {
                changes.push(Change::Gone(old.clone()));
            }
        }
        for (key, new) in now {
            if before.get(&key).is_none_or(|old| old != &new) {
                changes.push(Change::There(new));
            }
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.path == path && !stream.begins) {
            stream.pending.extend(changes.iter().cloned());
        }
        changes
    }

    /// A watch breaks; it begins anew when it is next looked at.
    pub(super) fn break_stream(&mut self, at: usize) {
        if let Some(stream) = self.streams.get_mut(at) {
            stream.pending.clear();
            stream.begins = true;
        }
    }

    /// Streams that have something to tell.
    pub(super) fn telling(&self) -> Vec<usize> {
        let tells = |stream: &Stream| stream.begins || !stream.pending.is_empty();
        (0..self.streams.len()).filter(|at| tells(&self.streams[*at])).collect()
    }

    /// The next thing that a stream tells.
    pub(super) fn next(&mut self, at: usize) -> Option<(Watch, Change)> {
        let stream = self.streams.get_mut(at)?;
        if !std::mem::take(&mut stream.begins) {
            return Some((stream.watch, stream.pending.pop_front()?));
        }
        let all = self.collections.get(&stream.path).into_iter().flat_map(BTreeMap::values);
        Some((stream.watch, Change::Whole(all.cloned().collect())))
    }
}
