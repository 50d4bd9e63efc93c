//! Cells of role bindings, and of kinds whose state is in their conditions.

use serde_json::Value;

use super::age;
use super::cells::{Context, NONE};
use crate::walk;

/// Role bindings.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    let subjects = |kind: &str| -> Value {
        let of_kind = context.items("subjects").iter().filter(|subject| walk::text(subject, &["kind"]) == kind);
        let name = |subject: &Value| match walk::text(subject, &["namespace"]) {
            "" => walk::text(subject, &["name"]).to_owned(),
            namespace => format!("{namespace}/{}", walk::text(subject, &["name"])),
        };
        of_kind.map(name).collect::<Vec<_>>().join(", ").into()
    };
    Some(match column {
        "Role" => format!("{}/{}", context.text("roleRef.kind"), context.text("roleRef.name")).into(),
        "Users" => subjects("User"),
        "Groups" => subjects("Group"),
        "ServiceAccounts" => subjects("ServiceAccount"),
        _ => return None,
    })
}

/// The condition of a type.
pub(super) fn condition<'a>(context: &Context<'a>, ty: &str) -> Option<&'a Value> {
    context.items("status.conditions").iter().find(|condition| walk::text(condition, &["type"]) == ty)
}

/// API services, signing requests, flow schemas, resource claims.
pub(super) fn condition_cell(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match (context.kind.plural.as_str(), column) {
        ("apiservices", "Service") => match context.text("spec.service.name") {
            "" => "Local".into(),
            name => format!("{}/{name}", context.text("spec.service.namespace")).into(),
        },
        ("apiservices", "Available") => match condition(context, "Available") {
            Some(found) if walk::text(found, &["status"]) == "True" => "True".into(),
            Some(found) => format!("{} ({})", walk::text(found, &["status"]), walk::text(found, &["reason"])).into(),
            None => "Unknown".into(),
        },
        ("certificatesigningrequests", "Condition") => signing_state(context).into(),
        ("certificatesigningrequests", "RequestedDuration") => match context.number("spec.expirationSeconds") {
            0 => NONE.into(),
            seconds => age::human(seconds).into(),
        },
        ("flowschemas", "MissingPL") => match condition(context, "Dangling") {
            Some(found) => walk::text(found, &["status"]).into(),
            None => "?".into(),
        },
        ("resourceclaims", "State") => claim_state(context).into(),
        _ => return None,
    })
}

fn signing_state(context: &Context<'_>) -> String {
    let has = |ty: &str| condition(context, ty).is_some();
    let decided = match (has("Approved"), has("Denied")) {
        (_, true) => "Denied",
        (true, false) => "Approved",
        (false, false) => "Pending",
    };
    let issued = if context.text("status.certificate").is_empty() { "" } else { ",Issued" };
    let failed = if has("Failed") { ",Failed" } else { "" };
    format!("{decided}{failed}{issued}")
}

fn claim_state(context: &Context<'_>) -> String {
    let mut states = Vec::new();
    let allocated = context.value("status.allocation").is_some();
    if context.value("metadata.deletionTimestamp").is_some() {
        states.push("deleted");
    } else if !allocated {
        states.push("pending");
    }
    if allocated {
        states.push("allocated");
        if context.count("status.reservedFor") > 0 {
            states.push("reserved");
        }
    }
    states.join(",")
}
