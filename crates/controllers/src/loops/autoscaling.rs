//! The sizes of node groups. All groups are decided about together, under one key: what one takes, no other has to.

use isopod_planner::Plan;
use isopod_planner::nodegroups::autoscaling::{World, concerns, is_of_group, is_scaled, is_unschedulable, plan};
use isopod_planner::scheduler::preemption::Budget;
use isopod_planner::scheduler::volumes::Storage;
use isopod_types::Key;
use isopod_types::daemonset::DaemonSet;
use isopod_types::node::Node;
use isopod_types::own::{Host, NodeGroup};
use isopod_types::pod::Pod;
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const NODE_GROUP_SIZES: Loop = Loop { name: "nodegroup-size", touched, decide };

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    let is_news = match changed {
        Changed::NodeGroup(_) | Changed::Host(_) | Changed::PodDisruptionBudget(_) | Changed::DaemonSet(_) => true,
        Changed::Node(change) => change.sides().any(is_of_group),
        // What fits nowhere, and what comes to a group's node or leaves it.
        Changed::Pod(change) => concerns(change.before.as_ref(), change.after.as_ref()),
        _ => false,
    };
    if is_news && cache.node_groups.all().any(is_scaled) { vec![Key::default()] } else { Vec::new() }
}

fn decide(state: &mut State, _key: &Key, now: Timestamp) -> Plan {
    let State { cache, placed, scheduling, sizes, .. } = state;
    let Some(cluster) = cache.clusters.all().next() else { return Plan::nothing() };
    let groups: Vec<&NodeGroup> = cache.node_groups.all().collect();
    let nodes: Vec<&Node> = cache.nodes.all().collect();
    let waiting: Vec<&Pod> = cache.pods.all().filter(|pod| is_unschedulable(pod)).collect();
    let daemon_sets: Vec<&DaemonSet> = cache.daemon_sets.all().collect();
    let hosts: Vec<&Host> = cache.hosts.all().collect();
    let world = World {
        cluster: &cluster.spec,
        hosts: &hosts,
        groups: &groups,
        nodes: &nodes,
        waiting: &waiting,
        pods_on: &|node| placed.on(node).filter_map(|key| cache.pods.get(key)).collect(),
        daemon_sets: &daemon_sets,
        budgets: &|| cache.budgets.all().map(Budget::of).collect(),
        scheduler: &scheduling.scheduler,
        storage: Storage { claims: cache.claims.map(), volumes: cache.volumes.map(), classes: cache.classes.map() },
        now,
    };
    plan(&world, sizes)
}
