//! HorizontalPodAutoscalers: the number of pods follows metrics.
//!
//! Source: the documented behaviour of upstream's autoscaler. `metrics` says what to ask for and reads the answers, `calculator` makes numbers of
//! them, `behaviour` limits how fast they change; here the whole is put together and reported. Asking is the caller's part.

mod behaviour;
mod calculator;
mod metrics;

use std::collections::BTreeMap;

use isopod_types::autoscaling::{AutoscalerStatus, HorizontalPodAutoscaler, ScalingRules};
use isopod_types::pod::Pod;
use isopod_types::workload::{Condition, LabelSelector};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::behaviour::WITHIN_RANGE;
use self::calculator::{Fleet, Tolerance};
use self::metrics::{Scene, Unknown, advise};
use crate::plan::{Plan, Reason, Target, Write};

pub use behaviour::History;

const COMPONENT: &str = "horizontal-pod-autoscaler";
/// Time between two looks at the metrics.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);
/// How far a metric may be off when nothing is said.
const TOLERANCE: f64 = 0.1;

/// Answers by path: documents, or why there is none.
pub type Answers = BTreeMap<String, Result<Value, String>>;

/// Where the scale of an object is.
pub fn scale_path(target: &Target) -> String {
    let root = if target.group.is_empty() { "/api" } else { "/apis" };
    let Target { plural, key, .. } = target;
    format!("{root}/{}/namespaces/{}/{plural}/{}/scale", target.api_version(), key.namespace, key.name)
}

/// What is not answered yet: first the target's scale, then its metrics.
pub fn questions(autoscaler: &HorizontalPodAutoscaler, target: Option<&Target>, answers: &Answers) -> Vec<String> {
    let Some(path) = target.map(scale_path) else { return Vec::new() };
    let Some(found) = answers.get(&path) else { return vec![path] };
    let Ok(scale) = found else { return Vec::new() };
    let selector = scale["status"]["selector"].as_str().unwrap_or_default();
    let key = autoscaler.metadata.key();
    let paths = autoscaler.spec.metrics.iter().filter_map(|metric| metrics::path(&key, metric, selector));
    paths.filter(|path| !answers.contains_key(path)).collect()
}

/// The selector of the target's pods, when its scale is known and has one.
pub fn selector(target: Option<&Target>, answers: &Answers) -> Option<LabelSelector> {
    let scale = answers.get(&scale_path(target?))?.as_ref().ok()?;
    let text = scale["status"]["selector"].as_str().filter(|text| !text.is_empty())?;
    text.parse().ok()
}

/// An autoscaler and what is known for it.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The autoscaler.
    pub autoscaler: &'a HorizontalPodAutoscaler,
    /// What it scales; none when there is no such object.
    pub target: Option<&'a Target>,
    /// Answers to all questions.
    pub answers: &'a Answers,
    /// Pods of the target.
    pub pods: &'a [&'a Pod],
    /// The time.
    pub now: Timestamp,
}

/// What the target's scale says.
#[derive(Clone, Copy)]
struct Scale<'a> {
    wanted: i64,
    replicas: i64,
    selector: &'a str,
}

/// A decision in the making.
struct Draft<'a> {
    world: World<'a>,
    status: AutoscalerStatus,
    plan: Plan,
}

