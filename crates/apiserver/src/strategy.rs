//! What writing an object does to it besides what was asked: system fields, status, generation, initial states.
//! Pure. Behaviour of single kinds is in [`initial`] and the few named functions; everything else holds for all.

mod initial;

use isopod_schema::{FieldError, Kind, validate};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::{Map, Value, json};

use crate::edit::Part;

/// Fields of `metadata` that only the server writes.
const SYSTEM_FIELDS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "managedFields",
];

/// A time as Kubernetes writes them: RFC 3339 in UTC, whole seconds.
pub(crate) fn time_text(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
    PRINTER.timestamp_to_string(&time)
}

/// `object.metadata`, made when it is missing.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    object["metadata"].as_object_mut().expect("it was just made an object")
}

pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().try_fold(object, |value, name| value.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.FIELD`; empty when absent.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    text(object, &["metadata", field])
}

/// Creating an object of the kind adds to it (here or in admission) what has to be brought into the stored form.
pub(crate) fn adds_on_create(kind: &Kind) -> bool {
    initial::adds(kind)
}

/// Makes a decoded object one that can be stored for the first time. Its name is settled by the caller.
pub(crate) fn prepare_create(kind: &Kind, object: &mut Value, now: Timestamp, uid: &str) {
    object["apiVersion"] = kind.stored_api_version().into();
    object["kind"] = kind.kind.as_str().into();
    // Nodes come with what is known of them.
    if kind.has_status_subresource()
        && !kind.is("", "nodes")
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    initial::apply(kind, object, uid);
    let metadata = metadata(object);
    SYSTEM_FIELDS.iter().chain(&["resourceVersion"]).for_each(|field| {
        metadata.shift_remove(*field);
    });
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), time_text(now).into());
    if kind.flags.generation {
        metadata.insert("generation".into(), 1.into());
    }
    if kind.is("", "persistentvolumes") {
        object["status"]["lastPhaseTransitionTime"] = time_text(now).into();
    }
}

/// Makes of the object that was asked for the one that will be stored: parts that this endpoint may not change are
/// taken from the old one.
pub(crate) fn prepare_update(kind: &Kind, part: Part, new: Value, old: &Value) -> Value {
    let mut merged = match part {
        Part::Main => with_old_status(kind, new, old),
        Part::Status => status_of(kind, new, old),
        Part::Binding => new,
        Part::Finalize => finalizers_of(new, old),
        Part::Resize => resized(new, old),
        Part::EphemeralContainers => with_ephemeral_containers(new, old),
    };
    merged["apiVersion"] = kind.stored_api_version().into();
    merged["kind"] = old["kind"].clone();
    restore_system_fields(&mut merged, old);
    initial::keep_allocated(kind, &mut merged, old);
    initial::reforce(kind, &mut merged);
    if kind.flags.generation
        && !matches!(part, Part::Status | Part::Binding)
        && validate::generation_changed(kind, &merged, old)
    {
        bump_generation(&mut merged);
    }
    merged
}

pub(crate) fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    metadata(object).insert("generation".into(), generation.into());
}

/// The start of a deletion counts as a change, for kinds that count changes.
pub(crate) fn bump_generation_if_kept(kind: &Kind, object: &mut Value) {
    if kind.flags.generation {
        bump_generation(object);
    }
}

fn with_old_status(kind: &Kind, mut new: Value, old: &Value) -> Value {
    if kind.is("", "namespaces") {
        // All there is of it are finalizers, which have an endpoint of their own.
        take(&mut new, old, "spec");
    }
    if kind.has_status_subresource() {
        take(&mut new, old, "status");
    }
    new
}

/// `to.FIELD` becomes `from.FIELD`, also when that is absent.
fn take(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.into(), value.clone()),
        None => fields.shift_remove(field),
    };
}

/// Status and metadata of the new object; labels of Deployments and owners of everything stay.
fn status_of(kind: &Kind, new: Value, old: &Value) -> Value {
    let mut merged = old.clone();
    take(&mut merged, &new, "status");
    if kind.custom.is_some() {
        return merged;
    }
    take(&mut merged, &new, "metadata");
    let kept: &[&str] =
        if kind.is("apps", "deployments") { &["ownerReferences", "labels"] } else { &["ownerReferences"] };
    if let (Some(metadata), Some(previous)) = (merged["metadata"].as_object_mut(), old["metadata"].as_object()) {
        for field in kept {
            match previous.get(*field) {
                Some(value) => metadata.insert((*field).into(), value.clone()),
                None => metadata.shift_remove(*field),
            };
        }
    }
    merged
}

fn finalizers_of(new: Value, old: &Value) -> Value {
    let mut merged = old.clone();
    let wanted = new["spec"].get("finalizers").cloned().unwrap_or(json!([]));
    merged["spec"]["finalizers"] = wanted;
    merged
}

/// The old pod with the new one's ephemeral containers.
fn with_ephemeral_containers(new: Value, old: &Value) -> Value {
    let mut merged = old.clone();
    take(&mut merged["spec"], &new["spec"], "ephemeralContainers");
    merged
}

/// The old pod with what the new one's containers may use. Lists that differ are taken as they are, for validation to refuse.
fn resized(new: Value, old: &Value) -> Value {
    let mut merged = old.clone();
    let names = |containers: &[Value]| -> Vec<Value> { containers.iter().map(|c| c["name"].clone()).collect() };
    for list in ["containers", "initContainers"] {
        let wanted = new["spec"][list].as_array().map_or(&[][..], Vec::as_slice);
        match merged["spec"].get_mut(list).and_then(Value::as_array_mut) {
            Some(containers) if names(containers) == names(wanted) => {
                for (container, wanted) in containers.iter_mut().zip(wanted) {
                    take(container, wanted, "resources");
                    take(container, wanted, "resizePolicy");
                }
            }
            None if wanted.is_empty() => {}
            _ => take(&mut merged["spec"], &new["spec"], list),
        }
    }
    merged
}

fn restore_system_fields(object: &mut Value, old: &Value) {
    let previous = old["metadata"].as_object();
    let metadata = metadata(object);
    for field in SYSTEM_FIELDS.iter().chain(&["name", "namespace", "resourceVersion"]) {
        match previous.and_then(|previous| previous.get(*field)) {
            Some(value) => metadata.insert((*field).into(), value.clone()),
            None => metadata.shift_remove(*field),
        };
    }
    // Absent and empty are the same; upstream never writes the empty ones.
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if metadata.get(field).is_some_and(is_empty) {
            metadata.shift_remove(field);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

fn finalizers(object: &Value) -> &[Value] {
    object["metadata"]["finalizers"].as_array().map_or(&[], Vec::as_slice)
}

/// The object was waiting for finalizers only, and there are none left: the write that removed the last one deletes.
pub(crate) fn is_finished(kind: &Kind, object: &Value) -> bool {
    let grace_over = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
    let held =
        kind.is("", "namespaces") && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    is_deleting(object) && grace_over && !held && finalizers(object).is_empty()
}

/// What may not change, whatever the kind: finalizers cannot be added to an object that is being deleted.
pub(crate) fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    if !is_deleting(old) {
        return Vec::new();
    }
    let added: Vec<String> =
        finalizers(new).iter().filter(|item| !finalizers(old).contains(item)).map(ToString::to_string).collect();
    if added.is_empty() {
        return Vec::new();
    }
    let why = "no new finalizers can be added if the object is being deleted";
    vec![FieldError::forbidden("metadata.finalizers", format!("{why}, found new finalizers [{}]", added.join(", ")))]
}
