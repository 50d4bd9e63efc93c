//! Volumes that are made for claims: disks on hosts, which Isopod makes itself, and those of others' provisioners.
//!
//! A disk is a file on one host, so its volume can be reached from that host's nodes only. This makes the object; the file
//! is the host agent's to make when a pod first uses it, and to remove before the finalizer goes.

use isopod_types::names::{COMPUTE_TYPE, COMPUTE_TYPE_FARGATE, HOST_LABEL};
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use isopod_types::{Key, Object, ObjectMeta, Quantity};
use serde_json::{Value, json};

use super::claims::World;
use super::volumes::VOLUME_PROTECTION;
use super::{COMPONENT, DISK_FINALIZER, NO_PROVISIONER, PROVISIONED_BY, SELECTED_NODE};
use crate::plan::{Plan, Reason, Target, Write};

/// Provisioners whose volumes are disks on hosts.
pub const DISK_PROVISIONERS: [&str; 3] = ["ebs.csi.aws.com", "kubernetes.io/aws-ebs", "isopod.dev/disk"];
/// Driver of those volumes.
pub const DISK_DRIVER: &str = "ebs.csi.aws.com";
/// Volume attribute: the host that has the file.
pub const DISK_HOST: &str = "isopod.dev/host";
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const GIB: i128 = 1 << 30;

/// Whether a provisioner's volumes are disks on hosts.
pub fn is_ours(provisioner: &str) -> bool {
    DISK_PROVISIONERS.contains(&provisioner)
}

/// Name of the volume that is made for a claim.
pub fn volume_name(claim: &ObjectMeta) -> String {
    format!("pvc-{}", claim.uid)
}

/// Handle of the disk that is made for a claim, in the form of EBS volume ids.
pub fn disk_handle(claim_uid: &str) -> String {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = claim_uid.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("vol-0{hash:016x}")
}

fn about(claim: &PersistentVolumeClaim) -> Target {
    Target::of::<PersistentVolumeClaim>(&claim.metadata)
}

/// Has a volume made for a claim: here, or by whom its class names.
pub(super) fn provision(claim: &PersistentVolumeClaim, class: &StorageClass, world: World<'_>) -> Plan {
    let mut plan = Plan::nothing();
    if class.provisioner == NO_PROVISIONER {
        let words = format!(
            "no persistent volumes available for this claim and storage class {:?} makes none",
            class.metadata.name
        );
        plan.event(&about(claim), COMPONENT, Reason::normal("FailedBinding", words));
        return plan;
    }
    if claim.metadata.annotations.get(PROVISIONER[0]) != Some(&class.provisioner) {
        let annotations: serde_json::Map<String, Value> =
            PROVISIONER.iter().map(|name| ((*name).to_owned(), json!(class.provisioner))).collect();
        let patch = json!({"metadata": {"annotations": annotations}});
        plan.push(Write::Patch { target: about(claim), subresource: "", patch });
    }
    if !is_ours(&class.provisioner) {
        let words = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
             registered.",
            class.provisioner
        );
        plan.event(&about(claim), COMPONENT, Reason::normal("ExternalProvisioning", words));
        return plan;
    }
    match place(claim, world).and_then(|host| refused(claim).map_or(Ok(host), Err)) {
        Ok(host) => make(&mut plan, claim, class, &host),
        Err(why) => fail(&mut plan, claim, class, &why),
    }
    plan
}

/// Why no disk can be made for a claim.
fn refused(claim: &PersistentVolumeClaim) -> Option<String> {
    if claim.spec.selector.is_some() {
        return Some("claim.Spec.Selector is not supported for dynamic provisioning on disks".into());
    }
    if claim.spec.data_source.is_some() || claim.spec.data_source_ref.is_some() {
        return Some("disks cannot be filled from snapshots or other claims; leave dataSource away".into());
    }
    let single = ["ReadWriteOnce", "ReadWriteOncePod"];
    let mode = claim.spec.access_modes.iter().find(|mode| !single.contains(&mode.as_str()))?;
    Some(format!(
        "access mode {mode} is not supported: a disk is on one node at a time; use ReadWriteOnce, or a file system of efs.csi.aws.com"
    ))
}

