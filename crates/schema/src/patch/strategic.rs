//! Strategic merge patch (facts, section 1.10): merge by the schema's keys, with the directives `$patch`, `$retainKeys`,
//! `$setElementOrder` and `$deleteFromPrimitiveList`.
//!
//! Strategies come from the schema only, never from the shape of the patch.

use serde_json::{Map, Value};

use super::{PatchError, order};
use crate::facts::{Field, PatchStrategy, Shape, TypeRef, TypeSet};

type Object = Map<String, Value>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// What the schema says about the value being merged; nothing below free JSON.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    set: &'a TypeSet,
    shape: Option<&'a Shape>,
    strategy: PatchStrategy,
    merge_key: Option<&'a str>,
}

impl<'a> Scope<'a> {
    fn field(self, name: &str) -> Scope<'a> {
        let none = Scope { shape: None, strategy: PatchStrategy::default(), merge_key: None, ..self };
        match self.shape {
            Some(Shape::Object(id) | Shape::ObjectOr(id, _)) => match self.set.get(*id).field(name) {
                Some(Field { shape, patch_strategy, merge_key, .. }) => Scope {
                    shape: Some(shape),
                    strategy: patch_strategy.unwrap_or_default(),
                    merge_key: merge_key.as_deref(),
                    ..self
                },
                None => none,
            },
            Some(Shape::Map(item)) => Scope { shape: Some(item), ..none },
            _ => none,
        }
    }

    fn item(self) -> Scope<'a> {
        let shape = match self.shape {
            Some(Shape::List(item)) => Some(&**item),
            _ => None,
        };
        Scope { shape, strategy: PatchStrategy::default(), merge_key: None, ..self }
    }
}

/// Applies a patch to a document of this type.
pub(super) fn apply(root: TypeRef<'_>, mut document: Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch is an object".into()));
    };
    let shape = Shape::Object(root.id);
    let scope = Scope { set: root.set, shape: Some(&shape), strategy: PatchStrategy::default(), merge_key: None };
    let target = document
        .as_object_mut()
        .ok_or_else(|| PatchError::Failed("only an object can be patched strategically".into()))?;
    merge_object(scope, target, patch)?;
    Ok(document)
}

fn directive_error(text: impl Into<String>) -> PatchError {
    PatchError::Directive(text.into())
}

fn merge_object(scope: Scope<'_>, target: &mut Object, patch: &Object) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(directive_error(format!("unknown patch type: {other}"))),
    }
    retain_keys(target, patch)?;
    for (key, change) in patch {
        if key == DIRECTIVE || key == RETAIN_KEYS {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(target, list, change)?;
        } else if let Some(list) = key.strip_prefix(ELEMENT_ORDER) {
            // With a list to merge, the order is applied there.
            if !patch.contains_key(list) {
                let before = list_of(target, list);
                reorder(scope.field(list), target, list, change, &before)?;
            }
        } else if let Some(order) = patch.get(&format!("{ELEMENT_ORDER}{key}")) {
            let before = list_of(target, key);
            merge_field(scope.field(key), target, key, change)?;
            check_order(scope.field(key), change, order)?;
            reorder(scope.field(key), target, key, order, &before)?;
        } else {
            merge_field(scope.field(key), target, key, change)?;
        }
    }
    Ok(())
}

/// The list as it is now; empty when there is none.
fn list_of(target: &Object, key: &str) -> Vec<Value> {
    target.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Drops the keys that `$retainKeys` does not list.
fn retain_keys(target: &mut Object, patch: &Object) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = directive.as_array().ok_or_else(|| directive_error("invalid patch format of retainKeys: not a list"))?;
    let kept = |key: &str| keys.iter().any(|kept| kept.as_str() == Some(key));
    let is_plain = |key: &str, value: &Value| !key.starts_with('$') && !value.is_null();
    if let Some((key, _)) = patch.iter().find(|(key, value)| is_plain(key, value) && !kept(key)) {
        return Err(directive_error(format!("{key} is not in the list of retainKeys")));
    }
    target.retain(|key, _| kept(key));
    Ok(())
}

