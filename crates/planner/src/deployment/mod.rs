//! Deployments: roll ReplicaSets from one template to the next within bounds.
//!
//! Source: the documented behaviour of upstream's Deployment controller (bounds, proportional scaling, revisions,
//! conditions). `rolling` decides numbers, `sets` makes ReplicaSets, `status` reports.

mod rolling;
mod sets;
mod status;

use isopod_types::pod::Pod;
use isopod_types::workload::{Deployment, ReplicaSet};
use jiff::Timestamp;

use crate::claims::Claimer;
use crate::plan::Plan;

pub use sets::new_set_name;

const COMPONENT: &str = "deployment-controller";

/// A Deployment with what belongs to it.
struct View<'a> {
    deployment: &'a Deployment,
    /// The set of the current template, if there is one.
    new: Option<&'a ReplicaSet>,
    /// Sets of other templates, oldest first.
    old: Vec<&'a ReplicaSet>,
    pods: Vec<&'a Pod>,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.old.iter().copied().chain(self.new)
    }

    /// Pods above and below the wanted number that a rollout may have.
    fn bounds(&self) -> rolling::Bounds {
        rolling::Bounds::of(&self.deployment.spec)
    }
}

/// Decides about one Deployment, given ReplicaSets that it controls, that nobody controls, or that have the name the set of its
/// template would get, and the pods of those sets.
pub fn plan(deployment: &Deployment, sets: &[&ReplicaSet], pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut owned = Claimer::of(deployment, &deployment.spec.selector).claim(sets, |_| true, &mut plan);
    owned.sort_by_key(|set| (set.metadata.creation_timestamp, &set.metadata.name));
    let new = owned.iter().copied().find(|set| sets::same_template(deployment, set));
    let old = owned.iter().copied().filter(|set| new.is_none_or(|new| new.metadata.uid != set.metadata.uid)).collect();
    let pods =
        pods.iter().copied().filter(|pod| owned.iter().any(|set| pod.metadata.is_controlled_by(&set.metadata.uid)));
    let view = View { deployment, new, old, pods: pods.collect(), now };
    if !deployment.metadata.is_deleting() {
        if view.new.is_none() && sets::is_taken(deployment, sets) {
            status::collided(deployment, &mut plan);
            return plan;
        }
        progress(&view, &mut plan);
    }
    status::write(&view, &mut plan);
    plan
}

/// One step of the rollout.
fn progress(view: &View<'_>, plan: &mut Plan) {
    if view.deployment.spec.paused || rolling::is_scaling_event(view) {
        return rolling::proportionally(view, plan);
    }
    match view.new {
        None => sets::create(view, plan),
        Some(new) => sets::refresh(view, new, plan),
    }
    if let Some(new) = view.new {
        match view.deployment.spec.strategy.type_.as_str() {
            "Recreate" => rolling::recreate(view, new, plan),
            _ => rolling::roll(view, new, plan),
        }
    }
    if status::is_complete(view) {
        sets::clean_up(view, plan);
    }
}

#[cfg(test)]
mod tests;
