//! What deleting an object means (facts, section 1.12): remove it now, or mark it and wait for somebody. Pure.

use isopod_schema::{Kind, Status};
use isopod_types::names::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::strategy::{self, meta, text};

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
    /// `orphanDependents=false` was given, which changes a status code.
    pub(crate) waits: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan {
    /// Remove it; this is its last state.
    Remove(Value),
    /// Write this and wait for finalizers or the node agent.
    Mark(Value),
    /// It is being deleted already, and this changes nothing.
    Keep,
}

impl Options {
    /// From a `DeleteOptions` document.
    ///
    /// # Errors
    /// 400, 422.
    pub(crate) fn parse(document: &Value) -> Result<Self, Status> {
        let orphan = document["orphanDependents"].as_bool();
        let policy = document["propagationPolicy"].as_str();
        let propagation = match (orphan, policy) {
            (Some(_), Some(_)) => {
                let text = "DeleteOptions is invalid: propagationPolicy: Invalid value: orphanDependents and \
                            deletionPropagation cannot be both set";
                return Err(Status::new(isopod_schema::Reason::Invalid, text));
            }
            (Some(true), None) | (None, Some("Orphan")) => Some(Propagation::Orphan),
            (Some(false), None) | (None, Some("Background")) => Some(Propagation::Background),
            (None, Some("Foreground")) => Some(Propagation::Foreground),
            (None, None) => None,
            (None, Some(other)) => {
                let text = format!(
                    "DeleteOptions is invalid: propagationPolicy: Unsupported value: {other:?}: supported \
                                    values: \"Background\", \"Foreground\", \"Orphan\""
                );
                return Err(Status::new(isopod_schema::Reason::Invalid, text));
            }
        };
        let precondition = |field: &str| document["preconditions"][field].as_str().map(str::to_owned);
        let dry_run = document["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            grace_seconds: document["gracePeriodSeconds"].as_i64().map(|seconds| if seconds < 0 { 1 } else { seconds }),
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run: crate::context::dry_run(dry_run)?,
            waits: orphan == Some(false),
        })
    }
}

/// Decides about an object as stored.
pub(crate) fn plan(kind: &Kind, object: &Value, options: &Options, now: Timestamp) -> Plan {
    let mut wanted = object.clone();
    let finalizers = with_policy(kind, object, options.propagation);
    set_finalizers(&mut wanted, &finalizers);
    let grace = grace_seconds(kind, object, options);
    let held =
        kind.is("", "namespaces") && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if grace == 0 && finalizers.is_empty() && !held {
        return Plan::Remove(if kind.is("", "pods") { marked(wanted, 0, now) } else { wanted });
    }
    if kind.is("", "namespaces") {
        wanted["status"]["phase"] = "Terminating".into();
    }
    if strategy::is_deleting(object) {
        let old_grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if grace < old_grace {
            wanted = marked(wanted, grace, now);
        }
        return if wanted == *object { Plan::Keep } else { Plan::Mark(wanted) };
    }
    strategy::bump_generation_if_kept(kind, &mut wanted);
    Plan::Mark(marked(wanted, grace, now))
}

/// Seconds a pod is given to stop. Everything else goes at once, as do pods that never ran or have ended.
fn grace_seconds(kind: &Kind, object: &Value, options: &Options) -> i64 {
    let ended = matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
    if !kind.is("", "pods") || ended || text(object, &["spec", "nodeName"]).is_empty() {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    options.grace_seconds.or(own).unwrap_or(0).max(0)
}

fn marked(mut object: Value, grace_seconds: i64, now: Timestamp) -> Value {
    let time = now.checked_add(SignedDuration::from_secs(grace_seconds)).unwrap_or(Timestamp::MAX);
    let metadata = strategy::metadata(&mut object);
    metadata.insert("deletionTimestamp".into(), strategy::time_text(time).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace_seconds.into());
    object
}

/// The object's finalizers, with those of the garbage collector as the policy wants them.
fn with_policy(kind: &Kind, object: &Value, asked: Option<Propagation>) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    let own: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    let has = |name: &str| own.iter().any(|own| own == name);
    let default = if kind.flags.orphan_by_default { Propagation::Orphan } else { Propagation::Background };
    let policy = asked.unwrap_or(if has(ORPHAN_FINALIZER) {
        Propagation::Orphan
    } else if has(FOREGROUND_FINALIZER) {
        Propagation::Foreground
    } else {
        default
    });
    let added = match policy {
        Propagation::Orphan => Some(ORPHAN_FINALIZER),
        Propagation::Foreground => Some(FOREGROUND_FINALIZER),
        Propagation::Background => None,
    };
    let others = own.into_iter().filter(|name| name != ORPHAN_FINALIZER && name != FOREGROUND_FINALIZER);
    others.chain(added.map(str::to_owned)).collect()
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let metadata = strategy::metadata(object);
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), json!(finalizers));
    }
}

/// UID and resourceVersion must be those the caller expects.
///
/// # Errors
/// 409.
pub(crate) fn check_preconditions(kind: &Kind, object: &Value, options: &Options) -> Result<(), Status> {
    let checks = [("UID", "uid", &options.uid), ("ResourceVersion", "resourceVersion", &options.resource_version)];
    for (label, field, expected) in checks {
        let current = meta(object, field);
        if let Some(expected) = expected.as_ref().filter(|expected| *expected != current) {
            let why =
                format!("Precondition failed: {label} in precondition: {expected}, {label} in object meta: {current}");
            return Err(Status::conflict(kind, meta(object, "name"), &why));
        }
    }
    Ok(())
}