impl Draft<'_> {
    fn condition(&mut self, type_: &str, status: &str, (reason, message): (&str, &str)) {
        let before = self.status.conditions.iter().position(|one| one.type_ == type_);
        let same = before.map(|at| &self.status.conditions[at]).filter(|one| one.status == status);
        let since = same.and_then(|one| one.last_transition_time).unwrap_or(self.world.now);
        let new = Condition {
            type_: type_.into(),
            status: status.into(),
            last_update_time: None,
            last_transition_time: Some(since),
            reason: reason.into(),
            message: message.into(),
        };
        match before {
            Some(at) => self.status.conditions[at] = new,
            None => self.status.conditions.push(new),
        }
    }

    fn event(&mut self, reason: Reason) {
        let target = Target::of::<HorizontalPodAutoscaler>(&self.world.autoscaler.metadata);
        self.plan.event(&target, COMPONENT, reason);
    }

    /// Ends the decision: the status is written when it changed.
    fn finish(mut self) -> Plan {
        let autoscaler = self.world.autoscaler;
        if self.status != autoscaler.status {
            let target = Target::of::<HorizontalPodAutoscaler>(&autoscaler.metadata);
            let target = Target { resource_version: String::new(), ..target };
            let patch = json!({"status": self.status});
            self.plan.push(Write::Patch { target, subresource: "status", patch });
        }
        self.plan.wake_at(self.world.now.saturating_add(PERIOD).unwrap_or(Timestamp::MAX));
        self.plan
    }
}

/// Decides about one autoscaler when all its questions are answered.
pub fn plan(world: World<'_>, history: &mut History) -> Plan {
    let world = World { now: Timestamp::from_second(world.now.as_second()).unwrap_or(world.now), ..world };
    let autoscaler = world.autoscaler;
    if autoscaler.metadata.is_deleting() {
        return Plan::nothing();
    }
    let observed_generation = autoscaler.metadata.generation;
    let status = AutoscalerStatus { observed_generation, ..autoscaler.status.clone() };
    let mut draft = Draft { world, status, plan: Plan::nothing() };
    let scale = match scale(&world) {
        Ok(scale) => scale,
        Err(why) => {
            let text = format!("the HPA controller was unable to get the target's current scale: {why}");
            draft.condition("AbleToScale", "False", ("FailedGetScale", &text));
            draft.event(Reason::warning("FailedGetScale", why));
            return draft.finish();
        }
    };
    draft.condition(
        "AbleToScale",
        "True",
        ("SucceededGetScale", "the HPA controller was able to get the target's current scale"),
    );
    history.begin(scale.wanted, world.now);
    draft.status.current_replicas = scale.replicas;
    match desire(&mut draft, scale, history) {
        Some((desired, why)) if desired != scale.wanted => rescale(&mut draft, scale, desired, &why, history),
        Some(_) => draft.status.desired_replicas = scale.wanted,
        None => {}
    }
    draft.finish()
}

fn scale<'a>(world: &World<'a>) -> Result<Scale<'a>, String> {
    let reference = &world.autoscaler.spec.scale_target_ref;
    let missing = || format!("{} {:?} not found", reference.kind, reference.name);
    let path = scale_path(world.target.ok_or_else(missing)?);
    let found = world.answers.get(&path).ok_or_else(missing)?.as_ref().map_err(Clone::clone)?;
    let number = |at: &str| found.pointer(at).and_then(Value::as_i64).unwrap_or(0);
    let selector = found["status"]["selector"].as_str().unwrap_or_default();
    Ok(Scale { wanted: number("/spec/replicas"), replicas: number("/status/replicas"), selector })
}

