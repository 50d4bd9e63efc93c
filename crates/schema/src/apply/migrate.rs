//! From client-side to server-side apply: the annotation in which kubectl keeps what it applied last explains away
//! conflicts with its own earlier writes, and is kept in step afterwards.

use serde_json::Value;

use super::conflict::Conflict;
use super::place::Place;
use super::set::Set;
use super::{Versions, check, compare, fieldset};
use crate::facts::Shape;
use crate::walk;

/// The only manager that this is for.
pub(super) const KUBECTL: &str = "kubectl";
/// The annotation.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Largest size in bytes of all annotations of an object together.
const ANNOTATIONS_LIMIT_BYTES: usize = 256 << 10;

/// The conflicts about fields that client-side apply did not set to what they are.
pub(super) fn unexplained(
    versions: &dyn Versions,
    live: &Value,
    conflicts: Vec<Conflict>,
    version: &str,
) -> Vec<Conflict> {
    let Some(own) = client_side_fields(versions, live, version) else { return conflicts };
    conflicts.into_iter().filter(|conflict| !own.has(&conflict.path)).collect()
}

/// What the annotation says and the object still has.
fn client_side_fields(versions: &dyn Versions, live: &Value, version: &str) -> Option<Set> {
    let applied: Value = serde_json::from_str(last_applied(live)?).ok()?;
    let ty = versions.root(version).filter(|_| applied["apiVersion"] == version)?;
    check::check(ty, &applied).ok()?;
    let shape = Shape::Object(ty.id);
    let place = Place::root(ty, &shape);
    let comparison = compare::compare(place, &applied, live);
    let changed = comparison.touched.union(comparison.removed);
    Some(fieldset::of(place, &applied).difference(&changed))
}

fn last_applied(object: &Value) -> Option<&str> {
    Some(walk::text(object, &["metadata", "annotations", LAST_APPLIED])).filter(|text| !text.is_empty())
}

/// After kubectl applied `config`: an object that still carries the annotation gets the new configuration there.
pub fn refresh_last_applied(object: &mut Value, config: &Value, manager: &str) {
    if manager != KUBECTL || last_applied(object).is_none() {
        return;
    }
    let mut plain = config.clone();
    if let Some(annotations) = plain["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(LAST_APPLIED);
    }
    let text = format!("{plain}\n");
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    let others = annotations.iter().filter(|(name, _)| *name != LAST_APPLIED);
    let others_bytes: usize = others.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    let fits = others_bytes + LAST_APPLIED.len() + text.len() <= ANNOTATIONS_LIMIT_BYTES;
    annotations.insert(LAST_APPLIED.into(), if fits { text } else { String::new() }.into());
}
