//! Carries out writes and says how they went.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use isopod_planner::autoscaling::Answers;
use isopod_planner::events::{Recorder, Recording, Source};
use isopod_planner::{Reason, Target, Write};
use isopod_types::Key;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use crate::announce::{self, Announcement};
use crate::request;

/// Creates or deletes of one plan that run at the same time.
const PARALLEL_WRITES: usize = 32;

/// How the writes of one plan went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Objects as they are after the writes, with their kinds.
    pub(crate) written: Vec<(&'static str, Value)>,
    /// Objects that turned out to be gone: kind, key, and UID if it is known.
    pub(crate) gone: Vec<(&'static str, Key, String)>,
    /// Targets of creations that failed.
    pub(crate) not_created: Vec<Target>,
    /// What was asked for, by path.
    pub(crate) answers: Answers,
    /// Why the API refused a creation.
    pub(crate) refusal: Option<String>,
    /// Whether the plan is to be made anew soon.
    pub(crate) failed: bool,
}

/// What carrying out needs.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) client: Client,
    recorder: Arc<Mutex<Recorder>>,
    /// What time events say.
    clock: Clock,
}

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Runs of writes of the same sort may run at the same time; everything else keeps its order. Creations start with one and
/// double: what refuses them refuses few.
fn runs(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut runs: Vec<Vec<Write>> = Vec::new();
    let mut room = 0;
    for write in writes {
        let is_create = matches!(write, Write::Create { .. });
        let parallel = is_create || matches!(write, Write::Delete { .. } | Write::Read { .. } | Write::Event { .. });
        let same = |run: &&mut Vec<Write>| std::mem::discriminant(&run[0]) == std::mem::discriminant(&write);
        match runs.last_mut().filter(same).filter(|_| parallel) {
            Some(run) if !is_create || run.len() < room => run.push(write),
            Some(_) => {
                room = (2 * room).min(PARALLEL_WRITES);
                runs.push(vec![write]);
            }
            None => {
                room = 1;
                runs.push(vec![write]);
            }
        }
    }
    runs
}

/// Events last: they follow from what was done.
fn ordered(writes: Vec<Write>) -> Vec<Write> {
    let (events, mut others): (Vec<Write>, Vec<Write>) =
        writes.into_iter().partition(|write| matches!(write, Write::Event { .. }));
    others.extend(events);
    others
}

impl Executor {
    pub(crate) fn new(client: Client, clock: Clock) -> Self {
        Self { client, recorder: Arc::default(), clock }
    }

    /// Carries out the writes of a plan; stops after the first run in which one failed.
    pub(crate) async fn run(&self, writes: Vec<Write>) -> Outcome {
        let mut outcome = Outcome::default();
        for run in runs(ordered(writes)) {
            let mut results =
                futures::stream::iter(run.into_iter().map(|write| self.one(write))).buffer_unordered(PARALLEL_WRITES);
            while let Some(result) = results.next().await {
                outcome.merge(result);
            }
            if outcome.failed {
                break;
            }
        }
        outcome
    }

    async fn one(&self, write: Write) -> Outcome {
        if let Write::Event { target, component, reason } = &write {
            self.event(target, component, reason).await;
            return Outcome::default();
        }
        let Some(request) = request::of(&write) else { return Outcome::default() };
        match self.client.request::<Value>(request).await {
            Ok(answer) => self.succeeded(&write, answer).await,
            Err(error) => self.failed(&write, &error).await,
        }
    }

    async fn succeeded(&self, write: &Write, answer: Value) -> Outcome {
        let mut outcome = Outcome::default();
        match write {
            // A scale is not the object it is of.
            Write::Patch { subresource: "scale", .. } => {}
            // What waited for nothing but its finalizers is gone with the last of them.
            Write::Patch { target, .. } if is_deleting(&answer) && !still_there(&answer) => {
                outcome.gone.push(ended(target));
            }
            Write::Create { target, .. } | Write::Patch { target, .. } | Write::FinalizeNamespace { target } => {
                outcome.written.push((target.kind, answer));
            }
            Write::Delete { target, .. } => match is_deleting(&answer) {
                true if answer["kind"] == target.kind && still_there(&answer) => {
                    outcome.written.push((target.kind, answer))
                }
                _ => outcome.gone.push(ended(target)),
            },
            Write::Read { path } => drop(outcome.answers.insert(path.clone(), Ok(answer))),
            Write::Evict { .. } | Write::Bind { .. } | Write::Event { .. } => {}
        }
        if let Write::Create { target, object, .. } = write
            && let Some((_, pod)) = outcome.written.first()
        {
            self.announce(announce::created(target, object, pod)).await;
        }
        outcome
    }

