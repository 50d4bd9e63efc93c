//! A map of bounded size: what was not used for longest is forgotten. Knows no time, only order.

use std::collections::BTreeMap;

/// Entries, and in which order they were used.
#[derive(Clone, Debug)]
pub(crate) struct Recent<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    /// Keys by when they were used.
    turns: BTreeMap<u64, K>,
    next_turn: u64,
    limit: usize,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    /// Of so many entries at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), turns: BTreeMap::new(), next_turn: 0, limit }
    }

    /// The entry, made if it is not there. It is the last to be forgotten from now on.
    pub(crate) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let turn = self.next_turn;
        self.next_turn += 1;
        match self.entries.get(&key) {
            Some((before, _)) => drop(self.turns.remove(before)),
            None if self.entries.len() >= self.limit => self.forget_one(),
            None => {}
        }
        self.turns.insert(turn, key.clone());
        let (used, value) = self.entries.entry(key).or_insert_with(|| (turn, make()));
        *used = turn;
        value
    }

    fn forget_one(&mut self) {
        if let Some((_, oldest)) = self.turns.pop_first() {
            self.entries.remove(&oldest);
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let mut recent = Recent::new(2);
        for (key, expected) in [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3), ("b", 1), ("c", 1)] {
            let count = recent.entry(key, || 0);
            *count += 1;
            assert_eq!(*count, expected, "{key}");
        }
        assert_eq!((recent.len(), recent.turns.len()), (2, 2));
    }
}
