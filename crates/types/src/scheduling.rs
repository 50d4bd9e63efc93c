//! What a pod says about the nodes it wants, as schedulers read it. Decides nothing.

use serde::{Deserialize, Serialize};

use crate::workload::LabelSelector;

/// `spec.affinity` of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// Which nodes.
    pub node_affinity: Option<NodeAffinity>,
    /// Near which pods.
    pub pod_affinity: Option<PodAffinity>,
    /// Away from which pods.
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// Which nodes a pod must or should go to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity {
    /// Must.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    /// Should.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredSchedulingTerm>,
}

/// Alternatives: a node needs to match one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// The alternatives.
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// Requirements, all of which a node must meet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// Of its labels.
    pub match_expressions: Vec<NodeSelectorRequirement>,
    /// Of its fields; `metadata.name` is the only one.
    pub match_fields: Vec<NodeSelectorRequirement>,
}

/// One requirement of a node selector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSelectorRequirement {
    /// Label or field.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub operator: String,
    /// What it is held against.
    pub values: Vec<String>,
}

/// A wish with a weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreferredSchedulingTerm {
    /// 1 to 100.
    pub weight: i64,
    /// The wish.
    pub preference: NodeSelectorTerm,
}

/// Near or away from which pods a pod must or should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAffinity {
    /// Must.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<PodAffinityTerm>,
    /// Should.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<WeightedPodAffinityTerm>,
}

/// Which pods, and what counts as near.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAffinityTerm {
    /// Which pods; none: no pod at all.
    pub label_selector: Option<LabelSelector>,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label; empty: all.
    pub namespace_selector: Option<LabelSelector>,
    /// Node label whose equal values are one place.
    pub topology_key: String,
    /// Labels of the pod whose values the other pods must share.
    pub match_label_keys: Vec<String>,
    /// Labels of the pod whose values the other pods must not share.
    pub mismatch_label_keys: Vec<String>,
}

/// A term with a weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightedPodAffinityTerm {
    /// 1 to 100.
    pub weight: i64,
    /// The term.
    pub pod_affinity_term: PodAffinityTerm,
}

/// Which taints a pod puts up with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Key; empty with `Exists`: all.
    pub key: String,
    /// `Equal` (also when empty), `Exists`, `Gt`, `Lt`.
    pub operator: String,
    /// Value.
    pub value: String,
    /// Effect; empty: all.
    pub effect: String,
    /// For `NoExecute`: seconds until the pod has to go; none: never.
    pub toleration_seconds: Option<i64>,
}

/// How evenly pods are spread over places.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologySpreadConstraint {
    /// Most pods that a place may have above the emptiest.
    pub max_skew: i64,
    /// Node label whose equal values are one place.
    pub topology_key: String,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: String,
    /// Which pods are counted; none: no pod.
    pub label_selector: Option<LabelSelector>,
    /// Fewer places than this count as one more that is empty.
    pub min_domains: Option<i64>,
    /// `Honor` (default) or `Ignore` the pod's node affinity when counting.
    pub node_affinity_policy: Option<String>,
    /// `Honor` or `Ignore` (default) taints when counting.
    pub node_taints_policy: Option<String>,
    /// Labels of the pod whose values the counted pods must share.
    pub match_label_keys: Vec<String>,
}
