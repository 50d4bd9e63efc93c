//! An applied configuration merged into an object, and paths taken out of one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Form, Place, is_hollow, names};
use super::set::Set;

/// `live` with what `applied` says.
pub(super) fn merge(place: Place<'_>, live: &Value, applied: &Value) -> Value {
    match (place.form(live), place.form(applied)) {
        // Null takes nothing away; if it replaced what others leave empty, the next time would differ from this one.
        (Form::Struct(_) | Form::Map(_) | Form::List(..), _) if applied.is_null() => live.clone(),
        _ if is_hollow(Some(live)) => applied.clone(),
        (Form::Struct(_), Form::Struct(ty)) => entries(live, applied, |name| place.field(ty, name)),
        (Form::Map(_), Form::Map(item)) => entries(live, applied, |_| place.item(item)),
        (Form::List(..), Form::List(keys, item)) => items(place, keys, place.item(item), live, applied),
        _ => applied.clone(),
    }
}

fn merge_either(place: Place<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    match (live, applied) {
        (Some(live), Some(applied)) => Some(merge(place, live, applied)),
        (one, other) => other.or(one).cloned(),
    }
}

fn entries<'a>(live: &Value, applied: &Value, below: impl Fn(&str) -> Place<'a>) -> Value {
    let merged = names(Some(live), Some(applied)).filter_map(|name| {
        let value = merge_either(below(name), live.get(name), applied.get(name))?;
        Some((name.clone(), value))
    });
    merged.collect::<Map<_, _>>().into()
}

/// An item of a list with what tells it apart.
type Identified<'v> = (Element, &'v Value);

fn identified<'v>(place: Place<'_>, keys: &[String], list: &'v Value) -> Vec<Identified<'v>> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|value| Some((place.identity(keys, value).ok()?, value))).collect()
}

/// Paths of values with contents that would be replaced as a whole.
pub(super) fn units(place: Place<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match (place.form(value), value) {
        (Form::Struct(ty), Value::Object(fields)) => {
            fields
                .iter()
                .for_each(|(name, value)| units(place.field(ty, name), value, &format!("{path}.{name}"), found));
        }
        (Form::Map(item), Value::Object(fields)) => {
            fields.iter().for_each(|(name, value)| units(place.item(item), value, &format!("{path}.{name}"), found));
        }
        (Form::List(_, item), Value::Array(items)) => {
            items.iter().for_each(|value| units(place.item(item), value, &format!("{path}[]"), found));
        }
        (Form::Leaf, Value::Object(_) | Value::Array(_)) => found.push(path.to_owned()),
        _ => {}
    }
}

/// Items that both have come in the applied order. Items that only the live list has stay before the shared item that
/// they stood before; new ones come after them.
fn items(place: Place<'_>, keys: &[String], item: Place<'_>, live: &Value, applied: &Value) -> Value {
    let (live, applied) = (identified(place, keys, live), identified(place, keys, applied));
    let wanted: BTreeSet<&Element> = applied.iter().map(|(element, _)| element).collect();
    let known = unique(&live);
    let mut shared =
        applied.iter().map(|(element, _)| element).filter(|element| known.contains_key(element)).peekable();
    let mut rest = live.iter().peekable();
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    for (element, value) in &applied {
        let next = shared.peek().copied();
        while let Some((other, value)) = rest.next_if(|(other, _)| Some(other) != next) {
            if !wanted.contains(other) {
                merged.push((*value).clone());
            }
        }
        if shared.next_if(|next| *next == element).is_some() {
            rest.next();
        }
        merged.extend(merge_either(item, known.get(element).copied().flatten(), Some(value)));
    }
    merged.extend(rest.filter(|(other, _)| !wanted.contains(other)).map(|(_, value)| (*value).clone()));
    merged.into()
}

/// The items by what tells them apart. Of several that share it none is the one to merge with: the applied one replaces
/// them all.
fn unique<'v, 'i>(items: &'i [Identified<'v>]) -> BTreeMap<&'i Element, Option<&'v Value>> {
    let mut unique = BTreeMap::new();
    for (element, value) in items {
        unique.entry(element).and_modify(|known| *known = None).or_insert(Some(*value));
    }
    unique
}

/// The object without the paths of the set.
pub(super) fn remove(place: Place<'_>, value: &Value, set: &Set) -> Value {
    match (place.form(value), value) {
        (Form::Struct(ty), Value::Object(fields)) => without(fields, set, |name| place.field(ty, name)),
        (Form::Map(item), Value::Object(fields)) => without(fields, set, |_| place.item(item)),
        (Form::List(keys, item), Value::Array(items)) => {
            let kept = items.iter().filter_map(|value| {
                let Ok(element) = place.identity(keys, value) else { return Some(value.clone()) };
                keep(place.item(item), &element, value, set)
            });
            kept.collect()
        }
        _ => value.clone(),
    }
}

fn without<'a>(fields: &Map<String, Value>, set: &Set, below: impl Fn(&str) -> Place<'a>) -> Value {
    let kept = fields.iter().filter_map(|(name, value)| {
        Some((name.clone(), keep(below(name), &Element::Field(name.clone()), value, set)?))
    });
    kept.collect::<Map<_, _>>().into()
}

fn keep(place: Place<'_>, element: &Element, value: &Value, set: &Set) -> Option<Value> {
    if set.has_member(element) {
        return None;
    }
    Some(set.below(element).map_or_else(|| value.clone(), |below| remove(place, value, below)))
}
