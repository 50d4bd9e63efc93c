//! The list of upstream's tests that pass: in order, and never shorter than it was.

use std::collections::BTreeSet;
use std::process::Command;

use crate::command::{output, root};

/// The list.
pub const LIST: &str = "conformance/green.txt";

fn names(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect()
}

/// The list as the last commit has it and the one before; empty where there is none.
pub fn before() -> String {
    let of = |commit: &str| {
        let mut git = Command::new("git");
        git.current_dir(root()).args(["show", &format!("{commit}:{LIST}")]);
        // A shallow clone has no earlier commit, and there was a time before the list.
        output(&mut git).unwrap_or_default()
    };
    ["HEAD", "HEAD~1"].map(of).join("\n")
}

/// What is wrong with the list as it is now.
pub fn compare(now: &str, before: &str) -> Vec<String> {
    let listed = names(now);
    let set: BTreeSet<&str> = listed.iter().copied().collect();
    let mut findings = Vec::new();
    if !listed.iter().eq(&set) {
        findings.push(format!("{LIST}: names are not in order, or one is there twice"));
    }
    let lost: BTreeSet<&str> = names(before).into_iter().filter(|name| !set.contains(name)).collect();
    findings.extend(lost.into_iter().map(|name| format!("{LIST}: the list may only grow, and has lost {name:?}")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_only_grows() {
        let check = |now: &str, before: &str, expected: &[&str]| {
            let findings = compare(now, before);
            assert_eq!(findings.len(), expected.len(), "{findings:?}");
            assert!(findings.iter().zip(expected).all(|(finding, part)| finding.contains(part)), "{findings:?}");
        };
        check("# of what\na\nb\n", "a\n# other\n", &[]);
        check("b\na\n", "", &["not in order"]);
        check("a\na\n", "", &["there twice"]);
        check("a\n", "a\nb\n\nb\n", &["has lost \"b\""]);
    }
}
