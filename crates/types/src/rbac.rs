//! Roles as decisions read them.

use serde::Deserialize;
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::workload::LabelSelector;

/// A role for the whole cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterRole {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What it allows.
    pub rules: Option<Vec<Value>>,
    /// Roles whose rules it consists of.
    pub aggregation_rule: Option<AggregationRule>,
}
object!(ClusterRole, "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);

/// `aggregationRule`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AggregationRule {
    /// A role that one of these selects is part of it.
    pub cluster_role_selectors: Vec<LabelSelector>,
}
