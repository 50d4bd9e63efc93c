//! StatefulSets: pods with a number, a name and claims that stay theirs.
//!
//! Source: the documented behaviour of upstream's StatefulSet controller. `identity` makes pods, `storage` their claims,
//! `status` reports; here it is decided which pod comes, goes or is replaced.

mod identity;
mod status;
mod storage;

use isopod_types::pod::Pod;
use isopod_types::statefulset::{ControllerRevision, StatefulSet};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::claims::Claimer;
use crate::plan::{Plan, Target, Write};
use crate::replicaset::availability;
use crate::revisions::{CONTROLLER_REVISION_HASH, History, Newest, name, template_of};

pub use storage::{Claim, owns_claim};

/// A StatefulSet and what may belong to it.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// Pods that it controls or that nobody controls.
    pub pods: &'a [&'a Pod],
    /// Revisions that it controls, that nobody controls, or that have the name the template's revision would get.
    pub revisions: &'a [&'a ControllerRevision],
    /// Claims of the namespace that bear the name of a claim of the set.
    pub claims: &'a [&'a Claim],
    /// The time.
    pub now: Timestamp,
}

/// The name that the revision of the set's template gets.
pub fn revision_name(set: &StatefulSet) -> String {
    name(&set.metadata.name, &set.spec.template, set.status.collision_count)
}

/// A StatefulSet with what belongs to it, in order.
struct View<'a> {
    world: World<'a>,
    set: &'a StatefulSet,
    /// Revision of the pods below the partition, and its template.
    current: (String, Value),
    /// Revision of the set's template.
    update: String,
    /// Pods by ordinal: those that should be there, first to last.
    slots: Vec<(i64, Option<&'a Pod>)>,
    /// Pods that are too many, highest ordinal first.
    condemned: Vec<(i64, &'a Pod)>,
}

/// Running, ready and not on its way out.
fn is_healthy(pod: &Pod) -> bool {
    pod.status.phase == "Running" && pod.ready_since().is_some() && !pod.metadata.is_deleting()
}

/// The revision a pod was made from.
fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.get(CONTROLLER_REVISION_HASH).map_or("", String::as_str)
}

impl<'a> View<'a> {
    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy != "Parallel"
    }

    /// Whether a pod is healthy and has been for `minReadySeconds`; asks to be called when it will have been.
    fn is_available(&self, pod: &Pod, plan: &mut Plan) -> bool {
        let available = availability(pod, self.set.spec.min_ready_seconds, self.world.now);
        if let Err(Some(at)) = available {
            plan.wake_at(at);
        }
        is_healthy(pod) && available.is_ok()
    }

    fn target(&self) -> Target {
        Target::of::<StatefulSet>(&self.set.metadata)
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        let target = Target::of::<Pod>(&pod.metadata);
        plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
        let text = format!("delete Pod {} in StatefulSet {} successful", pod.metadata.name, self.set.metadata.name);
        plan.event(&self.target(), COMPONENT, crate::Reason::normal("SuccessfulDelete", text));
    }
}

const COMPONENT: &str = "statefulset-controller";

/// Decides about one StatefulSet.
pub fn plan(world: World<'_>) -> Plan {
    let mut plan = Plan::nothing();
    let set = world.set;
    let claimer = Claimer::of(set, &set.spec.selector);
    let pods = claimer.claim(world.pods, |pod| identity::ordinal(set, &pod.metadata.name).is_some(), &mut plan);
    let revisions = claimer.claim(world.revisions, |_| true, &mut plan);
    let is_strange = |name: &str| {
        let named = |revision: &&&ControllerRevision| revision.metadata.name == name;
        world
            .revisions
            .iter()
            .find(named)
            .is_some_and(|found| !revisions.iter().any(|mine| mine.metadata.uid == found.metadata.uid))
    };
    let history = History::of(revisions.clone());
    let update = match history.newest(set, &set.spec.template, set.status.collision_count, is_strange, &mut plan) {
        Newest::Known(revision) => revision.metadata.name.clone(),
        // The new revision enters the cache, and the set is looked at anew.
        Newest::Made => return plan,
        Newest::Collision => return collided(set),
    };
    let current = match history.named(&set.status.current_revision) {
        Some(revision) => (revision.metadata.name.clone(), template_of(revision)),
        None => (update.clone(), set.spec.template.clone()),
    };
    let view = arrange(world, current, update, &pods);
    status::write(&view, &pods, &mut plan);
    if !set.metadata.is_deleting() {
        progress(&view, &mut plan);
        let live = |revision: &ControllerRevision| {
            let name = &revision.metadata.name;
            *name == view.current.0 || *name == view.update || pods.iter().any(|pod| revision_of(pod) == name)
        };
        history.clean_up(live, set.spec.revision_history_limit, &mut plan);
    }
    plan
}

