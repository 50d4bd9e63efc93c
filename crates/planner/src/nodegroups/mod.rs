//! Node groups: worker nodes of one size, made on hosts with room, drained before they go.
//!
//! A node is an object first: its name says its address, its labels host and size, its `podCIDR` the addresses of its pods.
//! The host agent makes a machine for it, and takes the machine away when the object goes.

use isopod_types::names::{DRAINING_ANNOTATION, NODEGROUP_FINALIZER, NODEGROUP_LABEL};
use isopod_types::node::Node;
use isopod_types::own::{ClusterSpec, Host, NodeGroup, NodeGroupStatus};
use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::hosts::has_joined;
use crate::plan::{Plan, Reason, Target, Write};

pub mod autoscaling;
mod blocks;
mod making;
#[cfg(test)]
mod tests;

const COMPONENT: &str = "nodegroup-controller";

/// Delay before a pod that could not be evicted, or a node that found no room, is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// What decisions about groups see.
pub struct World<'a> {
    /// The cluster's settings.
    pub cluster: &'a ClusterSpec,
    /// Its hosts.
    pub hosts: Vec<&'a Host>,
    /// All its nodes.
    pub nodes: Vec<&'a Node>,
    /// The pods of a node.
    pub pods_on: &'a dyn Fn(&str) -> Vec<&'a Pod>,
}

/// Whether a node is of this group.
fn is_member(group: &NodeGroup, node: &Node) -> bool {
    node.metadata.labels.get(NODEGROUP_LABEL) == Some(&group.metadata.name) && !node.metadata.is_deleting()
}

fn is_draining(node: &Node) -> bool {
    node.metadata.annotations.contains_key(DRAINING_ANNOTATION)
}

fn is_ready(node: &Node) -> bool {
    node.status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Decides about one group.
pub fn plan(group: &NodeGroup, world: &World<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let members: Vec<&Node> = world.nodes.iter().copied().filter(|node| is_member(group, node)).collect();
    let has_finalizer = group.metadata.finalizers.iter().any(|finalizer| finalizer == NODEGROUP_FINALIZER);
    if group.metadata.is_deleting() {
        drain(&members, world, now, &mut plan);
        if members.is_empty() && has_finalizer {
            plan.push(finalizers(group, false));
            return plan;
        }
        write_status(group, &members, "", &mut plan);
        return plan;
    }
    if !has_finalizer {
        plan.push(finalizers(group, true));
    }
    let problem = resize(group, &members, world, now, &mut plan);
    write_status(group, &members, &problem, &mut plan);
    plan
}

fn finalizers(group: &NodeGroup, add: bool) -> Write {
    let mut all: Vec<String> = group.metadata.finalizers.clone();
    all.retain(|finalizer| finalizer != NODEGROUP_FINALIZER);
    all.extend(add.then(|| NODEGROUP_FINALIZER.to_owned()));
    let target = Target::of::<NodeGroup>(&group.metadata);
    Write::Patch { target, subresource: "", patch: json!({"metadata": {"finalizers": all}}) }
}

/// Makes nodes, or chooses some to go. Returns what keeps the group from its size.
fn resize(group: &NodeGroup, members: &[&Node], world: &World<'_>, now: Timestamp, plan: &mut Plan) -> String {
    let (leaving, staying): (Vec<&Node>, Vec<&Node>) = members.iter().partition(|node| is_draining(node));
    let wanted = group.spec.wanted();
    let mut problem = String::new();
    if staying.len() < wanted {
        let missing = wanted - staying.len();
        // Of a cluster that has just begun, nothing can be said yet; a host's word brings the group here again.
        let makes = world.hosts.iter().any(|host| has_joined(host));
        let kept: Vec<&Node> = leaving.iter().copied().take(missing).collect();
        plan.writes.extend(kept.iter().map(|node| marked(node, None)));
        let count = if makes { missing - kept.len() } else { 0 };
        for write in making::nodes(group, count, world) {
            match write {
                Ok(write) => plan.push(write),
                Err(why) => problem = why,
            }
        }
        drain(&leaving[kept.len()..], world, now, plan);
    } else {
        let mut surplus = staying.clone();
        surplus.sort_by_key(|node| worth(node, world.pods_on));
        surplus.truncate(staying.len() - wanted);
        plan.writes.extend(surplus.iter().map(|node| marked(node, Some(now))));
        drain(&leaving, world, now, plan);
    }
    if !problem.is_empty() {
        plan.wake_at(now.saturating_add(AGAIN).unwrap_or(now));
    }
    problem
}

/// What makes nodes go first, in order: they are not ready, nobody needs them for long, they have few pods, they are young.
type Worth = (bool, bool, Option<Timestamp>, usize, std::cmp::Reverse<Option<Timestamp>>);

/// Nodes that go first come first.
fn worth<'a>(node: &Node, pods_on: &dyn Fn(&str) -> Vec<&'a Pod>) -> Worth {
    let pods = pods_on(&node.metadata.name).into_iter().filter(|pod| must_move(pod)).count();
    let unneeded = autoscaling::unneeded_since(node);
    (is_ready(node), unneeded.is_none(), unneeded, pods, std::cmp::Reverse(node.metadata.creation_timestamp))
}

