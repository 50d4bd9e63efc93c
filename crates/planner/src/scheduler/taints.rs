//! Taints and tolerations: who is kept away, who is merely unwelcome, and who has to go when.
//!
//! Source: `k8s.io/component-helpers/scheduling/corev1`.

use isopod_types::node::Taint;
use isopod_types::scheduling::Toleration;
use jiff::{SignedDuration, Timestamp};

/// Keeps pods from being placed.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Makes a node second choice.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Keeps pods away and drives those away that are there.
pub const NO_EXECUTE: &str = "NoExecute";
/// Taint of nodes that are marked unschedulable.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taint of nodes that say they are not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of nodes that say nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of nodes that are gone for good though their objects stand.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether a toleration is about a taint and accepts it.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    let value = match toleration.operator.as_str() {
        "" | "Equal" => toleration.value == taint.value,
        "Exists" => true,
        "Gt" => numbers(toleration, taint).is_some_and(|(taint, bound)| taint > bound),
        "Lt" => numbers(toleration, taint).is_some_and(|(taint, bound)| taint < bound),
        _ => false,
    };
    effect && key && value
}

/// The taint's value and the toleration's; none unless both are whole numbers.
fn numbers(toleration: &Toleration, taint: &Taint) -> Option<(i64, i64)> {
    Some((taint.value.parse().ok()?, toleration.value.parse().ok()?))
}

fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint with one of these effects that nothing tolerates.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let mut counted = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    counted.find(|taint| !is_tolerated(taint, tolerations))
}

/// The first taint that keeps a pod from being placed.
pub fn repelling<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    untolerated(taints, tolerations, &[NO_SCHEDULE, NO_EXECUTE])
}

/// How many taints make a node second choice for a pod.
pub fn unwelcome(taints: &[Taint], tolerations: &[Toleration]) -> usize {
    let about = |toleration: &&Toleration| toleration.effect.is_empty() || toleration.effect == PREFER_NO_SCHEDULE;
    let tolerations: Vec<&Toleration> = tolerations.iter().filter(about).collect();
    let soft = taints.iter().filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
    soft.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint))).count()
}

/// How long a pod may stay on a node with these taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Nothing drives it away.
    Forever,
    /// It has to go at once.
    Not,
    /// It has to go at this time unless the taint goes first.
    Until(Timestamp),
}

/// How long a pod may stay that came to the node at a time.
///
/// Every tolerating entry counts, the shortest time decides, and it runs from the latest `NoExecute` taint or from when the
/// pod came, whichever was later.
pub fn stay(taints: &[Taint], tolerations: &[Toleration], arrived: Timestamp) -> Stay {
    let driving: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == NO_EXECUTE).collect();
    if driving.iter().any(|taint| !is_tolerated(taint, tolerations)) {
        return Stay::Not;
    }
    let used = tolerations.iter().filter(|toleration| driving.iter().any(|taint| tolerates(toleration, taint)));
    let Some(seconds) = used.filter_map(|toleration| toleration.toleration_seconds).min() else {
        return Stay::Forever;
    };
    if seconds <= 0 {
        return Stay::Not;
    }
    let since = driving.iter().filter_map(|taint| taint.time_added).max().map_or(arrived, |added| added.max(arrived));
    since.saturating_add(SignedDuration::from_secs(seconds)).map_or(Stay::Forever, Stay::Until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn taint(text: &str) -> Taint {
        let (pair, effect) = text.split_once(':').unwrap();
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Taint { key: key.into(), value: value.into(), effect: effect.into(), time_added: None }
    }

    fn toleration(value: Value) -> Toleration {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn tolerations_accept_taints() {
        for (accepts, text, expected) in [
            (json!({"key": "k", "value": "v", "effect": "NoSchedule"}), "k=v:NoSchedule", true),
            (json!({"key": "k", "operator": "Equal", "value": "v"}), "k=v:NoExecute", true),
            (json!({"key": "k", "value": "w"}), "k=v:NoSchedule", false),
            (json!({"key": "k", "value": "v", "effect": "NoExecute"}), "k=v:NoSchedule", false),
            (json!({"key": "k", "operator": "Exists"}), "k=v:NoSchedule", true),
            (json!({"key": "j", "operator": "Exists"}), "k=v:NoSchedule", false),
            (json!({"operator": "Exists"}), "k=v:NoSchedule", true),
            (json!({"operator": "Exists", "effect": "NoExecute"}), "k=v:NoSchedule", false),
            (json!({"key": "k", "operator": "Gt", "value": "5"}), "k=9:NoSchedule", true),
            (json!({"key": "k", "operator": "Gt", "value": "9"}), "k=9:NoSchedule", false),
            (json!({"key": "k", "operator": "Lt", "value": "10"}), "k=9:NoSchedule", true),
            (json!({"key": "k", "operator": "Lt", "value": "10"}), "k=v:NoSchedule", false),
            (json!({"key": "k", "operator": "Like", "value": "v"}), "k=v:NoSchedule", false),
        ] {
            assert_eq!(tolerates(&toleration(accepts.clone()), &taint(text)), expected, "{accepts} {text}");
        }
    }

    #[test]
    fn the_first_untolerated_taint_repels() {
        let taints = [taint("soft:PreferNoSchedule"), taint("a:NoSchedule"), taint("b:NoExecute")];
        let accept_a = toleration(json!({"key": "a", "operator": "Exists"}));
        assert_eq!(repelling(&taints, &[]).unwrap().key, "a");
        assert_eq!(repelling(&taints, std::slice::from_ref(&accept_a)).unwrap().key, "b");
        let accept_all = toleration(json!({"operator": "Exists"}));
        assert_eq!(repelling(&taints, std::slice::from_ref(&accept_all)), None);
        assert_eq!((unwelcome(&taints, &[]), unwelcome(&taints, &[accept_all])), (1, 0));
    }

    #[test]
    fn stays_end_with_the_shortest_patience() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let added = |text: &str, second: i64| Taint { time_added: Some(at(second)), ..taint(text) };
        let patient = |key: &str, seconds: Value| {
            toleration(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}))
        };
        let taints = vec![added("a:NoExecute", 10), added("b:NoExecute", 20), taint("c:NoSchedule")];
        for (tolerations, expected) in [
            (vec![], Stay::Not),
            (vec![patient("a", json!(5))], Stay::Not),
            (vec![patient("a", json!(null)), patient("b", json!(null))], Stay::Forever),
            (vec![patient("a", json!(300)), patient("b", json!(null))], Stay::Until(at(320))),
            (vec![patient("a", json!(300)), patient("b", json!(30))], Stay::Until(at(50))),
            (vec![patient("a", json!(0)), patient("b", json!(30))], Stay::Not),
            (vec![patient("a", json!(-1)), patient("b", json!(30))], Stay::Not),
        ] {
            assert_eq!(stay(&taints, &tolerations, at(15)), expected, "{tolerations:?}");
        }
        assert_eq!(stay(&taints[..1], &[patient("a", json!(30))], at(50)), Stay::Until(at(80)));
        assert_eq!(stay(&[taint("c:NoSchedule")], &[], at(100)), Stay::Forever);
        assert_eq!(stay(&[taint("a:NoExecute")], &[patient("a", json!(7))], at(100)), Stay::Until(at(107)));
    }
}
