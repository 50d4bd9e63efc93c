//! Cells of workloads, autoscalers and disruption budgets.

use serde_json::Value;

use super::age;
use super::cells::{Context, NONE, UNSET};
use super::rbac::condition;
use crate::selector::LabelSelector;
use crate::walk;

/// A label selector (object form or plain map) as text.
pub(super) fn selector_text(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.into() };
    let is_structured = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    let text = if is_structured {
        LabelSelector::from_value(selector).map(|selector| selector.to_string()).unwrap_or_default()
    } else {
        LabelSelector::from_map(selector).to_string()
    };
    if text.is_empty() { NONE.into() } else { text }
}

/// Path of the pod template of a kind.
fn template(context: &Context<'_>) -> &'static str {
    match context.kind.plural.as_str() {
        "cronjobs" => "spec.jobTemplate.spec.template",
        "podtemplates" => "template",
        _ => "spec.template",
    }
}

fn of_containers(context: &Context<'_>, field: &str) -> Value {
    let containers = context.items(&format!("{}.spec.containers", template(context)));
    containers.iter().map(|container| walk::text(container, &[field])).collect::<Vec<_>>().join(",").into()
}

/// Kinds of `apps` and `batch`, and the core group's workloads.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    let plural = context.kind.plural.as_str();
    Some(match (plural, column) {
        (_, "Containers") => of_containers(context, "name"),
        (_, "Images") => of_containers(context, "image"),
        ("podtemplates", "Pod Labels") => selector_text(context.value("template.metadata.labels")).into(),
        ("cronjobs", "Selector") => selector_text(context.value("spec.jobTemplate.spec.selector")).into(),
        (_, "Selector") => selector_text(context.value("spec.selector")).into(),
        ("deployments" | "statefulsets", "Ready") => {
            format!("{}/{}", context.number("status.readyReplicas"), context.number("spec.replicas")).into()
        }
        ("deployments", "Up-to-date") => context.number("status.updatedReplicas").into(),
        ("deployments", "Available") => context.number("status.availableReplicas").into(),
        ("daemonsets", _) => return daemon_set(context, column),
        ("jobs" | "cronjobs", _) => return job(context, column),
        (_, "Desired") => context.number("spec.replicas").into(),
        (_, "Current") => context.number("status.replicas").into(),
        (_, "Ready") => context.number("status.readyReplicas").into(),
        ("controllerrevisions", "Controller") => controller(context).into(),
        ("controllerrevisions", "Revision") => context.number("revision").into(),
        _ => return None,
    })
}

fn controller(context: &Context<'_>) -> String {
    let owners = context.items("metadata.ownerReferences").iter();
    let found = owners.into_iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    found.map_or_else(
        || NONE.into(),
        |owner| {
            let kind = walk::text(owner, &["kind"]).to_lowercase();
            let (group, _) = crate::table::split_api_version(walk::text(owner, &["apiVersion"]));
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", walk::text(owner, &["name"]))
        },
    )
}

fn daemon_set(context: &Context<'_>, column: &str) -> Option<Value> {
    let path = match column {
        "Desired" => "status.desiredNumberScheduled",
        "Current" => "status.currentNumberScheduled",
        "Ready" => "status.numberReady",
        "Up-to-date" => "status.updatedNumberScheduled",
        "Available" => "status.numberAvailable",
        "Node Selector" => return Some(selector_text(context.value("spec.template.spec.nodeSelector")).into()),
        _ => return None,
    };
    Some(context.number(path).into())
}

fn job(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Schedule" => context.text("spec.schedule").into(),
        "Timezone" => context.text_or("spec.timeZone", NONE),
        "Suspend" => match context.value("spec.suspend").and_then(Value::as_bool) {
            Some(true) => "True".into(),
            Some(false) => "False".into(),
            None => UNSET.into(),
        },
        "Active" => context.count("status.active").into(),
        "Last Schedule" if context.text("status.lastScheduleTime").is_empty() => NONE.into(),
        "Last Schedule" => context.since("status.lastScheduleTime"),
        "Status" => job_status(context).into(),
        "Completions" => completions(context).into(),
        "Duration" => duration(context).into(),
        _ => return None,
    })
}

