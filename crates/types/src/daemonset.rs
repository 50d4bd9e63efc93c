//! DaemonSets as decisions read them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::workload::{LabelSelector, RollingUpdate};

/// A DaemonSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DaemonSet {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: DaemonSetSpec,
    /// Observed state.
    pub status: DaemonSetStatus,
}
object!(DaemonSet, "apps", "v1", "DaemonSet", "daemonsets", true);

/// `spec` of a DaemonSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    /// Which pods belong to it.
    pub selector: LabelSelector,
    /// Template of the pods, whole.
    pub template: Value,
    /// How a new template replaces the old.
    pub update_strategy: DaemonSetStrategy,
    /// Seconds a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// Old revisions kept for rollback.
    pub revision_history_limit: Option<i64>,
}

/// `spec.updateStrategy` of a DaemonSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStrategy {
    /// `RollingUpdate` or `OnDelete`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Bounds of a rolling update.
    pub rolling_update: RollingUpdate,
}

/// `status` of a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// Generation the controller has seen.
    pub observed_generation: i64,
    /// Nodes that should have a pod and have one.
    pub current_number_scheduled: i64,
    /// Nodes that have a pod and should not.
    pub number_misscheduled: i64,
    /// Nodes that should have a pod.
    pub desired_number_scheduled: i64,
    /// Nodes whose pod is ready.
    pub number_ready: i64,
    /// Nodes whose pod is of the newest template.
    pub updated_number_scheduled: i64,
    /// Nodes whose pod is available.
    pub number_available: i64,
    /// Nodes that should have an available pod and have none.
    pub number_unavailable: i64,
    /// Times a name collision was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i64>,
}
