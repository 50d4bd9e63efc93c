//! Sets of paths as trees, their algebra, and `FieldsV1`, which is how `managedFields` write them.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::element::{Element, ElementError};

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 128;
/// Most elements in one set that is read; more than the largest object can have.
pub const MAX_ELEMENTS: usize = 1 << 19;

/// The name under which `FieldsV1` says that a path which leads on is itself in the set.
const SELF: &str = ".";

/// A set of paths: what is known about each first element, in order, no element twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<(Element, Node)>);

/// What a set knows about one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The path is in the set.
    pub(super) member: bool,
    /// Longer paths that are in the set.
    pub(super) below: Set,
}

/// `FieldsV1` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// A key of an object is no path element.
    #[error(transparent)]
    Element(#[from] ElementError),
    /// Something else than objects.
    #[error("managed fields are nested objects, but at {0:?} there is something else")]
    NoObject(String),
    /// Beyond [`MAX_DEPTH`] or [`MAX_ELEMENTS`].
    #[error("managed fields are limited to {MAX_ELEMENTS} elements and {MAX_DEPTH} levels")]
    TooLarge,
}

impl Node {
    pub(super) const MEMBER: Self = Self { member: true, below: Set::EMPTY };

    fn union(self, other: Self) -> Self {
        Self { member: self.member || other.member, below: self.below.union(other.below) }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// Nothing.
    pub const EMPTY: Self = Self(Vec::new());

    /// There is no path in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The path is in it.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.has(rest)),
        }
    }

    fn get(&self, element: &Element) -> Option<&Node> {
        self.0.binary_search_by(|(own, _)| own.cmp(element)).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn has_member(&self, element: &Element) -> bool {
        self.get(element).is_some_and(|node| node.member)
    }

    /// The paths that go on after the element; none when there are none.
    pub(super) fn below(&self, element: &Element) -> Option<&Self> {
        self.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Adds what is known about a path; nothing known leaves no trace. [`Self::sort`] must follow, unless elements come in
    /// order.
    pub(super) fn push(&mut self, element: Element, node: Node) {
        if !node.is_empty() {
            self.0.push((element, node));
        }
    }

    /// Brings what was pushed in order; of what was pushed twice the last one counts.
    pub(super) fn sort(&mut self) {
        if self.0.is_sorted_by(|(left, _), (right, _)| left < right) {
            return;
        }
        self.0.reverse();
        self.0.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.0.dedup_by(|(left, _), (right, _)| left == right);
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.0.iter().map(|(element, node)| (element, node))
    }

    /// Keeps the nodes that the function keeps, after it changed them.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Element, &mut Node) -> bool) {
        self.0.retain_mut(|(element, node)| keep(element, node) && !node.is_empty());
    }

    /// What is in this set or in the other.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        let mut all = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut own, mut others) = (self.0.into_iter().peekable(), other.0.into_iter().peekable());
        while let (Some((left, _)), Some((right, _))) = (own.peek(), others.peek()) {
            match left.cmp(right) {
                Ordering::Less => all.extend(own.next()),
                Ordering::Greater => all.extend(others.next()),
                Ordering::Equal => {
                    let both = own.next().zip(others.next());
                    all.extend(both.map(|((element, own), (_, other))| (element, own.union(other))));
                }
            }
        }
        all.extend(own.chain(others));
        Self(all)
    }

    /// Each element of this set that the other has as well, with what both know.
    fn shared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a Element, &'a Node, &'a Node)> {
        let mut others = other.0.iter().peekable();
        self.0.iter().filter_map(move |(element, own)| {
            while others.next_if(|(other, _)| other < element).is_some() {}
            others.next_if(|(other, _)| other == element).map(|(_, other)| (element, own, other))
        })
    }

    /// What is in this set and in the other.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::EMPTY;
        for (element, own, other) in self.shared(other) {
            let below = own.below.intersection(&other.below);
            let node = Node { member: own.member && other.member, below };
            if !node.is_empty() {
                both.push(element.clone(), node);
            }
        }
        both
    }

    /// What is in this set and not in the other. A path that is taken out leaves the longer ones.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        let mut others = other.0.iter().peekable();
        self.retain(|element, own| {
            while others.next_if(|(other, _)| other < element).is_some() {}
            if let Some((_, other)) = others.next_if(|(other, _)| other == element) {
                own.member &= !other.member;
                own.below = std::mem::take(&mut own.below).difference(&other.below);
            }
            true
        });
        self
    }

    /// There is nothing in this set that is not in the other.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let mut found = 0;
        let fits = self.shared(other).all(|(_, own, other)| {
            found += 1;
            (!own.member || other.member) && own.below.is_within(&other.below)
        });
        fits && found == self.0.len()
    }

    /// All paths, in order, shorter ones first.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, lead: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, node) in &self.0 {
            lead.push(element.clone());
            if node.member {
                paths.push(lead.clone());
            }
            node.below.collect(lead, paths);
            lead.pop();
        }
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// What [`FieldsError`] says.
    pub fn parse(fields: &Value) -> Result<Self, FieldsError> {
        let mut budget = MAX_ELEMENTS;
        let Value::Object(map) = fields else { return Err(FieldsError::NoObject(String::new())) };
        Ok(parse(map, MAX_DEPTH, &mut budget)?.below)
    }

    /// Writes `FieldsV1` as upstream does: sorted, `"."` first.
    pub fn to_value(&self) -> Value {
        self.write(Map::new()).into()
    }

    fn write(&self, mut map: Map<String, Value>) -> Map<String, Value> {
        for (element, node) in &self.0 {
            let mut inner = Map::new();
            if node.member && !node.below.is_empty() {
                inner.insert(SELF.into(), Map::new().into());
            }
            map.insert(element.to_key(), node.below.write(inner).into());
        }
        map
    }
}

