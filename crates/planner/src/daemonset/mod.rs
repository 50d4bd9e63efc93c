//! DaemonSets: one pod on every node that takes it.
//!
//! Source: the documented behaviour of upstream's DaemonSet controller. `nodes` says which nodes take the pod, `rolling` replaces old
//! pods, `status` reports; here pods come and go.

mod backoff;
mod nodes;
mod rolling;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::daemonset::DaemonSet;
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use isopod_types::statefulset::ControllerRevision;
use jiff::Timestamp;
use serde_json::json;

use self::nodes::{Daemon, Fit};
use crate::claims::Claimer;
use crate::plan::{Plan, Reason, Target, Write};
use crate::replicaset::availability;
use crate::revisions::{CONTROLLER_REVISION_HASH, History, Newest, name};

pub use backoff::Failures;
pub use nodes::{concerns, pod_on, takes_daemons};

const COMPONENT: &str = "daemonset-controller";
/// Annotation of a set that counts its templates, and the label of its pods with that count; both deprecated and kept by upstream.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
/// Most pods made or deleted in one decision.
const BURST: usize = 250;

/// A DaemonSet and what it is about.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// Pods that it controls or that nobody controls.
    pub pods: &'a [&'a Pod],
    /// Revisions that it controls, that nobody controls, or that have the name the template's revision would get.
    pub revisions: &'a [&'a ControllerRevision],
    /// Nodes that can have daemons at all.
    pub nodes: &'a [&'a Node],
    /// The time.
    pub now: Timestamp,
}

/// The name that the revision of the set's template gets.
pub fn revision_name(set: &DaemonSet) -> String {
    name(&set.metadata.name, &set.spec.template, set.status.collision_count.unwrap_or(0))
}

/// A DaemonSet with its nodes and their pods.
struct View<'a> {
    set: &'a DaemonSet,
    now: Timestamp,
    /// Label value of pods of the newest template.
    hash: String,
    daemon: Daemon,
    /// Every node, what it has to do with the set, and its pods, best first.
    places: Vec<Place<'a>>,
    /// Pods that wait for nodes that are gone.
    stranded: Vec<&'a Pod>,
    bounds: rolling::Bounds,
}

/// A node and its pods.
struct Place<'a> {
    node: &'a Node,
    fit: Fit,
    pods: Vec<&'a Pod>,
}

impl View<'_> {
    /// Upstream believes either label.
    fn is_new(&self, pod: &Pod) -> bool {
        let (labels, generation) = (&pod.metadata.labels, self.set.metadata.annotations.get(GENERATION_ANNOTATION));
        labels.get(CONTROLLER_REVISION_HASH) == Some(&self.hash)
            || generation.is_some() && labels.get(GENERATION_LABEL) == generation
    }

    fn is_available(&self, pod: &Pod) -> bool {
        availability(pod, self.set.spec.min_ready_seconds, self.now).is_ok()
    }

    fn target(&self) -> Target {
        Target::of::<DaemonSet>(&self.set.metadata)
    }

    fn create(&self, node: &Node, plan: &mut Plan) {
        plan.push(self.daemon.pod_for(self.set, &node.metadata.name, &self.hash).write());
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        let target = Target::of::<Pod>(&pod.metadata);
        plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
        let text = format!("Deleted pod: {}", pod.metadata.name);
        plan.event(&self.target(), COMPONENT, Reason::normal("SuccessfulDelete", text));
    }
}

/// Decides about one DaemonSet, and notes the failures that it acts on.
pub fn plan(world: World<'_>, failures: &mut Failures) -> Plan {
    let mut plan = Plan::nothing();
    let set = world.set;
    let claimer = Claimer::of(set, &set.spec.selector);
    let pods = claimer.claim(world.pods, Pod::is_active, &mut plan);
    let revisions = claimer.claim(world.revisions, |_| true, &mut plan);
    let mine: BTreeSet<&str> = revisions.iter().map(|revision| revision.metadata.uid.as_str()).collect();
    let is_strange = |name: &str| {
        let mut all = world.revisions.iter();
        all.any(|found| found.metadata.name == name && !mine.contains(found.metadata.uid.as_str()))
    };
    let history = History::of(revisions.clone());
    let collisions = set.status.collision_count.unwrap_or(0);
    let newest = match history.newest(set, &set.spec.template, collisions, is_strange, &mut plan) {
        Newest::Known(revision) => revision,
        // The new revision enters the cache, and the set is looked at anew.
        Newest::Made => return plan,
        Newest::Collision => {
            let patch = json!({"status": {"collisionCount": collisions + 1}});
            plan.push(Write::Patch { target: Target::of::<DaemonSet>(&set.metadata), subresource: "status", patch });
            return plan;
        }
    };
    let view = arrange(world, hash_of(set, newest), &pods);
    status::write(&view, &mut plan);
    if !set.metadata.is_deleting() {
        let before = plan.writes.len();
        manage(&view, failures, &mut plan);
        // What is replaced is decided once every node has what it should have.
        if plan.writes.len() == before && set.spec.update_strategy.type_ != "OnDelete" {
            rolling::roll(&view, &mut plan);
        }
        let live = |revision: &ControllerRevision| {
            let hash = hash_of(set, revision);
            revision.metadata.uid == newest.metadata.uid
                || pods.iter().any(|pod| pod.metadata.labels.get(CONTROLLER_REVISION_HASH) == Some(&hash))
        };
        history.clean_up(live, set.spec.revision_history_limit, &mut plan);
    }
    plan
}

