//! The status of a StatefulSet.

use isopod_types::pod::Pod;
use isopod_types::statefulset::{StatefulSet, StatefulSetStatus};
use serde_json::json;

use super::{View, revision_of};
use crate::plan::{Plan, Target, Write};
use crate::replicaset::availability;

/// Counts pods; a finished rolling update makes its revision the current one.
fn counts(view: &View<'_>, pods: &[&Pod]) -> StatefulSetStatus {
    let is_ready = |pod: &Pod| pod.status.phase == "Running" && pod.ready_since().is_some();
    let is_available =
        |pod: &Pod| is_ready(pod) && availability(pod, view.set.spec.min_ready_seconds, view.world.now).is_ok();
    let is_of = |pod: &Pod, revision: &str| !pod.metadata.is_deleting() && revision_of(pod) == revision;
    let count =
        |which: &dyn Fn(&Pod) -> bool| i64::try_from(pods.iter().filter(|pod| which(pod)).count()).unwrap_or(i64::MAX);
    let mut status = StatefulSetStatus {
        observed_generation: view.set.metadata.generation,
        replicas: count(&|_| true),
        ready_replicas: count(&is_ready),
        available_replicas: count(&is_available),
        current_replicas: count(&|pod| is_of(pod, &view.current.0)),
        updated_replicas: count(&|pod| is_of(pod, &view.update)),
        current_revision: view.current.0.clone(),
        update_revision: view.update.clone(),
        collision_count: view.set.status.collision_count,
    };
    let wanted = view.set.spec.replicas;
    let all_new = [status.replicas, status.ready_replicas, status.updated_replicas].iter().all(|n| *n == wanted);
    if all_new && view.set.spec.update_strategy.type_ != "OnDelete" {
        status.current_revision.clone_from(&status.update_revision);
        status.current_replicas = status.updated_replicas;
    }
    status
}

/// Writes the status when it differs from the stored one.
pub(super) fn write(view: &View<'_>, pods: &[&Pod], plan: &mut Plan) {
    let status = counts(view, pods);
    if status != view.set.status {
        let target = Target { resource_version: String::new(), ..Target::of::<StatefulSet>(&view.set.metadata) };
        plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": status}) });
    }
}