fn job_status(context: &Context<'_>) -> &'static str {
    let holds = |ty: &str| condition(context, ty).is_some_and(|found| walk::text(found, &["status"]) == "True");
    let by_condition = ["Complete", "Failed"].into_iter().find(|ty| holds(ty));
    let deleting = context.value("metadata.deletionTimestamp").is_some();
    let later = ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|ty| holds(ty));
    match (by_condition, deleting, later) {
        (Some(done), ..) => done,
        (None, true, _) => "Terminating",
        (None, false, Some(state)) => state,
        (None, false, None) => "Running",
    }
}

fn completions(context: &Context<'_>) -> String {
    let succeeded = context.number("status.succeeded");
    let parallelism = context.number("spec.parallelism");
    match context.value("spec.completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn duration(context: &Context<'_>) -> String {
    let start = context.text("status.startTime");
    if start.is_empty() {
        return String::new();
    }
    age::between(start, context.text("status.completionTime")).unwrap_or_else(|| age::since(start, context.now))
}

/// Autoscalers and disruption budgets.
pub(super) fn policy(context: &Context<'_>, column: &str) -> Option<Value> {
    let target = |path: &str| match context.value(path) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(number @ Value::Number(_)) => number.to_string().into(),
        _ => Value::from("N/A"),
    };
    Some(match column {
        "Reference" => {
            format!("{}/{}", context.text("spec.scaleTargetRef.kind"), context.text("spec.scaleTargetRef.name")).into()
        }
        "Targets" => targets(context).into(),
        "MinPods" => match context.number("spec.minReplicas") {
            0 => UNSET.into(),
            pods => pods.to_string().into(),
        },
        "MaxPods" => context.number("spec.maxReplicas").into(),
        "Replicas" => context.number("status.currentReplicas").into(),
        "Min Available" => target("spec.minAvailable"),
        "Max Unavailable" => target("spec.maxUnavailable"),
        "Allowed Disruptions" => context.number("status.disruptionsAllowed").into(),
        _ => return None,
    })
}

/// `cpu: 12%/80%` for the first two metrics, and how many more there are.
fn targets(context: &Context<'_>) -> String {
    if context.kind.version == "v1" {
        let wanted = context.number("spec.targetCPUUtilizationPercentage");
        let current = context.value("status.currentCPUUtilizationPercentage").and_then(Value::as_i64);
        let current = current.map_or_else(|| age::UNKNOWN.to_owned(), |percent| format!("{percent}%"));
        return if wanted == 0 { NONE.into() } else { format!("cpu: {current}/{wanted}%") };
    }
    let (specs, current) = (context.items("spec.metrics"), context.items("status.currentMetrics"));
    let all: Vec<String> = specs.iter().enumerate().map(|(at, spec)| metric(spec, current.get(at))).collect();
    match all.len() {
        0 => NONE.into(),
        n if n > 2 => format!("{} + {} more...", all[..2].join(", "), n - 2),
        _ => all.join(", "),
    }
}

/// A resource's amount is shown with its name; other metrics show only amounts, averages marked as such.
fn metric(spec: &Value, current: Option<&Value>) -> String {
    let (source, averages_are_marked) = match walk::text(spec, &["type"]) {
        "Resource" => ("resource", false),
        "ContainerResource" => ("containerResource", false),
        "Pods" => ("pods", false),
        "Object" => ("object", true),
        "External" => ("external", true),
        _ => return "<unknown type>".into(),
    };
    let amount = |side: Option<&Value>, name: &str| -> Option<String> {
        let amount = side?.get(name)?;
        Some(
            amount.as_i64().map_or_else(|| amount.as_str().unwrap_or_default().into(), |percent| format!("{percent}%")),
        )
    };
    let wanted = walk::at(spec, &[source, "target"]);
    let names = ["averageValue", "averageUtilization", "value"];
    let name = names.into_iter().find(|name| amount(wanted, name).is_some()).unwrap_or("averageUtilization");
    let target = amount(wanted, name).unwrap_or_else(|| "<auto>".into());
    let found = current.and_then(|current| walk::at(current, &[source, "current"]));
    let found = amount(found, name).unwrap_or_else(|| age::UNKNOWN.into());
    let mark = if averages_are_marked && name == "averageValue" { " (avg)" } else { "" };
    match walk::text(spec, &[source, "name"]) {
        "" => format!("{found}/{target}{mark}"),
        resource => format!("{resource}: {found}/{target}"),
    }
}
