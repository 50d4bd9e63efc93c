//! Pods as decisions read them.

mod status;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::probe::{Lifecycle, Probe};
use crate::quantity::Quantity;
use crate::scheduling::{Affinity, Toleration, TopologySpreadConstraint};

pub use status::{ContainerState, ContainerStatus, PodCondition, PodStatus, Running, Terminated, Waiting};

/// Amounts by resource name (`cpu`, `memory`, `ephemeral-storage` ...).
pub type ResourceList = BTreeMap<String, Quantity>;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: PodSpec,
    /// Observed state.
    pub status: PodStatus,
}
object!(Pod, "", "v1", "Pod", "pods", true);

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Containers that run before the others, in order.
    pub init_containers: Vec<Container>,
    /// Containers that run side by side.
    pub containers: Vec<Container>,
    /// Containers that were added to the running pod, to look into it.
    pub ephemeral_containers: Vec<Container>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// `Always`, `OnFailure` or `Never`.
    pub restart_policy: String,
    /// The node it is bound to, or empty.
    pub node_name: String,
    /// Labels a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Which nodes and which company it wants.
    pub affinity: Option<Affinity>,
    /// Taints it puts up with.
    pub tolerations: Vec<Toleration>,
    /// How its like are spread.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Rank among pods that wait; higher goes first.
    pub priority: Option<i64>,
    /// `Never` keeps it from pushing others out.
    pub preemption_policy: Option<String>,
    /// What running it takes besides its containers.
    pub overhead: ResourceList,
    /// Scheduler responsible for it.
    pub scheduler_name: String,
    /// Service account.
    pub service_account_name: String,
    /// Seconds between SIGTERM and SIGKILL.
    pub termination_grace_period_seconds: Option<i64>,
    /// Seconds after which the whole pod fails.
    pub active_deadline_seconds: Option<i64>,
    /// Host name, if it is not the pod's name.
    pub hostname: Option<String>,
    /// Subdomain.
    pub subdomain: Option<String>,
    /// `ClusterFirst`, `Default`, `None` ...
    pub dns_policy: String,
    /// Additions to the resolver's configuration.
    #[serde(rename = "dnsConfig")]
    pub dns_config: Option<DnsConfig>,
    /// Additional lines of /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// Secrets with registry credentials.
    pub image_pull_secrets: Vec<LocalReference>,
    /// Shares the node's network.
    pub host_network: bool,
    /// Shares the node's processes.
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    /// Shares the node's IPC.
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    /// Security settings of the pod.
    pub security_context: PodSecurityContext,
    /// Whether variables of Services are set; true unless said otherwise.
    pub enable_service_links: Option<bool>,
    /// Gates that hold scheduling.
    pub scheduling_gates: Vec<LocalReference>,
    /// Resources of the pod as a whole.
    pub resources: Resources,
    /// Conditions that have to be true before it is ready.
    pub readiness_gates: Vec<ReadinessGate>,
}

/// A condition that has to be true before a pod is ready.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    /// Type of the condition.
    pub condition_type: String,
}

impl PodSpec {
    /// All containers, the initial ones first, the ephemeral ones last.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.own_containers().chain(&self.ephemeral_containers)
    }

    /// The containers that the pod was made with, the initial ones first.
    pub fn own_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// Whether an ephemeral container has this name.
    pub fn is_ephemeral(&self, container: &str) -> bool {
        self.ephemeral_containers.iter().any(|other| other.name == container)
    }
}

/// A reference by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalReference {
    /// Name.
    pub name: String,
}

/// `spec.dnsConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Name servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<DnsOption>,
}

/// An option of the resolver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    /// Name, such as `ndots`.
    pub name: String,
    /// Value.
    pub value: Option<String>,
}

/// Lines for /etc/hosts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    /// Address.
    pub ip: String,
    /// Names.
    pub hostnames: Vec<String>,
}

/// `spec.securityContext` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurityContext {
    /// User ID of the processes.
    pub run_as_user: Option<u32>,
    /// Group ID of the processes.
    pub run_as_group: Option<u32>,
    /// Refuse to run as root.
    pub run_as_non_root: Option<bool>,
    /// Group that owns volumes.
    pub fs_group: Option<u32>,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// Kernel parameters that the pod sets.
    pub sysctls: Vec<Sysctl>,
}

/// A kernel parameter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    /// Name, its parts separated by dots or slashes.
    pub name: String,
    /// Value, as written.
    pub value: String,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name, unique in the pod.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Ports it listens on.
    pub ports: Vec<ContainerPort>,
    /// Variables.
    pub env: Vec<EnvVar>,
    /// Whole ConfigMaps and Secrets as variables.
    pub env_from: Vec<EnvFrom>,
    /// Requests and limits.
    pub resources: Resources,
    /// How other requests and limits come about.
    pub resize_policy: Vec<ResizePolicy>,
    /// Mounts.
    pub volume_mounts: Vec<VolumeMount>,
    /// Raw devices.
    pub volume_devices: Vec<Value>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
    /// The container whose processes an ephemeral one sees; empty: only its own.
    pub target_container_name: String,
    /// Security settings.
    pub security_context: SecurityContext,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close standard input when the first attached client goes.
    pub stdin_once: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Where the container writes its last words.
    pub termination_message_path: String,
    /// `File` or `FallbackToLogsOnError`.
    pub termination_message_policy: String,
    /// Whether it still works.
    pub liveness_probe: Option<Probe>,
    /// Whether it can be asked.
    pub readiness_probe: Option<Probe>,
    /// Whether it has come up.
    pub startup_probe: Option<Probe>,
    /// What is done when it starts and before it stops.
    pub lifecycle: Lifecycle,
}

