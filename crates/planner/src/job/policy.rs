//! What the end of a pod means for its Job: rules about failures and successes.

use isopod_types::batch::{Job, PodFailureRule};
use isopod_types::pod::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// What the first matching rule says about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts.
    Counts,
    /// It does not count.
    Ignored,
    /// Its index has failed for good.
    FailsIndex,
    /// The Job has failed, for this reason.
    FailsJob(String),
}

/// What a failed pod means.
pub(super) fn of(job: &Job, pod: &Pod) -> Failure {
    let rules = job.spec.pod_failure_policy.as_ref().map_or(&[][..], |policy| &policy.rules);
    let matching = rules.iter().enumerate().find_map(|(number, rule)| Some((number, rule, why(rule, pod)?)));
    match matching {
        Some((number, rule, why)) => match rule.action.as_str() {
            "Ignore" => Failure::Ignored,
            "FailIndex" if job.spec.backoff_limit_per_index.is_some() => Failure::FailsIndex,
            "FailJob" => Failure::FailsJob(format!("{why} matching FailJob rule at index {number}")),
            _ => Failure::Counts,
        },
        None => Failure::Counts,
    }
}

/// Why a rule matches a pod, if it does.
fn why(rule: &PodFailureRule, pod: &Pod) -> Option<String> {
    let place = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
    if let Some(codes) = &rule.on_exit_codes {
        let fits = |status: &&ContainerStatus| {
            let named = codes.container_name.as_ref().is_none_or(|name| *name == status.name);
            let code = status.state.terminated.as_ref().map_or(0, |ended| ended.exit_code);
            named && code != 0 && codes.values.contains(&code) == (codes.operator == "In")
        };
        let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        let found = all.into_iter().find(fits)?;
        let code = found.state.terminated.as_ref()?.exit_code;
        return Some(format!("Container {} for pod {place} failed with exit code {code}", found.name));
    }
    let stated = |wanted: &isopod_types::batch::OnPodCondition| {
        let status = if wanted.status.is_empty() { "True" } else { &wanted.status };
        pod.status.conditions.iter().any(|found| found.type_ == wanted.type_ && found.status == status)
    };
    let condition = rule.on_pod_conditions.iter().find(|wanted| stated(wanted))?;
    Some(format!("Pod {place} has condition {}", condition.type_))
}

/// The rule by which enough indexes have succeeded, in words.
pub(super) fn success(job: &Job, succeeded: &Indexes, completions: i64) -> Option<String> {
    let rules = &job.spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(text), count) => {
            let wanted = Indexes::parse(text, completions);
            wanted.shared(succeeded) >= count.unwrap_or(wanted.len())
        }
        (None, Some(count)) => succeeded.len() >= count,
        (None, None) => false,
    });
    Some(format!("Matched rules at index {}", met?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(rules: Value, pod: Value, expected: Failure) {
        let job = json!({"spec": {"podFailurePolicy": {"rules": rules}, "backoffLimitPerIndex": 1}});
        let job: Job = serde_json::from_value(job).unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "x"}, "status": pod});
        assert_eq!(of(&job, &serde_json::from_value(pod).unwrap()), expected, "{rules}");
    }

    fn exit(code: i32) -> Value {
        json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]})
    }

    #[test]
    fn the_first_matching_rule_counts() {
        let rule = |action: &str, operator: &str, values: Value| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let text = |code: i32| {
            Failure::FailsJob(format!(
                "Container c for pod x/p failed with exit code {code} matching FailJob rule at index 0"
            ))
        };
        check(json!([rule("FailJob", "In", json!([3]))]), exit(3), text(3));
        check(json!([rule("FailJob", "In", json!([3]))]), exit(4), Failure::Counts);
        check(json!([rule("FailJob", "NotIn", json!([3]))]), exit(4), text(4));
        check(json!([rule("FailJob", "NotIn", json!([3]))]), exit(0), Failure::Counts);
        check(json!([rule("Ignore", "In", json!([3])), rule("FailJob", "In", json!([3]))]), exit(3), Failure::Ignored);
        check(json!([rule("FailIndex", "In", json!([3]))]), exit(3), Failure::FailsIndex);
        check(json!([rule("Count", "In", json!([3]))]), exit(3), Failure::Counts);
        let other =
            json!([{"action": "FailJob", "onExitCodes": {"containerName": "d", "operator": "In", "values": [3]}}]);
        check(other, exit(3), Failure::Counts);
        let disrupted = json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let ignore = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
        check(ignore.clone(), disrupted, Failure::Ignored);
        check(ignore, exit(1), Failure::Counts);
    }

    #[test]
    fn enough_indexes_are_success() {
        for (rule, succeeded, expected) in [
            (json!({"succeededIndexes": "0-2"}), "0-1", false),
            (json!({"succeededIndexes": "0-2"}), "0-3", true),
            (json!({"succeededIndexes": "0-4", "succeededCount": 2}), "3-5", true),
            (json!({"succeededIndexes": "0-4", "succeededCount": 2}), "4-5", false),
            (json!({"succeededCount": 2}), "4-5", true),
        ] {
            let job = json!({"spec": {"successPolicy": {"rules": [rule]}}});
            let job: Job = serde_json::from_value(job).unwrap();
            let found = success(&job, &Indexes::parse(succeeded, 10), 10);
            assert_eq!(found.is_some(), expected, "{rule} {succeeded}");
        }
    }
}
