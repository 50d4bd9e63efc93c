//! From a metric to a number of pods.
//!
//! Source: the algorithm that upstream documents: the ratio of what is to what should be, with pods that are not ready or whose metrics
//! are missing counted so that they never make a change greater or turn it around.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::pod::Pod;
use jiff::{SignedDuration, Timestamp};

/// Time after its start in which the processor use of a pod that is not ready says nothing.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// Time after its start in which a pod may become ready for the first time.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What a pod uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Amount, in thousandths.
    pub(super) milli: f64,
    /// End of the time it is about, and its length.
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
}

/// How far a metric may be off in each direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerance {
    fn allows(self, ratio: f64) -> bool {
        ratio >= 1.0 - self.down && ratio <= 1.0 + self.up
    }
}

/// The pods of a target.
#[derive(Clone, Copy)]
pub(super) struct Fleet<'a> {
    pub(super) pods: &'a [&'a Pod],
    pub(super) current: i64,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

/// Pods by what their metrics are worth.
#[derive(Debug, Default, PartialEq)]
struct Groups<'a> {
    ready: i64,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

fn group<'a>(fleet: Fleet<'a>, samples: &BTreeMap<String, Sample>, is_cpu: bool) -> Groups<'a> {
    let mut groups = Groups::default();
    for pod in fleet.pods {
        let name = pod.metadata.name.as_str();
        if pod.metadata.is_deleting() || pod.is_terminal() {
            groups.ignored.insert(name);
        } else if pod.status.phase == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(name) {
            if is_cpu && says_nothing(pod, sample, fleet.now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether the processor use of a pod is that of its beginning.
fn says_nothing(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let ready = pod.status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(start)) = (ready, pod.status.start_time) else { return true };
    let changed = ready.last_transition_time.unwrap_or(start);
    let is_ready = ready.status == "True";
    let after = |at: Timestamp, time: SignedDuration| at.saturating_add(time).unwrap_or(Timestamp::MAX);
    if after(start, CPU_INITIALIZATION) > now {
        return !is_ready || sample.at < after(changed, sample.window);
    }
    !is_ready && after(start, INITIAL_READINESS) > changed
}

/// What each pod should use.
pub(super) enum Wanted<'a> {
    /// Per cent of what it requests; requests in thousandths by pod.
    Percent(f64, &'a BTreeMap<String, f64>),
    /// This much, in thousandths.
    Amount(f64),
}

/// A recommendation and what it was made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Recommendation {
    pub(super) replicas: i64,
    /// Per cent of what the pods request, if that was the measure.
    pub(super) utilization: Option<i64>,
    /// Average use in thousandths.
    pub(super) average_milli: i64,
}

fn ceil(value: f64) -> i64 {
    // Far below where a float loses whole numbers, and never negative.
    #[expect(clippy::cast_possible_truncation, reason = "counts of pods")]
    let whole = (value - 1e-9).ceil().max(0.0) as i64;
    whole
}

fn whole(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "amounts and percentages within 64 bits")]
    let whole = value as i64;
    whole
}

fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

impl Wanted<'_> {
    /// Ratio of what is to what should be.
    fn ratio(&self, samples: &BTreeMap<String, Sample>) -> Result<f64, String> {
        let total: f64 = samples.values().map(|sample| sample.milli).sum();
        match self {
            Self::Amount(amount) => Ok(total / float(samples.len()) / amount),
            Self::Percent(percent, _) => Ok(self.utilization(samples)? / percent),
        }
    }

    fn utilization(&self, samples: &BTreeMap<String, Sample>) -> Result<f64, String> {
        let Self::Percent(_, requests) = self else { return Ok(0.0) };
        let both = samples.iter().filter_map(|(name, sample)| Some((sample.milli, *requests.get(name)?)));
        let (used, requested) = both.fold((0.0, 0.0), |(used, requested), (more, of)| (used + more, requested + of));
        if requested <= 0.0 {
            return Err("no metrics returned matched known pods".into());
        }
        Ok((used * 100.0 / requested).floor())
    }

    /// What a pod without metrics is taken to use when the number would fall.
    fn assumed(&self, pod: &str) -> f64 {
        match self {
            Self::Amount(amount) => *amount,
            Self::Percent(percent, requests) => requests.get(pod).copied().unwrap_or(0.0) * percent.max(100.0) / 100.0,
        }
    }
}

