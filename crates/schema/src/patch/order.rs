//! Order of merged lists.
//!
//! Items that the patch names (in its list or in `$setElementOrder`) come in the patch's order. Items only the server has
//! keep their places relative to the named ones as far as the old order tells; new items come before them.

use serde_json::Value;

/// What identifies an item: the value of the merge key, or the item itself in a list of scalars.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, key)?;
    list.iter().position(|other| identity(other, key) == Some(wanted))
}

/// The items sorted as the patch asks; `before` is the list as it was before anything was merged into it.
pub(super) fn apply(items: Vec<Value>, wanted: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position(wanted, item, key).is_some());
    named.sort_by_key(|item| position(wanted, item, key));
    weave(named, others, before, key)
}

/// Merges two lists by an old order; where the old order does not say, `named` come first.
fn weave(named: Vec<Value>, others: Vec<Value>, before: &[Value], key: Option<&str>) -> Vec<Value> {
    let mut woven = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (named.peek(), others.peek()) {
        let places = (position(before, left, key), position(before, right, key));
        let right_first = matches!(places, (Some(left), Some(right)) if right < left);
        woven.extend(if right_first { others.next() } else { named.next() });
    }
    woven.extend(named);
    woven.extend(others);
    woven
}

/// The items appear in the wanted order, and each is named there.
pub(super) fn is_in_order(items: &[&Value], wanted: &[Value], key: Option<&str>) -> bool {
    let places: Option<Vec<usize>> = items.iter().map(|item| position(wanted, item, key)).collect();
    places.is_some_and(|places| places.is_sorted())
}
