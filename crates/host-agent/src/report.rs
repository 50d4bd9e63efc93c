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
    /// The pod's status, as a merge patch; `Null` when there is nothing to say, as of a pod that is gone.
    pub(crate) status: Value,
    /// The node's state; none when it stays as it is.
    pub(crate) node: Option<NodeState>,
    /// The pod's object is to go.
    pub(crate) delete: bool,
}

/// Where an actor puts its newest report. When it is dropped, the last one is still written.
pub(crate) type Reporter = watch::Sender<Report>;

/// Starts the task that writes what is put into the answer.
pub(crate) fn start(deed: Deed) -> Reporter {
    let (reporter, reports) = watch::channel(Report::default());
    let writer = Writer { deed, status: Value::Null, node: None, deleted: false };
    tokio::spawn(writer.run(reports));
    reporter
}

struct Writer {
    deed: Deed,
    /// What the API has taken.
    status: Value,
    node: Option<NodeState>,
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
        if let Some(state) = report.node.filter(|state| self.node != Some(*state)) {
            deeds::write_node(&self.deed, state).await?;
            self.node = Some(state);
        }
        if !report.status.is_null() && without_times(&report.status) != without_times(&self.status) {
            if self.deed.context.api.pod_status(&report.pod, &report.status).await?.is_none() {
                self.deed.tell(Message::Gone).await;
                return Ok(());
            }
            self.status = report.status.clone();
        }
        if report.delete && !self.deleted {
            self.deed.context.api.delete_pod(&report.pod).await?;
            self.deleted = true;
            self.deed.tell(Message::Gone).await;
        }
        Ok(())
    }
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
