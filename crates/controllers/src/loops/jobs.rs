//! Jobs: their pods, the pods that outlive them, and their own end.

use isopod_planner::{Plan, job};
use isopod_types::batch::Job;
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::members::{candidates, owners};
use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const JOBS: Loop = Loop { name: "job", touched, decide };
pub(super) const ABANDONED: Loop = Loop { name: "job-abandoned-pod", touched: touched_pods, decide: decide_pod };
pub(super) const EXPIRY: Loop = Loop { name: "job-expiry", touched: touched_ends, decide: decide_end };

fn touched(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Job(change) => vec![change.key()],
        Changed::Pod(change) => {
            change.sides().flat_map(|pod| owners(&cache.jobs, pod, |job| &job.spec.selector)).collect()
        }
        _ => Vec::new(),
    }
}

fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let Some(job) = state.cache.jobs.get(key) else { return Plan::nothing() };
    job::plan(job, &candidates(&state.cache.pods, &job.metadata), now)
}

/// The Job that will count a pod: the one that controls it, or one that selects it.
fn counting<'a>(cache: &'a Cache, pod: &'a Pod) -> Option<&'a Job> {
    match pod.metadata.controller() {
        Some(owner) => {
            let job = cache.jobs.get(&Key::new(&*pod.metadata.namespace, &*owner.name));
            job.filter(|job| owner.kind == Job::KIND && job.metadata.uid == owner.uid)
        }
        None => {
            let mut jobs = cache.jobs.of_namespace(&pod.metadata.namespace);
            jobs.find(|job| job.spec.selector.matches(&pod.metadata.labels))
        }
    }
}

fn touched_pods(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Pod(change) => {
            let lost = change.after.iter().filter(|pod| job::is_tracked(pod) && counting(cache, pod).is_none());
            lost.map(Object::key).collect()
        }
        Changed::Job(change) => {
            let gone = change
                .before
                .iter()
                .filter(|before| change.after.as_ref().is_none_or(|after| after.metadata.uid != before.metadata.uid));
            gone.flat_map(|job| cache.pods.owned_by(&job.metadata.uid)).map(Object::key).collect()
        }
        _ => Vec::new(),
    }
}

fn decide_pod(state: &mut State, key: &Key, _now: Timestamp) -> Plan {
    let pod = state.cache.pods.get(key).filter(|pod| counting(&state.cache, pod).is_none());
    pod.map(job::abandon).unwrap_or_default()
}

fn touched_ends(_cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Job(change) => {
            let ended = change.after.iter().filter(|job| job.status.finished().is_some());
            ended.map(Object::key).collect()
        }
        _ => Vec::new(),
    }
}

fn decide_end(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    state.cache.jobs.get(key).map(|job| job::expire(job, now)).unwrap_or_default()
}
