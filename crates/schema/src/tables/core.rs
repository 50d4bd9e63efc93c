//! Cells of the core group: nodes, namespaces, volumes, events, configuration.

use serde_json::Value;

use super::age;
use super::cells::{Context, NONE};
use super::rbac::condition;
use crate::walk;

/// Core kinds except pods, services and workloads.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match (context.kind.plural.as_str(), column) {
        ("configmaps", "Data") => (context.count("data") + context.count("binaryData")).into(),
        ("secrets", "Type") => context.text("type").into(),
        ("secrets", "Data") => context.count("data").into(),
        ("namespaces", "Status") => context.text("status.phase").into(),
        ("nodes", _) => return node(context, column),
        ("persistentvolumes" | "persistentvolumeclaims", _) => return volume(context, column),
        ("resourcequotas", "Request") => quota(context, false).into(),
        ("resourcequotas", "Limit") => quota(context, true).into(),
        ("componentstatuses", _) => component(context, column)?,
        _ => return None,
    })
}

fn component(context: &Context<'_>, column: &str) -> Option<Value> {
    let healthy = context.items("conditions").iter().find(|condition| walk::text(condition, &["type"]) == "Healthy");
    let text = |name: &str| healthy.map_or("", |condition| walk::text(condition, &[name]));
    Some(match column {
        "Status" => match text("status") {
            "True" => "Healthy".into(),
            "False" => "Unhealthy".into(),
            _ => "Unknown".into(),
        },
        "Message" => text("message").into(),
        "Error" => text("error").into(),
        _ => return None,
    })
}

fn node(context: &Context<'_>, column: &str) -> Option<Value> {
    let address = |ty: &str| -> Value {
        let found = context.items("status.addresses").iter().find(|address| walk::text(address, &["type"]) == ty);
        found.map_or(NONE, |address| walk::text(address, &["address"])).into()
    };
    Some(match column {
        "Status" => node_status(context).into(),
        "Roles" => node_roles(context).into(),
        "Version" => context.text("status.nodeInfo.kubeletVersion").into(),
        "Internal-IP" => address("InternalIP"),
        "External-IP" => address("ExternalIP"),
        "OS-Image" => context.text_or("status.nodeInfo.osImage", age::UNKNOWN),
        "Kernel-Version" => context.text_or("status.nodeInfo.kernelVersion", age::UNKNOWN),
        "Container-Runtime" => context.text_or("status.nodeInfo.containerRuntimeVersion", age::UNKNOWN),
        _ => return None,
    })
}

fn node_status(context: &Context<'_>) -> String {
    let ready = match condition(context, "Ready").map(|condition| walk::text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = context.value("spec.unschedulable") == Some(&Value::Bool(true));
    if cordoned { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

fn node_roles(context: &Context<'_>) -> String {
    let labels = context.value("metadata.labels").and_then(Value::as_object).into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            None if key == "kubernetes.io/role" => value.as_str().filter(|role| !role.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.into() } else { roles.join(",") }
}

fn access_modes(modes: &[Value]) -> Value {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    modes.iter().map(short).collect::<Vec<_>>().join(",").into()
}

fn volume(context: &Context<'_>, column: &str) -> Option<Value> {
    let is_claim = context.kind.plural == "persistentvolumeclaims";
    let deleting = context.value("metadata.deletionTimestamp").is_some();
    let bound = !context.text("spec.volumeName").is_empty();
    Some(match column {
        "Status" if deleting => "Terminating".into(),
        "Status" => context.text("status.phase").into(),
        "Volume" => context.text("spec.volumeName").into(),
        "Capacity" if is_claim && !bound => "".into(),
        "Capacity" if is_claim => context.text_or("status.capacity.storage", "0"),
        "Capacity" => context.text_or("spec.capacity.storage", "0"),
        "Access Modes" if is_claim && !bound => "".into(),
        "Access Modes" if is_claim => access_modes(context.items("status.accessModes")),
        "Access Modes" => access_modes(context.items("spec.accessModes")),
        "Reclaim Policy" => context.text("spec.persistentVolumeReclaimPolicy").into(),
        "Claim" => match context.text("spec.claimRef.name") {
            "" => "".into(),
            name => format!("{}/{name}", context.text("spec.claimRef.namespace")).into(),
        },
        "StorageClass" => context.text("spec.storageClassName").into(),
        "VolumeAttributesClass" => context.text_or("spec.volumeAttributesClassName", super::cells::UNSET),
        "Reason" => context.text("status.reason").into(),
        "VolumeMode" => context.text_or("spec.volumeMode", super::cells::UNSET),
        _ => return None,
    })
}

/// `cpu: 1/2, pods: 3/10`, limits and the rest apart.
fn quota(context: &Context<'_>, limits: bool) -> String {
    let hard = context.value("status.hard").and_then(Value::as_object).into_iter().flatten();
    let mut texts: Vec<String> = hard
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = context.value("status.used").and_then(|used| used.get(name)).and_then(Value::as_str);
            format!("{name}: {}/{}", used.unwrap_or("0"), hard.as_str().unwrap_or_default())
        })
        .collect();
    texts.sort_unstable();
    texts.join(", ")
}

/// Events of both groups.
pub(super) fn event(context: &Context<'_>, column: &str) -> Option<Value> {
    let pick = |old: &str, new: &str| match context.text(old) {
        "" => context.text(new),
        text => text,
    };
    let first = pick("firstTimestamp", "deprecatedFirstTimestamp");
    let last = pick("lastTimestamp", "deprecatedLastTimestamp");
    let when =
        |moment: &str| age::since(if moment.is_empty() { context.text("eventTime") } else { moment }, context.now);
    Some(match column {
        "Last Seen" => event_last_seen(context, last, first),
        "Type" => context.text("type").into(),
        "Reason" => context.text("reason").into(),
        "Object" => {
            let kind = pick("involvedObject.kind", "regarding.kind").to_lowercase();
            let name = pick("involvedObject.name", "regarding.name");
            if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() }
        }
        "Message" => pick("message", "note").trim().into(),
        "Subobject" => pick("involvedObject.fieldPath", "regarding.fieldPath").into(),
        "Source" => event_source(context).into(),
        "First Seen" => when(first).into(),
        "Count" => event_count(context).into(),
        "Name" => context.text("metadata.name").into(),
        _ => return None,
    })
}

fn event_last_seen(context: &Context<'_>, last: &str, first: &str) -> Value {
    let series = context.text("series.lastObservedTime");
    let moment = [series, last, first, context.text("eventTime")].into_iter().find(|moment| !moment.is_empty());
    age::since(moment.unwrap_or_default(), context.now).into()
}

fn event_source(context: &Context<'_>) -> String {
    let names = ["source.component", "deprecatedSource.component", "reportingComponent", "reportingController"];
    let hosts = ["source.host", "deprecatedSource.host", "reportingInstance"];
    let pick = |paths: &[&str]| paths.iter().map(|path| context.text(path)).find(|text| !text.is_empty()).unwrap_or("");
    let parts = [pick(&names), pick(&hosts)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn event_count(context: &Context<'_>) -> i64 {
    let counts = ["series.count", "count", "deprecatedCount"].map(|path| context.number(path));
    counts.into_iter().find(|count| *count > 0).unwrap_or(1)
}