fn collided(set: &StatefulSet) -> Plan {
    let mut plan = Plan::nothing();
    let patch = json!({"status": {"collisionCount": set.status.collision_count + 1}});
    plan.push(Write::Patch { target: Target::of::<StatefulSet>(&set.metadata), subresource: "status", patch });
    plan
}

fn arrange<'a>(world: World<'a>, current: (String, Value), update: String, pods: &[&'a Pod]) -> View<'a> {
    let set = world.set;
    let start = set.spec.ordinals.start;
    let end = start + set.spec.replicas.max(0);
    let mut slots: Vec<(i64, Option<&Pod>)> = (start..end).map(|ordinal| (ordinal, None)).collect();
    let mut condemned = Vec::new();
    for pod in pods {
        let Some(ordinal) = identity::ordinal(set, &pod.metadata.name) else { continue };
        let slot = usize::try_from(ordinal - start).ok().and_then(|index| slots.get_mut(index));
        match slot {
            Some(slot) => slot.1 = Some(pod),
            None => condemned.push((ordinal, *pod)),
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    View { world, set, current, update, slots, condemned }
}

/// One step towards the wanted pods: first all that should be there, then none too many, then none of an old template.
fn progress(view: &View<'_>, plan: &mut Plan) {
    storage::keep_policy(view, plan);
    for (ordinal, pod) in &view.slots {
        if fill(view, *ordinal, *pod, plan) && view.is_ordered() {
            return;
        }
    }
    for (_, pod) in &view.condemned {
        if condemn(view, pod, plan) && view.is_ordered() {
            return;
        }
    }
    if view.set.spec.update_strategy.type_ != "OnDelete" {
        roll(view, plan);
    }
}

/// Sees to one ordinal; returns whether those behind it have to wait.
fn fill(view: &View<'_>, ordinal: i64, pod: Option<&Pod>, plan: &mut Plan) -> bool {
    let Some(pod) = pod else {
        if storage::ready(view, ordinal, plan) {
            plan.push(identity::new_pod(view, ordinal).write());
        }
        return true;
    };
    if pod.is_terminal() {
        if !pod.metadata.is_deleting() {
            view.delete(pod, plan);
        }
        return true;
    }
    if pod.status.phase == "Pending" {
        // Claims that were removed under a waiting pod are made again.
        storage::ready(view, ordinal, plan);
    }
    identity::restore(pod, plan);
    !view.is_available(pod, plan)
}

/// Sees to one pod too many; returns whether the lower ones have to wait.
fn condemn(view: &View<'_>, pod: &Pod, plan: &mut Plan) -> bool {
    if pod.metadata.is_deleting() {
        return true;
    }
    let lowest_unhealthy = view.condemned.iter().rev().find(|(_, pod)| !is_healthy(pod));
    let is_lowest = lowest_unhealthy.is_none_or(|(_, lowest)| lowest.metadata.uid == pod.metadata.uid);
    if view.is_ordered() && !view.is_available(pod, plan) && !is_lowest {
        return true;
    }
    view.delete(pod, plan);
    true
}

/// Deletes pods of an old template from the highest ordinal down, as many as may be missing at once.
fn roll(view: &View<'_>, plan: &mut Plan) {
    let strategy = &view.set.spec.update_strategy.rolling_update;
    let most = strategy.max_unavailable.as_ref().map_or(1, |most| most.of(view.set.spec.replicas, false)).max(1);
    let missing = |pod: &Option<&Pod>, plan: &mut Plan| pod.is_none_or(|pod| !view.is_available(pod, plan));
    let mut unavailable = 0;
    for (_, pod) in &view.slots {
        unavailable += i64::from(missing(pod, plan));
    }
    let mut under_way = 0;
    for (_, pod) in view.slots.iter().rev().take_while(|(ordinal, _)| *ordinal >= strategy.partition) {
        if under_way >= most {
            return;
        }
        let is_missing = missing(pod, plan);
        let Some(old) = pod.filter(|pod| revision_of(pod) != view.update && !pod.metadata.is_deleting()) else {
            under_way += i64::from(is_missing);
            continue;
        };
        if !is_missing && unavailable >= most {
            return;
        }
        view.delete(old, plan);
        unavailable += i64::from(!is_missing);
        under_way += 1;
    }
}

#[cfg(test)]
mod tests;
