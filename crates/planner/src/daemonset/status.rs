//! The status of a DaemonSet.

use isopod_types::daemonset::{DaemonSet, DaemonSetStatus};
use serde_json::json;

use super::View;
use super::nodes::Fit;
use crate::plan::{Plan, Target, Write};
use crate::replicaset::availability;

fn counts(view: &View<'_>) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: view.set.metadata.generation,
        collision_count: view.set.status.collision_count,
        ..DaemonSetStatus::default()
    };
    for place in &view.places {
        if place.fit != Fit::Yes {
            status.number_misscheduled += i64::from(!place.pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(first) = place.pods.first() else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i64::from(place.pods.iter().any(|pod| pod.ready_since().is_some()));
        status.number_available += i64::from(place.pods.iter().any(|pod| view.is_available(pod)));
        let newest = place.pods.iter().find(|pod| view.is_new(pod)).unwrap_or(first);
        status.updated_number_scheduled += i64::from(view.is_new(newest));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}

/// Writes the status when it differs from the stored one; asks to be called when a pod will have been ready long enough.
pub(super) fn write(view: &View<'_>, plan: &mut Plan) {
    let seconds = view.set.spec.min_ready_seconds;
    let pods = view.places.iter().flat_map(|place| &place.pods);
    if let Some(at) = pods.filter_map(|pod| availability(pod, seconds, view.now).err().flatten()).min() {
        plan.wake_at(at);
    }
    let status = counts(view);
    if status != view.set.status {
        let target = Target { resource_version: String::new(), ..Target::of::<DaemonSet>(&view.set.metadata) };
        plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": status}) });
    }
}
