//! The controllers as a table: for each, which keys a change touches, and which planner function decides about a key.
//!
//! A new controller is a row here and a function in the planner. Nothing in these modules decides anything by itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isopod_planner::autoscaling::{Answers, History};
use isopod_planner::daemonset::Failures;
use isopod_planner::nodegroups::autoscaling::History as SizeHistory;
use isopod_planner::{Plan, Target, Write};
use isopod_types::node::Node;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use crate::cache::{Cache, Changed};
use crate::graph::Metadata;
use crate::labelled::Labelled;
use crate::placed::Placed;
use crate::queue::Work;

mod autoscalers;
mod autoscaling;
mod budgets;
mod cronjobs;
mod daemonsets;
mod endpoints;
mod fargate;
mod jobs;
mod members;
mod namespaces;
mod nodegroups;
mod nodes;
mod roles;
mod scheduling;
mod statefulsets;
mod storage;
mod workloads;

pub(crate) use namespaces::{GARBAGE, NAMESPACE_END};
pub(crate) use nodes::Sightings;
pub(crate) use scheduling::Scheduling;

/// One controller.
pub(crate) struct Loop {
    /// Its name, for work and logs.
    pub(crate) name: &'static str,
    /// The keys whose plans a change of an object may alter. Called for every change: it looks into indexes only.
    pub(crate) touched: fn(&Cache, &Changed) -> Vec<Key>,
    /// Decides about one key.
    pub(crate) decide: fn(&mut State, &Key, Timestamp) -> Plan,
}

/// Every controller.
const LOOPS: &[Loop] = &[
    workloads::DEPLOYMENTS,
    workloads::REPLICA_SETS,
    workloads::REPLICATION_CONTROLLERS,
    statefulsets::STATEFUL_SETS,
    daemonsets::DAEMON_SETS,
    cronjobs::CRON_JOBS,
    jobs::JOBS,
    jobs::ABANDONED,
    jobs::EXPIRY,
    budgets::BUDGETS,
    budgets::STALE,
    autoscalers::AUTOSCALERS,
    namespaces::FURNISHING,
    namespaces::END,
    namespaces::COLLECTION,
    fargate::SCHEDULING,
    fargate::NODES,
    scheduling::SCHEDULING,
    storage::CLAIMS,
    storage::VOLUMES,
    storage::EPHEMERAL,
    nodegroups::NODE_GROUPS,
    endpoints::SLICES,
    endpoints::LEGACY,
    endpoints::MIRRORING,
    autoscaling::NODE_GROUP_SIZES,
    roles::AGGREGATION,
    nodes::LIFECYCLE,
    nodes::HOSTS,
    nodes::EVICTION,
    nodes::ORPHANS,
    nodes::UNSCHEDULED,
    nodes::ENDED,
];

/// Everything decisions are made from.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) metadata: Metadata,
    /// The cluster's CA, PEM.
    pub(crate) ca_pem: String,
    /// Pods by node.
    pub(crate) placed: Placed,
    /// The default scheduler.
    pub(crate) scheduling: Scheduling,
    /// When things were seen.
    pub(crate) sightings: nodes::Sightings,
    /// What was said of claims.
    pub(crate) said: storage::Said,
    /// The address given last, per subnet.
    pub(crate) cursors: BTreeMap<String, Ipv4Addr>,
    /// Pods by label.
    pub(crate) labelled: Labelled,
    /// What the API answered to questions about a key.
    pub(crate) answers: BTreeMap<Work, Answers>,
    /// What was recommended lately, by autoscaler.
    pub(crate) histories: BTreeMap<Key, History>,
    /// Failures of daemons' pods, by DaemonSet.
    pub(crate) failures: BTreeMap<Key, Failures>,
    /// What was said about the sizes of node groups.
    pub(crate) sizes: SizeHistory,
    /// The words with which the API last refused what a plan wanted to create.
    pub(crate) refusals: BTreeMap<Work, String>,
}

/// Work on an object of the garbage graph; the UID stands for the key.
pub(crate) fn garbage_work(uid: String) -> Work {
    Work { name: GARBAGE, key: Key::cluster(uid) }
}

/// The work that a change of an object calls for.
pub(crate) fn touched(state: &mut State, changed: &Changed, now: Timestamp) -> Vec<Work> {
    state.placed.observe(changed);
    state.labelled.observe(changed);
    state.sightings.observe(changed, nodes::Moment::at(now));
    let mut work = state.scheduling.observe(changed);
    for one in LOOPS {
        work.extend((one.touched)(&state.cache, changed).into_iter().map(|key| Work { name: one.name, key }));
    }
    work
}

/// Some writes of what was decided about a piece of work failed.
pub(crate) fn failed(state: &mut State, work: &Work, now: Timestamp) {
    if work.name == scheduling::SCHEDULING.name {
        state.scheduling.failed(&work.key, &state.cache, now);
    }
}

/// Decides about one piece of work.
pub(crate) fn decide(state: &mut State, work: &Work, now: Timestamp) -> Plan {
    let found = LOOPS.iter().find(|one| one.name == work.name);
    found.map(|one| (one.decide)(state, &work.key, now)).unwrap_or_default()
}

/// The node that was put into the cache for a write that failed.
pub(crate) fn assumed_node(target: &Target) -> Option<&Key> {
    (target.kind == Node::KIND).then_some(&target.key)
}

/// Puts nodes that a plan makes into the cache, so that the next plan sees what they take.
fn assume_nodes(cache: &mut Cache, plan: &Plan) {
    for write in &plan.writes {
        if let Write::Create { target, object, .. } = write
            && target.kind == Node::KIND
        {
            cache.put(Node::KIND, object);
        }
    }
}
