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

use crate::plan::Plan;

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

/// Decides about one Deployment, given the ReplicaSets and pods of its namespace.
pub fn plan(deployment: &Deployment, sets: &[&ReplicaSet], pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut owned: Vec<&ReplicaSet> =
        sets.iter().copied().filter(|set| set.metadata.is_controlled_by(&deployment.metadata.uid)).collect();
    owned.sort_by_key(|set| (set.metadata.creation_timestamp, &set.metadata.name));
    let new = owned.iter().copied().find(|set| sets::same_template(deployment, set));
    let old = owned.iter().copied().filter(|set| new.is_none_or(|new| new.metadata.uid != set.metadata.uid)).collect();
    let pods =
        pods.iter().copied().filter(|pod| owned.iter().any(|set| pod.metadata.is_controlled_by(&set.metadata.uid)));
    let view = View { deployment, new, old, pods: pods.collect(), now };
    if !deployment.metadata.is_deleting() {
        sets::adopt(deployment, sets, &mut plan);
        progress(&view, &mut plan);
    }
    status::write(&view, &mut plan);
    plan
}

/// One step of the rollout.
fn progress(view: &View<'_>, plan: &mut Plan) {
    if rolling::is_scaling_event(view) {
        return rolling::proportionally(view, plan);
    }
    if view.deployment.spec.paused {
        return;
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
    sets::clean_up(view, plan);
}

#[cfg(test)]
mod tests;