/// The number of pods by what they use.
pub(super) fn by_use(
    fleet: Fleet<'_>,
    mut samples: BTreeMap<String, Sample>,
    is_cpu: bool,
    wanted: &Wanted<'_>,
) -> Result<Recommendation, String> {
    let groups = group(fleet, &samples, is_cpu);
    samples.retain(|name, _| !groups.ignored.contains(name.as_str()) && !groups.unready.contains(name.as_str()));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let ratio = wanted.ratio(&samples)?;
    let average = samples.values().map(|sample| sample.milli).sum::<f64>() / float(samples.len());
    let utilization = matches!(wanted, Wanted::Percent(..)).then(|| wanted.utilization(&samples)).transpose()?;
    let replicas = settle(fleet, &groups, samples, ratio, wanted)?;
    Ok(Recommendation { replicas, utilization: utilization.map(whole), average_milli: whole(average) })
}

fn settle(
    fleet: Fleet<'_>,
    groups: &Groups<'_>,
    mut samples: BTreeMap<String, Sample>,
    ratio: f64,
    wanted: &Wanted<'_>,
) -> Result<i64, String> {
    let grows = ratio > 1.0;
    let counts_unready = grows && !groups.unready.is_empty();
    if !counts_unready && groups.missing.is_empty() {
        let replicas = || ceil(ratio * float(usize::try_from(groups.ready).unwrap_or(0)));
        return Ok(if fleet.tolerance.allows(ratio) { fleet.current } else { replicas() });
    }
    let mut assume = |name: &str, milli: f64| {
        samples.insert(name.to_owned(), Sample { milli, at: fleet.now, window: SignedDuration::ZERO });
    };
    for name in groups.missing.iter().filter(|_| ratio != 1.0) {
        assume(name, if grows { 0.0 } else { wanted.assumed(name) });
    }
    for name in groups.unready.iter().filter(|_| counts_unready) {
        assume(name, 0.0);
    }
    let new = wanted.ratio(&samples)?;
    let turned = (ratio < 1.0 && new > 1.0) || (grows && new < 1.0);
    if fleet.tolerance.allows(new) || turned {
        return Ok(fleet.current);
    }
    let replicas = ceil(new * float(samples.len()));
    let against = (new < 1.0 && replicas > fleet.current) || (new > 1.0 && replicas < fleet.current);
    Ok(if against { fleet.current } else { replicas })
}

/// The number of pods by a value for all of them together.
pub(super) fn by_value(fleet: Fleet<'_>, milli: f64, wanted_milli: f64) -> i64 {
    let ratio = milli / wanted_milli;
    if fleet.current == 0 {
        return ceil(ratio);
    }
    if fleet.tolerance.allows(ratio) {
        return fleet.current;
    }
    let ready = fleet.pods.iter().filter(|pod| pod.ready_since().is_some()).count();
    ceil(ratio * float(ready))
}

