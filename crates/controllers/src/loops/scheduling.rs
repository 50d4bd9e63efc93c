//! The default scheduler. Its keys are lanes, not pods: which pod is next is its own queue's to say, and lanes let several
//! bindings be written at the same time.

use std::collections::BTreeMap;

use isopod_planner::Plan;
use isopod_planner::profiles::explain_no_match;
use isopod_planner::scheduler::preemption::Budget;
use isopod_planner::scheduler::volumes::Storage;
use isopod_planner::scheduler::{Scheduler, World};
use isopod_types::Key;
use isopod_types::pod::Pod;
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};
use crate::queue::Work;

/// Pods whose placement is written at the same time.
const LANES: usize = 32;

pub(super) const SCHEDULING: Loop = Loop { name: "default-scheduler", touched: |_, _| Vec::new(), decide };

/// The scheduler and what its lanes do.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    pub(super) scheduler: Scheduler,
    /// The pod that each lane decided about last.
    lanes: BTreeMap<Key, Key>,
    /// The lane that is woken next.
    next: usize,
}

impl Scheduling {
    /// Takes a change in; returns the lanes that have something to do because of it.
    pub(super) fn observe(&mut self, changed: &Changed) -> Vec<Work> {
        let woken = match changed {
            Changed::Pod(change) => self.scheduler.pod_changed(change.before.as_ref(), change.after.as_ref()),
            Changed::Node(change) => self.scheduler.node_changed(change.before.as_ref(), change.after.as_ref()),
            Changed::Namespace(change) => {
                self.scheduler.namespace_changed(&change.key().name, change.after.as_ref());
                0
            }
            Changed::PersistentVolumeClaim(change) => self.scheduler.claim_changed(&change.key()),
            Changed::PersistentVolume(_) | Changed::StorageClass(_) => self.scheduler.storage_changed(),
            Changed::FargateProfile(_) => self.scheduler.explanations_changed(),
            _ => 0,
        };
        (0..woken.min(LANES)).map(|_| self.lane()).collect()
    }

    /// Whether a pod on a node uses a claim.
    pub(super) fn uses(&self, claim: &Key) -> bool {
        self.scheduler.users(claim).next().is_some()
    }

    fn lane(&mut self) -> Work {
        self.next = (self.next + 1) % LANES;
        Work { name: SCHEDULING.name, key: Key::cluster(self.next.to_string()) }
    }

    /// What a lane decided could not be written: its pod is tried again.
    pub(super) fn failed(&mut self, lane: &Key, cache: &Cache, now: Timestamp) {
        let Some(pod) = self.lanes.remove(lane).and_then(|key| cache.pods.get(&key)) else { return };
        self.scheduler.retry(pod, now);
    }
}

fn decide(state: &mut State, lane: &Key, now: Timestamp) -> Plan {
    let State { cache, scheduling, .. } = state;
    let storage = Storage { claims: cache.claims.map(), volumes: cache.volumes.map(), classes: cache.classes.map() };
    let explain = |pod: &Pod| {
        let profiles: Vec<_> = cache.profiles.all().cloned().collect();
        explain_no_match(&profiles, &pod.metadata.namespace, &pod.metadata.labels)
    };
    let budgets = || cache.budgets.all().map(Budget::of).collect();
    let world = World { pods: cache.pods.map(), storage, budgets: &budgets, explain: &explain };
    let (pod, mut plan) = scheduling.scheduler.decide(world, now);
    if let Some(pod) = pod {
        scheduling.lanes.insert(lane.clone(), pod);
    }
    if let Some(at) = scheduling.scheduler.next_at(now) {
        plan.wake_at(at);
    }
    plan
}
