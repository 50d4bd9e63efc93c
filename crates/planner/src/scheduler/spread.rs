//! Topology spread: pods of one sort are kept even over places. Counts come from the index.
//!
//! Source: the `PodTopologySpread` plugin of kube-scheduler.

use isopod_types::pod::Pod;
use isopod_types::scheduling::TopologySpreadConstraint;

use super::affinity::node_allowed;
use super::index::{Index, Slot};
use super::info::{PodInfo, Selection};
use super::messages::Why;
use super::taints::repelling;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A constraint with what it counts.
#[derive(Clone, Debug)]
struct Constraint {
    topology: usize,
    is_hostname: bool,
    max_skew: i64,
    min_domains: i64,
    /// Whether the pod itself is counted once it is there.
    counts_itself: bool,
    selection: Selection,
    /// Pods by place; none for places without a node that counts.
    by_place: Vec<Option<i64>>,
    /// Pods by node, for hostnames.
    by_slot: Vec<u32>,
}

/// The constraints of one pod, with the counts of now.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    hard: Vec<Constraint>,
    soft: Vec<Constraint>,
    /// Soft constraints that nobody stated: nodes without the label are not left out.
    is_default: bool,
}

/// Constraints for pods of one controller that state none.
fn defaults() -> [TopologySpreadConstraint; 2] {
    [(ZONE, 5), (HOSTNAME, 3)].map(|(key, max_skew)| TopologySpreadConstraint {
        max_skew,
        topology_key: key.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..TopologySpreadConstraint::default()
    })
}

/// Whether pods on a node count for a constraint.
fn counts(constraint: &TopologySpreadConstraint, pod: &Pod, index: &Index, slot: Slot) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let taints_of = |slot| index.class(slot).map_or(&[][..], |class| &class.taints);
    (!affinity || node_allowed(&pod.spec, &index.node(slot).meta))
        && (!taints || repelling(taints_of(slot), &pod.spec.tolerations).is_none())
}

fn slots(index: &Index) -> Vec<Slot> {
    index.classes().flat_map(|class| class.slots.iter().copied()).collect()
}

impl Constraint {
    fn new(index: &mut Index, pod: &Pod, info: &PodInfo, rule: &TopologySpreadConstraint, all: &[usize]) -> Self {
        let meta = &pod.metadata;
        let selection = match pod.spec.topology_spread_constraints.is_empty() {
            true => Selection::of_owner(&meta.namespace, &info.owner),
            false => Selection::of_spread(rule, &meta.namespace, &meta.labels),
        };
        let by_slot = index.counts(std::slice::from_ref(&selection), true).to_vec();
        let topology = index.topology(&rule.topology_key);
        let mut by_place = vec![None; index.places(topology)];
        for slot in slots(index) {
            let complete = all.iter().all(|topology| index.place(*topology, slot).is_some());
            if let Some(place) = index.place(topology, slot).filter(|_| complete && counts(rule, pod, index, slot)) {
                let count = by_place[place as usize].get_or_insert(0);
                *count += i64::from(by_slot.get(slot).copied().unwrap_or(0));
            }
        }
        Self {
            topology,
            is_hostname: rule.topology_key == HOSTNAME,
            max_skew: rule.max_skew,
            min_domains: rule.min_domains.unwrap_or(1),
            counts_itself: selection.holds(info, index.namespaces()),
            selection,
            by_place,
            by_slot,
        }
    }

    /// The number in the emptiest place.
    fn least(&self) -> i64 {
        let counted = || self.by_place.iter().flatten();
        let enough = counted().count() >= usize::try_from(self.min_domains).unwrap_or(usize::MAX);
        if enough { counted().min().copied().unwrap_or(0) } else { 0 }
    }

    /// What counts against a node, if it has a place.
    fn at(&self, index: &Index, slot: Slot) -> Option<i64> {
        let place = index.place(self.topology, slot)?;
        if self.is_hostname {
            return Some(i64::from(self.by_slot.get(slot).copied().unwrap_or(0)));
        }
        Some(self.by_place[place as usize].unwrap_or(0))
    }
}

impl Spread {
    /// The constraints of a pod as things are now.
    pub fn new(index: &mut Index, pod: &Pod, info: &PodInfo) -> Self {
        let stated = &pod.spec.topology_spread_constraints;
        let is_default = stated.is_empty();
        let default = defaults();
        let rules = if is_default && !info.owner.is_empty() { &default[..] } else { stated };
        let (hard, soft): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.when_unsatisfiable == "DoNotSchedule");
        let mut of = |rules: &[&TopologySpreadConstraint]| -> Vec<Constraint> {
            let all: Vec<usize> = match is_default {
                true => Vec::new(),
                false => rules.iter().map(|rule| index.topology(&rule.topology_key)).collect(),
            };
            rules.iter().map(|rule| Constraint::new(index, pod, info, rule, &all)).collect()
        };
        Self { hard: of(&hard), soft: of(&soft), is_default }
    }

    /// A pod comes to a node, or goes when `sign` is -1.
    pub fn adjust(&mut self, index: &Index, info: &PodInfo, slot: Slot, sign: i64) {
        for constraint in self.hard.iter_mut().filter(|_| !info.is_deleting) {
            let place = index.place(constraint.topology, slot);
            if let Some(Some(count)) = place.and_then(|place| constraint.by_place.get_mut(place as usize))
                && constraint.selection.holds(info, index.namespaces())
            {
                *count += sign;
            }
        }
    }

    /// Whether the pod may be on a node.
    pub fn check(&self, index: &Index, slot: Slot) -> Result<(), Why> {
        for constraint in &self.hard {
            let place = index.place(constraint.topology, slot).ok_or(Why::SpreadLabel)?;
            let count = constraint.by_place[place as usize].unwrap_or(0);
            if count + i64::from(constraint.counts_itself) - constraint.least() > constraint.max_skew {
                return Err(Why::Spread);
            }
        }
        Ok(())
    }

    /// How crowded the pod's like make each of these nodes, 0 to 100 with 100 for the emptiest.
    pub fn scores(&self, index: &Index, feasible: &[Slot]) -> Vec<i64> {
        if self.soft.is_empty() {
            return vec![0; feasible.len()];
        }
        let weights: Vec<f64> = self.soft.iter().map(|constraint| weight(constraint, index, feasible)).collect();
        let raw: Vec<Option<i64>> = feasible.iter().map(|slot| self.crowd(index, *slot, &weights)).collect();
        let max = raw.iter().flatten().max().copied().unwrap_or(0);
        let min = raw.iter().flatten().min().copied().unwrap_or(0);
        let score = |crowd: i64| if max == 0 { 100 } else { 100 * (max + min - crowd) / max };
        raw.into_iter().map(|crowd| crowd.map_or(0, score)).collect()
    }

    fn crowd(&self, index: &Index, slot: Slot, weights: &[f64]) -> Option<i64> {
        let mut sum = 0.0;
        for (constraint, weight) in self.soft.iter().zip(weights) {
            match constraint.at(index, slot) {
                Some(count) => sum += count as f64 * weight + (constraint.max_skew - 1) as f64,
                None if self.is_default => {}
                None => return None,
            }
        }
        Some(sum.round() as i64)
    }
}

/// A constraint over many places counts more.
fn weight(constraint: &Constraint, index: &Index, feasible: &[Slot]) -> f64 {
    let mut seen: Vec<u32> = feasible.iter().filter_map(|slot| index.place(constraint.topology, *slot)).collect();
    seen.sort_unstable();
    seen.dedup();
    (seen.len() as f64 + 2.0).ln()
}
