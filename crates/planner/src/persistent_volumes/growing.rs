//! Claims that ask for more than they have: the volume's object grows first, the file system when a machine next takes the disk.
//!
//! Source: the resizer that goes with CSI drivers, and the expansion controller of kube-controller-manager.

use isopod_types::Object;
use isopod_types::pod::PodCondition;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim};
use jiff::Timestamp;
use serde_json::json;

use super::DISK_FINALIZER;
use super::provisioning::size;
use crate::plan::{Plan, Reason, Target, Write};

/// The volume's object is being made larger.
pub const RESIZING: &str = "Resizing";
/// The file system is yet to be made larger.
pub const FILE_SYSTEM_PENDING: &str = "FileSystemResizePending";
const COMPONENT: &str = "volume_expand";

/// What a bound claim lacks of what it asks for; nothing when the volume is not a disk of ours, which somebody else makes larger.
pub(super) fn grow(claim: &PersistentVolumeClaim, volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    let ours = volume.metadata.finalizers.iter().any(|finalizer| finalizer == DISK_FINALIZER);
    let wanted = size(claim);
    if !ours || claim.requested() <= claim.capacity() || claim.status.capacity.is_empty() {
        return;
    }
    if wanted > volume.capacity() {
        condition(claim, (RESIZING, ""), now, plan);
        let patch = json!({"spec": {"capacity": {"storage": wanted}}});
        plan.push(Write::Patch { target: Target::of::<PersistentVolume>(volume.meta()), subresource: "", patch });
        return;
    }
    let words = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
    if condition(claim, (FILE_SYSTEM_PENDING, words), now, plan) {
        let target = Target::of::<PersistentVolumeClaim>(claim.meta());
        let text = "Require file system resize of volume on node";
        plan.event(&target, COMPONENT, Reason::normal("FileSystemResizeRequired", text));
    }
}

/// Says at which step a claim is, in place of the step before; false when it says so already.
fn condition(claim: &PersistentVolumeClaim, (step, message): (&str, &str), now: Timestamp, plan: &mut Plan) -> bool {
    let mut conditions = claim.status.conditions.clone();
    if conditions.iter().any(|one| one.type_ == step && one.status == "True") {
        return false;
    }
    conditions.retain(|one| one.type_ != RESIZING && one.type_ != FILE_SYSTEM_PENDING);
    conditions.push(PodCondition {
        type_: step.into(),
        status: "True".into(),
        last_transition_time: Some(now),
        message: message.into(),
        ..PodCondition::default()
    });
    let target = Target::of::<PersistentVolumeClaim>(claim.meta());
    plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": {"conditions": conditions}}) });
    true
}

/// The status of a claim whose file system has the volume's size.
pub fn grown(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> serde_json::Value {
    let mut conditions = claim.status.conditions.clone();
    conditions.retain(|one| one.type_ != RESIZING && one.type_ != FILE_SYSTEM_PENDING);
    json!({"status": {"capacity": {"storage": volume.capacity()}, "conditions": conditions}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_volume_grows_before_the_file_system() {
        let claim = |asked: &str, has: &str, step: &str| -> PersistentVolumeClaim {
            let conditions = if step.is_empty() { json!([]) } else { json!([{"type": step, "status": "True"}]) };
            let capacity = if has.is_empty() { json!({}) } else { json!({"storage": has}) };
            let status = json!({"phase": "Bound", "capacity": capacity, "conditions": conditions});
            let spec = json!({"resources": {"requests": {"storage": asked}}, "volumeName": "v"});
            serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": spec, "status": status}))
                .unwrap()
        };
        let volume = |has: &str, finalizer: &str| -> PersistentVolume {
            let metadata = json!({"name": "v", "finalizers": [finalizer]});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"capacity": {"storage": has}}})).unwrap()
        };
        for (asked, has, step, size, finalizer, expected) in [
            ("1Gi", "1Gi", "", "1Gi", DISK_FINALIZER, vec![]),
            ("25Mi", "1Gi", "", "1Gi", DISK_FINALIZER, vec![]),
            ("2Gi", "1Gi", "", "1Gi", DISK_FINALIZER, vec!["Resizing", "2Gi"]),
            ("1500Mi", "1Gi", RESIZING, "1Gi", DISK_FINALIZER, vec!["2Gi"]),
            ("2Gi", "1Gi", RESIZING, "2Gi", DISK_FINALIZER, vec![FILE_SYSTEM_PENDING]),
            ("2Gi", "1Gi", FILE_SYSTEM_PENDING, "2Gi", DISK_FINALIZER, vec![]),
            ("3Gi", "1Gi", FILE_SYSTEM_PENDING, "2Gi", DISK_FINALIZER, vec!["Resizing", "3Gi"]),
            ("2Gi", "1Gi", "", "1Gi", "another", vec![]),
            ("2Gi", "", "", "1Gi", DISK_FINALIZER, vec![]),
        ] {
            let mut plan = Plan::nothing();
            grow(&claim(asked, has, step), &volume(size, finalizer), Timestamp::UNIX_EPOCH, &mut plan);
            let told: Vec<&str> = plan
                .writes
                .iter()
                .filter_map(|write| match write {
                    Write::Patch { patch, subresource: "status", .. } => {
                        patch["status"]["conditions"][0]["type"].as_str()
                    }
                    Write::Patch { patch, .. } => patch["spec"]["capacity"]["storage"].as_str(),
                    _ => None,
                })
                .collect();
            assert_eq!(told, expected, "{asked} {has} {step} {size}");
        }
        let done = grown(&claim("2Gi", "1Gi", FILE_SYSTEM_PENDING), &volume("2Gi", DISK_FINALIZER));
        let expected: Value = json!({"status": {"capacity": {"storage": "2Gi"}, "conditions": []}});
        assert_eq!(done, expected);
    }
}
