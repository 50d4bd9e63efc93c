//! Event objects: what users read in `kubectl describe` and `kubectl get events`.
//!
//! The same words about the same object count up one event instead of making many.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::plan::{EventType, Reason};

/// Events remembered for counting; the oldest are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Who reports an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Component, such as `deployment-controller`.
    pub component: String,
    /// Host or node, if it is bound to one.
    pub host: String,
}

/// How an event reaches the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Recording {
    /// Create this object.
    Create {
        /// Namespace.
        namespace: String,
        /// The event.
        event: Value,
    },
    /// Merge this into the event of that name.
    Count {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// The patch.
        patch: Value,
    },
}

#[derive(Clone, Debug)]
struct Remembered {
    name: String,
    count: u64,
    last: Timestamp,
}

/// Remembers what was reported.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    seen: BTreeMap<(String, String, String, String), Remembered>,
}

impl Recorder {
    /// Records one event about the object that `reference` names.
    pub fn record(&mut self, reference: &Value, source: &Source, reason: &Reason, now: Timestamp) -> Recording {
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let namespace = if text("namespace").is_empty() { "default".into() } else { text("namespace") };
        let about = format!("{}{}{}", text("uid"), text("name"), text("fieldPath"));
        let key = (about, source.component.clone(), reason.reason.to_owned(), reason.message.clone());
        if let Some(seen) = self.seen.get_mut(&key) {
            (seen.count, seen.last) = (seen.count + 1, now);
            let patch = json!({"count": seen.count, "lastTimestamp": seconds(now)});
            return Recording::Count { namespace, name: seen.name.clone(), patch };
        }
        self.forget();
        let name = format!("{}.{:x}", text("name"), now.as_nanosecond());
        self.seen.insert(key, Remembered { name: name.clone(), count: 1, last: now });
        Recording::Create { event: event(&name, &namespace, reference, source, reason, now), namespace }
    }

    fn forget(&mut self) {
        if self.seen.len() >= REMEMBERED_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.last).map(|(key, _)| key.clone());
            oldest.map(|key| self.seen.remove(&key));
        }
    }
}

/// Event times have whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn event(name: &str, namespace: &str, reference: &Value, source: &Source, reason: &Reason, now: Timestamp) -> Value {
    let type_ = match reason.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let mut from = json!({"component": source.component});
    if !source.host.is_empty() {
        from["host"] = json!(source.host);
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": reference,
        "type": type_, "reason": reason.reason, "message": reason.message,
        "source": from, "reportingComponent": source.component, "reportingInstance": source.host,
        "firstTimestamp": seconds(now), "lastTimestamp": seconds(now), "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_counted() {
        let mut recorder = Recorder::default();
        let reference = json!({"kind": "Pod", "name": "p", "namespace": "x", "uid": "u"});
        let source = Source { component: "kubelet".into(), host: "n".into() };
        let mut record = |message: &str| {
            recorder.record(&reference, &source, &Reason::normal("Pulled", message), Timestamp::UNIX_EPOCH)
        };
        let Recording::Create { event, namespace } = record("a") else { panic!() };
        assert_eq!((namespace.as_str(), &event["count"], &event["source"]["host"]), ("x", &json!(1), &json!("n")));
        let Recording::Count { patch, name, .. } = record("a") else { panic!() };
        assert_eq!((&patch["count"], name.as_str()), (&json!(2), event["metadata"]["name"].as_str().unwrap()));
        assert!(matches!(record("b"), Recording::Create { .. }));
    }

    #[test]
    fn memory_is_bounded() {
        let mut recorder = Recorder::default();
        let source = Source { component: "c".into(), host: String::new() };
        for index in 0..5000 {
            let at = Timestamp::from_second(index).unwrap();
            recorder.record(&json!({"name": index.to_string()}), &source, &Reason::normal("R", ""), at);
        }
        assert_eq!(recorder.seen.len(), REMEMBERED_MAX);
    }
}
