//! How fast the number of pods may change: windows in which earlier recommendations count, and steps.
//!
//! Source: `behavior` of HorizontalPodAutoscalers as upstream documents it; without it, the limits it had before.

use isopod_types::autoscaling::{AutoscalerSpec, ScalingRules};
use jiff::{SignedDuration, Timestamp};

/// Seconds in which the highest recommendation keeps the number up, when nothing else is said.
const SCALE_DOWN_WINDOW_SECONDS: i64 = 300;
/// Pods that are always allowed without `behavior`.
const LEGACY_STEP: i64 = 4;

/// What was recommended and done lately. Kept by the caller between decisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Recommendations, before they were limited.
    recommended: Vec<(Timestamp, i64)>,
    /// Pods that were added.
    added: Vec<(Timestamp, i64)>,
    /// Pods that were removed.
    removed: Vec<(Timestamp, i64)>,
}

/// A number of pods, and what limited it: reason and words of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) replicas: i64,
    /// Of `AbleToScale`.
    pub(super) stabilized: (&'static str, &'static str),
    /// Of `ScalingLimited`, which is true unless it is within the range.
    pub(super) limited: (&'static str, &'static str),
}

/// Reason of `ScalingLimited` when nothing limits.
pub(super) const WITHIN_RANGE: &str = "DesiredWithinRange";
const NOTHING: (&str, &str) = (WITHIN_RANGE, "the desired count is within the acceptable range");

fn since(events: &[(Timestamp, i64)], now: Timestamp, seconds: i64) -> impl Iterator<Item = i64> {
    let from = now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
    events.iter().filter(move |(at, _)| *at > from).map(|(_, count)| *count)
}

