//! The field set of a configuration: what who applies it claims to own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::Element;
use super::place::{Form, Place, is_hollow};
use super::set::{Node, Set};

/// The set of a configuration.
pub(super) fn of(place: Place<'_>, config: &Value) -> Set {
    node(place, config, false).below
}

/// All paths of an object: also those of struct fields with contents and of empty lists, which a configuration does not
/// claim.
pub(super) fn full(place: Place<'_>, object: &Value) -> Set {
    with_fields(place, &node(place, object, true).below)
}

fn node(place: Place<'_>, value: &Value, full: bool) -> Node {
    match place.form(value) {
        Form::Leaf => Node::MEMBER,
        Form::Struct(ty) => entries(value, full, |name| (place.field(ty, name), ty.field(name).is_none())),
        Form::Map(item) => entries(value, full, |_| (place.item(item), true)),
        Form::List(keys, item) => Node { member: false, below: items(place, keys, place.item(item), value, full) },
    }
}

/// `below` gives the place of a field, and whether it is a free key: those are owned themselves.
fn entries<'a>(value: &Value, full: bool, below: impl Fn(&str) -> (Place<'a>, bool)) -> Node {
    let mut set = Set::EMPTY;
    for (name, value) in value.as_object().into_iter().flatten() {
        let (place, free) = below(name);
        let mut node = node(place, value, full);
        node.member |= free || (is_hollow(Some(value)) && (full || !value.is_array()));
        if !node.is_empty() {
            set.push(Element::Field(name.clone()), node);
        }
    }
    set.sort();
    Node { member: false, below: set }
}

/// Items that share an identity are owned as a whole, since nothing tells what is inside them apart.
fn items(place: Place<'_>, keys: &[String], item: Place<'_>, value: &Value, full: bool) -> Set {
    let (mut set, mut seen) = (Set::EMPTY, BTreeSet::new());
    for value in value.as_array().into_iter().flatten() {
        let Ok(element) = place.identity(keys, value) else { continue };
        let node =
            if seen.insert(element.clone()) { Node { member: true, ..node(item, value, full) } } else { Node::MEMBER };
        set.push(element, node);
    }
    set.sort();
    set
}

/// The same set with every struct field that has something in it as a member, so that it can be taken away with its
/// contents.
pub(super) fn with_fields(place: Place<'_>, set: &Set) -> Set {
    let mut whole = Set::EMPTY;
    for (element, node) in set.nodes() {
        let (below, is_field) = step(place, element);
        let member = node.member || (is_field && !node.below.is_empty());
        let below = below.map_or_else(|| node.below.clone(), |place| with_fields(place, &node.below));
        whole.push(element.clone(), Node { member, below });
    }
    whole
}

/// After a schema made something one unit that was none: who owned a part of it owns it whole.
pub(super) fn reconcile(place: Place<'_>, set: &mut Set) {
    set.retain(|element, node| {
        if let (Some(place), false) = (step(place, element).0, node.below.is_empty()) {
            if place.is_unit() {
                *node = Node::MEMBER;
            } else {
                reconcile(place, &mut node.below);
            }
        }
        true
    });
}

/// Where an element leads, and whether it is a declared field.
fn step<'a>(place: Place<'a>, element: &Element) -> (Option<Place<'a>>, bool) {
    match (place.form(&Value::Null), element) {
        (Form::Struct(ty), Element::Field(name)) => (Some(place.field(ty, name)), ty.field(name).is_some()),
        (Form::Map(item), Element::Field(_)) => (Some(place.item(item)), false),
        (Form::List(_, item), _) => (Some(place.item(item)), false),
        _ => (None, false),
    }
}
