//! Deployments and ReplicaSets as decisions read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};

/// A Deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: DeploymentSpec,
    /// Observed state.
    pub status: DeploymentStatus,
}
object!(Deployment, "apps", "v1", "Deployment", "deployments", true);

/// `spec` of a Deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    /// Wanted pods; the API defaults it to 1.
    pub replicas: i64,
    /// Which pods belong to it.
    pub selector: LabelSelector,
    /// Template of the pods, whole.
    pub template: Value,
    /// How a new template replaces the old.
    pub strategy: DeploymentStrategy,
    /// Seconds a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// Old ReplicaSets kept for rollback.
    pub revision_history_limit: Option<i64>,
    /// Whether rollouts are held.
    pub paused: bool,
    /// Seconds without progress after which the rollout counts as failed.
    pub progress_deadline_seconds: Option<i64>,
}

/// `spec.strategy` of a Deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStrategy {
    /// `RollingUpdate` or `Recreate`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Bounds of a rolling update.
    pub rolling_update: Option<RollingUpdate>,
}

/// Bounds of a rolling update.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    /// Pods above the wanted number.
    pub max_surge: Option<IntOrPercent>,
    /// Pods below the wanted number.
    pub max_unavailable: Option<IntOrPercent>,
}

/// A number or a percentage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrPercent {
    /// A count.
    Int(i64),
    /// A percentage with its sign, such as `25%`.
    Percent(String),
}

impl IntOrPercent {
    /// The count it means of `total`; percentages are rounded up or down as asked. Not a percentage: 0.
    pub fn of(&self, total: i64, round_up: bool) -> i64 {
        match self {
            Self::Int(count) => *count,
            Self::Percent(text) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                let scaled = percent.saturating_mul(total);
                scaled / 100 + i64::from(round_up && scaled % 100 != 0)
            }
        }
    }
}

/// `status` of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Generation the controller has seen.
    pub observed_generation: i64,
    /// Pods that exist.
    pub replicas: i64,
    /// Pods of the current template.
    pub updated_replicas: i64,
    /// Ready pods.
    pub ready_replicas: i64,
    /// Pods ready for `minReadySeconds`.
    pub available_replicas: i64,
    /// Pods missing.
    pub unavailable_replicas: i64,
    /// Pods on their way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i64>,
    /// Times a name collision was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i64>,
    /// `Available`, `Progressing`, `ReplicaFailure`.
    pub conditions: Vec<Condition>,
}

/// A condition of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Name of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When it was last checked to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<jiff::Timestamp>,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<jiff::Timestamp>,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSet {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: ReplicaSetSpec,
    /// Observed state.
    pub status: ReplicaSetStatus,
}
object!(ReplicaSet, "apps", "v1", "ReplicaSet", "replicasets", true);

/// `spec` of a ReplicaSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetSpec {
    /// Wanted pods.
    pub replicas: i64,
    /// Which pods belong to it.
    pub selector: LabelSelector,
    /// Template of the pods, whole.
    pub template: Value,
    /// Seconds a pod must be ready to count as available.
    pub min_ready_seconds: i64,
}

/// A ReplicationController: a ReplicaSet whose selector is plain labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplicationController {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    #[serde(deserialize_with = "with_plain_selector")]
    pub spec: ReplicaSetSpec,
    /// Observed state.
    pub status: ReplicaSetStatus,
}
object!(ReplicationController, "", "v1", "ReplicationController", "replicationcontrollers", true);

fn with_plain_selector<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ReplicaSetSpec, D::Error> {
    let mut spec = Value::deserialize(deserializer)?;
    if let Some(labels) = spec.get_mut("selector").map(Value::take) {
        spec["selector"] = serde_json::json!({"matchLabels": labels});
    }
    serde_json::from_value(spec).map_err(serde::de::Error::custom)
}

/// `status` of a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    /// Generation the controller has seen.
    pub observed_generation: i64,
    /// Pods that exist.
    pub replicas: i64,
    /// Pods with all labels of the template.
    pub fully_labeled_replicas: i64,
    /// Ready pods.
    pub ready_replicas: i64,
    /// Pods ready for `minReadySeconds`.
    pub available_replicas: i64,
    /// Pods on their way out; ReplicationControllers do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i64>,
    /// `ReplicaFailure`.
    pub conditions: Vec<Condition>,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements, all of which must hold.
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement of a label selector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// Values for `In` and `NotIn`.
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Whether labels satisfy every requirement. An empty selector matches everything; an unknown operator nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrPercent::Percent("25%".into());
        for (total, up, down) in [(1, 1, 0), (3, 1, 0), (4, 1, 1), (10, 3, 2)] {
            assert_eq!((quarter.of(total, true), quarter.of(total, false)), (up, down), "{total}");
        }
        assert_eq!(IntOrPercent::Int(2).of(100, true), 2);
    }

    #[test]
    fn a_replication_controller_selects_by_plain_labels() {
        let controller: ReplicationController =
            serde_json::from_value(serde_json::json!({"spec": {"replicas": 2, "selector": {"app": "a"}}})).unwrap();
        assert_eq!(controller.spec.selector.match_labels["app"], "a");
        assert_eq!(controller.spec.replicas, 2);
    }

    #[test]
    fn selectors_match_by_labels_and_expressions() {
        let selector: LabelSelector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"app": "a"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}, {"key": "env", "operator": "Exists"}],
        }))
        .unwrap();
        for (labels, expected) in [
            (vec![("app", "a"), ("env", "")], true),
            (vec![("app", "a")], false),
            (vec![("app", "a"), ("env", ""), ("tier", "x")], false),
            (vec![("app", "b"), ("env", "")], false),
        ] {
            let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(selector.matches(&labels), expected, "{labels:?}");
        }
    }
}
