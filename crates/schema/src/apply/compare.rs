//! What differs between two states of an object, as sets of paths.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::Element;
use super::place::{Form, Place, field_of, is_hollow, names};
use super::set::{Node, Set};

/// What a write did. No path is both removed and touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    /// Of what was removed, that which something else of another kind stands in place of.
    pub(super) displaced: Set,
    /// Changed or new.
    pub(super) touched: Set,
}

/// The same for one value.
#[derive(Default)]
struct Change {
    removed: Node,
    displaced: Node,
    touched: Node,
}

impl Change {
    /// Adds what happened below; `element` is where, and made only when something did.
    fn push(&mut self, element: impl Fn() -> Element, change: Self) {
        if !change.removed.is_empty() {
            self.removed.below.push(element(), change.removed);
        }
        if !change.displaced.is_empty() {
            self.displaced.below.push(element(), change.displaced);
        }
        if !change.touched.is_empty() {
            self.touched.below.push(element(), change.touched);
        }
    }

    fn sorted(mut self) -> Self {
        self.removed.below.sort();
        self.displaced.below.sort();
        self.touched.below.sort();
        self
    }
}

/// From `old` to `new`, both of the type at `place`.
pub(super) fn compare(place: Place<'_>, old: &Value, new: &Value) -> Comparison {
    let Change { removed, displaced, touched } = change(place, Some(old), Some(new));
    Comparison { removed: removed.below, displaced: displaced.below, touched: touched.below }
}

fn change(place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Change {
    let form = |value: Option<&Value>| place.form(value.unwrap_or(&Value::Null));
    let is_null = |value: Option<&Value>| value.is_none_or(Value::is_null);
    match (form(old), form(new)) {
        _ if is_hollow(old) && is_hollow(new) => leaf(old, new),
        (Form::Leaf, Form::Leaf) => leaf(old, new),
        (form, Form::Leaf) if is_null(new) => contents(place, form, old, new),
        (Form::Leaf, form) if is_null(old) => contents(place, form, old, new),
        (form, Form::Leaf) => replaced(contents(place, form, old, None)),
        (Form::Leaf, form) => replaced(contents(place, form, None, new)),
        (_, form) => contents(place, form, old, new),
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Change {
    let mut change = Change::default();
    match (old, new) {
        // Null where nothing is changes nothing: templates that tools print are full of such times.
        (None, Some(Value::Null)) => {}
        (None, _) => change.touched.member = true,
        (_, None) => change.removed.member = true,
        (Some(old), Some(new)) => change.touched.member = old != new,
    }
    change
}

/// Free JSON became another kind of JSON.
fn replaced(mut change: Change) -> Change {
    (change.removed.member, change.touched.member) = (false, true);
    change.displaced = change.removed.clone();
    change
}

fn contents(place: Place<'_>, form: Form<'_>, old: Option<&Value>, new: Option<&Value>) -> Change {
    let mut whole = Change::default();
    match form {
        Form::Leaf => {}
        Form::Struct(ty) => {
            // Most writes leave most of an object as it was; that costs a comparison of equal things, once.
            let is_whole = place.field.is_none();
            for name in names(old, new) {
                let (old, new) = (field_of(ty, old, name), field_of(ty, new, name));
                if is_whole && old == new {
                    continue;
                }
                whole.push(|| Element::Field(name.clone()), change(place.field(ty, name), old, new));
            }
        }
        Form::Map(item) => {
            for name in names(old, new) {
                let (old, new) = (old.and_then(|old| old.get(name)), new.and_then(|new| new.get(name)));
                whole.push(|| Element::Field(name.clone()), change(place.item(item), old, new));
            }
        }
        Form::List(keys, item) => items(&mut whole, place, keys, place.item(item), [old, new]),
    }
    whole.touched.member = old.is_none();
    whole.removed.member = new.is_none();
    whole.sorted()
}

type Sides<'v> = [Vec<&'v Value>; 2];

fn items(whole: &mut Change, place: Place<'_>, keys: &[String], item: Place<'_>, sides: [Option<&Value>; 2]) {
    let mut all: BTreeMap<Element, Sides<'_>> = BTreeMap::new();
    for (side, list) in sides.into_iter().enumerate() {
        for value in list.and_then(Value::as_array).into_iter().flatten() {
            // What has no identity was let in by something else than this server, and nobody can own it.
            if let Ok(element) = place.identity(keys, value) {
                all.entry(element).or_default()[side].push(value);
            }
        }
    }
    for (element, sides) in &all {
        whole.push(|| element.clone(), item_change(item, sides));
    }
}

/// Items that share an identity are compared as a whole.
fn item_change(item: Place<'_>, [old, new]: &Sides<'_>) -> Change {
    match (old.as_slice(), new.as_slice()) {
        ([] | [_], [] | [_]) => change(item, old.first().copied(), new.first().copied()),
        ([_, _, ..], [_, _, ..]) => {
            let mut change = Change::default();
            change.touched.member = old != new;
            change
        }
        ([_, _, ..], _) => {
            let mut change = new.first().map_or_else(Change::default, |new| change(item, None, Some(new)));
            change.removed.member = true;
            change
        }
        _ => {
            let mut change = old.first().map_or_else(Change::default, |old| change(item, Some(old), None));
            change.touched.member = true;
            change
        }
    }
}
