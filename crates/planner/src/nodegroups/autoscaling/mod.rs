//! Sizes of node groups: larger for pods that fit nowhere, smaller when nodes are not needed. It decides about
//! `desiredSize` alone, between the sizes that the user gave; making and draining nodes is the groups' own business.
//!
//! Source: the documented behaviour of the cluster autoscaler; delays and thresholds are its defaults.

mod growing;
mod shrinking;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use isopod_types::Key;
use isopod_types::daemonset::DaemonSet;
use isopod_types::names::{GROWN_ANNOTATION, NODEGROUP_LABEL, UNNEEDED_ANNOTATION};
use isopod_types::node::Node;
use isopod_types::own::{ClusterSpec, Host, NodeGroup};
use isopod_types::pod::Pod;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{is_draining, is_member, is_ready};
use crate::plan::{Plan, Target, Write};
use crate::scheduler::preemption::Budget;
use crate::scheduler::volumes::Storage;
use crate::scheduler::{Scheduler, is_waiting};

const COMPONENT: &str = "cluster-autoscaler";
/// Annotation of pods: `"false"` keeps their node, `"true"` lets it go whatever else is true of them.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// What decisions about sizes see.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The cluster's settings.
    pub cluster: &'a ClusterSpec,
    /// Its hosts.
    pub hosts: &'a [&'a Host],
    /// All groups.
    pub groups: &'a [&'a NodeGroup],
    /// All nodes.
    pub nodes: &'a [&'a Node],
    /// Pods that fit nowhere: those of [`is_unschedulable`].
    pub waiting: &'a [&'a Pod],
    /// The pods of a node.
    pub pods_on: &'a dyn Fn(&str) -> Vec<&'a Pod>,
    /// What runs on every node.
    pub daemon_sets: &'a [&'a DaemonSet],
    /// Disruption budgets; asked for only when nodes might go.
    pub budgets: &'a dyn Fn() -> Vec<Budget>,
    /// The scheduler that is asked what would fit.
    pub scheduler: &'a Scheduler,
    /// Claims, volumes and classes.
    pub storage: Storage<'a>,
    /// The time.
    pub now: Timestamp,
}

/// What was said of pods that no group helps, so that it is said once.
#[derive(Clone, Debug, Default)]
pub struct History {
    said: BTreeMap<Key, String>,
}

/// Whether the default scheduler found no node for a pod.
pub fn is_unschedulable(pod: &Pod) -> bool {
    let said = pod.status.conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    is_waiting(pod) && said.is_some_and(|said| said.status == "False" && said.reason == "Unschedulable")
}

/// Whether a group's size is not fixed. One without a largest size has none that may be chosen for it.
pub fn is_scaled(group: &NodeGroup) -> bool {
    let spec = &group.spec;
    !group.metadata.is_deleting() && spec.min_size < spec.max_size && spec.max_size < i64::MAX
}

/// Whether a pod's change may change sizes.
pub fn concerns(before: Option<&Pod>, after: Option<&Pod>) -> bool {
    let facts = |pod: &Pod| {
        let safe = pod.metadata.annotations.get(SAFE_TO_EVICT).cloned();
        (pod.spec.node_name.clone(), pod.is_terminal(), is_unschedulable(pod), safe)
    };
    before.map(facts) != after.map(facts)
}

/// Since when nobody needs a node.
pub(super) fn unneeded_since(node: &Node) -> Option<Timestamp> {
    node.metadata.annotations.get(UNNEEDED_ANNOTATION)?.parse().ok()
}

/// Decides about the sizes of all groups.
pub fn plan(world: &World<'_>, history: &mut History) -> Plan {
    let mut plan = Plan::nothing();
    let scaled: Vec<Members<'_>> =
        world.groups.iter().filter(|group| is_scaled(group)).map(|group| Members::of(group, world)).collect();
    if scaled.is_empty() {
        history.said.clear();
    } else if !growing::grow(&scaled, world, history, &mut plan) {
        shrinking::shrink(&scaled, world, &mut plan);
    }
    plan
}

/// A group and its nodes that are not to go.
struct Members<'a> {
    group: &'a NodeGroup,
    staying: Vec<&'a Node>,
}

impl<'a> Members<'a> {
    fn of(group: &'a NodeGroup, world: &World<'a>) -> Self {
        let stays = |node: &&Node| is_member(group, node) && !is_draining(node);
        Self { group, staying: world.nodes.iter().copied().filter(stays).collect() }
    }

    fn name(&self) -> &'a str {
        &self.group.metadata.name
    }

    /// Whether it has the nodes it should have, and all of them work.
    fn is_settled(&self) -> bool {
        self.staying.len() == self.group.spec.wanted() && self.staying.iter().all(|node| is_ready(node))
    }

    /// The write that gives it another size; with a time when it is made larger.
    fn resized(&self, size: usize, grown_at: Option<Timestamp>) -> Write {
        let mut patch = json!({"spec": {"desiredSize": size}});
        if let Some(at) = grown_at {
            patch["metadata"]["annotations"] = json!({GROWN_ANNOTATION: at});
        }
        Write::Patch { target: Target::of::<NodeGroup>(&self.group.metadata), subresource: "", patch }
    }
}

/// Says on a node since when nobody needs it, or that somebody does.
fn noted(node: &Node, unneeded_since: Option<Timestamp>) -> Write {
    let patch: Value = json!({"metadata": {"annotations": {UNNEEDED_ANNOTATION: unneeded_since}}});
    Write::Patch { target: Target::of::<Node>(&node.metadata), subresource: "", patch }
}

/// Whether a node is of any group.
pub fn is_of_group(node: &Node) -> bool {
    node.metadata.labels.contains_key(NODEGROUP_LABEL)
}
