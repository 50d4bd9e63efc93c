//! Claims and volumes: who gets which, in two steps that a crash cannot tear apart, and what becomes of volumes after.
//!
//! Source: the persistent volume controller of kube-controller-manager.

pub mod claims;
pub mod ephemeral;
pub mod growing;
pub mod matching;
pub mod provisioning;
#[cfg(test)]
mod tests;
pub mod volumes;

use isopod_types::Object;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use crate::plan::{Target, Write};

/// Who says what becomes of claims and volumes.
pub const COMPONENT: &str = "persistentvolume-controller";
/// Volume annotation: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Keeps a volume's object until its host has removed the file.
pub const DISK_FINALIZER: &str = "isopod.dev/disk";
/// Provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Claim annotation: the node at which a volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Claim annotation: both sides know of each other.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of claim or volume: the controller chose, so the controller may undo.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// Whether claim and volume know of each other.
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    !claim.spec.volume_name.is_empty() && claim.metadata.annotations.contains_key(BIND_COMPLETED)
}

fn claim_reference(claim: &PersistentVolumeClaim) -> Value {
    let meta = &claim.metadata;
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace, "name": meta.name,
        "uid": meta.uid, "resourceVersion": meta.resource_version,
    })
}

/// Sets a volume aside for a claim; none when it is already.
pub fn volume_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Write> {
    let reference = volume.spec.claim_ref.as_ref();
    if reference.is_some_and(|reference| reference.uid == claim.metadata.uid) {
        return None;
    }
    let mut patch = json!({"spec": {"claimRef": claim_reference(claim)}});
    if reference.is_none() {
        patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
    }
    Some(Write::Patch { target: Target::of::<PersistentVolume>(volume.meta()), subresource: "", patch })
}

/// Asks for a volume at a node; none when it is asked for already.
pub fn selecting(claim: &PersistentVolumeClaim, node: &str) -> Option<Write> {
    if claim.metadata.annotations.get(SELECTED_NODE).is_some_and(|selected| selected == node) {
        return None;
    }
    let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
    Some(Write::Patch { target: Target::of::<PersistentVolumeClaim>(claim.meta()), subresource: "", patch })
}
