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
        terminating_replicas: view.all().filter_map(|set| set.status.terminating_replicas).reduce(|a, b| a + b),
        collision_count: view.deployment.status.collision_count,
        conditions: view.deployment.status.conditions.clone(),
    }
}

/// Whether all pods are of the current template and available, and none is too many.
pub(super) fn is_complete(view: &View<'_>) -> bool {
    has_completed(view, &counts(view))
}

fn has_completed(view: &View<'_>, status: &DeploymentStatus) -> bool {
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

/// Whether rollouts have a time in which they must move.
fn has_deadline(view: &View<'_>) -> bool {
    view.deployment.spec.progress_deadline_seconds.is_none_or(|seconds| seconds < i64::from(i32::MAX))
}

fn progressing(view: &View<'_>, status: &DeploymentStatus) -> Option<Condition> {
    let before = find(view, "Progressing");
    if let Some(condition) = paused_or_resumed(view, before) {
        return Some(condition);
    }
    let Some(new) = view.new else {
        let text = format!("Created new replica set {:?}", super::new_set_name(view.deployment));
        return Some(condition("Progressing", "True", "NewReplicaSetCreated", text));
    };
    let name = &new.metadata.name;
    if before.is_some_and(|c| c.reason == "NewReplicaSetAvailable") && status.replicas == status.updated_replicas {
        // What follows a rollout is scaling, which is no progress to be watched.
        return before.cloned();
    }
    if has_completed(view, status) {
        let text = format!("ReplicaSet \"{name}\" has successfully progressed.");
        return Some(condition("Progressing", "True", "NewReplicaSetAvailable", text));
    }
    let finished = before.is_some_and(|c| c.reason == "NewReplicaSetAvailable");
    if has_moved(view, status) || finished {
        let text = format!("ReplicaSet \"{name}\" is progressing.");
        return Some(condition("Progressing", "True", "ReplicaSetUpdated", text));
    }
    if before.is_none() {
        let text = format!("Found new replica set {name:?}");
        return Some(condition("Progressing", "True", "FoundNewReplicaSet", text));
    }
    if deadline(view).is_some_and(|at| at <= view.now) {
        let text = format!("ReplicaSet \"{name}\" has timed out progressing.");
        return Some(condition("Progressing", "False", "ProgressDeadlineExceeded", text));
    }
    before.cloned()
}

/// A held rollout does not count the time; it begins anew when the hold ends.
fn paused_or_resumed(view: &View<'_>, before: Option<&Condition>) -> Option<Condition> {
    const PAUSED: &str = "DeploymentPaused";
    let was = before.is_some_and(|condition| condition.reason == PAUSED);
    match (view.deployment.spec.paused, was) {
        (true, _) => Some(condition("Progressing", "Unknown", PAUSED, "Deployment is paused".into())),
        (false, true) => Some(condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into())),
        (false, false) => None,
    }
}

/// What keeps a set from making pods, the current template's first.
fn failure(view: &View<'_>) -> Option<Condition> {
    let sets = view.new.into_iter().chain(view.old.iter().copied());
    let mut found = sets.flat_map(|set| &set.status.conditions);
    found.find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True").cloned()
}

/// The name of the current template's set is taken by another: the next has another name.
pub(super) fn collided(deployment: &Deployment, plan: &mut Plan) {
    let count = deployment.status.collision_count.unwrap_or(0) + 1;
    let target = Target::of::<Deployment>(&deployment.metadata);
    plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": {"collisionCount": count}}) });
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
    if !has_deadline(view) {
        status.conditions.retain(|condition| condition.type_ != "Progressing");
    } else if let Some(condition) = progressing(view, &status) {
        const WAITING: &[&str] =
            &["ReplicaSetUpdated", "NewReplicaSetCreated", "FoundNewReplicaSet", "DeploymentResumed"];
        let waiting = WAITING.contains(&&*condition.reason);
        merge(&mut status.conditions, condition, moved, view.now);
        if let Some(at) = deadline(view).filter(|at| waiting && *at > view.now) {
            plan.wake_at(at);
        }
    }
    let condition = available(view, &status);
    merge(&mut status.conditions, condition, false, view.now);
    match failure(view) {
        Some(condition) => merge(&mut status.conditions, condition, false, view.now),
        None => status.conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    if status != view.deployment.status {
        let target = Target { resource_version: String::new(), ..Target::of::<Deployment>(&view.deployment.metadata) };
        plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": status}) });
    }
}