impl Container {
    /// Whether an init container keeps running beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name.
    pub name: String,
    /// Port.
    pub container_port: u16,
    /// Port of the node.
    pub host_port: Option<u16>,
    /// Address of the node.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    pub protocol: String,
}

/// Requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What is set aside.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub requests: ResourceList,
    /// What may not be passed.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub limits: ResourceList,
}

/// What has to be done to a container for another amount of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResizePolicy {
    /// `cpu` or `memory`.
    pub resource_name: String,
    /// `NotRequired` or `RestartContainer`.
    pub restart_policy: String,
}

impl Resources {
    /// What is requested of a resource; a limit alone is the request, as Kubernetes defaults it.
    pub fn request(&self, resource: &str) -> Quantity {
        let stated = self.requests.get(resource).or_else(|| self.limits.get(resource));
        stated.copied().unwrap_or(Quantity::ZERO)
    }
}

/// A variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value; `$(NAME)` refers to earlier variables.
    pub value: String,
    /// Where the value comes from instead.
    pub value_from: Option<EnvVarSource>,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVarSource {
    /// A field of the pod.
    pub field_ref: Option<FieldRef>,
    /// A resource of a container.
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// A key of a ConfigMap.
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret.
    pub secret_key_ref: Option<KeyRef>,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldRef {
    /// Path, such as `metadata.name`.
    pub field_path: String,
}

/// A resource of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFieldRef {
    /// Container; default: the one in question.
    pub container_name: String,
    /// Such as `limits.memory`.
    pub resource: String,
    /// The unit of the output.
    pub divisor: Option<Quantity>,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyRef {
    /// Name of the object.
    pub name: String,
    /// Key.
    pub key: String,
    /// Whether its absence is fine.
    pub optional: bool,
}

/// A whole ConfigMap or Secret as variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvFrom {
    /// Put before each key.
    pub prefix: String,
    /// A ConfigMap.
    pub config_map_ref: Option<KeyRef>,
    /// A Secret.
    pub secret_ref: Option<KeyRef>,
}

/// A mount.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    /// Volume.
    pub name: String,
    /// Path in the container.
    pub mount_path: String,
    /// Path in the volume.
    pub sub_path: String,
    /// Path in the volume with variables.
    pub sub_path_expr: String,
    /// Read-only.
    pub read_only: bool,
}

/// `securityContext` of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// All rights.
    pub privileged: Option<bool>,
    /// May gain rights.
    pub allow_privilege_escalation: Option<bool>,
    /// User ID.
    pub run_as_user: Option<u32>,
    /// Group ID.
    pub run_as_group: Option<u32>,
    /// Refuse to run as root.
    pub run_as_non_root: Option<bool>,
    /// Root file system may not be written.
    pub read_only_root_filesystem: Option<bool>,
    /// Capabilities added and dropped.
    pub capabilities: Capabilities,
}

/// Capabilities added and dropped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Dropped.
    pub drop: Vec<String>,
}

/// A volume: its name and, under the key of its type, its source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Scratch space.
    pub empty_dir: Option<EmptyDir>,
    /// Files from a ConfigMap.
    pub config_map: Option<ConfigMapSource>,
    /// Files from a Secret.
    pub secret: Option<SecretSource>,
    /// Files about the pod.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardSource>,
    /// Several of those in one directory.
    pub projected: Option<Projected>,
    /// Every other source, by the name of its type.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `emptyDir`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    /// `Memory` for tmpfs.
    pub medium: String,
    /// Most bytes.
    pub size_limit: Option<Quantity>,
}

/// One key as one file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    /// Key.
    pub key: String,
    /// Path in the volume.
    pub path: String,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// `configMap` as a volume or in a projection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapSource {
    /// Name of the ConfigMap.
    pub name: String,
    /// Which keys; none: all.
    pub items: Vec<KeyToPath>,
    /// Permission bits.
    pub default_mode: Option<u32>,
    /// Whether its absence is fine.
    pub optional: bool,
}

/// `secret` as a volume or in a projection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretSource {
    /// Name of the Secret (volume).
    pub secret_name: String,
    /// Name of the Secret (projection).
    pub name: String,
    /// Which keys; none: all.
    pub items: Vec<KeyToPath>,
    /// Permission bits.
    pub default_mode: Option<u32>,
    /// Whether its absence is fine.
    pub optional: bool,
}

/// `downwardAPI` as a volume or in a projection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardSource {
    /// The files.
    pub items: Vec<DownwardItem>,
    /// Permission bits.
    pub default_mode: Option<u32>,
}

/// One file about the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardItem {
    /// Path in the volume.
    pub path: String,
    /// A field of the pod.
    pub field_ref: Option<FieldRef>,
    /// A resource of a container.
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// `projected`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Projected {
    /// What is put together.
    pub sources: Vec<ProjectedSource>,
    /// Permission bits.
    pub default_mode: Option<u32>,
}

/// One source of a projection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedSource {
    /// Files from a ConfigMap.
    pub config_map: Option<ConfigMapSource>,
    /// Files from a Secret.
    pub secret: Option<SecretSource>,
    /// Files about the pod.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardSource>,
    /// A token of the pod's service account.
    pub service_account_token: Option<TokenSource>,
}

/// A projected token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenSource {
    /// Audience; empty: the API server.
    pub audience: String,
    /// Life of the token.
    pub expiration_seconds: Option<i64>,
    /// Path in the volume.
    pub path: String,
}

impl Pod {
    /// Whether it ended for good.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it counts for its owner: neither ended nor ending.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.metadata.is_deleting()
    }

    /// Since when it is ready, if it is.
    pub fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
        if ready.status != "True" {
            return None;
        }
        Some(ready.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH))
    }
}
