//! PodDisruptionBudgets as decisions read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{ObjectMeta, object};
use crate::workload::{IntOrPercent, LabelSelector};

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodDisruptionBudget {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: DisruptionSpec,
    /// Observed state.
    pub status: DisruptionStatus,
}
object!(PodDisruptionBudget, "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true);

/// `spec` of a budget.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionSpec {
    /// Pods that must stay healthy.
    pub min_available: Option<IntOrPercent>,
    /// Pods that may be unhealthy.
    pub max_unavailable: Option<IntOrPercent>,
    /// Whose pods; none: nobody's, empty: everybody's.
    pub selector: Option<LabelSelector>,
    /// `IfHealthyBudget` (also when it is not said) or `AlwaysAllow`: whether pods that are not ready may go.
    pub unhealthy_pod_eviction_policy: Option<String>,
}

/// `status` of a budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionStatus {
    /// Generation the controller has seen.
    pub observed_generation: i64,
    /// Evictions granted whose pods are not gone, and when they were granted.
    pub disrupted_pods: BTreeMap<String, Timestamp>,
    /// Evictions that may be granted now.
    pub disruptions_allowed: i64,
    /// Healthy pods.
    pub current_healthy: i64,
    /// Healthy pods there must be.
    pub desired_healthy: i64,
    /// Pods there should be.
    pub expected_pods: i64,
    /// `DisruptionAllowed`.
    pub conditions: Vec<MetaCondition>,
}

/// A condition in the form that newer kinds share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetaCondition {
    /// Name.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Generation it is about.
    pub observed_generation: i64,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}
