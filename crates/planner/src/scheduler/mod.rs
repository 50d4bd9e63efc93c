//! The default scheduler: which node a pod goes to, and why to none. Pure; what it knows is handed to it.
//!
//! Changes of the cluster go into an index as they come ([`Scheduler::pod_changed`] and its like); a decision takes the most
//! important waiting pod, asks the index, and remembers its own answer at once so that the next decision sees it.

pub mod affinity;
mod company;
mod filters;
mod index;
mod info;
mod messages;
pub mod ports;
pub mod preemption;
mod queue;
pub mod rehearsal;
pub mod resources;
mod scores;
mod spread;
pub mod taints;
#[cfg(test)]
mod tests;
pub mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;

use isopod_types::names::DEFAULT_SCHEDULER;
use isopod_types::node::{Namespace, Node};
use isopod_types::pod::{Pod, PodCondition};
use isopod_types::{Key, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fargate::{Unplaced, unscheduled_status};
use crate::persistent_volumes::{selecting, volume_for};
use crate::plan::{Plan, Reason, Target, Write};
use filters::{Cycle, Survey};
use index::{Index, Slot};
use info::PodInfo;
pub use info::claims_of;
pub(crate) use messages::histogram;
use messages::none_of;
use preemption::{Budget, Candidate};
use queue::{Queue, Wakes};
use taints::repelling;
use volumes::{Binding, Storage};

/// What is said while there is no node at all.
const NO_NODES: &str = "no nodes available to schedule pods";

/// What a decision sees besides the index.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// All pods.
    pub pods: &'a BTreeMap<Key, Pod>,
    /// Claims, volumes and classes.
    pub storage: Storage<'a>,
    /// Disruption budgets; asked for only when room has to be made.
    pub budgets: &'a dyn Fn() -> Vec<Budget>,
    /// Why a pod has no node of its own; asked only while there are no worker nodes.
    pub explain: &'a dyn Fn(&Pod) -> String,
}

/// The default scheduler.
#[derive(Clone, Debug, Default)]
pub struct Scheduler {
    index: Index,
    queue: Queue,
    /// Pods that this scheduler placed and that are not known to be bound yet.
    assumed: BTreeMap<Key, String>,
}

/// Why a pod was not placed now.
struct Failure {
    message: String,
    wakes: Wakes,
    candidate: Option<Candidate>,
}

/// Whether this scheduler has to do with the pod now.
pub fn is_waiting(pod: &Pod) -> bool {
    pod.spec.scheduler_name == DEFAULT_SCHEDULER
        && pod.spec.node_name.is_empty()
        && pod.spec.scheduling_gates.is_empty()
        && pod.is_active()
}

/// Whether a change of a waiting pod may get it a node that it did not get before.
fn is_news(before: &Pod, after: &Pod) -> bool {
    let (old, new) = (&before.spec, &after.spec);
    before.metadata.uid != after.metadata.uid
        || before.metadata.labels != after.metadata.labels
        || !is_waiting(before)
        || old.tolerations != new.tolerations
        || old.affinity != new.affinity
        || old.node_selector != new.node_selector
        || resources::requested(old) != resources::requested(new)
}

impl Scheduler {
    /// A pod came, changed or went. Returns how many pods are worth a try because of it.
    pub fn pod_changed(&mut self, before: Option<&Pod>, after: Option<&Pod>) -> usize {
        let Some(pod) = after.or(before) else { return 0 };
        let key = pod.key();
        match after.filter(|pod| !pod.is_terminal()) {
            Some(pod) if !pod.spec.node_name.is_empty() => self.pod_is_placed(pod),
            Some(pod) if is_waiting(pod) => usize::from(self.pod_waits(before, pod)),
            _ => self.pod_is_over(&key),
        }
    }

    fn pod_is_placed(&mut self, pod: &Pod) -> usize {
        let key = pod.key();
        self.assumed.remove(&key);
        self.queue.remove(&key);
        self.index.withdraw(&key);
        let info = Arc::new(PodInfo::of(pod));
        let arrival = match self.index.placed(&key) {
            Some((node, known)) if node == pod.spec.node_name && !known.differs(&info) => return 0,
            Some((node, known)) => node != pod.spec.node_name || known.labels != info.labels,
            None => true,
        };
        self.index.put_pod(&info, &pod.spec.node_name);
        // One that is ending frees nothing yet, but may end its part in what is counted of the living.
        let news = Wakes { by_arrival: arrival, by_departure: info.is_deleting, ..Wakes::default() };
        self.queue.wake_all(news, |_| true)
    }

