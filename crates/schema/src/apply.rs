//! Server-side apply and the ownership of fields (facts, section 1.11): what a write made its writer own, what applying a
//! configuration makes of an object, and who stands in the way.
//!
//! Works on documents and the schema table, for built-in and custom kinds alike. Times and names are arguments. Follows
//! upstream's structured-merge-diff in what it decides and in what it writes.

mod check;
mod compare;
mod conflict;
mod element;
mod fieldset;
mod managers;
mod merge;
mod migrate;
mod place;
mod prune;
mod set;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::facts::{Shape, TypeRef};
use crate::table::Kind;
use compare::Comparison;
use place::Place;

pub use conflict::{Conflict, message};
pub use element::{Element, ElementError, Literal};
pub use managers::{Entry, MAX_UPDATERS, Manager, Managers, ManagersError, Operation, same_but_times};
pub use migrate::{LAST_APPLIED, refresh_last_applied};
pub use set::{FieldsError, MAX_DEPTH, MAX_ELEMENTS, Set};

/// Fields of `metadata` that nobody owns.
const UNTRACKED_METADATA: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The versions that an object of a kind is served in.
pub trait Versions {
    /// The type in this `apiVersion`; none when it is not served (any longer).
    fn root(&self, api_version: &str) -> Option<TypeRef<'_>>;

    /// An object that is in `from`, in `to`; none when that is not possible.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// A kind by itself, in its own version only.
impl Versions for Kind {
    fn root(&self, api_version: &str) -> Option<TypeRef<'_>> {
        (api_version == self.api_version()).then(|| self.root())
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        (from == to).then(|| object.clone())
    }
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Name of the manager.
    pub name: &'a str,
    /// The version that the objects given are in.
    pub api_version: &'a str,
    /// Subresource that is written to; empty for the object itself.
    pub subresource: &'a str,
    /// Now, as Kubernetes writes times.
    pub time: &'a str,
}

/// What applying came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object, in the writer's version, without defaults for what is new.
    pub object: Value,
    /// Who owns what now.
    pub managers: Managers,
}

/// A configuration that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It does not fit its type.
    #[error("{0}")]
    Config(String),
    /// The version is not served.
    #[error("version {0:?} is not served")]
    Version(String),
    /// Others own fields that it would change.
    #[error("{}", message(.0))]
    Conflicts(Vec<Conflict>),
}

/// Who owns what after a write that was no apply. `old` is an empty object for a creation; `managers` are those of the old
/// object or what the client wants them to be.
pub fn update(
    versions: &dyn Versions,
    old: &Value,
    new: &Value,
    mut managers: Managers,
    writer: Writer<'_>,
) -> Managers {
    let Some(ty) = versions.root(writer.api_version) else { return managers };
    reconcile(versions, &mut managers);
    let shape = Shape::Object(ty.id);
    let comparison = compare::compare(Place::root(ty, &shape), old, new);
    let mut touched = if managers.0.is_empty() {
        comparison.touched
    } else {
        let touched = comparison.touched.clone();
        Changes::new(versions, [old, new], writer.api_version, comparison).take_from_others(&mut managers, None);
        touched
    };
    strip(&mut touched);
    if !touched.is_empty() {
        let own = Manager::new(Operation::Update, writer.name, writer.api_version, writer.subresource);
        let previous = managers.0.remove(&own).unwrap_or_default();
        let entry = Entry {
            set: previous.set.union(touched),
            api_version: writer.api_version.into(),
            time: writer.time.into(),
        };
        managers.0.insert(own, entry);
    }
    managers.cap();
    managers
}

/// Refuses a configuration that does not fit its type: undeclared fields, values of the wrong kind, list items without
/// keys or with the same ones.
///
/// # Errors
/// Why it does not fit, or that the version is not served.
pub fn check(versions: &dyn Versions, config: &Value, api_version: &str) -> Result<(), ApplyError> {
    let ty = versions.root(api_version).ok_or_else(|| ApplyError::Version(api_version.into()))?;
    check::check(ty, config).map_err(ApplyError::Config)
}

/// An object with what a configuration says, whoever owns what: lists by their keys, as apply does. What the
/// configuration does not say stays.
///
/// # Errors
/// What does not fit the type, and values that can be replaced as a whole only.
pub fn merge_configuration(ty: TypeRef<'_>, object: &Value, config: &Value) -> Result<Value, String> {
    check::check(ty, config)?;
    let shape = Shape::Object(ty.id);
    let place = Place::root(ty, &shape);
    let mut units = Vec::new();
    merge::units(place, config, "", &mut units);
    if !units.is_empty() {
        return Err(format!("may not mutate atomic arrays, maps or structs: {}", units.join(", ")));
    }
    Ok(merge::merge(place, object, config))
}