fn merge_field(scope: Scope<'_>, target: &mut Object, key: &str, change: &Value) -> Result<(), PatchError> {
    if change.is_null() {
        target.shift_remove(key);
        return Ok(());
    }
    match (target.get_mut(key), change) {
        (Some(Value::Object(current)), Value::Object(patch)) if !scope.strategy.replace => {
            merge_object(scope, current, patch)?;
        }
        (Some(Value::Array(current)), Value::Array(patch)) if scope.strategy.merge => {
            merge_list(scope, current, patch)?
        }
        (None, Value::Array(patch)) if scope.strategy.merge => {
            let mut fresh = Vec::new();
            merge_list(scope, &mut fresh, patch)?;
            target.insert(key.to_owned(), fresh.into());
        }
        (_, fresh) => {
            target.insert(key.to_owned(), clean(fresh));
        }
    }
    Ok(())
}

/// A patch value that stands alone: without nulls and directives.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => without_directives(map).into(),
        Value::Array(items) => items.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(clean).collect(),
        other => other.clone(),
    }
}

fn without_directives(map: &Object) -> Object {
    let plain = |(key, value): &(&String, &Value)| !key.starts_with('$') && !value.is_null();
    map.iter().filter(plain).map(|(key, value)| (key.clone(), clean(value))).collect()
}

fn merge_list(scope: Scope<'_>, target: &mut Vec<Value>, patch: &[Value]) -> Result<(), PatchError> {
    let before = target.clone();
    let Some(key) = scope.merge_key else {
        for value in patch {
            if !target.contains(value) {
                target.push(value.clone());
            }
        }
        *target = order::apply(std::mem::take(target), patch, &before, None);
        return Ok(());
    };
    if patch.iter().any(|item| item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace")) {
        *target = patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(clean).collect();
        return Ok(());
    }
    for item in patch {
        merge_item(scope.item(), key, target, item)?;
    }
    *target = order::apply(std::mem::take(target), patch, &before, Some(key));
    Ok(())
}

fn merge_item(scope: Scope<'_>, key: &str, target: &mut Vec<Value>, item: &Value) -> Result<(), PatchError> {
    let identity = item
        .get(key)
        .ok_or_else(|| directive_error(format!("map: {item} does not contain declared merge key: {key}")))?;
    let is_same = |candidate: &Value| candidate.get(key) == Some(identity);
    match item.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => {
            target.retain(|candidate| !is_same(candidate));
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(directive_error(format!("unknown patch type: {other}"))),
    }
    match (target.iter_mut().find(|candidate| is_same(candidate)), item) {
        (Some(Value::Object(current)), Value::Object(patch)) => merge_object(scope, current, patch),
        (Some(current), patch) => {
            *current = clean(patch);
            Ok(())
        }
        (None, Value::Object(patch)) => {
            let mut fresh = Map::new();
            merge_object(scope, &mut fresh, patch)?;
            target.push(fresh.into());
            Ok(())
        }
        (None, patch) => {
            target.push(clean(patch));
            Ok(())
        }
    }
}

fn delete_primitives(target: &mut Object, list: &str, values: &Value) -> Result<(), PatchError> {
    let values =
        values.as_array().ok_or_else(|| directive_error(format!("{DELETE_PRIMITIVES}{list} is not a list")))?;
    if let Some(Value::Array(current)) = target.get_mut(list) {
        current.retain(|value| !values.contains(value));
    }
    Ok(())
}

fn reorder(
    scope: Scope<'_>,
    target: &mut Object,
    list: &str,
    wanted: &Value,
    before: &[Value],
) -> Result<(), PatchError> {
    let wanted = wanted.as_array().ok_or_else(|| directive_error(format!("{ELEMENT_ORDER}{list} is not a list")))?;
    if let Some(Value::Array(current)) = target.get_mut(list) {
        *current = order::apply(std::mem::take(current), wanted, before, scope.merge_key);
    }
    Ok(())
}

/// Items of the patched list must be in the order that the directive asks for.
fn check_order(scope: Scope<'_>, list: &Value, wanted: &Value) -> Result<(), PatchError> {
    let (Some(list), Some(wanted)) = (list.as_array(), wanted.as_array()) else { return Ok(()) };
    let plain: Vec<&Value> = list.iter().filter(|item| item.get(DIRECTIVE).is_none()).collect();
    if order::is_in_order(&plain, wanted, scope.merge_key) {
        return Ok(());
    }
    Err(directive_error(format!(
        "the order in patch list:\n{} doesn't match $setElementOrder list:\n{}",
        Value::from(list.clone()),
        Value::from(wanted.clone())
    )))
}