/// The host for a claim's disk: its node's, or the one with the fewest bytes on volumes among those that run worker nodes.
fn place(claim: &PersistentVolumeClaim, world: World<'_>) -> Result<String, String> {
    if let Some(name) = claim.metadata.annotations.get(SELECTED_NODE) {
        let node =
            world.nodes.get(&Key::cluster(&**name)).ok_or_else(|| format!("node {name:?} does not exist any more"))?;
        let host = node.metadata.labels.get(HOST_LABEL);
        return host.cloned().ok_or_else(|| {
            format!("node {name:?} is not run by a host of this cluster (it has no label {HOST_LABEL})")
        });
    }
    let works = |host: &str| {
        let on_host =
            world.nodes.values().filter(|node| node.metadata.labels.get(HOST_LABEL).is_some_and(|name| name == host));
        let is_worker = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(COMPUTE_TYPE).is_none_or(|kind| kind != COMPUTE_TYPE_FARGATE)
        };
        on_host.into_iter().any(|node| is_worker(&node.metadata.labels))
    };
    let bytes = |host: &str| {
        let volumes = world.volumes.values().filter(|volume| host_of(volume) == Some(host));
        volumes.map(PersistentVolume::capacity).fold(Quantity::ZERO, Quantity::plus)
    };
    let hosts = world.hosts.values().map(|host| &host.metadata.name);
    let best = hosts.min_by_key(|host| (!works(host), bytes(host), (*host).clone()));
    best.cloned().ok_or_else(|| "no host has joined the cluster".into())
}

/// The host that has a volume's file.
pub fn host_of(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.csi.as_ref()?.volume_attributes.get(DISK_HOST).map(String::as_str)
}

fn make(plan: &mut Plan, claim: &PersistentVolumeClaim, class: &StorageClass, host: &str) {
    let name = volume_name(&claim.metadata);
    let target = Target::named::<PersistentVolume>(Key::cluster(&*name));
    plan.push(Write::Create { target, object: volume_object(claim, class, host), tolerate_existing: true });
    let words = format!("Successfully provisioned volume {name}");
    plan.event(&about(claim), DISK_DRIVER, Reason::normal("ProvisioningSucceeded", words));
}

/// A disk has whole gibibytes.
pub(super) fn size(claim: &PersistentVolumeClaim) -> Quantity {
    let bytes = claim.requested().units_ceil().max(1);
    Quantity::from_units((bytes + GIB - 1) / GIB * GIB)
}

fn volume_object(claim: &PersistentVolumeClaim, class: &StorageClass, host: &str) -> Value {
    let meta = &claim.metadata;
    let file_system = class.parameters.get("csi.storage.k8s.io/fstype").or_else(|| class.parameters.get("fsType"));
    let reference = json!({
        "apiVersion": "v1", "kind": PersistentVolumeClaim::KIND, "namespace": meta.namespace, "name": meta.name,
        "uid": meta.uid, "resourceVersion": meta.resource_version,
    });
    let policy = if class.reclaim_policy.is_empty() { "Delete" } else { &class.reclaim_policy };
    let mode = if claim.spec.volume_mode.is_empty() { "Filesystem" } else { &claim.spec.volume_mode };
    let at_host = json!({"key": HOST_LABEL, "operator": "In", "values": [host]});
    let mut object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": volume_name(meta),
            "annotations": {PROVISIONED_BY: class.provisioner},
            "finalizers": [VOLUME_PROTECTION, DISK_FINALIZER],
        },
        "spec": {
            "capacity": {"storage": size(claim)},
            "accessModes": claim.spec.access_modes,
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": class.metadata.name,
            "volumeMode": mode,
            "claimRef": reference,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [at_host]}]}},
            "csi": {
                "driver": DISK_DRIVER,
                "volumeHandle": disk_handle(&meta.uid),
                "fsType": file_system.map_or("ext4", String::as_str),
                "volumeAttributes": {DISK_HOST: host},
            },
        },
    });
    if !class.mount_options.is_empty() {
        object["spec"]["mountOptions"] = json!(class.mount_options);
    }
    object
}

/// Says why no volume was made; a node that cannot have one is given up so that the pod may go elsewhere.
fn fail(plan: &mut Plan, claim: &PersistentVolumeClaim, class: &StorageClass, why: &str) {
    let words = format!("failed to provision volume with StorageClass {:?}: {why}", class.metadata.name);
    if claim.metadata.annotations.contains_key(SELECTED_NODE) {
        let mut target = about(claim);
        if !plan.writes.is_empty() {
            target.resource_version.clear();
        }
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
        plan.push(Write::Patch { target, subresource: "", patch });
    }
    plan.event(&about(claim), DISK_DRIVER, Reason::warning("ProvisioningFailed", words));
}