    fn pod_waits(&mut self, before: Option<&Pod>, pod: &Pod) -> bool {
        let key = pod.key();
        let is_known = self.queue.contains(&key) || self.assumed.contains_key(&key);
        if is_known && before.is_some_and(|before| !is_news(before, pod)) {
            return false;
        }
        self.release(&key);
        if !pod.status.nominated_node_name.is_empty() {
            self.index.nominate(&Arc::new(PodInfo::of(pod)), &pod.status.nominated_node_name);
        }
        self.queue.add(&key, pod.spec.priority.unwrap_or(0), &pod.spec.tolerations);
        true
    }

    fn pod_is_over(&mut self, key: &Key) -> usize {
        self.queue.remove(key);
        self.index.withdraw(key);
        self.assumed.remove(key);
        if self.index.placed(key).is_none() {
            return 0;
        }
        self.index.remove_pod(key);
        self.queue.wake_all(Wakes { by_departure: true, ..Wakes::default() }, |_| true)
    }

    /// A node came, changed or went. Returns how many pods are worth a try because of it.
    pub fn node_changed(&mut self, before: Option<&Node>, after: Option<&Node>) -> usize {
        let Some(node) = after else {
            if let Some(node) = before {
                self.index.remove_node(&node.metadata.name);
            }
            return 0;
        };
        if before.is_some_and(|before| !concerns_pods(before, node)) {
            return 0;
        }
        self.index.put_node(node);
        let accepted = |tolerations: &[_]| repelling(&node.spec.taints, tolerations).is_none();
        self.queue.wake_all(Wakes { by_node: true, ..Wakes::default() }, accepted)
    }

    /// A namespace came, changed or went.
    pub fn namespace_changed(&mut self, name: &str, after: Option<&Namespace>) {
        self.index.put_namespace(name, after.map(|namespace| &namespace.metadata.labels));
    }

    /// A claim changed. Returns how many pods are worth a try because of it.
    pub fn claim_changed(&mut self, claim: &Key) -> usize {
        let users: Vec<Key> = self.index.users(claim).filter(|pod| self.assumed.contains_key(*pod)).cloned().collect();
        let held = users.iter().filter(|pod| self.queue.wake(pod)).count();
        held + self.storage_changed()
    }

    /// A volume or class changed. Returns how many pods are worth a try because of it.
    pub fn storage_changed(&mut self) -> usize {
        self.queue.wake_all(Wakes { by_storage: true, ..Wakes::default() }, |_| true)
    }

    /// What is said of pods without any worker node has changed. Returns how many pods that concerns.
    pub fn explanations_changed(&mut self) -> usize {
        let concerned = self.index.workers() == 0;
        if concerned { self.queue.wake_all(Wakes::ALL, |_| true) } else { 0 }
    }

    /// The placed pods that use a claim.
    pub fn users(&self, claim: &Key) -> impl Iterator<Item = &Key> {
        self.index.users(claim)
    }

    /// What was decided about a pod could not be carried out: it is tried again after a pause.
    pub fn retry(&mut self, pod: &Pod, now: Timestamp) {
        let key = pod.key();
        if !is_waiting(pod) {
            return;
        }
        self.release(&key);
        if !self.queue.contains(&key) {
            self.queue.add(&key, pod.spec.priority.unwrap_or(0), &pod.spec.tolerations);
        }
        self.queue.retry(&key, now);
    }

    /// Takes a pod off the node that this scheduler gave it.
    fn release(&mut self, key: &Key) -> Option<String> {
        let node = self.assumed.remove(key)?;
        self.index.remove_pod(key);
        Some(node)
    }