/// The label value of a revision's pods.
fn hash_of(set: &DaemonSet, revision: &ControllerRevision) -> String {
    let name = &revision.metadata.name;
    let label = revision.metadata.labels.get(CONTROLLER_REVISION_HASH).cloned();
    label.unwrap_or_else(|| name.strip_prefix(&format!("{}-", set.metadata.name)).unwrap_or(name).to_owned())
}

fn arrange<'a>(world: World<'a>, hash: String, pods: &[&'a Pod]) -> View<'a> {
    let daemon = Daemon::of(world.set);
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        by_node.entry(nodes::node_of(pod).unwrap_or_default()).or_default().push(pod);
    }
    let mut places = Vec::new();
    for node in world.nodes {
        let mut pods = by_node.remove(node.metadata.name.as_str()).unwrap_or_default();
        pods.sort_by_key(|pod| (pod.spec.node_name.is_empty(), pod.metadata.creation_timestamp, &pod.metadata.name));
        places.push(Place { node, fit: daemon.fit(node), pods });
    }
    let waits = |pod: &&Pod| pod.spec.node_name.is_empty() && pod.is_active();
    let stranded = by_node.into_values().flatten().filter(waits).collect();
    let bounds = rolling::Bounds::of(world.set, places.iter().filter(|place| place.fit == Fit::Yes).count());
    View { set: world.set, now: world.now, hash, daemon, places, stranded, bounds }
}

/// Gives every node what it should have, and no more.
fn manage(view: &View<'_>, failures: &mut Failures, plan: &mut Plan) {
    let (mut missing, mut surplus) = (Vec::new(), view.stranded.clone());
    for place in &view.places {
        match place.fit {
            Fit::No => surplus.extend(place.pods.iter().filter(|pod| !pod.metadata.is_deleting())),
            Fit::Stays | Fit::Yes => surplus.extend(surplus_at(view, place, failures, plan)),
        }
        if place.fit == Fit::Yes && place.pods.is_empty() {
            missing.push(place.node);
        }
    }
    surplus.into_iter().take(BURST).for_each(|pod| view.delete(pod, plan));
    missing.into_iter().take(BURST).for_each(|node| view.create(node, plan));
}

/// Pods of a node that are to go: those that ended, and those beside another.
fn surplus_at<'a>(view: &View<'a>, place: &Place<'a>, failures: &mut Failures, plan: &mut Plan) -> Vec<&'a Pod> {
    let (ended, running): (Vec<&Pod>, Vec<&Pod>) =
        place.pods.iter().copied().filter(|pod| !pod.metadata.is_deleting()).partition(|pod| pod.is_terminal());
    let mut gone: Vec<&Pod> = ended.into_iter().filter(|pod| may_be_replaced(view, pod, failures, plan)).collect();
    if view.bounds.surge == 0 {
        gone.extend(running.iter().skip(1));
        return gone;
    }
    let (new, old): (Vec<&Pod>, Vec<&Pod>) = running.into_iter().partition(|pod| view.is_new(pod));
    gone.extend(new.iter().chain(&old).skip(1).filter(|pod| pod.metadata.uid != first_uid(&old)));
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (old.ready_since().is_none() || view.is_available(new))
    {
        gone.push(old);
    }
    gone
}

fn first_uid<'a>(pods: &[&'a Pod]) -> &'a str {
    pods.first().map_or("", |pod| &pod.metadata.uid)
}

/// Whether a pod that ended may be replaced now; says so, or asks to be called when it may.
fn may_be_replaced(view: &View<'_>, pod: &Pod, failures: &mut Failures, plan: &mut Plan) -> bool {
    let place = format!("{}/{} on node {}", pod.metadata.namespace, pod.metadata.name, pod.spec.node_name);
    if pod.status.phase == "Succeeded" {
        let text = format!("Found succeeded daemon pod {place}, will try to delete it");
        plan.event(&view.target(), COMPONENT, Reason::normal("SucceededDaemonPod", text));
        return true;
    }
    if let Err(due) = failures.replace(&pod.spec.node_name, view.now) {
        plan.wake_at(due);
        return false;
    }
    let text = format!("Found failed daemon pod {place}, will try to kill it");
    plan.event(&view.target(), COMPONENT, Reason::warning("FailedDaemonPod", text));
    true
}

#[cfg(test)]
mod tests;
