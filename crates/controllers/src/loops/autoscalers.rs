//! HorizontalPodAutoscalers. Their metrics come from the API: decisions ask, and are made anew with the answers.

use isopod_planner::autoscaling::{World, plan, questions, selector};
use isopod_planner::{Plan, Target, Write};
use isopod_types::Key;
use isopod_types::pod::Pod;
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};
use crate::queue::Work;

pub(super) const AUTOSCALERS: Loop = Loop { name: "autoscaler", touched, decide };

/// Only what its author says: its own status must not make it ask again.
fn touched(_cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::HorizontalPodAutoscaler(change) => {
            let both = change.before.as_ref().zip(change.after.as_ref());
            let is_report = both.is_some_and(|(before, after)| before.status != after.status);
            if is_report { Vec::new() } else { vec![change.key()] }
        }
        _ => Vec::new(),
    }
}

fn decide(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let work = Work { name: AUTOSCALERS.name, key: key.clone() };
    let answers = state.answers.remove(&work).unwrap_or_default();
    let Some(autoscaler) = state.cache.autoscalers.get(key) else {
        state.histories.remove(key);
        return Plan::nothing();
    };
    let reference = &autoscaler.spec.scale_target_ref;
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    let scaled = Key::new(&*key.namespace, &*reference.name);
    let target = state.metadata.named(group, &reference.kind, &scaled).map(|item| Target {
        uid: String::new(),
        resource_version: String::new(),
        ..item.target.clone()
    });
    let questions = questions(autoscaler, target.as_ref(), &answers);
    if !questions.is_empty() {
        state.answers.insert(work, answers);
        return Plan { writes: questions.into_iter().map(|path| Write::Read { path }).collect(), again_at: None };
    }
    let select = |selector| state.labelled.select(&state.cache, &key.namespace, &selector);
    let pods: Vec<&Pod> = selector(target.as_ref(), &answers).map(select).unwrap_or_default();
    let history = state.histories.entry(key.clone()).or_default();
    plan(World { autoscaler, target: target.as_ref(), answers: &answers, pods: &pods, now }, history)
}