    /// When there is something to decide next.
    pub fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.queue.next_at(now)
    }

    /// Decides about the most important pod that may be tried now; says which it was.
    pub fn decide(&mut self, world: World<'_>, now: Timestamp) -> (Option<Key>, Plan) {
        let Some(key) = self.queue.pop(now) else { return (None, Plan::nothing()) };
        let Some(pod) = world.pods.get(&key).filter(|pod| is_waiting(pod)) else {
            self.queue.remove(&key);
            return (Some(key), Plan::nothing());
        };
        let plan = self.place(pod, world, now);
        (Some(key), plan)
    }

    fn place(&mut self, pod: &Pod, world: World<'_>, now: Timestamp) -> Plan {
        let info = Arc::new(PodInfo::of(pod));
        let before = self.release(&info.key).and_then(|name| self.index.slot(&name));
        let cycle = match Cycle::new(&mut self.index, pod, &info, world.storage) {
            Ok(cycle) => cycle,
            Err(cause) => return self.refuse(pod, self.hopeless(&cause), world, now),
        };
        if before.is_some() && cycle.volumes.were_given_up() {
            // Their maker could not have them there; perhaps elsewhere, but not in a hot loop.
            self.queue.retry(&info.key, now);
            return Plan::nothing();
        }
        let wanted = before.or_else(|| self.index.nomination(&info.key));
        if let Some(slot) = wanted.filter(|slot| cycle.allows(&self.index, *slot)) {
            return self.accept(&cycle, slot, now);
        }
        let survey = cycle.survey(&self.index);
        match scores::best(&self.index, &cycle, &survey.feasible) {
            Some(slot) => self.accept(&cycle, slot, now),
            None => {
                let failure = self.failure(&cycle, &survey, world);
                self.refuse(pod, failure, world, now)
            }
        }
    }

    /// No node can do, whatever is on it.
    fn hopeless(&self, cause: &str) -> Failure {
        let nodes = self.index.len();
        let preemption = none_of(nodes, &format!("{nodes} Preemption is not helpful for scheduling"));
        let message = match self.index.is_empty() {
            true => NO_NODES.to_owned(),
            false => format!("{} preemption: {preemption}", none_of(nodes, cause)),
        };
        Failure { message, wakes: Wakes { by_node: true, by_storage: true, ..Wakes::default() }, candidate: None }
    }

    /// Puts the pod on the node, in the index at once and in the API by the plan; claims without volumes come first.
    fn accept(&mut self, cycle: &Cycle<'_>, slot: Slot, now: Timestamp) -> Plan {
        let node = self.index.node(slot).meta.name.clone();
        let key = &cycle.info.key;
        let bindings = cycle.volumes.bindings(&self.index, &self.index.node(slot).meta).unwrap_or_default();
        self.index.withdraw(key);
        self.index.put_pod(&cycle.info, &node);
        self.assumed.insert(key.clone(), node.clone());
        if !cycle.volumes.are_bound() {
            self.queue.hold(key, now);
            return Plan {
                writes: bindings.iter().filter_map(|binding| bind(binding, &node)).collect(),
                again_at: None,
            };
        }
        self.queue.remove(key);
        let mut plan = Plan::nothing();
        let target = Target::of::<Pod>(&cycle.pod.metadata);
        plan.push(Write::Bind { target: target.clone(), node: node.clone(), annotations: Vec::new() });
        let text = format!("Successfully assigned {key} to {node}");
        plan.event(&target, DEFAULT_SCHEDULER, Reason::normal("Scheduled", text));
        plan
    }

    fn failure(&self, cycle: &Cycle<'_>, survey: &Survey, world: World<'_>) -> Failure {
        let wakes = Wakes::against(survey.counts.keys());
        if self.index.is_empty() {
            return Failure { message: NO_NODES.to_owned(), wakes: Wakes::ALL, candidate: None };
        }
        let reasons = none_of(self.index.len(), &histogram(&survey.counts));
        match preemption::find(&self.index, cycle, survey, world.budgets) {
            Ok(candidate) => Failure { message: reasons, wakes, candidate: Some(candidate) },
            Err(why) => Failure { message: format!("{reasons} preemption: {why}"), wakes, candidate: None },
        }
    }

    /// Tells why the pod has no node, and makes room for it where that is decided.
    fn refuse(&mut self, pod: &Pod, failure: Failure, world: World<'_>, now: Timestamp) -> Plan {
        let key = pod.key();
        self.queue.failed(&key, failure.wakes, now);
        let mut plan = Plan::nothing();
        let mut nominated = None;
        if let Some(candidate) = &failure.candidate {
            let node = self.index.node(candidate.slot).meta.name.clone();
            self.index.nominate(&Arc::new(PodInfo::of(pod)), &node);
            candidate.victims.iter().for_each(|victim| evict(&mut plan, pod, victim, &node, world, now));
            nominated = Some(node);
        } else if self.index.nomination(&key).is_some() && !preemption::is_under_way(&self.index, &PodInfo::of(pod)) {
            // Others may have the room that was kept and does not help any more.
            self.index.withdraw(&key);
            nominated = Some(String::new());
        }
        let mut message = failure.message;
        if self.index.workers() == 0 {
            let link = if self.index.is_empty() { ":" } else { "" };
            message = format!("{message}{link} {}, and the cluster has no worker nodes", (world.explain)(pod));
        }
        plan.writes.extend(unscheduled(pod, &message, nominated.as_deref(), now));
        plan
    }
}

