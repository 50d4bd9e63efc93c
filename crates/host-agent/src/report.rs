//! What an actor lets the API know: its pod's status and its node's. One task per actor writes the newest of it, so that a
//! start never waits for the API, and tries again what was not taken. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use isopod_types::pod::Pod;
use serde_json::Value;
use tokio::sync::watch;

use crate::actor::{Deed, Message};
use crate::deeds;
use crate::node::NodeState;

/// Delay before what the API did not take is sent again.
const RETRY: Duration = Duration::from_secs(1);

/// What the API should know.
#[derive(Clone, Default)]
pub(crate) struct Report {
    pub(crate) pod: Arc<Pod>,
    /// The pod's status, as a strategic merge patch; `Null` when there is nothing to say, as of a pod that is gone.
    pub(crate) status: Value,
    /// The node's state; none when it stays as it is.
    pub(crate) node: Option<NodeState>,
    /// Machines made for the pod so far.
    pub(crate) machines: u32,
    /// How often somebody else wrote over the node's state.
    pub(crate) node_lost: u64,
    /// The pod's object is to go.
    pub(crate) delete: bool,
}

/// Where an actor puts its newest report. When it is dropped, the last one is still written.
pub(crate) type Reporter = watch::Sender<Report>;

/// Starts the task that writes what is put into the answer.
pub(crate) fn start(deed: Deed) -> Reporter {
    let (reporter, reports) = watch::channel(Report::default());
    let writer = Writer { deed, status: Value::Null, revision: 0, node: None, node_lost: 0, deleted: false };
    tokio::spawn(writer.run(reports));
    reporter
}

struct Writer {
    deed: Deed,
    /// What the API has taken.
    status: Value,
    /// The pod's revision then.
    revision: u64,
    node: Option<NodeState>,
    node_lost: u64,
    deleted: bool,
}

impl Writer {
    async fn run(mut self, mut reports: watch::Receiver<Report>) {
        while reports.changed().await.is_ok() {
            loop {
                let report = reports.borrow_and_update().clone();
                let Err(error) = self.write(&report).await else { break };
                let meta = &report.pod.metadata;
                tracing::warn!(pod = meta.name, namespace = meta.namespace, %error, "the API did not take a status; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn write(&mut self, report: &Report) -> Result<(), kube::Error> {
        if self.node_lost != report.node_lost {
            (self.node, self.node_lost) = (None, report.node_lost);
        }
        if is_overwritten(&report.pod, &self.status, self.revision) {
            self.status = Value::Null;
        }
        if let Some(state) = report.node.filter(|state| self.node != Some(*state)) {
            deeds::write_node(&self.deed, state, report.machines).await?;
            self.node = Some(state);
        }
        if !report.status.is_null() && without_times(&report.status) != without_times(&self.status) {
            let Some(answer) = self.deed.context.api.pod_status(&report.pod, &report.status).await? else {
                self.deed.tell(Message::Gone).await;
                return Ok(());
            };
            self.status = report.status.clone();
            self.revision = answer["metadata"]["resourceVersion"].as_str().map_or(0, revision);
        }
        if report.delete && !self.deleted {
            self.deed.context.api.delete_pod(&report.pod).await?;
            self.deleted = true;
            self.deed.tell(Message::Gone).await;
        }
        Ok(())
    }
}

fn revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Whether somebody else said after us that the pod is not ready, or that it is: a controller that heard nothing of this host
/// for a while does.
fn is_overwritten(pod: &Pod, said: &Value, at: u64) -> bool {
    let ours = said["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready");
    let theirs = pod.status.conditions.iter().find(|one| one.type_ == "Ready");
    let differ = ours.zip(theirs).is_some_and(|(ours, theirs)| ours["status"] != theirs.status.as_str());
    differ && revision(&pod.metadata.resource_version) > at
}

/// A status without the times that change with every rendering.
fn without_times(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastTransitionTime");
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_was_said_later_and_otherwise_is_written_over() {
        let said = |ready: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        for (theirs, revision, ours, expected) in [
            ("False", "8", said("True"), true),
            ("True", "8", said("False"), true),
            ("False", "7", said("True"), false),
            ("True", "8", said("True"), false),
            ("False", "8", Value::Null, false),
        ] {
            let mut pod = said(theirs);
            pod["metadata"] = json!({"resourceVersion": revision});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(is_overwritten(&pod, &ours, 7), expected, "{theirs} {revision} {ours}");
        }
    }
}