fn parse(map: &Map<String, Value>, depth: usize, budget: &mut usize) -> Result<Node, FieldsError> {
    let mut node = Node { member: map.is_empty(), below: Set::EMPTY };
    for (key, value) in map {
        *budget = budget.checked_sub(1).filter(|_| depth > 0).ok_or(FieldsError::TooLarge)?;
        let Value::Object(inner) = value else { return Err(FieldsError::NoObject(key.clone())) };
        if key == SELF {
            node.member = true;
        } else {
            node.below.push(Element::parse(key)?, parse(inner, depth - 1, budget)?);
        }
    }
    node.below.sort();
    Ok(node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(paths: &[&str]) -> Set {
        let mut all = Set::EMPTY;
        for path in paths {
            let mut node = Node::MEMBER;
            for name in path.rsplit('.') {
                let mut around = Set::EMPTY;
                around.push(Element::Field(name.into()), node);
                node = Node { member: false, below: around };
            }
            all = all.union(node.below);
        }
        all
    }

    #[test]
    fn the_algebra_is_that_of_sets_of_paths() {
        let (left, right) = (set(&["a", "a.b", "a.c", "d.e"]), set(&["a", "a.c", "d", "f"]));
        assert_eq!(left.clone().union(right.clone()), set(&["a", "a.b", "a.c", "d", "d.e", "f"]));
        assert_eq!(left.intersection(&right), set(&["a", "a.c"]));
        assert_eq!(left.clone().difference(&right), set(&["a.b", "d.e"]));
        assert!(left.clone().difference(&left).is_empty());
        assert_eq!(left.paths().len(), 4);
        assert!(left.paths().iter().all(|path| left.has(path)));
    }

    #[test]
    fn fields_are_written_as_upstream_writes_them() {
        let check = |given: Value, written: &str| {
            assert_eq!(Set::parse(&given).unwrap().to_value().to_string(), written);
        };
        check(json!({}), "{}");
        check(
            json!({"f:spec": {"f:b": {}, "f:a": {"f:x": {}, ".": {}}}, "f:metadata": {"f:labels": {"f:app": {}}}}),
            r#"{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:a":{".":{},"f:x":{}},"f:b":{}}}"#,
        );
        check(
            json!({"f:a": {"v:\"x\"": {}, "k:{\"b\":1,\"a\":\"\"}": {".": {}}}}),
            r#"{"f:a":{"k:{\"a\":\"\",\"b\":1}":{},"v:\"x\"":{}}}"#,
        );
    }

    #[test]
    fn fields_that_are_none_are_refused() {
        let mut deep = json!({});
        for _ in 0..=MAX_DEPTH {
            deep = json!({ "f:a": deep });
        }
        for wrong in [json!([]), json!({"a": {}}), json!({"f:a": 1}), json!({"f:a": {".": null}}), deep] {
            assert!(Set::parse(&wrong).is_err());
        }
    }
}
