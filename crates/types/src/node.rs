//! Nodes and namespaces as decisions read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{ObjectMeta, object};
use crate::pod::ResourceList;
use crate::probe::PortRef;
use crate::workload::Condition;

/// A node: one microVM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: NodeSpec,
    /// Observed state.
    pub status: NodeStatus,
}
object!(Node, "", "v1", "Node", "nodes", false);

/// `spec` of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether new pods are kept away.
    pub unschedulable: bool,
    /// Addresses of its pods, of nodes that have many; empty: none.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
}

/// `status` of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// What pods may have of it.
    pub allocatable: ResourceList,
    /// Conditions.
    pub conditions: Vec<NodeCondition>,
    /// Images it has.
    pub images: Vec<NodeImage>,
    /// What its machine is.
    pub node_info: NodeInfo,
}

/// What a node's machine is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeInfo {
    /// By what this start of its machine is known.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// A condition of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCondition {
    /// Name.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When it was last said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<Timestamp>,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// An image that a node has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeImage {
    /// All its names.
    pub names: Vec<String>,
    /// Bytes.
    pub size_bytes: i64,
}

/// A taint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// When it was put on; only of `NoExecute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Timestamp>,
}

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Finalizers of the namespace's content.
    pub spec: NamespaceSpec,
    /// How far its end is.
    pub status: NamespaceStatus,
}
object!(Namespace, "", "v1", "Namespace", "namespaces", false);

/// `spec` of a namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    /// `kubernetes` until the content is gone.
    pub finalizers: Vec<String>,
}

/// `status` of a namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    /// What an ending namespace waits for.
    pub conditions: Vec<Condition>,
}

/// A service account.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceAccount {
    /// Metadata.
    pub metadata: ObjectMeta,
}
object!(ServiceAccount, "", "v1", "ServiceAccount", "serviceaccounts", true);

/// A ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Text values.
    pub data: BTreeMap<String, String>,
    /// Base64 values.
    pub binary_data: BTreeMap<String, String>,
    /// Whether it never changes.
    pub immutable: Option<bool>,
}
object!(ConfigMap, "", "v1", "ConfigMap", "configmaps", true);

/// A Secret.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Kind of secret.
    #[serde(rename = "type")]
    pub type_: String,
    /// Base64 values.
    pub data: BTreeMap<String, String>,
    /// Whether it never changes.
    pub immutable: Option<bool>,
}
object!(Secret, "", "v1", "Secret", "secrets", true);

/// A Service, as far as environment variables and routing read it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: ServiceSpec,
}
object!(Service, "", "v1", "Service", "services", true);

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Virtual address, `None` for headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
    /// Whether pods count before they are ready.
    pub publish_not_ready_addresses: bool,
    /// `ClusterIP` (also when empty), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: String,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; may be empty when there is one port.
    pub name: String,
    /// Port of the virtual address.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port of the pods.
    pub target_port: PortRef,
    /// What is spoken there.
    pub app_protocol: Option<String>,
}
