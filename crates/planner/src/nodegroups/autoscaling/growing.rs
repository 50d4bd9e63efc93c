//! Larger groups for pods that fit nowhere: which group, and by how many nodes. Nodes that are on their way count as there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use isopod_types::instances;
use isopod_types::node::Node;
use isopod_types::own::NodeGroup;
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::SignedDuration;

use super::{COMPONENT, History, Members, World};
use crate::daemonset;
use crate::nodegroups::{is_ready, making};
use crate::plan::{Plan, Reason, Target};
use crate::scheduler::histogram;
use crate::scheduler::rehearsal::Rehearsal;
use crate::scheduler::resources::requested;
use crate::scheduler::taints::NOT_READY;

/// Pods that are looked at in one decision, the most important first.
const PODS_MAX: usize = 1000;
/// Pods below this priority wait for room, and get none made.
const EXPENDABLE_BELOW: i64 = -10;
/// A node that has not come up after so long is not waited for.
const COMING_MAX: SignedDuration = SignedDuration::from_mins(15);
const MAX_SIZE: &str = "max node group size reached";
/// Ours: the upstream autoscaler does not know before.
const NO_ROOM: &str = "no host has room for another node";
const BACKOFF: &str = "in backoff after failed scale-up";

/// The cluster as it would be, with nodes that are not there.
#[derive(Clone)]
struct Stage<'w, 'a> {
    world: &'w World<'a>,
    rehearsal: Rehearsal<'a>,
    imagined: Vec<Node>,
    /// Number of the next imagined node.
    next: u32,
}

impl<'w, 'a> Stage<'w, 'a> {
    /// What is there, and what the groups are about to have.
    fn of(groups: &[Members<'_>], world: &'w World<'a>) -> Self {
        let mut stage =
            Self { world, rehearsal: world.scheduler.rehearsal(world.storage), imagined: Vec::new(), next: 0 };
        for members in groups {
            let coming = members.staying.iter().filter(|node| stage.is_coming(node));
            coming.map(|node| up(members.group, node)).collect::<Vec<_>>().iter().for_each(|node| stage.put(node));
            let missing = if is_short(members.group) { 0 } else { members.group.spec.wanted() };
            for _ in members.staying.len()..missing {
                stage.add(members.group);
            }
        }
        stage
    }

    /// Young, and not yet open to pods: its taint goes a moment after it said that it is ready.
    fn is_coming(&self, node: &Node) -> bool {
        let age = node.metadata.creation_timestamp.map(|made| self.world.now.duration_since(made));
        let is_closed = node.spec.taints.iter().any(|taint| taint.key == NOT_READY);
        (!is_ready(node) || is_closed) && age.is_none_or(|age| age < COMING_MAX)
    }

    /// Puts a node there with the daemons that it does not have yet.
    fn put(&mut self, node: &Node) {
        self.rehearsal.put_node(node);
        let name = &node.metadata.name;
        let there = (self.world.pods_on)(name);
        for set in self.world.daemon_sets {
            let has_one = there.iter().any(|pod| pod.metadata.is_controlled_by(&set.metadata.uid));
            if let Some(pod) = daemonset::pod_on(set, node).filter(|_| !has_one) {
                self.rehearsal.put_pod(&pod, name);
            }
        }
    }

    /// One more node of a group; none when no host has room for it.
    fn add(&mut self, group: &NodeGroup) -> Option<String> {
        let nodes: Vec<&Node> = self.world.nodes.iter().copied().chain(&self.imagined).collect();
        let node = making::imagined(group, self.next, self.world.cluster, self.world.hosts, &nodes)?;
        self.next += 1;
        self.put(&node);
        self.imagined.push(node.clone());
        Some(node.metadata.name)
    }

    /// Takes back the last node that was added.
    fn remove_last(&mut self) {
        if let Some(node) = self.imagined.pop() {
            self.rehearsal.remove_node(&node.metadata.name);
        }
    }
}

/// A node that is coming up, as it will be.
fn up(group: &NodeGroup, node: &Node) -> Node {
    let mut node = node.clone();
    node.spec.taints.clone_from(&group.spec.taints);
    if node.status.allocatable.is_empty()
        && let Some(instance) = instances::find(&group.spec.instance_type)
    {
        node.status.allocatable = instance.allocatable(u64::try_from(group.spec.volume_size_gib).unwrap_or(0));
    }
    node
}

/// Whether nodes of a group could not be made lately.
fn is_short(group: &NodeGroup) -> bool {
    group.status.phase == "DEGRADED"
}

/// What making one group larger would bring.
struct Choice<'w, 'a, 'p> {
    stage: Stage<'w, 'a>,
    nodes: Vec<String>,
    helped: Vec<&'p Pod>,
}

impl Choice<'_, '_, '_> {
    /// The share of the new nodes' processors and memory that nobody would use, in millionths.
    fn waste(&self) -> i128 {
        let (mut cpu, mut memory) = ((0, 0), (0, 0));
        for (used, all) in self.nodes.iter().filter_map(|node| self.stage.rehearsal.load(node)) {
            cpu = (cpu.0 + i128::from(used.cpu_milli), cpu.1 + i128::from(all.cpu_milli));
            memory = (memory.0 + i128::from(used.memory_bytes), memory.1 + i128::from(all.memory_bytes));
        }
        let unused = |(used, all): (i128, i128)| (all - used).max(0) * 1_000_000 / all.max(1);
        unused(cpu) + unused(memory)
    }
}

