//! Carries out writes and says how they went.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use isopod_planner::events::{Recorder, Recording, Source};
use isopod_planner::{Reason, Target, Write};
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use crate::request;

/// Creates or deletes of one plan that run at the same time.
const PARALLEL_WRITES: usize = 32;

/// How the writes of one plan went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Objects as they are after the writes, with their kinds.
    pub(crate) written: Vec<(&'static str, Value)>,
    /// Objects that turned out to be gone.
    pub(crate) gone: Vec<(&'static str, Key)>,
    /// Targets of creations that failed.
    pub(crate) not_created: Vec<Target>,
    /// Whether the plan is to be made anew soon.
    pub(crate) failed: bool,
}

/// What carrying out needs.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) client: Client,
    pub(crate) recorder: Arc<Mutex<Recorder>>,
}

/// Runs of writes of the same sort may run at the same time; everything else keeps its order.
fn runs(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut runs: Vec<Vec<Write>> = Vec::new();
    for write in writes {
        let parallel = matches!(write, Write::Create { .. } | Write::Delete { .. } | Write::Event { .. });
        match runs.last_mut() {
            Some(run) if parallel && std::mem::discriminant(&run[0]) == std::mem::discriminant(&write) => {
                run.push(write)
            }
            _ => runs.push(vec![write]),
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
            Write::Create { target, .. } | Write::Patch { target, .. } | Write::FinalizeNamespace { target } => {
                outcome.written.push((target.kind, answer));
            }
            Write::Delete { target, .. } => match answer["metadata"]["deletionTimestamp"].as_str() {
                Some(_) if answer["kind"] == target.kind && still_there(&answer) => {
                    outcome.written.push((target.kind, answer))
                }
                _ => outcome.gone.push((target.kind, target.key.clone())),
            },
            Write::Bind { .. } | Write::Event { .. } => {}
        }
        if let Write::Create { target, object, .. } = write
            && let Some((owner, kind)) = owner_of_pod(target, object)
            && let Some((_, pod)) = outcome.written.first()
        {
            let text = format!("Created pod: {}", pod["metadata"]["name"].as_str().unwrap_or_default());
            self.event(&owner, kind, &Reason::normal("SuccessfulCreate", text)).await;
        }
        outcome
    }

    async fn failed(&self, write: &Write, error: &kube::Error) -> Outcome {
        let (code, text) = match error {
            kube::Error::Api(status) => (status.code, status.message.clone()),
            other => (0, other.to_string()),
        };
        match (write, code) {
            (Write::Create { tolerate_existing: true, .. }, 409) => return Outcome::default(),
            (Write::Delete { target, .. } | Write::Patch { target, .. } | Write::Bind { target, .. }, 404) => {
                return Outcome { gone: vec![(target.kind, target.key.clone())], ..Outcome::default() };
            }
            _ => {}
        }
        tracing::debug!(?write, code, text, "a write failed; its plan is made anew");
        let mut outcome = Outcome { failed: true, ..Outcome::default() };
        if let Write::Create { target, object, .. } = write {
            outcome.not_created.push(target.clone());
            if let Some((owner, kind)) = owner_of_pod(target, object).filter(|_| (400..500).contains(&code)) {
                self.event(&owner, kind, &Reason::warning("FailedCreate", format!("Error creating: {text}"))).await;
            }
        }
        outcome
    }

    /// Records an event. Losing one must not stop anything.
    async fn event(&self, target: &Target, component: &str, reason: &Reason) {
        let source = Source { component: component.into(), host: String::new() };
        let recording = match self.recorder.lock() {
            Ok(mut recorder) => recorder.record(&target.reference(), &source, reason, Timestamp::now()),
            Err(_) => return,
        };
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

/// An object that waits for finalizers or for its grace to pass is still there after its deletion.
fn still_there(answer: &Value) -> bool {
    let waits = answer["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    waits || answer["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds > 0)
}

/// The controlling owner of a pod that is to be created, and the name of its controller.
fn owner_of_pod(target: &Target, pod: &Value) -> Option<(Target, &'static str)> {
    if target.kind != Pod::KIND {
        return None;
    }
    let owner = pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)?;
    let text = |field: &str| owner[field].as_str().map(str::to_owned);
    let mut about =
        Target::named::<isopod_types::workload::ReplicaSet>(Key::new(&*target.key.namespace, text("name")?));
    if text("kind")? != about.kind {
        return None;
    }
    about.uid = text("uid")?;
    Some((about, "replicaset-controller"))
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.written.extend(other.written);
        self.gone.extend(other.gone);
        self.not_created.extend(other.not_created);
        self.failed |= other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_of_one_sort_run_together_and_events_come_last() {
        let target = Target::named::<Pod>(Key::new("x", "p"));
        let create = || Write::Create { target: target.clone(), object: json!({}), tolerate_existing: false };
        let event = Write::Event { target: target.clone(), component: "c", reason: Reason::normal("R", "") };
        let bind = Write::Bind { target: target.clone(), node: "n".into(), annotations: Vec::new() };
        let lengths: Vec<usize> = runs(ordered(vec![create(), event, create(), bind])).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
