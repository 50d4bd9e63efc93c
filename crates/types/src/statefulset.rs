//! StatefulSets, the revisions of their templates, and the claims of their pods, as decisions read them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::workload::{IntOrPercent, LabelSelector};

/// A StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StatefulSet {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: StatefulSetSpec,
    /// Observed state.
    pub status: StatefulSetStatus,
}
object!(StatefulSet, "apps", "v1", "StatefulSet", "statefulsets", true);

/// `spec` of a StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetSpec {
    /// Wanted pods.
    pub replicas: i64,
    /// Which pods belong to it.
    pub selector: LabelSelector,
    /// Template of the pods, whole.
    pub template: Value,
    /// Templates of the claims of every pod, whole.
    pub volume_claim_templates: Vec<Value>,
    /// Headless Service that names the pods.
    pub service_name: String,
    /// `OrderedReady` or `Parallel`.
    pub pod_management_policy: String,
    /// How a new template replaces the old.
    pub update_strategy: StatefulSetStrategy,
    /// Old revisions kept for rollback.
    pub revision_history_limit: Option<i64>,
    /// Seconds a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// What becomes of claims.
    pub persistent_volume_claim_retention_policy: RetentionPolicy,
    /// Where numbering begins.
    pub ordinals: Ordinals,
}

/// `spec.updateStrategy` of a StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStrategy {
    /// `RollingUpdate` or `OnDelete`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Bounds of a rolling update.
    pub rolling_update: StatefulSetRollingUpdate,
}

/// Bounds of a rolling update of a StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetRollingUpdate {
    /// Pods with a lower ordinal keep the old template.
    pub partition: i64,
    /// Pods that may be missing during the update; one unless said otherwise.
    pub max_unavailable: Option<IntOrPercent>,
}

/// What becomes of claims: `Retain` or `Delete`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionPolicy {
    /// When the set is deleted.
    pub when_deleted: String,
    /// When the set shrinks.
    pub when_scaled: String,
}

/// `spec.ordinals`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    /// The first ordinal.
    pub start: i64,
}

/// `status` of a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    /// Generation the controller has seen.
    pub observed_generation: i64,
    /// Pods that exist.
    pub replicas: i64,
    /// Ready pods.
    pub ready_replicas: i64,
    /// Pods ready for `minReadySeconds`.
    pub available_replicas: i64,
    /// Pods of `current_revision`.
    pub current_replicas: i64,
    /// Pods of `update_revision`.
    pub updated_replicas: i64,
    /// Revision that pods below the partition are made from.
    pub current_revision: String,
    /// Revision of the template.
    pub update_revision: String,
    /// Times a name collision was seen.
    pub collision_count: i64,
}

/// A revision of a template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ControllerRevision {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Patch that brings the template back.
    pub data: Value,
    /// Number; the highest is the newest.
    pub revision: i64,
}
object!(ControllerRevision, "apps", "v1", "ControllerRevision", "controllerrevisions", true);