impl History {
    /// Notes the number there is when nothing was recommended before: a restart must not shrink anything.
    pub(super) fn begin(&mut self, current: i64, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// Notes a change that was asked for.
    pub(super) fn change(&mut self, from: i64, to: i64, now: Timestamp) {
        let events = if to > from { &mut self.added } else { &mut self.removed };
        events.push((now, (to - from).abs()));
    }

    /// Forgets what no rule can ask for any more.
    fn forget(&mut self, now: Timestamp) {
        const LONGEST_SECONDS: i64 = 3600;
        let from = now.saturating_sub(SignedDuration::from_secs(LONGEST_SECONDS)).unwrap_or(Timestamp::MIN);
        for events in [&mut self.recommended, &mut self.added, &mut self.removed] {
            events.retain(|(at, _)| *at > from);
        }
    }
}

/// Brings a recommendation within what earlier ones, steps and bounds allow.
pub(super) fn limit(
    spec: &AutoscalerSpec,
    history: &mut History,
    current: i64,
    desired: i64,
    now: Timestamp,
) -> Limited {
    let (up, down) = rules(spec);
    let window = |rules: Option<&ScalingRules>, default: i64| {
        rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default)
    };
    let lowest = since(&history.recommended, now, window(up, 0)).fold(desired, i64::min);
    let highest = since(&history.recommended, now, window(down, SCALE_DOWN_WINDOW_SECONDS)).fold(desired, i64::max);
    let stable = current.max(lowest).min(highest);
    history.forget(now);
    history.recommended.push((now, desired));
    let stabilized = if stable > desired {
        (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
    } else if stable < desired {
        (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        )
    } else {
        ("ReadyForNewScale", "recommended size matches current size")
    };
    let (replicas, limited) = step(spec, history, current, stable, now);
    Limited { replicas, stabilized, limited }
}

fn rules(spec: &AutoscalerSpec) -> (Option<&ScalingRules>, Option<&ScalingRules>) {
    let behavior = spec.behavior.as_ref();
    (behavior.and_then(|rules| rules.scale_up.as_ref()), behavior.and_then(|rules| rules.scale_down.as_ref()))
}

fn step(
    spec: &AutoscalerSpec,
    history: &History,
    current: i64,
    desired: i64,
    now: Timestamp,
) -> (i64, (&'static str, &'static str)) {
    let (up, down) = rules(spec);
    let began = |seconds: i64| {
        current - since(&history.added, now, seconds).sum::<i64>() + since(&history.removed, now, seconds).sum::<i64>()
    };
    if desired > current {
        let fastest = up.map_or((2 * current).max(LEGACY_STEP), |rules| highest(rules, current, began)).max(current);
        let most = spec.max_replicas.min(fastest);
        let words = if fastest < spec.max_replicas {
            ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
        } else {
            ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
        };
        return if desired > most { (most, words) } else { (desired, NOTHING) };
    }
    let fewest = spec.min_replicas.unwrap_or(1);
    let slowest = down.map_or(0, |rules| lowest(rules, current, began)).min(current);
    let least = fewest.max(slowest);
    let words = if slowest > fewest {
        ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
    } else {
        ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
    };
    if desired < least && desired < current { (least, words) } else { (desired, NOTHING) }
}

/// The most pods that the rules allow now.
fn highest(rules: &ScalingRules, current: i64, began: impl Fn(i64) -> i64) -> i64 {
    let allowed = rules.policies.iter().map(|policy| {
        let from = began(policy.period_seconds);
        let more = if policy.type_ == "Percent" { (from * policy.value + 99) / 100 } else { policy.value };
        from + more
    });
    choose(rules, current, allowed, true)
}

/// The fewest pods that the rules allow now.
fn lowest(rules: &ScalingRules, current: i64, began: impl Fn(i64) -> i64) -> i64 {
    let allowed = rules.policies.iter().map(|policy| {
        let from = began(policy.period_seconds);
        if policy.type_ == "Percent" { from * (100 - policy.value).max(0) / 100 } else { from - policy.value }
    });
    choose(rules, current, allowed, false)
}

/// Of what several policies allow: the greatest change, the smallest, or none. No policies allow the greatest change.
fn choose(rules: &ScalingRules, current: i64, allowed: impl Iterator<Item = i64>, up: bool) -> i64 {
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        Some("Min") if up => allowed.min().unwrap_or(i64::MAX),
        Some("Min") => allowed.max().unwrap_or(0),
        _ if up => allowed.max().unwrap_or(i64::MAX),
        _ => allowed.min().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn spec(behavior: Value) -> AutoscalerSpec {
        serde_json::from_value(json!({"minReplicas": 1, "maxReplicas": 100, "behavior": behavior})).unwrap()
    }

    /// Recommends these numbers 15 seconds after one another; what becomes of them.
    fn check(behavior: Value, start: i64, desired: &[i64], expected: &[(i64, &str)]) {
        let (spec, mut history, mut current) = (spec(behavior.clone()), History::default(), start);
        for (round, (desired, (replicas, reason))) in desired.iter().zip(expected).enumerate() {
            let now = at(1000 + 15 * i64::try_from(round).unwrap());
            history.begin(current, now);
            let found = limit(&spec, &mut history, current, *desired, now);
            assert_eq!((found.replicas, found.limited.0), (*replicas, *reason), "round {round} of {behavior}");
            if found.replicas != current {
                history.change(current, found.replicas, now);
                current = found.replicas;
            }
        }
    }

    #[test]
    fn without_behaviour_the_number_doubles_at_most_and_falls_late() {
        check(
            Value::Null,
            1,
            &[50, 50, 200, 200, 200, 200, 200],
            &[
                (4, "ScaleUpLimit"),
                (8, "ScaleUpLimit"),
                (16, "ScaleUpLimit"),
                (32, "ScaleUpLimit"),
                (64, "ScaleUpLimit"),
                (100, "TooManyReplicas"),
                (100, "TooManyReplicas"),
            ],
        );
        check(Value::Null, 10, &[5, 5, 5], &[(10, WITHIN_RANGE), (10, WITHIN_RANGE), (10, WITHIN_RANGE)]);
        let (spec, mut history) = (spec(Value::Null), History::default());
        history.begin(10, at(0));
        assert_eq!(limit(&spec, &mut history, 10, 5, at(299)).replicas, 10);
        assert_eq!(limit(&spec, &mut history, 10, 5, at(300)).replicas, 5);
        assert_eq!(limit(&spec, &mut history, 5, 0, at(900)).limited.0, "TooFewReplicas");
    }

    #[test]
    fn policies_limit_steps() {
        let policy =
            |type_: &str, value: i64, seconds: i64| json!({"type": type_, "value": value, "periodSeconds": seconds});
        let up = |select: &str| json!({"scaleUp": {"selectPolicy": select, "policies": [policy("Pods", 4, 60), policy("Percent", 10, 60)]}});
        check(up("Max"), 10, &[50, 50], &[(14, "ScaleUpLimit"), (14, "ScaleUpLimit")]);
        check(up("Min"), 10, &[50, 50], &[(11, "ScaleUpLimit"), (11, "ScaleUpLimit")]);
        check(up("Disabled"), 10, &[50], &[(10, "ScaleUpLimit")]);
        let down = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [policy("Percent", 50, 15)]}});
        check(down, 40, &[1, 1, 1], &[(20, "ScaleDownLimit"), (10, "ScaleDownLimit"), (5, "ScaleDownLimit")]);
        let slow = json!({"scaleUp": {"stabilizationWindowSeconds": 60, "policies": [policy("Pods", 9, 15)]}});
        check(
            slow,
            2,
            &[5, 9, 9, 9, 9],
            [(2, WITHIN_RANGE); 4].into_iter().chain([(9, WITHIN_RANGE)]).collect::<Vec<_>>().as_slice(),
        );
    }

    proptest! {
        /// A constant recommendation is reached in one direction and then kept.
        #[test]
        fn a_constant_recommendation_never_flaps(start in 1..60i64, desired in 1..60i64, window in 0..120i64, step in 1..20i64) {
            let rules = json!({"stabilizationWindowSeconds": window, "policies": [{"type": "Pods", "value": step, "periodSeconds": 30}]});
            let (spec, mut history, mut current) = (spec(json!({"scaleUp": rules, "scaleDown": rules})), History::default(), start);
            for round in 0..300 {
                let now = at(1000 + 15 * round);
                history.begin(current, now);
                let next = limit(&spec, &mut history, current, desired, now).replicas;
                prop_assert!((next - current) * (desired - current) >= 0 && (desired - next).abs() <= (desired - current).abs());
                if next != current {
                    history.change(current, next, now);
                }
                current = next;
            }
            prop_assert_eq!(current, desired);
        }
    }
}
