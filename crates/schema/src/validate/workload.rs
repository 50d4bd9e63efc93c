//! Rules for workloads: selectors, templates, rollout settings.

use serde_json::{Value, json};

use super::{Errors, FieldError, metadata, pod_spec};
use crate::selector::LabelSelector;
use crate::table::Kind;
use crate::walk;

pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    match kind.plural.as_str() {
        "deployments" | "replicasets" | "daemonsets" => {
            selector(&kind.plural, spec, errors);
            template(spec.get("template"), "spec.template", &["Always"], errors);
        }
        "statefulsets" => {
            selector(&kind.plural, spec, errors);
            template(with_claims(spec).as_ref(), "spec.template", &["Always"], errors);
        }
        "replicationcontrollers" => {
            controller_selector(spec, errors);
            template(spec.get("template"), "spec.template", &["Always"], errors);
        }
        "jobs" => job(spec, "spec", errors),
        "cronjobs" => cron_job(spec, errors),
        "podtemplates" => template(object.get("template"), "template", &[], errors),
        _ => {}
    }
    let numbers = ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    // Upstream does not look at the history of a StatefulSet.
    for number in numbers.into_iter().filter(|name| *name != "revisionHistoryLimit" || kind.plural != "statefulsets") {
        errors.non_negative(spec, number, "spec");
    }
    match kind.plural.as_str() {
        "deployments" => deployment(spec, errors),
        "daemonsets" => rolling(spec, "spec.updateStrategy", errors),
        "jobs" => job_changes(spec, old, errors),
        _ => {}
    }
}

fn selector(plural: &str, spec: &Value, errors: &mut Errors) {
    let Some(given) = spec.get("selector") else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    // Upstream speaks of deployments here for ReplicaSets, too.
    let noun = if plural == "replicasets" { "deployment" } else { plural.trim_end_matches('s') };
    match LabelSelector::from_value(given) {
        // What is wrong with it is said where it is.
        Err(_) => errors.push(FieldError::invalid("spec.selector", given.clone(), "invalid label selector")),
        Ok(selector) if selector.is_everything() => {
            let text = format!("empty selector is invalid for {noun}");
            errors.push(FieldError::invalid("spec.selector", given.clone(), text));
        }
        Ok(selector) => labels_match(&selector, spec, errors),
    }
}

fn controller_selector(spec: &Value, errors: &mut Errors) {
    let given = spec.get("selector").unwrap_or(&Value::Null);
    if given.as_object().is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    }
    labels_match(&LabelSelector::from_map(given), spec, errors);
}

fn labels_match(selector: &LabelSelector, spec: &Value, errors: &mut Errors) {
    let labels = walk::at(spec, &["template", "metadata", "labels"]);
    if !selector.matches(labels.and_then(Value::as_object)) {
        let text = "`selector` does not match template `labels`";
        let shown = labels.cloned().unwrap_or_else(|| json!({}));
        errors.push(FieldError::invalid("spec.template.metadata.labels", shown, text));
    }
}

/// The template of a StatefulSet with the volumes that its pods get for claims, in the place of others of the same name.
fn with_claims(spec: &Value) -> Option<Value> {
    let mut template = spec.get("template")?.clone();
    let claims = walk::items(spec, &["volumeClaimTemplates"]).iter();
    let claims: Vec<&str> = claims.map(|claim| walk::text(claim, &["metadata", "name"])).collect();
    let pod = template.get_mut("spec").and_then(Value::as_object_mut).filter(|_| !claims.is_empty());
    if let Some(pod) = pod {
        let own = pod.get("volumes").and_then(Value::as_array).into_iter().flatten();
        let mut volumes: Vec<Value> =
            own.filter(|volume| !claims.contains(&walk::text(volume, &["name"]))).cloned().collect();
        volumes.extend(claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})));
        pod.insert("volumes".into(), volumes.into());
    }
    Some(template)
}

/// A pod template; `restart` lists the allowed policies, none means any.
fn template(template: Option<&Value>, path: &str, restart: &[&str], errors: &mut Errors) {
    let Some(template) = template else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    metadata::labels(walk::at(template, &["metadata", "labels"]), &format!("{path}.labels"), errors);
    metadata::annotations(walk::at(template, &["metadata", "annotations"]), &format!("{path}.annotations"), errors);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    let path = format!("{path}.spec");
    pod_spec::check(spec, &path, errors);
    if !walk::items(spec, &["ephemeralContainers"]).is_empty() {
        let text = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.ephemeralContainers"), text));
    }
    let policy = walk::text(spec, &["restartPolicy"]);
    if policy.is_empty() && restart.len() > 1 {
        let known: Vec<String> = restart.iter().map(|policy| format!("{policy:?}")).collect();
        let text = format!("valid values: {}", known.join(", "));
        errors.push(FieldError::required(format!("{path}.restartPolicy"), text));
    } else if !restart.is_empty() && !restart.contains(&policy) {
        errors.push(FieldError::not_supported(format!("{path}.restartPolicy"), policy, restart));
    }
    if restart == ["Always"] && spec.get("activeDeadlineSeconds").is_some() {
        let text = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(format!("{path}.activeDeadlineSeconds"), text));
    }
}

