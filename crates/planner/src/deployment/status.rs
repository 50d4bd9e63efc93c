//! The status of a Deployment and its conditions.

use isopod_types::workload::{Condition, Deployment, DeploymentStatus};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::View;
use crate::plan::{Plan, Target, Write};

fn counts(view: &View<'_>) -> DeploymentStatus {
    let sum = |field: fn(&isopod_types::workload::ReplicaSetStatus) -> i64| {
        view.all().map(|set| field(&set.status)).sum::<i64>()
    };
    let available = sum(|status| status.available_replicas);
    let wanted: i64 = view.all().map(|set| set.spec.replicas).sum::<i64>().max(view.deployment.spec.replicas);
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: sum(|status| status.replicas),
        updated_replicas: view.new.map_or(0, |set| set.status.replicas),
        ready_replicas: sum(|status| status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (wanted - available).max(0),
        collision_count: view.deployment.status.collision_count,
        conditions: view.deployment.status.conditions.clone(),
    }
}

fn is_complete(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let wanted = view.deployment.spec.replicas;
    view.new.is_some()
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

/// Whether the rollout has moved since the last status.
fn has_moved(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let before = &view.deployment.status;
    status.updated_replicas > before.updated_replicas
        || status.replicas - status.updated_replicas < before.replicas - before.updated_replicas
        || status.ready_replicas > before.ready_replicas
        || status.available_replicas > before.available_replicas
}

fn find<'a>(view: &'a View<'_>, type_: &str) -> Option<&'a Condition> {
    view.deployment.status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn condition(type_: &str, status: &str, reason: &str, message: String) -> Condition {
    Condition { type_: type_.into(), status: status.into(), reason: reason.into(), message, ..Condition::default() }
}

fn available(view: &View<'_>, status: &DeploymentStatus) -> Condition {
    if status.available_replicas >= view.deployment.spec.replicas - view.bounds().unavailable {
        return condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
        );
    }
    condition(
        "Available",
        "False",
        "MinimumReplicasUnavailable",
        "Deployment does not have minimum availability.".into(),
    )
}

/// When a rollout that does not move counts as failed.
fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let seconds = view.deployment.spec.progress_deadline_seconds.unwrap_or(600);
    let since = find(view, "Progressing")?.last_update_time?;
    since.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn progressing(view: &View<'_>, status: &DeploymentStatus) -> Option<Condition> {
    let before = find(view, "Progressing");
    if view.deployment.spec.paused {
        return Some(condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into()));
    }
    let Some(new) = view.new else {
        let text = "Created new replica set".to_owned();
        return before.cloned().or_else(|| Some(condition("Progressing", "True", "NewReplicaSetCreated", text)));
    };
    let name = &new.metadata.name;
    if is_complete(view, status) {
        let text = format!("ReplicaSet \"{name}\" has successfully progressed.");
        return Some(condition("Progressing", "True", "NewReplicaSetAvailable", text));
    }
    let finished = before.is_some_and(|c| c.reason == "NewReplicaSetAvailable");
    if has_moved(view, status) || before.is_none() || finished {
        return Some(condition(
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            format!("ReplicaSet \"{name}\" is progressing."),
        ));
    }
    if deadline(view).is_some_and(|at| at <= view.now) {
        let text = format!("ReplicaSet \"{name}\" has timed out progressing.");
        return Some(condition("Progressing", "False", "ProgressDeadlineExceeded", text));
    }
    before.cloned()
}

/// Puts a condition into the list; times change only when something did.
fn merge(conditions: &mut Vec<Condition>, mut new: Condition, moved: bool, now: Timestamp) {
    let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == new.type_) else {
        (new.last_update_time, new.last_transition_time) = (Some(now), Some(now));
        return conditions.push(new);
    };
    let same = old.status == new.status && old.reason == new.reason;
    new.last_transition_time = if old.status == new.status { old.last_transition_time } else { Some(now) };
    new.last_update_time = if same && !moved { old.last_update_time } else { Some(now) };
    *old = new;
}

/// Writes the status when it differs from the stored one.
pub(super) fn write(view: &View<'_>, plan: &mut Plan) {
    let mut status = counts(view);
    let moved = has_moved(view, &status);
    if let Some(condition) = progressing(view, &status) {
        let waiting = condition.reason == "ReplicaSetUpdated";
        merge(&mut status.conditions, condition, moved, view.now);
        if let Some(at) = deadline(view).filter(|at| waiting && *at > view.now) {
            plan.wake_at(at);
        }
    }
    let condition = available(view, &status);
    merge(&mut status.conditions, condition, false, view.now);
    if status != view.deployment.status {
        let target = Target { resource_version: String::new(), ..Target::of::<Deployment>(&view.deployment.metadata) };
        plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": status}) });
    }
}
