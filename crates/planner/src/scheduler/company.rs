//! Affinity and anti-affinity between pods: near whom a pod must or likes to be, and who does not want it near.
//!
//! Source: the `InterPodAffinity` plugin of kube-scheduler.

use super::index::{Index, Slot, keeps_away};
use super::info::{PodInfo, Selection, Term, Wish};
use super::messages::Why;

/// What a required affinity of a placed pod to the new one counts for the node, beside stated wishes.
const REQUIRED_WEIGHT: i64 = 1;

/// Numbers by place of one topology.
#[derive(Clone, Debug)]
struct Places {
    topology: usize,
    by_place: Vec<i64>,
}

impl Places {
    fn add(&mut self, place: Option<u32>, amount: i64) {
        let Some(place) = place.map(|place| place as usize) else { return };
        if self.by_place.len() <= place {
            self.by_place.resize(place + 1, 0);
        }
        self.by_place[place] += amount;
    }

    /// The number at a node's place; none when it has no place.
    fn at(&self, index: &Index, slot: Slot) -> Option<i64> {
        let place = index.place(self.topology, slot)? as usize;
        Some(self.by_place.get(place).copied().unwrap_or(0))
    }
}

/// The rules between one pod and all others, with the counts of now.
#[derive(Clone, Debug, Default)]
pub struct Company {
    /// Pods that do not want it near, by topology.
    unwilling: Vec<Places>,
    /// Pods it must be near, by topology of each of its terms; each must match all of them.
    near: Vec<Places>,
    near_selections: Vec<Selection>,
    /// Whether it is itself one of those it must be near.
    is_its_own: bool,
    /// Pods it must be away from.
    away: Vec<(Selection, Places)>,
    /// What places are worth.
    wishes: Vec<Places>,
}

/// The numbers of a topology in a list, which gets them if it has none.
fn of_topology(list: &mut Vec<Places>, topology: usize) -> &mut Places {
    let at = list.iter().position(|places| places.topology == topology).unwrap_or(list.len());
    if at == list.len() {
        list.push(Places { topology, by_place: Vec::new() });
    }
    &mut list[at]
}

fn count(index: &mut Index, selections: &[Selection], topology_key: &str) -> Places {
    let topology = index.topology(topology_key);
    let counts = index.counts(selections, false).to_vec();
    let mut places = Places { topology, by_place: Vec::new() };
    for (slot, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        places.add(index.place(topology, slot), i64::from(count));
    }
    places
}

impl Company {
    /// The rules between a pod and all others as things are now.
    pub fn new(index: &mut Index, info: &PodInfo) -> Self {
        let mut company = Self::default();
        let of = |wish: Wish| info.terms.iter().filter(move |term| term.wish == wish);
        company.near_selections = of(Wish::MustBeNear).map(|term| term.selection.clone()).collect();
        let own = |selection: &Selection| selection.holds(info, index.namespaces());
        company.is_its_own = company.near_selections.iter().all(own);
        company.near =
            of(Wish::MustBeNear).map(|term| count(index, &company.near_selections, &term.topology_key)).collect();
        company.away = of(Wish::MustBeAway)
            .map(|term| {
                (term.selection.clone(), count(index, std::slice::from_ref(&term.selection), &term.topology_key))
            })
            .collect();
        company.hear_others(index, info);
        company.hear_itself(index, info);
        company
    }

    /// What placed pods say about the new one.
    fn hear_others(&mut self, index: &mut Index, info: &PodInfo) {
        let about = |term: &Term| term.selection.holds(info, index.namespaces());
        let groups: Vec<_> = index.terms().filter(|group| about(&group.term)).cloned().collect();
        for group in groups {
            let topology = index.topology(&group.term.topology_key);
            let (list, worth) = match group.term.wish {
                _ if keeps_away(&group) => (&mut self.unwilling, 1),
                Wish::Likes(weight) => (&mut self.wishes, weight),
                _ => (&mut self.wishes, REQUIRED_WEIGHT),
            };
            let places = of_topology(list, topology);
            for (slot, count) in &group.by_slot {
                places.add(index.place(topology, *slot), worth * i64::from(*count));
            }
        }
    }

    /// What the new pod likes.
    fn hear_itself(&mut self, index: &mut Index, info: &PodInfo) {
        for term in &info.terms {
            let Wish::Likes(weight) = term.wish else { continue };
            let counted = count(index, std::slice::from_ref(&term.selection), &term.topology_key);
            let places = of_topology(&mut self.wishes, counted.topology);
            for (place, count) in counted.by_place.iter().enumerate() {
                places.add(u32::try_from(place).ok(), weight * count);
            }
        }
    }

    /// A placed pod comes to a node, or goes when `sign` is -1. `pod` is the one that is to be placed.
    pub fn adjust(&mut self, index: &Index, pod: &PodInfo, other: &PodInfo, slot: Slot, sign: i64) {
        let holds = |selection: &Selection, info: &PodInfo| selection.holds(info, index.namespaces());
        let against = other.terms.iter().filter(|term| term.wish == Wish::MustBeAway && holds(&term.selection, pod));
        for term in against {
            let found = self.unwilling.iter_mut().find(|places| index.is_topology(places.topology, &term.topology_key));
            if let Some(places) = found {
                places.add(index.place(places.topology, slot), sign);
            }
        }
        if !self.near.is_empty() && self.near_selections.iter().all(|selection| holds(selection, other)) {
            self.near.iter_mut().for_each(|places| places.add(index.place(places.topology, slot), sign));
        }
        for (selection, places) in &mut self.away {
            if holds(selection, other) {
                places.add(index.place(places.topology, slot), sign);
            }
        }
    }

    /// Whether the pod may be on a node.
    pub fn check(&self, index: &Index, slot: Slot) -> Result<(), Why> {
        if !self.is_near_enough(index, slot) {
            return Err(Why::PodAffinity);
        }
        if self.away.iter().any(|(_, places)| places.at(index, slot).is_some_and(|count| count > 0)) {
            return Err(Why::PodAntiAffinity);
        }
        if self.unwilling.iter().any(|places| places.at(index, slot).is_some_and(|count| count > 0)) {
            return Err(Why::ExistingAntiAffinity);
        }
        Ok(())
    }

    fn is_near_enough(&self, index: &Index, slot: Slot) -> bool {
        let counts: Option<Vec<i64>> = self.near.iter().map(|places| places.at(index, slot)).collect();
        let Some(counts) = counts else { return false };
        // The first of a group that wants to be together has nobody to be near.
        let nobody = || self.near.iter().all(|places| places.by_place.iter().all(|count| *count <= 0));
        counts.iter().all(|count| *count > 0) || (self.is_its_own && nobody())
    }

    /// How much the company at each of these nodes is liked, 0 to 100.
    pub fn scores(&self, index: &Index, feasible: &[Slot]) -> Vec<i64> {
        let worth = |slot: &Slot| self.wishes.iter().filter_map(|places| places.at(index, *slot)).sum::<i64>();
        let raw: Vec<i64> = feasible.iter().map(worth).collect();
        let (min, max) = (raw.iter().min().copied().unwrap_or(0), raw.iter().max().copied().unwrap_or(0));
        raw.into_iter().map(|worth| if max == min { 0 } else { 100 * (worth - min) / (max - min) }).collect()
    }
}
