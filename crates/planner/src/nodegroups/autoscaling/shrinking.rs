//! Smaller groups when the cluster could do without a node for long: one node at a time, and never soon after it grew.
//! Since when a node is not needed is written on it, so that a restart does not forget.

use isopod_types::Key;
use isopod_types::names::{GROWN_ANNOTATION, UNNEEDED_ANNOTATION};
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};

use super::{Members, SAFE_TO_EVICT, World, noted, unneeded_since};
use crate::nodegroups::{is_draining, is_ready, must_move, worth};
use crate::plan::Plan;
use crate::scheduler::claims_of;
use crate::scheduler::preemption::Budget;

/// So long a node has to be unneeded before it goes, and the cluster must not have grown.
const DELAY: SignedDuration = SignedDuration::from_mins(10);
/// Annotation of nodes by which a user keeps them.
const DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";

/// Notes which nodes are not needed, and makes the group of one smaller that has not been for long enough.
pub(super) fn shrink(groups: &[Members<'_>], world: &World<'_>, plan: &mut Plan) {
    let budgets = (world.budgets)();
    let mut due = Vec::new();
    for members in groups {
        let may_shrink = members.group.spec.wanted() > usize::try_from(members.group.spec.min_size).unwrap_or(0);
        for node in &members.staying {
            let unneeded = may_shrink && is_unneeded(node, world, &budgets);
            match (unneeded, unneeded_since(node)) {
                (true, Some(since)) => due.push((since, members, *node)),
                (true, None) => plan.push(noted(node, Some(world.now))),
                (false, _) if node.metadata.annotations.contains_key(UNNEEDED_ANNOTATION) => {
                    plan.push(noted(node, None));
                }
                (false, _) => {}
            }
        }
    }
    // What was noted comes back as a change; nothing goes by what may be outdated.
    if plan.writes.is_empty() {
        remove_one(groups, due, world, plan);
    }
}

/// Makes one group smaller. Its controller takes the node that is meant here: both go by [`worth`].
fn remove_one(groups: &[Members<'_>], due: Vec<(Timestamp, &Members<'_>, &Node)>, world: &World<'_>, plan: &mut Plan) {
    let later = |at: Timestamp| at.saturating_add(DELAY).unwrap_or(at);
    let grown = |members: &Members<'_>| members.group.metadata.annotations.get(GROWN_ANNOTATION)?.parse().ok();
    let last_grown = groups.iter().filter_map(grown).max().map(later);
    let is_busy = world.nodes.iter().any(|node| is_draining(node));
    let mut ready = Vec::new();
    for (since, members, node) in due {
        let at = later(since).max(last_grown.unwrap_or(Timestamp::MIN));
        if at > world.now {
            plan.wake_at(at);
        } else if !is_busy && members.is_settled() {
            ready.push((members, node));
        }
    }
    if let Some((members, _)) = ready.into_iter().min_by_key(|(_, node)| worth(node, world.pods_on)) {
        plan.push(members.resized(members.group.spec.wanted() - 1, None));
    }
}

/// Whether the cluster could do without a node: nothing on it has to be elsewhere, or it is not much and fits elsewhere.
fn is_unneeded(node: &Node, world: &World<'_>, budgets: &[Budget]) -> bool {
    let kept = node.metadata.annotations.get(DISABLED).is_some_and(|value| value == "true");
    if kept || !is_ready(node) {
        return false;
    }
    let pods = (world.pods_on)(&node.metadata.name);
    let moving: Vec<&Pod> = pods.into_iter().filter(|pod| must_move(pod)).collect();
    moving.is_empty() || moving.iter().all(|pod| may_move(pod, world, budgets)) && fit_elsewhere(node, &moving, world)
}

/// Whether less than half of a node is asked for, and its pods all fit on other nodes.
fn fit_elsewhere(node: &Node, moving: &[&Pod], world: &World<'_>) -> bool {
    let name = &node.metadata.name;
    let mut rehearsal = world.scheduler.rehearsal(world.storage);
    let is_idle = rehearsal.load(name).is_some_and(|(used, all)| {
        used.cpu_milli.saturating_mul(2) < all.cpu_milli && used.memory_bytes.saturating_mul(2) < all.memory_bytes
    });
    rehearsal.remove_node(name);
    is_idle && moving.iter().filter(|pod| !pod.metadata.is_deleting()).all(|pod| rehearsal.place(pod).is_some())
}

/// Whether a pod may be sent elsewhere: somebody makes it anew, its data are not on the node, no budget forbids it.
fn may_move(pod: &Pod, world: &World<'_>, budgets: &[Budget]) -> bool {
    let meta = &pod.metadata;
    let protected =
        budgets.iter().any(|budget| budget.disruptions_allowed < 1 && budget.protects(&meta.namespace, &meta.labels));
    match meta.annotations.get(SAFE_TO_EVICT).map(String::as_str) {
        _ if protected => false,
        Some("true") => true,
        Some("false") => false,
        _ => meta.controller().is_some() && !has_local_storage(pod, world),
    }
}

/// Whether a claim of the pod is a directory or disk of the node itself.
fn has_local_storage(pod: &Pod, world: &World<'_>) -> bool {
    let is_local = |claim: &String| {
        let claim = world.storage.claims.get(&Key::new(&*pod.metadata.namespace, &**claim));
        let volume = claim.and_then(|claim| world.storage.volumes.get(&Key::cluster(&*claim.spec.volume_name)));
        volume.is_some_and(|volume| ["local", "hostPath"].iter().any(|source| volume.spec.other.contains_key(*source)))
    };
    claims_of(pod).iter().any(is_local)
}