/// The number of pods there should be and why; none when that cannot be said.
fn desire(draft: &mut Draft<'_>, scale: Scale<'_>, history: &mut History) -> Option<(i64, String)> {
    let spec = &draft.world.autoscaler.spec;
    let fewest = spec.min_replicas.unwrap_or(1);
    if scale.wanted == 0 && fewest != 0 {
        let text = "scaling is disabled since the replica count of the target is zero";
        draft.condition("ScalingActive", "False", ("ScalingDisabled", text));
        return Some((0, String::new()));
    }
    if scale.wanted > spec.max_replicas {
        return Some((spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".into()));
    }
    if scale.wanted < fewest {
        return Some((fewest, "Current number of replicas below Spec.MinReplicas".into()));
    }
    let (desired, metric) = follow(draft, scale)?;
    let limited = behaviour::limit(spec, history, scale.wanted, desired, draft.world.now);
    draft.condition("AbleToScale", "True", limited.stabilized);
    let is_limited = if limited.limited.0 == WITHIN_RANGE { "False" } else { "True" };
    draft.condition("ScalingLimited", is_limited, limited.limited);
    let why = if desired > scale.wanted { format!("{metric} above target") } else { "All metrics below target".into() };
    Some((limited.replicas, why))
}

/// The greatest number that a metric recommends, and the metric's name.
fn follow(draft: &mut Draft<'_>, scale: Scale<'_>) -> Option<(i64, String)> {
    let world = draft.world;
    let Some(scene) = scene(&world, scale) else {
        let text = "the HPA target's scale is missing a selector";
        draft.condition("ScalingActive", "False", ("InvalidSelector", text));
        draft.event(Reason::warning("SelectorRequired", text));
        return None;
    };
    let specs = &world.autoscaler.spec.metrics;
    let (mut advice, mut unknown) = (Vec::new(), Vec::new());
    for metric in specs {
        match advise(&scene, metric) {
            Ok(found) => advice.push(found),
            Err(why) => unknown.push(why),
        }
    }
    draft.status.current_metrics = advice.iter().map(|one| one.status.clone()).collect();
    for Unknown { reason, message } in &unknown {
        draft.event(Reason::warning(reason, message.clone()));
    }
    // The first of the greatest speaks.
    let best = advice.into_iter().rev().max_by_key(|one| one.replicas);
    let falls = best.as_ref().is_none_or(|best| best.replicas < scale.wanted);
    if let Some(first) = unknown.first().filter(|_| falls) {
        let text = format!("the HPA was unable to compute the replica count: {}", first.message);
        draft.condition("ScalingActive", "False", (first.reason, &text));
        let text = format!(
            "invalid metrics ({} invalid out of {}), first error is: {}",
            unknown.len(),
            specs.len(),
            first.message
        );
        draft.event(Reason::warning("FailedComputeMetricsReplicas", text));
        return None;
    }
    let best = best?;
    let text = format!("the HPA was able to successfully calculate a replica count from {}", best.name);
    draft.condition("ScalingActive", "True", ("ValidMetricFound", &text));
    Some((best.replicas, best.name))
}

fn scene<'a>(world: &World<'a>, scale: Scale<'a>) -> Option<Scene<'a>> {
    if scale.selector.is_empty() {
        return None;
    }
    let behavior = world.autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&ScalingRules>| {
        let stated = rules.and_then(|rules| rules.tolerance).and_then(|value| i32::try_from(value.milli()).ok());
        stated.map_or(TOLERANCE, |milli| f64::from(milli) / 1000.0)
    };
    let up = of(behavior.and_then(|rules| rules.scale_up.as_ref()));
    let down = of(behavior.and_then(|rules| rules.scale_down.as_ref()));
    let tolerance = Tolerance { up, down };
    let fleet = Fleet { pods: world.pods, current: scale.wanted, tolerance, now: world.now };
    let Scale { selector, replicas, .. } = scale;
    Some(Scene { autoscaler: world.autoscaler, fleet, selector, replicas, answers: world.answers })
}

fn rescale(draft: &mut Draft<'_>, scale: Scale<'_>, desired: i64, why: &str, history: &mut History) {
    let Some(target) = draft.world.target else { return };
    let target = Target { resource_version: String::new(), ..target.clone() };
    let patch = json!({"spec": {"replicas": desired}});
    draft.plan.push(Write::Patch { target, subresource: "scale", patch });
    let text = format!("the HPA controller was able to update the target scale to {desired}");
    draft.condition("AbleToScale", "True", ("SucceededRescale", &text));
    draft.event(Reason::normal("SuccessfulRescale", format!("New size: {desired}; reason: {why}")));
    history.change(scale.wanted, desired, draft.world.now);
    draft.status.desired_replicas = desired;
    draft.status.last_scale_time = Some(draft.world.now);
}

#[cfg(test)]
mod tests;
