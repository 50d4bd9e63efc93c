//! HorizontalPodAutoscalers as decisions read them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::quantity::Quantity;
use crate::workload::{Condition, LabelSelector};

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HorizontalPodAutoscaler {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: AutoscalerSpec,
    /// Observed state.
    pub status: AutoscalerStatus,
}
object!(HorizontalPodAutoscaler, "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true);

/// `spec` of an autoscaler.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalerSpec {
    /// What is scaled.
    pub scale_target_ref: CrossReference,
    /// Fewest pods; the API defaults it to 1.
    pub min_replicas: Option<i64>,
    /// Most pods.
    pub max_replicas: i64,
    /// What the number follows; the greatest wish counts.
    pub metrics: Vec<MetricSpec>,
    /// How fast it may change.
    pub behavior: Option<Behavior>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrossReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// A metric and what it should be. The field of its type is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSpec {
    /// `Resource`, `ContainerResource`, `Pods`, `Object` or `External`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Usage of the pods.
    pub resource: Option<ResourceMetric>,
    /// Usage of one container of the pods.
    pub container_resource: Option<ResourceMetric>,
    /// A metric of the pods.
    pub pods: Option<NamedMetric>,
    /// A metric of another object.
    pub object: Option<NamedMetric>,
    /// A metric of the world outside.
    pub external: Option<NamedMetric>,
}

/// Usage of a resource.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceMetric {
    /// `cpu`, `memory` ...
    pub name: String,
    /// The container, where one is meant.
    pub container: String,
    /// What it should be.
    pub target: MetricTarget,
}

/// A metric by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedMetric {
    /// Which metric.
    pub metric: MetricIdentifier,
    /// Of which object.
    pub described_object: CrossReference,
    /// What it should be.
    pub target: MetricTarget,
}

/// Name and labels of a metric.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MetricIdentifier {
    /// Name.
    pub name: String,
    /// Labels of the series.
    pub selector: Option<LabelSelector>,
}

/// What a metric should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricTarget {
    /// `Utilization`, `Value` or `AverageValue`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The value in all.
    pub value: Option<Quantity>,
    /// The value for each pod.
    pub average_value: Option<Quantity>,
    /// Per cent of what the pods request.
    pub average_utilization: Option<i64>,
}

/// How fast the number may change.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// Upwards.
    pub scale_up: Option<ScalingRules>,
    /// Downwards.
    pub scale_down: Option<ScalingRules>,
}

/// How fast the number may change in one direction.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingRules {
    /// Seconds whose recommendations count.
    pub stabilization_window_seconds: Option<i64>,
    /// `Max`, `Min` or `Disabled`.
    pub select_policy: Option<String>,
    /// Steps that are allowed.
    pub policies: Vec<ScalingPolicy>,
    /// How far off the metric may be.
    pub tolerance: Option<Quantity>,
}

/// A step that is allowed in a time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingPolicy {
    /// `Pods` or `Percent`.
    #[serde(rename = "type")]
    pub type_: String,
    /// How many.
    pub value: i64,
    /// In how many seconds.
    pub period_seconds: i64,
}

/// `status` of an autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalerStatus {
    /// Generation the controller has seen.
    pub observed_generation: i64,
    /// When the number was last changed.
    pub last_scale_time: Option<Timestamp>,
    /// Pods as the target sees them.
    pub current_replicas: i64,
    /// Pods that were asked for.
    pub desired_replicas: i64,
    /// What the metrics are.
    #[serde(deserialize_with = "crate::absent_if_null")]
    pub current_metrics: Vec<Value>,
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited`.
    pub conditions: Vec<Condition>,
}
