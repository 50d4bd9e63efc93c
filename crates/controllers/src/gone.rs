//! Objects that went last. The answer to a write may come in after the watch has told the end of its object; it must not bring
//! the object back.

use std::collections::VecDeque;

/// Ends that are remembered: more than writes that are under way at once.
const REMEMBERED_MAX: usize = 1024;

/// UIDs of objects that went last; UIDs never come again.
#[derive(Debug, Default)]
pub(crate) struct Gone(VecDeque<String>);

impl Gone {
    pub(crate) fn add(&mut self, uid: &str) {
        if !uid.is_empty() {
            self.0.push_back(uid.to_owned());
            self.0.drain(..self.0.len().saturating_sub(REMEMBERED_MAX));
        }
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.0.iter().rev().any(|gone| gone == uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ends_are_remembered() {
        let mut gone = Gone::default();
        (0..=REMEMBERED_MAX).for_each(|number| gone.add(&number.to_string()));
        gone.add("");
        assert!(!gone.contains("0") && gone.contains("1") && gone.contains("1024") && !gone.contains(""));
    }
}