/// The number of pods by a value that each of them should have a share of; `replicas` share it now.
pub(super) fn by_share(fleet: Fleet<'_>, milli: f64, share_milli: f64, replicas: i64) -> i64 {
    let shared = share_milli * float(usize::try_from(replicas).unwrap_or(0));
    if replicas > 0 && fleet.tolerance.allows(milli / shared) { replicas } else { ceil(milli / share_milli) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: i64 = 10_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `ready`, `unready` (never was), `pending`, `deleting`.
    fn pod(number: usize, state: &str) -> Pod {
        let ready = if state == "unready" { "False" } else { "True" };
        let phase = if state == "pending" { "Pending" } else { "Running" };
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "deletionTimestamp": (state == "deleting").then_some("1970-01-01T00:00:00Z")},
            "status": {
                "phase": phase, "startTime": at(1000),
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(1000)}],
            },
        }))
        .unwrap()
    }

    /// Recommends for pods with these states and uses (in thousandths; negative: no metrics), which request 1000 each.
    fn recommend(pods: &[(&str, i32)], percent: f64) -> Result<Recommendation, String> {
        let all: Vec<Pod> = pods.iter().enumerate().map(|(number, (state, _))| pod(number, state)).collect();
        let refs: Vec<&Pod> = all.iter().collect();
        let requests = all.iter().map(|pod| (pod.metadata.name.clone(), 1000.0)).collect();
        let sample = |milli: i32| Sample { milli: milli.into(), at: at(NOW), window: SignedDuration::from_secs(30) };
        let used = pods.iter().enumerate().filter(|(_, (_, milli))| *milli >= 0);
        let samples = used.map(|(number, (_, milli))| (format!("p{number}"), sample(*milli))).collect();
        let current = i64::try_from(pods.len()).unwrap();
        let fleet = Fleet { pods: &refs, current, tolerance: Tolerance { up: 0.1, down: 0.1 }, now: at(NOW) };
        by_use(fleet, samples, true, &Wanted::Percent(percent, &requests))
    }

    fn check(pods: &[(&str, i32)], percent: f64, expected: i64) {
        assert_eq!(recommend(pods, percent).unwrap().replicas, expected, "{pods:?} {percent}");
    }

    #[test]
    fn use_decides_the_number() {
        check(&[("ready", 300), ("ready", 500), ("ready", 700)], 30.0, 5);
        check(&[("ready", 300), ("ready", 500), ("ready", 700)], 50.0, 3);
        check(&[("ready", 100), ("ready", 300), ("ready", 500), ("ready", 250), ("ready", 250)], 50.0, 3);
        // Within a tenth nothing changes.
        check(&[("ready", 1010), ("ready", 1030), ("ready", 1020)], 100.0, 3);
        let found = recommend(&[("ready", 300), ("ready", 500)], 50.0).unwrap();
        assert_eq!((found.utilization, found.average_milli), (Some(40), 400));
    }

    #[test]
    fn what_is_not_known_never_makes_a_change_greater() {
        // Of those that are not ready nothing is counted on the way up, and they are left out on the way down.
        check(&[("ready", 300), ("ready", 500), ("unready", 700)], 30.0, 3);
        check(&[("unready", 400), ("ready", 500), ("ready", 700)], 30.0, 4);
        check(&[("pending", -1), ("ready", 500), ("ready", 700)], 30.0, 4);
        check(&[("deleting", 900), ("ready", 500), ("ready", 700)], 30.0, 4);
        // Of those without metrics nothing is counted on the way up, all of their request on the way down.
        check(&[("ready", 1000), ("ready", -1), ("ready", -1)], 50.0, 3);
        check(&[("ready", 100), ("ready", -1), ("ready", -1)], 50.0, 3);
        check(&[("ready", 100), ("ready", 100), ("ready", 100), ("ready", -1)], 100.0, 2);
        assert!(recommend(&[("unready", 400)], 50.0).is_err());
    }

    #[test]
    fn values_and_shares() {
        let all: Vec<Pod> = (0..3).map(|number| pod(number, "ready")).collect();
        let pods: Vec<&Pod> = all.iter().collect();
        let fleet = Fleet { pods: &pods, current: 3, tolerance: Tolerance { up: 0.1, down: 0.1 }, now: at(NOW) };
        for (milli, wanted, expected) in [(20_000.0, 15_000.0, 4), (15_500.0, 15_000.0, 3), (5_000.0, 15_000.0, 1)] {
            assert_eq!(by_value(fleet, milli, wanted), expected);
        }
        assert_eq!(by_value(Fleet { current: 0, ..fleet }, 20_000.0, 15_000.0), 2);
        for (milli, share, expected) in [(20_000.0, 5_000.0, 4), (15_500.0, 5_000.0, 3), (5_000.0, 5_000.0, 1)] {
            assert_eq!(by_share(fleet, milli, share, 3), expected);
        }
    }

    proptest! {
        /// Whatever is unknown of the others, the number moves towards the target or stays.
        #[test]
        fn the_number_never_moves_away(uses in prop::collection::vec((0..4usize, -1..2000i32), 1..8), percent in 1..200u32) {
            let states = ["ready", "unready", "pending", "deleting"];
            let pods: Vec<(&str, i32)> = uses.iter().map(|(state, milli)| (states[*state], *milli)).collect();
            let current = i64::try_from(pods.len()).unwrap();
            let Ok(found) = recommend(&pods, f64::from(percent)) else { return Ok(()) };
            let utilization = f64::from(i32::try_from(found.utilization.unwrap()).unwrap());
            let known = pods.iter().any(|(state, _)| *state != "ready");
            if utilization < f64::from(percent) {
                prop_assert!(found.replicas <= current);
            } else if !known {
                prop_assert!(found.replicas >= current);
            }
        }
    }
}
