//! Taking away what a manager applied before and does not apply any more, unless somebody else owns it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::managers::{Entry, Managers};
use super::place::Place;
use super::set::Set;
use super::{Versions, fieldset, merge};
use crate::facts::Shape;

/// `merged` without the fields of `last` that nobody owns now and that are not applied either: an empty list is nobody's.
/// When the version of the last configuration is gone, nothing is taken away.
pub(super) fn prune(
    versions: &dyn Versions,
    merged: Value,
    version: &str,
    managers: &Managers,
    last: &Entry,
    applied: Set,
) -> Value {
    let at = &last.api_version;
    let mut owned = BTreeMap::from([(version, applied)]);
    for entry in managers.0.values() {
        let all = owned.entry(&entry.api_version).or_default();
        *all = std::mem::take(all).union(entry.set.clone());
    }
    let pruned = in_version(versions, &merged, version, at, |place, merged| {
        let last = fieldset::with_fields(place, &last.set);
        merge::remove(place, merged, &last)
    });
    let Some(mut pruned) = pruned else { return merged };
    // The version of the last configuration comes first, so that what conversions need is there again.
    let own = owned.remove_entry(at.as_str());
    for (other, owned) in own.into_iter().chain(owned) {
        pruned = add_owned(versions, [&merged, &pruned], [version, at, other], &owned).unwrap_or(pruned);
    }
    let left = in_version(versions, &merged, version, at, |place, merged| {
        let gone = fieldset::full(place, merged).difference(&fieldset::full(place, &pruned));
        let gone = gone.intersection(&fieldset::with_fields(place, &last.set));
        merge::remove(place, merged, &gone)
    });
    left.and_then(|left| convert(versions, &left, at, version)).unwrap_or(merged)
}

/// Puts back what was pruned and somebody owns. `merged` is in the first version, `pruned` in the second, the owned fields
/// in the third; the result is in the second again.
fn add_owned(
    versions: &dyn Versions,
    [merged, pruned]: [&Value; 2],
    [version, at, other]: [&str; 3],
    owned: &Set,
) -> Option<Value> {
    let pruned = convert(versions, pruned, at, other)?;
    let back = in_version(versions, merged, version, other, |place, merged| {
        let kept = fieldset::full(place, &pruned).union(fieldset::with_fields(place, owned));
        merge::remove(place, merged, &fieldset::full(place, merged).difference(&kept))
    })?;
    convert(versions, &back, other, at)
}

fn in_version<T>(
    versions: &dyn Versions,
    object: &Value,
    from: &str,
    to: &str,
    work: impl FnOnce(Place<'_>, &Value) -> T,
) -> Option<T> {
    let ty = versions.root(to)?;
    let shape = Shape::Object(ty.id);
    Some(work(Place::root(ty, &shape), &convert(versions, object, from, to)?))
}

fn convert(versions: &dyn Versions, object: &Value, from: &str, to: &str) -> Option<Value> {
    if from == to { Some(object.clone()) } else { versions.convert(object, from, to) }
}
