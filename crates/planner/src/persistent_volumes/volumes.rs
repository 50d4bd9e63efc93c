//! What becomes of a volume: it is free, belongs to a claim, or has been left and goes or stays by its policy.

use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::provisioning::{DISK_HOST, is_ours};
use super::{BOUND_BY_CONTROLLER, COMPONENT, DISK_FINALIZER, PROVISIONED_BY};
use crate::plan::{Plan, Reason, Target, Write};

/// Keeps a volume while a claim has it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// A volume that is set aside for a claim nobody has seen is left alone for this long: the claim may be about to be seen.
const UNSEEN: SignedDuration = SignedDuration::from_secs(60);

/// Decides about one volume. `claim` is the object that its reference names, of whatever incarnation; `host_exists` says
/// whether a host exists.
pub fn plan(
    volume: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
    host_exists: &dyn Fn(&str) -> bool,
    now: Timestamp,
) -> Plan {
    if let Some(write) = finalizers(volume, host_exists) {
        return Plan { writes: vec![write], again_at: None };
    }
    if volume.metadata.is_deleting() {
        return end(volume, claim);
    }
    let Some(reference) = &volume.spec.claim_ref else { return phase(volume, "Available") };
    if reference.uid.is_empty() {
        return phase(volume, "Available");
    }
    let own = claim.filter(|claim| claim.metadata.uid == reference.uid);
    match own {
        Some(claim) if claim.spec.volume_name == volume.metadata.name => phase(volume, "Bound"),
        Some(claim) if claim.spec.volume_name.is_empty() => Plan::nothing(),
        Some(_) if volume.metadata.annotations.contains_key(BOUND_BY_CONTROLLER) => unbind(volume),
        Some(_) => release(volume),
        None => left(volume, claim.is_some(), now),
    }
}

/// A volume that was deleted while a claim had it goes once the claim is gone.
fn end(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Plan {
    let uid = volume.spec.claim_ref.as_ref().map_or("", |reference| reference.uid.as_str());
    let is_held = claim.is_some_and(|claim| claim.metadata.uid == uid);
    if is_held || volume.status.phase != "Bound" { Plan::nothing() } else { phase(volume, "Released") }
}

/// The claim is not there, or another has its name.
fn left(volume: &PersistentVolume, is_replaced: bool, now: Timestamp) -> Plan {
    let was_bound = volume.status.phase != "Pending" && volume.status.phase != "Available";
    let seen_at = volume.metadata.creation_timestamp.and_then(|at| at.checked_add(UNSEEN).ok());
    match seen_at.filter(|at| !was_bound && !is_replaced && *at > now) {
        Some(at) => Plan { writes: Vec::new(), again_at: Some(at) },
        None => release(volume),
    }
}

fn patched(volume: &PersistentVolume, subresource: &'static str, patch: Value) -> Plan {
    let target = Target::of::<PersistentVolume>(&volume.metadata);
    Plan { writes: vec![Write::Patch { target, subresource, patch }], again_at: None }
}

fn phase(volume: &PersistentVolume, phase: &str) -> Plan {
    if volume.status.phase == phase {
        return Plan::nothing();
    }
    patched(volume, "status", json!({"status": {"phase": phase, "message": null}}))
}

/// The claim chose another volume: this one is free again.
fn unbind(volume: &PersistentVolume) -> Plan {
    let annotations = json!({BOUND_BY_CONTROLLER: null});
    patched(volume, "", json!({"metadata": {"annotations": annotations}, "spec": {"claimRef": null}}))
}

/// The volume's claim is gone: what was asked for happens to it.
fn release(volume: &PersistentVolume) -> Plan {
    if volume.status.phase == "Failed" {
        return Plan::nothing();
    }
    if volume.status.phase != "Released" {
        return phase(volume, "Released");
    }
    let provisioner = volume.metadata.annotations.get(PROVISIONED_BY).map_or("", String::as_str);
    match volume.spec.persistent_volume_reclaim_policy.as_str() {
        "Delete" if is_ours(provisioner) => {
            let target = Target::of::<PersistentVolume>(&volume.metadata);
            let delete = Write::Delete { target, propagation: None, grace_period_seconds: None };
            Plan { writes: vec![delete], again_at: None }
        }
        // Who made the volume deletes it.
        "Delete" if !provisioner.is_empty() => Plan::nothing(),
        "Delete" => failed(
            volume,
            "VolumeFailedDelete",
            "error getting deleter volume plugin for volume: no volume plugin matched",
        ),
        "Recycle" => {
            failed(volume, "VolumeFailedRecycle", "volumes are not recycled here; use the policy Retain or Delete")
        }
        _ => Plan::nothing(),
    }
}

fn failed(volume: &PersistentVolume, reason: &'static str, words: &str) -> Plan {
    let mut plan = patched(volume, "status", json!({"status": {"phase": "Failed", "message": words}}));
    plan.event(&Target::of::<PersistentVolume>(&volume.metadata), COMPONENT, Reason::warning(reason, words));
    plan
}

/// The volume's finalizers, when they are not what they should be: it is kept while bound, and a disk whose host is gone
/// for good is not waited for.
fn finalizers(volume: &PersistentVolume, host_exists: &dyn Fn(&str) -> bool) -> Option<Write> {
    let meta = &volume.metadata;
    let mut wanted = meta.finalizers.clone();
    if !meta.is_deleting() && !wanted.iter().any(|name| name == VOLUME_PROTECTION) {
        wanted.push(VOLUME_PROTECTION.into());
    }
    if meta.is_deleting() && volume.status.phase != "Bound" {
        wanted.retain(|name| name != VOLUME_PROTECTION);
    }
    let host = volume.spec.csi.as_ref().and_then(|csi| csi.volume_attributes.get(DISK_HOST));
    if meta.is_deleting() && host.is_some_and(|host| !host_exists(host)) {
        wanted.retain(|name| name != DISK_FINALIZER);
    }
    if wanted == meta.finalizers {
        return None;
    }
    let patch = json!({"metadata": {"finalizers": wanted}});
    Some(Write::Patch { target: Target::of::<PersistentVolume>(meta), subresource: "", patch })
}
