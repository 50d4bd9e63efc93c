//! Patience with pods that fail: how long a node waits until its failed pod is replaced, longer each time.
//!
//! Source: the failed-pods back-off of upstream's DaemonSet controller. It is kept in memory only: controllers that start anew begin
//! with the shortest wait.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// Wait after the first failure.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
/// Longest wait; twice as long without a failure, and what was before is forgotten.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);

/// Failures of one set's pods by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(BTreeMap<String, Failure>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    at: Timestamp,
    wait: SignedDuration,
}

impl Failure {
    fn is_forgotten(self, now: Timestamp) -> bool {
        now.duration_since(self.at) > LONGEST * 2
    }
}

impl Failures {
    /// A pod of a node has failed and would be replaced: notes it, or says when that may be done.
    ///
    /// # Errors
    /// The time from which the pod may be replaced.
    pub(super) fn replace(&mut self, node: &str, now: Timestamp) -> Result<(), Timestamp> {
        self.0.retain(|_, failure| !failure.is_forgotten(now));
        let wait = match self.0.get(node) {
            None => FIRST,
            Some(last) => {
                let due = last.at.saturating_add(last.wait).unwrap_or(now);
                if due > now {
                    return Err(due);
                }
                (last.wait * 2).min(LONGEST)
            }
        };
        self.0.insert(node.to_owned(), Failure { at: now, wait });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_forgotten() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut failures = Failures::default();
        let mut now = 0;
        let waits = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900];
        for wait in waits {
            if wait > 0 {
                assert_eq!(failures.replace("n", at(now + wait - 1)), Err(at(now + wait)), "{wait}");
            }
            now += wait;
            assert_eq!(failures.replace("n", at(now)), Ok(()), "{wait}");
        }
        assert_eq!(failures.replace("other", at(now)), Ok(()), "nodes are apart");
        now += 1801;
        assert_eq!(failures.replace("n", at(now)), Ok(()));
        assert_eq!(failures.replace("n", at(now)), Err(at(now + 1)));
    }
}
