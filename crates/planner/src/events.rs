//! Event objects: what users read in `kubectl describe` and `kubectl get events`.
//!
//! The same words about the same object count up one event instead of making many. One object about which much is said gets
//! few events: many that differ only in their words become one, and a source that goes on is not heard for a while. The
//! numbers are those of upstream's event recorder.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::plan::{EventType, Reason};
use crate::recent::Recent;

/// Events remembered for counting; those not heard of for longest are forgotten. The same of objects and reasons.
const REMEMBERED_MAX: usize = 4096;
/// From so many on, events about one object for one reason become one.
const SIMILAR_MAX: usize = 10;
/// What was said longer ago is not similar any more.
const SIMILAR_PERIOD: SignedDuration = SignedDuration::from_secs(600);
/// Events that one source may write about one object at once.
const BURST: i32 = 25;
/// How long until it may write one more.
const REFILL: SignedDuration = SignedDuration::from_secs(300);
/// What the words of an event that stands for several begin with.
const COMBINED: &str = "(combined from similar events): ";

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
}

/// What was said about one object for one reason.
#[derive(Clone, Debug)]
struct Similar {
    /// No more than make a difference.
    messages: BTreeSet<String>,
    last: Timestamp,
}

/// An object, and the source that speaks about it.
type Subject = (String, Source);

/// Remembers what was reported.
#[derive(Clone, Debug)]
pub struct Recorder {
    seen: Recent<(Subject, &'static str, String), Remembered>,
    similar: Recent<(Subject, EventType, &'static str), Similar>,
    /// When a source would have written all that it has written if it kept to its rate.
    rates: Recent<Subject, Timestamp>,
}

impl Default for Recorder {
    fn default() -> Self {
        let limit = REMEMBERED_MAX;
        Self { seen: Recent::new(limit), similar: Recent::new(limit), rates: Recent::new(limit) }
    }
}

impl Recorder {
    /// Records one event about the object that `reference` names; none when too much has been said about it.
    pub fn record(&mut self, reference: &Value, source: &Source, reason: &Reason, now: Timestamp) -> Option<Recording> {
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let namespace = if text("namespace").is_empty() { "default".into() } else { text("namespace") };
        let about = ["kind", "namespace", "name", "uid"].map(text).join("/");
        let subject = (about, source.clone());
        let is_combined = self.is_one_of_many(&subject, reason, now);
        if !self.is_heard(&subject, now) {
            return None;
        }
        let words = if is_combined { COMBINED.to_owned() } else { text("fieldPath") + &reason.message };
        let (name, count) = {
            let name = || format!("{}.{:x}", text("name"), now.as_nanosecond());
            let key = (subject, reason.reason, words);
            let seen = self.seen.entry(key, || Remembered { name: name(), count: 0 });
            seen.count += 1;
            (seen.name.clone(), seen.count)
        };
        let message = if is_combined { format!("{COMBINED}{}", reason.message) } else { reason.message.clone() };
        if count > 1 {
            let mut patch = json!({"count": count, "lastTimestamp": seconds(now)});
            if is_combined {
                patch["message"] = json!(message);
            }
            return Some(Recording::Count { namespace, name, patch });
        }
        let reason = Reason { message, ..reason.clone() };
        Some(Recording::Create { event: event(&name, &namespace, reference, source, &reason, now), namespace })
    }

    /// Whether as much has been said about it lately, in other words, that this is told together with the rest.
    fn is_one_of_many(&mut self, subject: &Subject, reason: &Reason, now: Timestamp) -> bool {
        let key = (subject.clone(), reason.type_, reason.reason);
        let similar = self.similar.entry(key, || Similar { messages: BTreeSet::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_PERIOD {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR_MAX {
            similar.messages.insert(reason.message.clone());
        }
        similar.messages.len() >= SIMILAR_MAX
    }

    /// Whether the source may write one more event about it.
    fn is_heard(&mut self, subject: &Subject, now: Timestamp) -> bool {
        let rate = self.rates.entry(subject.clone(), || now);
        let ahead = rate.duration_since(now);
        if ahead > REFILL * (BURST - 1) {
            return false;
        }
        *rate = (*rate).max(now).checked_add(REFILL).unwrap_or(now);
        true
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
            let reason = Reason::normal("Pulled", message);
            recorder.record(&reference, &source, &reason, Timestamp::UNIX_EPOCH).unwrap()
        };
        let Recording::Create { event, namespace } = record("a") else { panic!() };
        assert_eq!((namespace.as_str(), &event["count"], &event["source"]["host"]), ("x", &json!(1), &json!("n")));
        let Recording::Count { patch, name, .. } = record("a") else { panic!() };
        assert_eq!((&patch["count"], name.as_str()), (&json!(2), event["metadata"]["name"].as_str().unwrap()));
        assert!(matches!(record("b"), Recording::Create { .. }));
    }

    /// What becomes of events about one object that are this many seconds apart: `+` made, `=` counted, `.` not heard.
    fn check(seconds: i64, message: impl Fn(i64) -> String, expected: &str) {
        let mut recorder = Recorder::default();
        let source = Source { component: "c".into(), host: String::new() };
        let mut one = |index: i64| {
            let at = Timestamp::from_second(index * seconds).unwrap();
            match recorder.record(&json!({"name": "o"}), &source, &Reason::normal("R", message(index)), at) {
                Some(Recording::Create { .. }) => '+',
                Some(Recording::Count { patch, .. }) => {
                    let words = patch["message"].as_str();
                    assert!(words.is_none_or(|words| words == format!("{COMBINED}{}", message(index))));
                    '='
                }
                None => '.',
            }
        };
        let found: String = (0..expected.len() as i64).map(&mut one).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn one_object_gets_few_events() {
        let same = |_: i64| "same".to_owned();
        check(0, same, "+========================.....");
        check(0, |index| index.to_string(), "++++++++++===============.....");
        check(300, same, "+=================================");
        check(601, |index| index.to_string(), "++++++++++++++++");
        check(100, |index| index.to_string(), "++++++++++===========================..=..=..=");
    }

    #[test]
    fn others_are_heard() {
        let mut recorder = Recorder::default();
        let source = |component: &str| Source { component: component.into(), host: String::new() };
        let mut is_heard = |component, name| {
            let (about, reason) = (json!({"name": name}), Reason::normal("R", "m"));
            recorder.record(&about, &source(component), &reason, Timestamp::UNIX_EPOCH).is_some()
        };
        assert_eq!((0..30).filter(|_| is_heard("c", "o")).count(), 25);
        assert!(is_heard("c", "another") && is_heard("another", "o"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut recorder = Recorder::default();
        let source = Source { component: "c".into(), host: String::new() };
        for index in 0..5000 {
            let at = Timestamp::from_second(index).unwrap();
            recorder.record(&json!({"name": index.to_string()}), &source, &Reason::normal("R", ""), at);
        }
        assert_eq!([recorder.seen.len(), recorder.similar.len(), recorder.rates.len()], [REMEMBERED_MAX; 3]);
    }
}
