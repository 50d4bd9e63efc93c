//! Isopod's own kinds, group `isopod.dev/v1alpha1`. All are cluster-scoped.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disruption::MetaCondition;
use crate::meta::{ObjectMeta, object};
use crate::node::Taint;
use crate::pod::ResourceList;
use crate::quantity::Quantity;

/// Which pods run in microVMs of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FargateProfile {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: FargateProfileSpec,
}
object!(FargateProfile, "isopod.dev", "v1alpha1", "FargateProfile", "fargateprofiles", false);

/// `spec` of a Fargate profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FargateProfileSpec {
    /// Role under which images are pulled.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_execution_role_arn: String,
    /// Subnets for the pods' addresses; none: all of the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Alternatives: a pod needs to match one.
    pub selectors: Vec<ProfileSelector>,
    /// Tags of the profile.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// `FARGATE_SPOT` for interruptible capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_type: Option<String>,
}

/// One alternative of a profile. `*` and `?` are wildcards in all texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileSelector {
    /// Namespace of the pod.
    pub namespace: String,
    /// Labels, all of which the pod must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A machine with a host agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: HostSpec,
    /// Observed state.
    pub status: HostStatus,
}
object!(Host, "isopod.dev", "v1alpha1", "Host", "hosts", false);

/// `spec` of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSpec {
    /// Address at which the host agent is reached.
    pub address: String,
    /// Whether new pods are kept away.
    pub unschedulable: bool,
}

/// `status` of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostStatus {
    /// What the machine has.
    pub capacity: ResourceList,
    /// What pods may be promised, overcommitment included.
    pub allocatable: ResourceList,
    /// How its microVMs run.
    pub vmm: HostVmm,
    /// Kernel of the guests.
    pub kernel_version: String,
    /// `Ready`: whether its agent is heard of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<MetaCondition>,
}

/// How a host's microVMs run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostVmm {
    /// `qemu`, `firecracker` or `simulated`.
    pub backend: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Version of the backend.
    pub version: String,
    /// Whether nothing really runs.
    pub simulated: bool,
}

/// Worker nodes of one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeGroup {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: NodeGroupSpec,
    /// Observed state.
    pub status: NodeGroupStatus,
}
object!(NodeGroup, "isopod.dev", "v1alpha1", "NodeGroup", "nodegroups", false);

/// `spec` of a node group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeGroupSpec {
    /// Size of the nodes, a name of [`crate::instances`].
    pub instance_type: String,
    /// Nodes there are at least.
    pub min_size: i64,
    /// Nodes there are at most.
    pub max_size: i64,
    /// Nodes there should be now.
    pub desired_size: i64,
    /// Disk of a node in GiB.
    pub volume_size_gib: i64,
    /// Labels of the nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of the nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

impl Default for NodeGroupSpec {
    /// What the API leaves out: whole numbers that are 0, and everything that was not said.
    fn default() -> Self {
        Self {
            instance_type: String::new(),
            min_size: 0,
            max_size: i64::MAX,
            desired_size: 0,
            volume_size_gib: 80,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }
}

impl NodeGroupSpec {
    /// Nodes there should be, within the group's bounds.
    pub fn wanted(&self) -> usize {
        let wanted = self.desired_size.min(self.max_size).max(self.min_size).max(0);
        usize::try_from(wanted).unwrap_or(usize::MAX)
    }
}

/// `status` of a node group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeGroupStatus {
    /// `CREATING`, `ACTIVE`, `UPDATING`, `DEGRADED` or `DELETING`.
    pub phase: String,
    /// Nodes there are.
    pub nodes: i64,
    /// Nodes that are ready.
    pub ready_nodes: i64,
    /// What keeps the group from its desired size.
    pub message: String,
}

/// What one microVM is billed for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageRecord {
    /// Metadata; the name is the pod's UID.
    pub metadata: ObjectMeta,
    /// The record.
    pub spec: UsageRecordSpec,
}
object!(UsageRecord, "isopod.dev", "v1alpha1", "UsageRecord", "usagerecords", false);

/// `spec` of a usage record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageRecordSpec {
    /// The pod's UID.
    pub pod_uid: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's labels when its VM was made.
    pub pod_labels: BTreeMap<String, String>,
    /// The profile it matched.
    pub profile: String,
    /// Its node.
    pub node: String,
    /// The host that ran it.
    pub host: String,
    /// Billed vCPU in thousandths.
    pub vcpu_millis: i64,
    /// Billed memory in MiB.
    pub memory_mib: i64,
    /// Billed disk beyond the free 20 GiB, in GiB.
    pub ephemeral_storage_gib: i64,
    /// `ON_DEMAND` or `FARGATE_SPOT`.
    pub capacity_type: String,
    /// When the microVM was asked for.
    pub start_time: Option<Timestamp>,
    /// When it was gone; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

/// The cluster's settings; there is one object, named like the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Settings.
    pub spec: ClusterSpec,
}
object!(Cluster, "isopod.dev", "v1alpha1", "Cluster", "clusters", false);

/// `spec` of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// Region, part of node names.
    pub region: String,
    /// Kubernetes version asked for.
    pub version: String,
    /// The cluster's network.
    pub vpc: Vpc,
    /// Addresses of Services.
    #[serde(rename = "serviceCidr")]
    pub service_cidr: String,
    /// Switches of Fargate behaviour.
    pub fargate: FargateSettings,
    /// Billing.
    pub billing: BillingSettings,
}

/// A cluster's network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vpc {
    /// All addresses of the cluster.
    pub cidr: Option<Ipv4Net>,
    /// Its private subnets.
    pub subnets: Vec<Subnet>,
}

/// A private subnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    /// `subnet-...`.
    pub id: String,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Availability zone.
    pub zone: String,
}

/// Where behaviour can be switched from the seeds' to Amazon's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FargateSettings {
    /// `specificity` (default) or `name`.
    pub profile_precedence: String,
    /// Memory added to every pod's need.
    pub memory_overhead: Quantity,
    /// Virtual CPUs promised per CPU of a host.
    pub cpu_overcommit: i64,
    /// Memory promised per byte of a host.
    pub memory_overcommit: i64,
}

impl Default for FargateSettings {
    fn default() -> Self {
        Self {
            profile_precedence: "specificity".into(),
            memory_overhead: Quantity::ZERO,
            cpu_overcommit: 16,
            memory_overcommit: 3,
        }
    }
}

/// Billing switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BillingSettings {
    /// `containersEnded`: the bill ends with the microVM.
    pub until: String,
}

impl Default for BillingSettings {
    fn default() -> Self {
        Self { until: "containersEnded".into() }
    }
}