fn deployment(spec: &Value, errors: &mut Errors) {
    let number = |name: &str| spec.get(name).and_then(Value::as_i64);
    if let Some(deadline) = number("progressDeadlineSeconds")
        && deadline <= number("minReadySeconds").unwrap_or_default()
    {
        let text = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", deadline, text));
    }
    let strategy = spec.get("strategy").unwrap_or(&Value::Null);
    if walk::text(strategy, &["type"]) == "Recreate" && strategy.get("rollingUpdate").is_some() {
        let text = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", text));
        return;
    }
    rolling(spec, "spec.strategy", errors);
}

/// `maxUnavailable` and `maxSurge`: numbers or percents, not both zero.
fn rolling(spec: &Value, path: &str, errors: &mut Errors) {
    let strategy = path.trim_start_matches("spec.");
    let Some(settings) = walk::at(spec, &[strategy, "rollingUpdate"]) else { return };
    let path = format!("{path}.rollingUpdate");
    for name in ["maxUnavailable", "maxSurge"] {
        if let Some(value) = settings.get(name) {
            portion(value, &format!("{path}.{name}"), errors);
        }
    }
    if let Some(value @ Value::String(text)) = settings.get("maxUnavailable")
        && percent(text).is_some_and(|percent| percent > 100)
    {
        errors.push(FieldError::invalid(
            format!("{path}.maxUnavailable"),
            value.clone(),
            "must not be greater than 100%",
        ));
    }
    let zero = |name: &str| match settings.get(name) {
        Some(Value::String(text)) => percent(text) == Some(0),
        Some(number) => number.as_i64() == Some(0),
        None => true,
    };
    if zero("maxUnavailable") && zero("maxSurge") {
        let shown = settings.get("maxUnavailable").cloned().unwrap_or_else(|| json!(0));
        errors.push(FieldError::invalid(format!("{path}.maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0"));
    }
}

fn percent(text: &str) -> Option<i64> {
    text.strip_suffix('%')?.parse().ok()
}

/// A number that is not negative, or a percent.
pub(super) fn portion(value: &Value, path: &str, errors: &mut Errors) {
    match value {
        Value::String(text) if percent(text).is_none_or(|percent| percent < 0) => {
            let rule = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(path, text.as_str(), rule));
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(path, value.clone(), "must be greater than or equal to 0"));
        }
        _ => {}
    }
}

fn job(spec: &Value, path: &str, errors: &mut Errors) {
    for number in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "ttlSecondsAfterFinished",
    ] {
        errors.non_negative(spec, number, path);
    }
    let restart: &[&str] = if spec.get("podFailurePolicy").is_some() { &["Never"] } else { &["OnFailure", "Never"] };
    template(spec.get("template"), &format!("{path}.template"), restart, errors);
    let indexed = walk::text(spec, &["completionMode"]) == "Indexed";
    if indexed && spec.get("completions").is_none() {
        let text = "when completion mode is Indexed";
        errors.push(FieldError::required(format!("{path}.completions"), text));
    }
    const MAX_INDEXED_PARALLELISM: i64 = 100_000;
    if let Some(parallelism) = spec.get("parallelism").and_then(Value::as_i64)
        && indexed
        && parallelism > MAX_INDEXED_PARALLELISM
    {
        let text = format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.push(FieldError::invalid(format!("{path}.parallelism"), parallelism, text));
    }
}

/// The template of a Job may change only while it is suspended; its completions only together with parallelism.
fn job_changes(spec: &Value, old: Option<&Value>, errors: &mut Errors) {
    let Some(old) = old else { return };
    let before = &old["spec"];
    let suspended =
        before.get("suspend") == Some(&Value::Bool(true)) && walk::at(old, &["status", "startTime"]).is_none();
    if !suspended && spec.get("template") != before.get("template") {
        errors.push(FieldError::invalid("spec.template", spec["template"].clone(), super::IMMUTABLE));
    }
    let changed = spec.get("completions") != before.get("completions");
    let indexed = walk::text(spec, &["completionMode"]) == "Indexed";
    let elastic = indexed && spec.get("completions") == spec.get("parallelism");
    if changed && !elastic {
        errors.push(FieldError::invalid("spec.completions", spec["completions"].clone(), super::IMMUTABLE));
    }
}

fn cron_job(spec: &Value, errors: &mut Errors) {
    let schedule = walk::text(spec, &["schedule"]);
    if schedule.contains("TZ=") {
        let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid("spec.schedule", schedule, text));
    } else if !schedule.is_empty() && !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let found = schedule.split_whitespace().count();
        let text = format!("expected exactly 5 fields, found {found}: [{schedule}]");
        errors.push(FieldError::invalid("spec.schedule", schedule, text));
    }
    if let Some(zone) = spec.get("timeZone").and_then(Value::as_str)
        && (zone.is_empty() || zone.eq_ignore_ascii_case("local"))
    {
        errors.push(FieldError::invalid("spec.timeZone", zone, "timeZone must be an explicit IANA time zone name"));
    }
    for number in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(spec, number, "spec");
    }
    if let Some(job_spec) = walk::at(spec, &["jobTemplate", "spec"]) {
        job(job_spec, "spec.jobTemplate.spec", errors);
    } else {
        errors.push(FieldError::required("spec.jobTemplate.spec.template", ""));
    }
}