/// Applies a configuration that passed [`check`] to an object (an empty one for a creation). Neither has `managedFields`
/// of its own: the live ones are `managers`.
///
/// # Errors
/// What [`ApplyError`] says; conflicts only without `force`.
pub fn apply(
    versions: &dyn Versions,
    live: &Value,
    config: &Value,
    mut managers: Managers,
    writer: Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    reconcile(versions, &mut managers);
    let forced = || attempt(versions, live, config, managers.clone(), writer, true);
    match attempt(versions, live, config, managers.clone(), writer, force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.name == migrate::KUBECTL => {
            let left = migrate::unexplained(versions, live, conflicts, writer.api_version);
            if left.is_empty() { forced() } else { Err(ApplyError::Conflicts(left)) }
        }
        decided => decided,
    }
}

fn attempt(
    versions: &dyn Versions,
    live: &Value,
    config: &Value,
    mut managers: Managers,
    writer: Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let version = writer.api_version;
    let ty = versions.root(version).ok_or_else(|| ApplyError::Version(version.into()))?;
    let shape = Shape::Object(ty.id);
    let place = Place::root(ty, &shape);
    let own = Manager::new(Operation::Apply, writer.name, version, writer.subresource);
    // Nobody owns the name, yet it keeps what it is part of from being taken away.
    let set = fieldset::of(place, config);
    let last = managers.0.remove(&own);
    let time = last.as_ref().map_or(writer.time, |last| &last.time).to_owned();
    managers.0.insert(own.clone(), Entry { set, api_version: version.into(), time });
    let mut object = merge::merge(place, live, config);
    let is_less = |last: &&Entry| last.api_version != version || !last.set.is_within(&managers.0[&own].set);
    if let Some(last) = last.as_ref().filter(is_less) {
        let applied = fieldset::full(place, config);
        object = prune::prune(versions, object, version, &managers, last, applied);
    }
    managers.0.get_mut(&own).into_iter().for_each(|entry| strip(&mut entry.set));
    let comparison = compare::compare(place, live, &object);
    let changes = Changes::new(versions, [live, &object], version, comparison);
    let conflicts = changes.take_from_others(&mut managers, Some(&own));
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    let is_same = object == *live;
    if let Some(entry) = managers.0.get_mut(&own) {
        let is_kept = last.is_some_and(|last| last.set == entry.set) && is_same;
        if !is_kept {
            entry.time = writer.time.into();
        }
    }
    managers.0.retain(|_, entry| !entry.set.is_empty());
    Ok(Applied { object, managers })
}

/// Brings what managers own in step with the schema of their versions.
fn reconcile(versions: &dyn Versions, managers: &mut Managers) {
    for entry in managers.0.values_mut() {
        if let Some(ty) = versions.root(&entry.api_version) {
            let shape = Shape::Object(ty.id);
            fieldset::reconcile(Place::root(ty, &shape), &mut entry.set);
        }
    }
}

/// Takes out what nobody owns.
fn strip(set: &mut Set) {
    set.retain(|element, node| match element {
        Element::Field(name) if name == "metadata" => {
            node.member = false;
            node.below.retain(
                |element, _| !matches!(element, Element::Field(name) if UNTRACKED_METADATA.contains(&name.as_str())),
            );
            true
        }
        Element::Field(name) => name != "apiVersion" && name != "kind",
        _ => true,
    });
}

/// A change of an object, seen in the version of each manager.
struct Changes<'a> {
    versions: &'a dyn Versions,
    /// From the first to the second.
    states: [&'a Value; 2],
    /// The version they are in.
    version: &'a str,
    known: BTreeMap<String, Comparison>,
}

impl<'a> Changes<'a> {
    fn new(versions: &'a dyn Versions, states: [&'a Value; 2], version: &'a str, comparison: Comparison) -> Self {
        Self { versions, states, version, known: BTreeMap::from([(version.to_owned(), comparison)]) }
    }

    /// Takes changed and removed fields from all managers but this one. Who cannot be asked, because its version is
    /// gone, owns nothing any more. Returns what was changed and owned.
    fn take_from_others(mut self, managers: &mut Managers, but: Option<&Manager>) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        managers.0.retain(|manager, entry| {
            if Some(manager) == but {
                return true;
            }
            let Some(comparison) = self.in_version(&entry.api_version) else { return false };
            let lost = entry.set.intersection(&comparison.touched);
            let lost = lost.union(entry.set.intersection(&comparison.displaced));
            let set = std::mem::take(&mut entry.set);
            conflicts.extend(lost.paths().into_iter().map(|path| Conflict::new(manager, &entry.api_version, path)));
            entry.set = set.difference(&lost).difference(&comparison.removed);
            !entry.set.is_empty()
        });
        conflicts
    }

    fn in_version(&mut self, version: &str) -> Option<&Comparison> {
        if !self.known.contains_key(version) {
            let ty = self.versions.root(version)?;
            let convert = |object| self.versions.convert(object, self.version, version);
            let shape = Shape::Object(ty.id);
            let comparison =
                compare::compare(Place::root(ty, &shape), &convert(self.states[0])?, &convert(self.states[1])?);
            self.known.insert(version.to_owned(), comparison);
        }
        self.known.get(version)
    }
}
