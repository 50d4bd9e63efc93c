//! CronJobs.

use isopod_planner::{Plan, cronjob};
use isopod_types::batch::{CronJob, Job};
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const CRON_JOBS: Loop = Loop { name: "cronjob", touched, decide };

fn touched(_cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::CronJob(change) => vec![change.key()],
        Changed::Job(change) => {
            let owners = change.sides().filter_map(|job| Some((job, job.metadata.controller()?)));
            let ours = owners.filter(|(_, owner)| owner.kind == CronJob::KIND);
            ours.map(|(job, owner)| Key::new(&*job.metadata.namespace, &*owner.name)).collect()
        }
        _ => Vec::new(),
    }
}

fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let Some(cron) = state.cache.cron_jobs.get(key) else { return Plan::nothing() };
    let jobs: Vec<&Job> = state.cache.jobs.owned_by(&cron.metadata.uid).collect();
    cronjob::plan(cron, &jobs, now)
}