/// Marks a node as one that is to go, and keeps new pods away from it; or takes that back.
fn marked(node: &Node, draining_since: Option<Timestamp>) -> Write {
    let patch = json!({
        "metadata": {"annotations": {DRAINING_ANNOTATION: draining_since}},
        "spec": {"unschedulable": draining_since.is_some().then_some(true)},
    });
    Write::Patch { target: Target::of::<Node>(&node.metadata), subresource: "", patch }
}

/// Whether a pod has to be elsewhere before its node goes: not what has ended, and not what belongs to the node itself.
fn must_move(pod: &Pod) -> bool {
    let of_node = pod.metadata.controller().is_some_and(|owner| owner.kind == "DaemonSet" || owner.kind == "Node");
    !pod.is_terminal() && !of_node
}

/// Moves the pods of nodes away; a node without any goes, and with it what is left on it.
fn drain(leaving: &[&Node], world: &World<'_>, now: Timestamp, plan: &mut Plan) {
    for node in leaving {
        let pods = (world.pods_on)(&node.metadata.name);
        let (moving, left): (Vec<&Pod>, Vec<&Pod>) = pods.into_iter().partition(|pod| must_move(pod));
        if !is_draining(node) {
            plan.push(marked(node, Some(now)));
        }
        if moving.is_empty() {
            plan.push(Write::Delete {
                target: Target { resource_version: String::new(), ..Target::of::<Node>(&node.metadata) },
                propagation: Some("Background"),
                grace_period_seconds: None,
            });
            plan.writes.extend(left.into_iter().map(|pod| Write::Delete {
                target: Target::of::<Pod>(&pod.metadata),
                propagation: None,
                grace_period_seconds: Some(0),
            }));
            continue;
        }
        let evictable = moving.iter().filter(|pod| !pod.metadata.is_deleting());
        plan.writes.extend(evictable.map(|pod| Write::Evict { target: Target::of::<Pod>(&pod.metadata) }));
        plan.wake_at(now.saturating_add(AGAIN).unwrap_or(now));
    }
}

fn write_status(group: &NodeGroup, members: &[&Node], problem: &str, plan: &mut Plan) {
    let count = |nodes: usize| i64::try_from(nodes).unwrap_or(i64::MAX);
    let ready = members.iter().filter(|node| is_ready(node) && !is_draining(node)).count();
    let settled = ready == group.spec.wanted() && members.len() == ready;
    let phase = match (group.metadata.is_deleting(), problem.is_empty(), settled) {
        (true, ..) => "DELETING",
        (_, false, _) => "DEGRADED",
        (_, _, true) => "ACTIVE",
        _ if matches!(group.status.phase.as_str(), "" | "CREATING") => "CREATING",
        _ => "UPDATING",
    };
    let status = NodeGroupStatus {
        phase: phase.into(),
        nodes: count(members.len()),
        ready_nodes: count(ready),
        message: problem.to_owned(),
    };
    if status == group.status {
        return;
    }
    let target = Target { resource_version: String::new(), ..Target::of::<NodeGroup>(&group.metadata) };
    if !problem.is_empty() && group.status.message != problem {
        plan.event(&target, COMPONENT, Reason::warning("InsufficientCapacity", problem));
    }
    plan.push(Write::Patch { target, subresource: "status", patch: status_patch(&status) });
}

fn status_patch(status: &NodeGroupStatus) -> Value {
    json!({"status": status})
}
