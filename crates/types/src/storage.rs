//! Claims, volumes and storage classes as decisions read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::{ObjectMeta, object};
use crate::pod::{PodCondition, ResourceList, Resources};
use crate::quantity::Quantity;
use crate::scheduling::NodeSelector;
use crate::workload::LabelSelector;

/// A claim to storage.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeClaim {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: ClaimSpec,
    /// Observed state.
    pub status: ClaimStatus,
}
object!(PersistentVolumeClaim, "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true);

/// `spec` of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// How the volume may be mounted.
    pub access_modes: Vec<String>,
    /// Which volumes will do.
    pub selector: Option<LabelSelector>,
    /// How much.
    pub resources: Resources,
    /// The volume asked for or got, or empty.
    pub volume_name: String,
    /// Class; empty: only volumes without one; none: the default class, when there is one.
    pub storage_class_name: Option<String>,
    /// `Filesystem` (also when empty) or `Block`.
    pub volume_mode: String,
    /// What the volume is filled from.
    pub data_source: Option<Value>,
    /// What the volume is filled from, in the newer form.
    pub data_source_ref: Option<Value>,
}

/// `status` of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    /// Modes of the volume.
    pub access_modes: Vec<String>,
    /// Size of the volume.
    pub capacity: ResourceList,
    /// What happens to it: `Resizing`, `FileSystemResizePending`.
    pub conditions: Vec<PodCondition>,
}

/// A volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: VolumeSpec,
    /// Observed state.
    pub status: VolumeStatus,
}
object!(PersistentVolume, "", "v1", "PersistentVolume", "persistentvolumes", false);

/// `spec` of a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    /// Size under `storage`.
    pub capacity: ResourceList,
    /// How it may be mounted.
    pub access_modes: Vec<String>,
    /// The claim it is meant for or bound to.
    pub claim_ref: Option<ClaimReference>,
    /// What becomes of it: `Retain`, `Delete` or `Recycle`.
    pub persistent_volume_reclaim_policy: String,
    /// Class, or empty.
    pub storage_class_name: String,
    /// `Filesystem` (also when empty) or `Block`.
    pub volume_mode: String,
    /// From where it can be reached.
    pub node_affinity: Option<VolumeNodeAffinity>,
    /// A driver's volume.
    pub csi: Option<CsiVolume>,
    /// Every other source, by the name of its type.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The claim of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClaimReference {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; empty: any claim of that name.
    pub uid: String,
}

/// From where a volume can be reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeNodeAffinity {
    /// Which nodes.
    pub required: Option<NodeSelector>,
}

/// A driver's volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiVolume {
    /// The driver's name.
    pub driver: String,
    /// The volume's name at the driver.
    pub volume_handle: String,
    /// What else the driver needs.
    pub volume_attributes: BTreeMap<String, String>,
}

/// `status` of a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeStatus {
    /// `Pending`, `Available`, `Bound`, `Released` or `Failed`.
    pub phase: String,
    /// Why it failed.
    pub message: String,
}

/// A class of storage.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Who makes volumes.
    pub provisioner: String,
    /// What the provisioner needs to know.
    pub parameters: BTreeMap<String, String>,
    /// `Immediate` (also when empty) or `WaitForFirstConsumer`.
    pub volume_binding_mode: String,
    /// Reclaim policy of the volumes; `Delete` when empty.
    pub reclaim_policy: String,
    /// Where volumes may be made.
    pub allowed_topologies: Vec<TopologySelectorTerm>,
    /// Mount options of the volumes.
    pub mount_options: Vec<String>,
    /// Whether volumes may grow.
    pub allow_volume_expansion: bool,
}
object!(StorageClass, "storage.k8s.io", "v1", "StorageClass", "storageclasses", false);

/// Places, all requirements of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologySelectorTerm {
    /// The requirements.
    pub match_label_expressions: Vec<TopologySelectorRequirement>,
}

/// A label and the values it may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopologySelectorRequirement {
    /// Label.
    pub key: String,
    /// Values.
    pub values: Vec<String>,
}

impl StorageClass {
    /// Whether a volume is chosen only when a pod that uses the claim has been given a node.
    pub fn waits_for_consumer(&self) -> bool {
        self.volume_binding_mode == "WaitForFirstConsumer"
    }
}

impl PersistentVolumeClaim {
    /// Bytes asked for.
    pub fn requested(&self) -> Quantity {
        self.spec.resources.request("storage")
    }

    /// Bytes that it has.
    pub fn capacity(&self) -> Quantity {
        self.status.capacity.get("storage").copied().unwrap_or_default()
    }

    /// The class, or empty.
    pub fn class(&self) -> &str {
        self.spec.storage_class_name.as_deref().unwrap_or_default()
    }
}

impl PersistentVolume {
    /// Bytes it holds.
    pub fn capacity(&self) -> Quantity {
        self.spec.capacity.get("storage").copied().unwrap_or_default()
    }
}
