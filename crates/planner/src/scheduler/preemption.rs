//! Who has to go so that a more important pod has room: as few, as unimportant and as unprotected pods as possible.
//!
//! Source: the `DefaultPreemption` plugin of kube-scheduler.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isopod_types::disruption::PodDisruptionBudget;
use isopod_types::workload::LabelSelector;
use jiff::Timestamp;

use super::filters::{Cycle, Survey, Trial};
use super::index::{Index, Slot};
use super::info::{Labels, PodInfo};
use super::messages::{Why, histogram, none_of};

/// Nodes that are tried out at most, unless a tenth of all is more.
const NODES_MIN: usize = 100;
/// Lifts every priority above zero, so that more victims always weigh more.
const PRIORITY_LIFT: i64 = 1 << 31;

/// A disruption budget as preemption reads it.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// Namespace of its pods.
    pub namespace: String,
    /// Which pods; none: no pod.
    pub selector: Option<LabelSelector>,
    /// How many more may go.
    pub disruptions_allowed: i64,
    /// Pods that are counted as gone already.
    pub disrupted: BTreeSet<String>,
}

impl Budget {
    /// From the object.
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        Self {
            namespace: budget.metadata.namespace.clone(),
            selector: budget.spec.selector.clone(),
            disruptions_allowed: budget.status.disruptions_allowed,
            disrupted: budget.status.disrupted_pods.keys().cloned().collect(),
        }
    }

    /// Whether it is about pods of this namespace with these labels. One with an empty selector is about none here.
    pub fn protects(&self, namespace: &str, labels: &Labels) -> bool {
        let selects = |selector: &LabelSelector| *selector != LabelSelector::default() && selector.matches(labels);
        self.namespace == namespace && self.selector.as_ref().is_some_and(selects)
    }
}

/// A node and who has to go from it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub slot: Slot,
    /// Who has to go, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a budget protects.
    pub violations: usize,
}

/// More important pods first; of equals the one that runs longest.
fn importance(info: &PodInfo) -> (Reverse<i64>, bool, Option<Timestamp>) {
    (Reverse(info.priority), info.started.is_none(), info.started)
}

/// Those that a budget protects, and those that none does. Budgets are used up in order of importance.
fn by_protection(pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.disruptions_allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let protects = budget.protects(&pod.key.namespace, &pod.labels);
            if protects && !budget.disrupted.contains(&pod.key.name) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Who has to go from one node.
///
/// # Errors
/// Why nobody's going helps.
fn victims_on(
    trial: &mut Trial<'_>,
    index: &Index,
    own: &PodInfo,
    budgets: &[Budget],
) -> Result<Candidate, Vec<String>> {
    let mut lesser: Vec<_> = trial.node.pods.values().filter(|pod| pod.priority < own.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".into()]);
    }
    lesser.iter().for_each(|pod| trial.change(index, pod, -1));
    trial.add_nominated(index);
    let reasons = trial.check(index);
    if !reasons.is_empty() {
        return Err(reasons.iter().map(Why::to_string).collect());
    }
    lesser.sort_by_key(|pod| importance(pod));
    let (protected, others) = by_protection(lesser, budgets);
    let mut stay_or_go = |pods: Vec<Arc<PodInfo>>| -> Vec<Arc<PodInfo>> {
        let goes = |pod: &Arc<PodInfo>| {
            trial.change(index, pod, 1);
            let stays = trial.check(index).is_empty();
            if !stays {
                trial.change(index, pod, -1);
            }
            !stays
        };
        pods.into_iter().filter(goes).collect()
    };
    let mut victims = stay_or_go(protected);
    let violations = victims.len();
    victims.extend(stay_or_go(others));
    victims.sort_by_key(|pod| importance(pod));
    Ok(Candidate { slot: trial.slot, victims, violations })
}

/// Order by which the candidate that does least harm comes first.
fn harm(candidate: &Candidate) -> (usize, i64, i128, usize, Reverse<Option<Timestamp>>) {
    let priorities = || candidate.victims.iter().map(|pod| pod.priority);
    let highest = priorities().max().unwrap_or(i64::MIN);
    let sum = priorities().map(|priority| i128::from(priority + PRIORITY_LIFT)).sum();
    let first = candidate.victims.iter().filter(|pod| pod.priority == highest).filter_map(|pod| pod.started).min();
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(first))
}

/// Finds who has to go; on failure says why, for the pod's message.
///
/// # Errors
/// The sentence that says why nobody's going helps.
pub fn find(
    index: &Index,
    cycle: &Cycle<'_>,
    survey: &Survey,
    budgets: &dyn Fn() -> Vec<Budget>,
) -> Result<Candidate, String> {
    if cycle.pod.spec.preemption_policy.as_deref() == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.".into());
    }
    if is_under_way(index, &cycle.info) {
        return Err("not eligible due to terminating pod on the nominated node.".into());
    }
    let budgets = if survey.resolvable.is_empty() { Vec::new() } else { budgets() };
    let tried_max = NODES_MIN.max(index.len() / 10);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let unhelpful = index.len().saturating_sub(survey.resolvable.len());
    if unhelpful > 0 {
        counts.insert("Preemption is not helpful for scheduling".into(), unhelpful);
    }
    let mut candidates = Vec::new();
    for slot in &survey.resolvable {
        match victims_on(&mut cycle.trial(index, *slot), index, &cycle.info, &budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => reasons.into_iter().for_each(|why| *counts.entry(why).or_default() += 1),
        }
        if candidates.len() >= tried_max {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(harm);
    best.ok_or_else(|| none_of(index.len(), &histogram(&counts)))
}

/// Whether pods are ending already to make room for this one.
pub(super) fn is_under_way(index: &Index, own: &PodInfo) -> bool {
    let node = index.nomination(&own.key).map(|slot| index.node(slot));
    node.is_some_and(|node| node.pods.values().any(|pod| pod.is_deleting && pod.priority < own.priority))
}
