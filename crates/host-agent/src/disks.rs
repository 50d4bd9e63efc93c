//! Disks of claims: found by the claim, made when a pod first needs them, deleted when their volume's object goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use isopod_planner::Reason;
use isopod_planner::persistent_volumes::{DISK_FINALIZER, growing};
use isopod_planner::volumes::{Content, VolumeContent};
use isopod_types::names::HOST_LABEL;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use crate::actor::Deed;
use crate::agent::Context;
use crate::drivers::Machine;

/// Puts the disks of a pod's claims into its machine. Returns the slots by claim.
///
/// # Errors
/// What to tell the user.
pub(crate) async fn attach(
    deed: &Deed,
    machine: &dyn Machine,
    contents: &[VolumeContent],
) -> Result<BTreeMap<String, u32>, String> {
    let mut slots = BTreeMap::new();
    for content in contents {
        let Content::Claim { name, .. } = &content.source else { continue };
        let slot = attach_one(deed, machine, name).await;
        let slot =
            slot.map_err(|problem| format!("AttachVolume.Attach failed for volume {:?}: {problem}", content.name))?;
        slots.insert(name.clone(), slot);
    }
    Ok(slots)
}

async fn attach_one(deed: &Deed, machine: &dyn Machine, claim: &str) -> Result<u32, String> {
    let api = &deed.context.api;
    let namespace = &deed.pod.metadata.namespace;
    let uri = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
    let found = api.find::<PersistentVolumeClaim>(&uri).await.map_err(|error| error.to_string())?;
    let found = found.ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
    let name = &found.spec.volume_name;
    let uri = format!("/api/v1/persistentvolumes/{name}");
    let volume = api.find::<PersistentVolume>(&uri).await.map_err(|error| error.to_string())?;
    let volume = volume.ok_or_else(|| format!("persistentvolumeclaim {claim:?} has no volume yet"))?;
    let handle = handle(&volume).ok_or_else(|| format!("persistentvolume {name:?} is not a disk of this host"))?;
    let size = u64::try_from(volume.capacity().units_ceil()).unwrap_or(0);
    let disk = deed.context.drivers.volume(handle, size).await.map_err(|error| format!("{error:#}"))?;
    claim_alone(deed, machine, name, &disk).await?;
    let attached = machine.attach_volume(disk, size).await.map_err(|error| format!("{error:#}"))?;
    if attached.size_bytes >= size && found.capacity() < volume.capacity() {
        tell_size(deed, &found, &volume).await;
    }
    Ok(attached.slot)
}

/// The file system has the size that the volume's object says: so has the claim.
async fn tell_size(deed: &Deed, claim: &PersistentVolumeClaim, volume: &PersistentVolume) {
    let (namespace, name) = (&claim.metadata.namespace, &claim.metadata.name);
    let uri = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}/status");
    if let Err(error) = deed.context.api.patch(&uri, &growing::grown(claim, volume)).await {
        tracing::error!(claim = name, %error, "the size of a claim was not told");
        return;
    }
    let text = format!("MountVolume.NodeExpandVolume succeeded for volume {:?}", volume.metadata.name);
    deed.event(None, Reason::normal("FileSystemResizeSuccessful", text)).await;
}

/// Waits until no other machine has the disk, and says that it waits.
async fn claim_alone(deed: &Deed, machine: &dyn Machine, volume: &str, disk: &Path) -> Result<(), String> {
    let (disks, of, pod) = (&deed.context.disks, deed.machine_id(), &deed.pod.metadata.uid);
    if let Err(other) = disks.take(disk, &of, pod) {
        tracing::info!(volume, other, "a disk is in another machine");
        let text = format!(
            "Multi-Attach error for volume {volume:?} Volume is already exclusively attached to one node and can't be attached to another"
        );
        deed.event(None, Reason::warning("FailedAttachVolume", text)).await;
    }
    tokio::select! {
        biased;
        cause = machine.exited() => Err(cause),
        () = disks.wait(disk, &of, pod) => Ok(()),
    }
}

/// The name of a volume's disk, if it has one of ours.
fn handle(volume: &PersistentVolume) -> Option<&str> {
    let ours = volume.metadata.finalizers.iter().any(|finalizer| finalizer == DISK_FINALIZER);
    volume.spec.csi.as_ref().filter(|_| ours).map(|csi| csi.volume_handle.as_str())
}

/// Whether a volume's disk is to be deleted here: its object waits for nothing else.
fn is_to_go(volume: &PersistentVolume, host: &str) -> bool {
    let [only] = &volume.metadata.finalizers[..] else { return false };
    let affinity = volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let mut terms = affinity.iter().flat_map(|selector| &selector.node_selector_terms);
    let here = terms.any(|term| {
        term.match_expressions
            .iter()
            .any(|rule| rule.key == HOST_LABEL && rule.values.iter().any(|value| value == host))
    });
    volume.metadata.is_deleting() && only == DISK_FINALIZER && here
}

/// A volume's object changed: when it goes, so does the disk, and then the object.
pub(crate) fn changed(context: &Arc<Context>, volume: PersistentVolume) {
    if !is_to_go(&volume, &context.host) {
        return;
    }
    let context = context.clone();
    tokio::spawn(async move {
        let Some(handle) = handle(&volume) else { return };
        let name = &volume.metadata.name;
        if let Err(error) = context.drivers.delete_volume(handle).await {
            tracing::error!(volume = name, error = format!("{error:#}"), "a volume's disk cannot be deleted");
            return;
        }
        let patch = json!({"metadata": {"uid": volume.metadata.uid, "finalizers": null}});
        if let Err(error) = context.api.patch(&format!("/api/v1/persistentvolumes/{name}"), &patch).await {
            tracing::error!(volume = name, %error, "a volume whose disk is gone cannot be let go");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_go_with_their_volumes_on_their_own_host() {
        for (finalizers, deleting, host, expected) in [
            (json!([DISK_FINALIZER]), true, "h1", true),
            (json!([DISK_FINALIZER]), false, "h1", false),
            (json!([DISK_FINALIZER]), true, "h2", false),
            (json!([DISK_FINALIZER, "kubernetes.io/pv-protection"]), true, "h1", false),
            (json!([]), true, "h1", false),
        ] {
            let terms = json!([{"matchExpressions": [{"key": HOST_LABEL, "operator": "In", "values": ["h1"]}]}]);
            let volume: PersistentVolume = serde_json::from_value(json!({
                "metadata": {"name": "v", "finalizers": finalizers, "deletionTimestamp": deleting.then_some("1970-01-01T00:00:00Z")},
                "spec": {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
            }))
            .unwrap();
            assert_eq!(is_to_go(&volume, host), expected, "{volume:?}");
        }
    }
}