/// Why groups do not help pods: for each pod, each reason with the number of groups.
type Refusals = BTreeMap<Key, BTreeMap<String, usize>>;

fn refuse(refusals: &mut Refusals, pod: &Pod, reasons: impl IntoIterator<Item = String>) {
    let counts = refusals.entry(pod.key()).or_default();
    reasons.into_iter().for_each(|reason| *counts.entry(reason).or_default() += 1);
}

/// Puts pods on so many new nodes of a group at most, each on the first that does.
fn pack<'w, 'a, 'p>(
    group: &NodeGroup,
    room: usize,
    pods: &[&'p Pod],
    stage: &Stage<'w, 'a>,
    refusals: &mut Refusals,
) -> Choice<'w, 'a, 'p> {
    let mut choice = Choice { stage: stage.clone(), nodes: Vec::new(), helped: Vec::new() };
    if room == 0 || is_short(group) {
        let why = if is_short(group) { BACKOFF } else { MAX_SIZE };
        pods.iter().for_each(|pod| refuse(refusals, pod, [why.to_owned()]));
        return choice;
    }
    for pod in pods {
        if choice.stage.rehearsal.place_first(pod, &choice.nodes).is_ok() {
            choice.helped.push(pod);
        } else if choice.nodes.len() == room {
            refuse(refusals, pod, [MAX_SIZE.to_owned()]);
        } else if let Some(name) = choice.stage.add(group) {
            match choice.stage.rehearsal.place_first(pod, std::slice::from_ref(&name)) {
                Ok(_) => {
                    choice.helped.push(pod);
                    choice.nodes.push(name);
                }
                Err(reasons) => {
                    choice.stage.remove_last();
                    refuse(refusals, pod, reasons);
                }
            }
        } else {
            refuse(refusals, pod, [NO_ROOM.to_owned()]);
        }
    }
    choice
}

/// Pods that may get nodes made, the most important first, and then the largest.
fn wanting<'p>(waiting: &[&'p Pod]) -> Vec<&'p Pod> {
    let priority = |pod: &Pod| pod.spec.priority.unwrap_or(0);
    // Room is being made for a pod that was promised a node.
    let counts = |pod: &&Pod| pod.status.nominated_node_name.is_empty() && priority(pod) >= EXPENDABLE_BELOW;
    let mut pods: Vec<&Pod> = waiting.iter().copied().filter(counts).collect();
    pods.sort_by_cached_key(|pod| {
        let asked = requested(&pod.spec);
        (Reverse(priority(pod)), Reverse(asked.cpu_milli), Reverse(asked.memory_bytes), pod.key())
    });
    pods.truncate(PODS_MAX);
    pods
}

/// Makes groups larger. Whether any pod's lot is going to change: then it is not yet known who needs which node.
pub(super) fn grow(groups: &[Members<'_>], world: &World<'_>, history: &mut History, plan: &mut Plan) -> bool {
    let mut pods = wanting(world.waiting);
    let waiting = pods.len();
    let known: BTreeSet<Key> = pods.iter().map(|pod| pod.key()).collect();
    history.said.retain(|key, _| known.contains(key));
    if pods.is_empty() {
        return false;
    }
    let mut stage = Stage::of(groups, world);
    pods.retain(|pod| stage.rehearsal.place(pod).is_none());
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut told = Vec::new();
    let mut refusals = Refusals::new();
    while !pods.is_empty() {
        refusals.clear();
        let choices = groups.iter().map(|members| {
            let size = sizes.get(members.name()).copied().unwrap_or(members.group.spec.wanted());
            let room = usize::try_from(members.group.spec.max_size).unwrap_or(0).saturating_sub(size);
            (members, size, pack(members.group, room, &pods, &stage, &mut refusals))
        });
        let helping = choices.filter(|(_, _, choice)| !choice.helped.is_empty());
        let Some((members, size, choice)) = helping.min_by_key(|(members, _, choice)| (choice.waste(), members.name()))
        else {
            break;
        };
        let larger = size + choice.nodes.len();
        let max = members.group.spec.max_size;
        let text = format!("pod triggered scale-up: [{{{} {size}->{larger} (max: {max})}}]", members.name());
        told.extend(choice.helped.iter().map(|pod| (*pod, text.clone())));
        let helped: BTreeSet<_> = choice.helped.iter().map(|pod| pod.key()).collect();
        sizes.insert(members.name(), larger);
        stage = choice.stage;
        pods.retain(|pod| !helped.contains(&pod.key()));
    }
    for members in groups {
        plan.writes.extend(sizes.get(members.name()).map(|size| members.resized(*size, Some(world.now))));
    }
    for (pod, text) in told {
        plan.event(&Target::of::<Pod>(&pod.metadata), COMPONENT, Reason::normal("TriggeredScaleUp", text));
    }
    tell_refused(&pods, &refusals, history, plan);
    pods.len() < waiting
}

/// Tells pods why no group helps them, once.
fn tell_refused(pods: &[&Pod], refusals: &Refusals, history: &mut History, plan: &mut Plan) {
    for pod in pods {
        let reasons = refusals.get(&pod.key()).map(histogram).unwrap_or_default();
        let text = format!("pod didn't trigger scale-up: {reasons}");
        let before = history.said.insert(pod.key(), text.clone());
        if before.as_ref() != Some(&text) {
            plan.event(&Target::of::<Pod>(&pod.metadata), COMPONENT, Reason::normal("NotTriggerScaleUp", text));
        }
    }
}
