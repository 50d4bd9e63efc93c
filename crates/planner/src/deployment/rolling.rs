//! The numbers of a rollout.

use std::cmp::Reverse;

use isopod_types::names::{DESIRED_REPLICAS_ANNOTATION, MAX_REPLICAS_ANNOTATION};
use isopod_types::workload::{DeploymentSpec, IntOrPercent, ReplicaSet};

use super::{View, sets};
use crate::plan::Plan;

/// Pods above and below the wanted number that a rollout may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) surge: i64,
    pub(super) unavailable: i64,
}

impl Bounds {
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        if spec.strategy.type_ == "Recreate" {
            return Self { surge: 0, unavailable: spec.replicas };
        }
        let rolling = spec.strategy.rolling_update.clone().unwrap_or_default();
        let quarter = || IntOrPercent::Percent("25%".into());
        let surge = rolling.max_surge.unwrap_or_else(quarter).of(spec.replicas, true);
        let unavailable = rolling.max_unavailable.unwrap_or_else(quarter).of(spec.replicas, false).min(spec.replicas);
        // Both zero would never move.
        if surge == 0 && unavailable == 0 { Self { surge, unavailable: 1 } } else { Self { surge, unavailable } }
    }
}

fn total(view: &View<'_>) -> i64 {
    view.all().map(|set| set.spec.replicas).sum()
}

/// The size of the current template's set, which has `current` pods now.
pub(super) fn new_set_size(view: &View<'_>, current: i64) -> i64 {
    let wanted = view.deployment.spec.replicas;
    if view.deployment.spec.strategy.type_ == "Recreate" {
        return if view.old.iter().all(|set| set.spec.replicas == 0 && set.status.replicas == 0) {
            wanted
        } else {
            current
        };
    }
    let room = wanted + view.bounds().surge - total(view);
    wanted.min(current + room.max(0))
}

/// A step of a rolling update: the new set grows, then the old ones shrink.
pub(super) fn roll(view: &View<'_>, new: &ReplicaSet, plan: &mut Plan) {
    let wanted = view.deployment.spec.replicas;
    let size = if new.spec.replicas > wanted { wanted } else { new_set_size(view, new.spec.replicas) };
    sets::resize(view, new, size, plan);
    if new.spec.replicas != size {
        return;
    }
    shrink_old(view, new, plan);
}

/// Removes old pods as far as enough pods stay available: unhealthy ones first, then the oldest set's.
fn shrink_old(view: &View<'_>, new: &ReplicaSet, plan: &mut Plan) {
    let must_have = view.deployment.spec.replicas - view.bounds().unavailable;
    let new_unavailable = new.spec.replicas - new.status.available_replicas;
    let mut surplus = total(view) - must_have - new_unavailable;
    if surplus <= 0 {
        return;
    }
    let mut sizes: Vec<i64> = view.old.iter().map(|set| set.spec.replicas).collect();
    for (size, set) in sizes.iter_mut().zip(&view.old) {
        let unhealthy = (*size - set.status.available_replicas).clamp(0, surplus);
        *size -= unhealthy;
        surplus -= unhealthy;
    }
    let available: i64 = view.all().map(|set| set.status.available_replicas).sum();
    let mut spare = (available - must_have).clamp(0, surplus);
    for size in &mut sizes {
        let cut = (*size).min(spare);
        *size -= cut;
        spare -= cut;
    }
    for (size, set) in sizes.into_iter().zip(&view.old).filter(|(_, set)| set.spec.replicas > 0) {
        sets::resize(view, set, size, plan);
    }
}

/// Recreate: first all old pods go, then the new ones come.
pub(super) fn recreate(view: &View<'_>, new: &ReplicaSet, plan: &mut Plan) {
    for set in view.old.iter().filter(|set| set.spec.replicas > 0) {
        sets::resize(view, set, 0, plan);
    }
    let old_left = view.pods.iter().any(|pod| !pod.metadata.is_controlled_by(&new.metadata.uid) && !pod.is_terminal());
    if !old_left && view.old.iter().all(|set| set.spec.replicas == 0) {
        sets::resize(view, new, view.deployment.spec.replicas, plan);
    }
}

fn annotated(set: &ReplicaSet, key: &str) -> Option<i64> {
    set.metadata.annotations.get(key)?.parse().ok()
}

/// Whether the wanted number changed since the sets were last sized.
pub(super) fn is_scaling_event(view: &View<'_>) -> bool {
    let active = view.all().filter(|set| set.spec.replicas > 0);
    active
        .into_iter()
        .any(|set| annotated(set, DESIRED_REPLICAS_ANNOTATION).is_some_and(|n| n != view.deployment.spec.replicas))
}

/// Spreads a change of the wanted number over the sets in proportion to their sizes.
pub(super) fn proportionally(view: &View<'_>, plan: &mut Plan) {
    let mut active: Vec<&ReplicaSet> = view.all().filter(|set| set.spec.replicas > 0).collect();
    let wanted = view.deployment.spec.replicas;
    let only = match active[..] {
        [] => view.new.or_else(|| view.old.last().copied()),
        [only] => Some(only),
        _ => None,
    };
    if let Some(only) = only {
        return sets::resize(view, only, wanted, plan);
    }
    if view.new.is_some_and(|new| is_saturated(new, wanted)) {
        let old = view.old.iter().filter(|set| set.spec.replicas > 0);
        return old.for_each(|set| sets::resize(view, set, 0, plan));
    }
    if active.is_empty() || view.deployment.spec.strategy.type_ == "Recreate" {
        return;
    }
    let allowed = if wanted > 0 { wanted + view.bounds().surge } else { 0 };
    let to_add = allowed - total(view);
    // Of sets of one size the newer grow first, and the older shrink first.
    let age = |set: &ReplicaSet| set.metadata.creation_timestamp.map_or(0, |made| made.as_second());
    active.sort_by_key(|set| (Reverse(set.spec.replicas), if to_add > 0 { -age(set) } else { age(set) }));
    let (mut sizes, mut added) = (Vec::new(), 0);
    for set in &active {
        let share = if to_add == added { 0 } else { bounded(share(view, set, wanted), to_add, to_add - added) };
        sizes.push(set.spec.replicas + share);
        added += share;
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        sets::resize(view, set, size, plan);
    }
}

/// Whether the set of the current template has all pods that are wanted, and they are available.
fn is_saturated(new: &ReplicaSet, wanted: i64) -> bool {
    let desired = annotated(new, DESIRED_REPLICAS_ANNOTATION);
    new.spec.replicas == wanted && desired == Some(wanted) && new.status.available_replicas == wanted
}

/// A share that takes no more than is left.
fn bounded(share: i64, to_add: i64, left: i64) -> i64 {
    match to_add {
        0 => 0,
        1.. => share.min(left),
        _ => share.max(left),
    }
}

/// A set's proportional part of a change to `wanted` pods and the surge, rounded to nearest.
fn share(view: &View<'_>, set: &ReplicaSet, wanted: i64) -> i64 {
    if wanted == 0 {
        return -set.spec.replicas;
    }
    let before = annotated(set, MAX_REPLICAS_ANNOTATION).filter(|n| *n > 0).unwrap_or(view.deployment.status.replicas);
    if before <= 0 {
        return 0;
    }
    let scaled = 2 * set.spec.replicas * (wanted + view.bounds().surge) + before;
    scaled.div_euclid(2 * before) - set.spec.replicas
}