/// Whether a change of a node may matter to pods that look for one.
fn concerns_pods(before: &Node, after: &Node) -> bool {
    before.metadata.uid != after.metadata.uid
        || before.metadata.labels != after.metadata.labels
        || before.spec.taints != after.spec.taints
        || before.spec.unschedulable != after.spec.unschedulable
        || before.status.allocatable != after.status.allocatable
        || before.status.images.len() != after.status.images.len()
}

/// The write by which a claim gets its volume; none when it was made before.
fn bind(binding: &Binding<'_>, node: &str) -> Option<Write> {
    match binding {
        Binding::Volume(volume, claim) => volume_for(volume, claim),
        Binding::Provision(claim) => selecting(claim, node),
    }
}

/// Status and event of a pod without a node; nothing when all of it has been said.
fn unscheduled(pod: &Pod, message: &str, nominated: Option<&str>, now: Timestamp) -> Vec<Write> {
    let target = Target::of::<Pod>(&pod.metadata);
    let why = Unplaced { reason: "Unschedulable", message: message.to_owned() };
    let status = unscheduled_status(pod, &why, now);
    let mut writes = Vec::new();
    if status.is_some() {
        let reason = Reason::warning("FailedScheduling", message);
        writes.push(Write::Event { target: target.clone(), component: DEFAULT_SCHEDULER, reason });
    }
    let mut patch = status.unwrap_or_else(|| json!({"status": {}}));
    if let Some(node) = nominated.filter(|node| *node != pod.status.nominated_node_name) {
        patch["status"]["nominatedNodeName"] = if node.is_empty() { Value::Null } else { json!(node) };
    }
    if patch["status"] != json!({}) {
        writes.push(Write::Patch { target, subresource: "status", patch });
    }
    writes
}

/// A pod's conditions with the one that says why it is being ended, as a status patch.
pub fn disrupted_status(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut conditions = pod.status.conditions.clone();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        last_transition_time: Some(now),
        reason: reason.into(),
        message: message.into(),
        observed_generation: Some(pod.metadata.generation),
    });
    json!({"status": {"conditions": conditions}})
}

/// Ends a pod gracefully to make room for a more important one.
fn evict(plan: &mut Plan, pod: &Pod, victim: &PodInfo, node: &str, world: World<'_>, now: Timestamp) {
    let Some(victim) = world.pods.get(&victim.key).filter(|victim| !victim.metadata.is_deleting()) else { return };
    let mut target = Target::of::<Pod>(&victim.metadata);
    let message = format!("{DEFAULT_SCHEDULER}: preempting to accommodate a higher priority pod");
    let patch = disrupted_status(victim, "PreemptionByScheduler", &message, now);
    plan.push(Write::Patch { target: target.clone(), subresource: "status", patch });
    target.resource_version.clear();
    plan.push(Write::Delete { target: target.clone(), propagation: None, grace_period_seconds: None });
    let text = format!("Preempted by pod {} on node {node}", pod.metadata.uid);
    plan.event(&target, DEFAULT_SCHEDULER, Reason::normal("Preempted", text));
}
