//! Sets of completion indexes, written as `0-2,5`.

use std::collections::BTreeMap;
use std::fmt;

/// A set of indexes, kept as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// First to last index of each range; ranges neither touch nor overlap.
    ranges: BTreeMap<i64, i64>,
}

impl Indexes {
    /// Reads a set; what is not below `end` or cannot be read is left out.
    pub(super) fn parse(text: &str, end: i64) -> Self {
        let mut indexes = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
                indexes.insert_range(first.max(0), last.min(end - 1));
            }
        }
        indexes
    }

    fn insert_range(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        while let Some((&start, &end)) =
            self.ranges.range(..=last + 1).next_back().filter(|(_, end)| **end >= first - 1)
        {
            self.ranges.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.ranges.insert(first, last);
    }

    pub(super) fn insert(&mut self, index: i64) {
        self.insert_range(index, index);
    }

    pub(super) fn contains(&self, index: i64) -> bool {
        self.ranges.range(..=index).next_back().is_some_and(|(_, last)| *last >= index)
    }

    pub(super) fn len(&self) -> i64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of these are in the other set too.
    pub(super) fn shared(&self, other: &Self) -> i64 {
        let overlap = |(a, b): (&i64, &i64), (c, d): (&i64, &i64)| (b.min(d) - a.max(c) + 1).max(0);
        self.ranges.iter().map(|one| other.ranges.iter().map(|two| overlap(one, two)).sum::<i64>()).sum()
    }

    /// The lowest indexes below `end` that are not in the set.
    pub(super) fn missing(&self, end: i64) -> impl Iterator<Item = i64> {
        let mut next = 0;
        std::iter::from_fn(move || {
            while let Some((_, last)) = self.ranges.range(..=next).next_back().filter(|(_, last)| **last >= next) {
                next = last + 1;
            }
            let found = next;
            next += 1;
            (found < end).then_some(found)
        })
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.ranges.iter().enumerate() {
            f.write_str(if position == 0 { "" } else { "," })?;
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn sets_are_read_and_written() {
        for (text, end, expected, len) in [
            ("", 10, "", 0),
            ("0-2,5", 10, "0-2,5", 4),
            ("0-2,5", 2, "0,1", 2),
            ("1,0,3,2", 10, "0-3", 4),
            ("4-6,5-8,x,", 10, "4-8", 5),
        ] {
            let set = Indexes::parse(text, end);
            assert_eq!((set.to_string().as_str(), set.len()), (expected, len), "{text}");
        }
        assert_eq!(Indexes::parse("0,2-3", 9).missing(6).collect::<Vec<_>>(), [1, 4, 5]);
        assert_eq!(Indexes::parse("0-4,7", 9).shared(&Indexes::parse("3-8", 9)), 3);
    }

    proptest! {
        #[test]
        fn they_are_what_an_ordinary_set_is(numbers in prop::collection::vec(0..40i64, 0..40)) {
            let mut set = Indexes::default();
            numbers.iter().for_each(|index| set.insert(*index));
            let plain: BTreeSet<i64> = numbers.into_iter().collect();
            prop_assert_eq!(set.len(), i64::try_from(plain.len()).unwrap());
            prop_assert!((0..40).all(|index| set.contains(index) == plain.contains(&index)));
            prop_assert_eq!(Indexes::parse(&set.to_string(), 40), set);
        }
    }
}