    async fn failed(&self, write: &Write, error: &kube::Error) -> Outcome {
        let (code, text) = match error {
            kube::Error::Api(status) => (status.code, status.message.clone()),
            other => (0, other.to_string()),
        };
        match (write, code) {
            (Write::Read { path }, _) => {
                return Outcome { answers: [(path.clone(), Err(text))].into(), ..Outcome::default() };
            }
            (Write::Create { tolerate_existing: true, .. }, 409) => return Outcome::default(),
            (
                Write::Delete { target, .. }
                | Write::Patch { target, .. }
                | Write::Evict { target }
                | Write::Bind { target, .. },
                404,
            ) => {
                return Outcome { gone: vec![ended(target)], ..Outcome::default() };
            }
            _ => {}
        }
        tracing::debug!(?write, code, text, "a write failed; its plan is made anew");
        let mut outcome = Outcome { failed: true, ..Outcome::default() };
        if let Write::Create { target, object, .. } = write {
            outcome.not_created.push(target.clone());
            if (400..500).contains(&code) {
                self.announce(announce::refused(target, object, &text)).await;
                outcome.refusal = Some(text);
            }
        }
        outcome
    }

    async fn announce(&self, announcement: Option<Announcement>) {
        if let Some(Announcement { about, component, reason }) = announcement {
            self.event(&about, component, &reason).await;
        }
    }

    /// Records an event. Losing one must not stop anything.
    async fn event(&self, target: &Target, component: &str, reason: &Reason) {
        let source = Source { component: component.into(), host: String::new() };
        let recording = match self.recorder.lock() {
            Ok(mut recorder) => recorder.record(&target.reference(), &source, reason, (self.clock)()),
            Err(_) => return,
        };
        let Some(recording) = recording else { return };
        let request = match &recording {
            Recording::Create { namespace, event } => {
                request::post(&format!("/api/v1/namespaces/{namespace}/events"), event)
            }
            Recording::Count { namespace, name, patch } => {
                request::merge_patch(&format!("/api/v1/namespaces/{namespace}/events/{name}"), patch)
            }
        };
        if let Some(request) = request
            && let Err(error) = self.client.request::<Value>(request).await
        {
            tracing::debug!(%error, reason = reason.reason, "event not recorded");
        }
    }

    /// Whether one of these owners exists, asked of the API itself: a cache may not have it yet.
    pub(crate) async fn any_exists(&self, owners: &[(Target, String)]) -> bool {
        for (target, uid) in owners {
            let Some(request) = request::get(target) else { continue };
            match self.client.request::<Value>(request).await {
                Ok(found) if found["metadata"]["uid"] == **uid => return true,
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                // Not knowing is no reason to delete.
                Err(_) => return true,
            }
        }
        false
    }

    /// Removes all events of a namespace, which nothing else keeps track of.
    pub(crate) async fn delete_events(&self, namespace: &str) {
        if let Some(request) = request::delete_collection(&format!("/api/v1/namespaces/{namespace}/events"))
            && let Err(error) = self.client.request::<Value>(request).await
        {
            tracing::debug!(%error, namespace, "events not removed");
        }
    }
}

/// An object that waits for finalizers, a namespace's own among them, or for its grace to pass is still there after its deletion.
fn still_there(answer: &Value) -> bool {
    let named = |part: &str| answer[part]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    let waits = named("metadata") || answer["kind"] == "Namespace" && named("spec");
    waits || answer["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds > 0)
}

fn ended(target: &Target) -> (&'static str, Key, String) {
    (target.kind, target.key.clone(), target.uid.clone())
}

fn is_deleting(answer: &Value) -> bool {
    answer["metadata"]["deletionTimestamp"].is_string()
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.written.extend(other.written);
        self.gone.extend(other.gone);
        self.answers.extend(other.answers);
        self.not_created.extend(other.not_created);
        self.refusal = other.refusal.or(self.refusal.take());
        self.failed |= other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::pod::Pod;
    use serde_json::json;

    #[test]
    fn creations_begin_slowly() {
        let target = Target::named::<Pod>(Key::new("x", "p"));
        let creates =
            (0..100).map(|_| Write::Create { target: target.clone(), object: json!({}), tolerate_existing: false });
        let lengths: Vec<usize> = runs(creates.collect()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 32, 5]);
    }

    #[test]
    fn writes_of_one_sort_run_together_and_events_come_last() {
        let target = Target::named::<Pod>(Key::new("x", "p"));
        let delete = || Write::Delete { target: target.clone(), propagation: None, grace_period_seconds: None };
        let event = Write::Event { target: target.clone(), component: "c", reason: Reason::normal("R", "") };
        let bind = Write::Bind { target: target.clone(), node: "n".into(), annotations: Vec::new() };
        let lengths: Vec<usize> = runs(ordered(vec![delete(), event, delete(), bind])).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
