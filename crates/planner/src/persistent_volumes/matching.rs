//! Which volumes would do for a claim.
//!
//! Source: `k8s.io/component-helpers/storage/volume` and the claim binder of kube-controller-manager.

use isopod_types::storage::{ClaimReference, PersistentVolume, PersistentVolumeClaim};

/// Whether a volume is set aside for or bound to a claim.
pub fn is_for(reference: &ClaimReference, claim: &PersistentVolumeClaim) -> bool {
    let meta = &claim.metadata;
    let same = reference.namespace == meta.namespace && reference.name == meta.name;
    same && (reference.uid.is_empty() || reference.uid == meta.uid)
}

fn mode(text: &str) -> &str {
    if text.is_empty() { "Filesystem" } else { text }
}

/// Why a volume named by a claim does not do for it; none when it does.
pub fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    if volume.capacity() < claim.requested() {
        return Some("requested PV is too small");
    }
    if volume.spec.storage_class_name != claim.class() {
        return Some("storageClassName does not match");
    }
    if mode(&volume.spec.volume_mode) != mode(&claim.spec.volume_mode) {
        return Some("incompatible volumeMode");
    }
    let has = |wanted: &String| volume.spec.access_modes.contains(wanted);
    if claim.spec.access_modes.iter().all(has) { None } else { Some("incompatible accessMode") }
}

/// Volumes that would do for a claim, the best first: one set aside for it, then free ones, the smallest first.
pub fn fitting<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a PersistentVolume>,
) -> Vec<&'a PersistentVolume> {
    let would_do = |volume: &&PersistentVolume| {
        if volume.metadata.is_deleting() || mismatch(claim, volume).is_some() {
            return false;
        }
        match &volume.spec.claim_ref {
            Some(reference) => is_for(reference, claim),
            None => {
                let selector = claim.spec.selector.as_ref();
                let selected = selector.is_none_or(|selector| selector.matches(&volume.metadata.labels));
                volume.status.phase == "Available" && selected
            }
        }
    };
    let mut fitting: Vec<&PersistentVolume> = volumes.filter(would_do).collect();
    fitting.sort_by_key(|volume| (volume.spec.claim_ref.is_none(), volume.capacity(), &volume.metadata.name));
    fitting
}
