//! The chain of questions by which a node does or does not do for a pod, in kube-scheduler's order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isopod_types::pod::Pod;

use super::affinity::{named_nodes, node_allowed};
use super::company::Company;
use super::index::{Class, Index, NodeInfo, Slot};
use super::info::PodInfo;
use super::messages::Why;
use super::spread::Spread;
use super::taints::{NO_SCHEDULE, UNSCHEDULABLE, repelling, tolerates};
use super::volumes::{Storage, Volumes};
use isopod_types::node::Taint;

/// One pod that is to be placed, with what its rules count now.
#[derive(Clone, Debug)]
pub struct Cycle<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it asks for.
    pub info: Arc<PodInfo>,
    /// Its volumes.
    pub volumes: Volumes<'a>,
    /// How its like are spread.
    pub spread: Spread,
    /// Whom it wants near and away.
    pub company: Company,
    named: Option<BTreeSet<Slot>>,
}

/// Which nodes do, and why the others do not.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Nodes that do.
    pub feasible: Vec<Slot>,
    /// How many nodes do not do for each reason; one node may have several.
    pub counts: BTreeMap<Why, usize>,
    /// Nodes that might do without other pods.
    pub resolvable: Vec<Slot>,
}

/// A node as it would be if some pods came or went.
#[derive(Clone, Debug)]
pub struct Trial<'c> {
    /// The node's number.
    pub slot: Slot,
    /// The node.
    pub node: NodeInfo,
    spread: Spread,
    company: Company,
    cycle: &'c Cycle<'c>,
}

impl<'a> Cycle<'a> {
    /// Counts what the pod's rules ask about.
    ///
    /// # Errors
    /// Why no node can do, as a sentence.
    pub fn new(index: &mut Index, pod: &'a Pod, info: &Arc<PodInfo>, storage: Storage<'a>) -> Result<Self, String> {
        index.trim();
        let volumes = Volumes::new(index, pod, &info.claims, storage)?;
        let named = named_nodes(&pod.spec).map(|names| names.into_iter().filter_map(|name| index.slot(name)).collect());
        let spread = Spread::new(index, pod, info);
        let company = Company::new(index, info);
        Ok(Self { pod, info: info.clone(), volumes, spread, company, named })
    }

    fn repelled(&self, class: &Class) -> Option<Why> {
        let tolerations = &self.pod.spec.tolerations;
        let mark = Taint { key: UNSCHEDULABLE.into(), effect: NO_SCHEDULE.into(), ..Taint::default() };
        if class.unschedulable && !tolerations.iter().any(|toleration| tolerates(toleration, &mark)) {
            return Some(Why::Unschedulable);
        }
        repelling(&class.taints, tolerations).map(|_| Why::Taint)
    }

    /// Asks about every node; nodes whose taints repel the pod are not even looked at.
    pub fn survey(&self, index: &Index) -> Survey {
        let mut survey = Survey::default();
        for class in index.classes() {
            if let Some(why) = self.repelled(class) {
                *survey.counts.entry(why).or_default() += class.slots.len();
                continue;
            }
            for slot in &class.slots {
                let reasons = self.check_with_nominated(index, *slot);
                if reasons.is_empty() {
                    survey.feasible.push(*slot);
                    continue;
                }
                if reasons.iter().all(Why::is_resolvable) {
                    survey.resolvable.push(*slot);
                }
                reasons.into_iter().for_each(|why| *survey.counts.entry(why).or_default() += 1);
            }
        }
        survey
    }

    /// Whether one node does, taints included.
    pub fn allows(&self, index: &Index, slot: Slot) -> bool {
        index.class(slot).is_some() && self.reasons(index, slot).is_empty()
    }

    /// Why one node does not do, taints included.
    pub fn reasons(&self, index: &Index, slot: Slot) -> Vec<Why> {
        let repelled = index.class(slot).and_then(|class| self.repelled(class));
        repelled.map_or_else(|| self.check_with_nominated(index, slot), |why| vec![why])
    }

    /// Why a node does not do, with the pods that are about to come and without them.
    fn check_with_nominated(&self, index: &Index, slot: Slot) -> Vec<Why> {
        if self.company_is_coming(index, slot) {
            let mut trial = self.trial(index, slot);
            if trial.add_nominated(index) {
                let reasons = trial.check(index);
                if !reasons.is_empty() {
                    return reasons;
                }
            }
        }
        self.check(index, slot, index.node(slot), &self.spread, &self.company)
    }

    /// Whether room is made on a node for another pod that is not less important.
    fn company_is_coming(&self, index: &Index, slot: Slot) -> bool {
        let counts = |other: &Arc<PodInfo>| other.key != self.info.key && other.priority >= self.info.priority;
        index.has_nominations() && index.nominated_on(slot).any(counts)
    }

    fn check(&self, index: &Index, slot: Slot, node: &NodeInfo, spread: &Spread, company: &Company) -> Vec<Why> {
        if self.named.as_ref().is_some_and(|named| !named.contains(&slot)) || !node_allowed(&self.pod.spec, &node.meta)
        {
            return vec![Why::Affinity];
        }
        if !node.ports.are_free(&self.info.ports) {
            return vec![Why::Ports];
        }
        let reasons = self.lacking(node);
        if !reasons.is_empty() {
            return reasons;
        }
        let rest = self.volumes.check(index, &node.meta);
        let rest = rest.and_then(|()| spread.check(index, slot)).and_then(|()| company.check(index, slot));
        rest.err().into_iter().collect()
    }

    fn lacking(&self, node: &NodeInfo) -> Vec<Why> {
        let mut reasons = Vec::new();
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.pods_max {
            reasons.push(Why::TooManyPods);
        }
        let missing = node.allocatable.missing(&node.requested, &self.info.requested);
        if !missing.is_empty() {
            let never = node.allocatable.missing(&Default::default(), &self.info.requested);
            let why = |name: &str| {
                let is_too_small = never.contains(&name);
                if is_too_small { Why::TooSmall(name.to_owned()) } else { Why::Insufficient(name.to_owned()) }
            };
            reasons.extend(missing.into_iter().map(why));
        }
        reasons
    }

    /// A node to try things out on.
    pub fn trial(&self, index: &Index, slot: Slot) -> Trial<'_> {
        let (spread, company) = (self.spread.clone(), self.company.clone());
        Trial { slot, node: index.node(slot).clone(), spread, company, cycle: self }
    }
}

impl Trial<'_> {
    /// A pod comes, or goes when `sign` is -1.
    pub fn change(&mut self, index: &Index, info: &Arc<PodInfo>, sign: i64) {
        self.node.change(info, sign);
        self.spread.adjust(index, info, self.slot, sign);
        self.company.adjust(index, &self.cycle.info, info, self.slot, sign);
    }

    /// Puts the pods there for which room is being made and that are not less important; whether there were any.
    pub fn add_nominated(&mut self, index: &Index) -> bool {
        let own = &self.cycle.info;
        let coming =
            index.nominated_on(self.slot).filter(|other| other.key != own.key && other.priority >= own.priority);
        let coming: Vec<_> = coming.cloned().collect();
        coming.iter().for_each(|info| self.change(index, info, 1));
        !coming.is_empty()
    }

    /// Why the node does not do in this state.
    pub fn check(&self, index: &Index) -> Vec<Why> {
        self.cycle.check(index, self.slot, &self.node, &self.spread, &self.company)
    }
}
