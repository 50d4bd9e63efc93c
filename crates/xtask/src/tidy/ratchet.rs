//! The list of what may be longer than the limits. It only shrinks: an entry that is no longer needed, or larger than
//! what it excuses, must go or be lowered.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::sizes::Size;

/// Lines by what is excused.
pub type Ratchet = BTreeMap<String, usize>;

/// Reads the list: one line as `Size` prints it, `#` for comments.
pub fn parse(text: &str) -> Result<Ratchet> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let (what, lines) = line.rsplit_once(' ')?;
        Some((what.to_owned(), lines.parse().ok()?))
    };
    lines.map(|line| entry(line).with_context(|| format!("ratchet: cannot read {line:?}"))).collect()
}

/// Every difference, as a sentence that says what to do.
pub fn compare(allowed: &Ratchet, found: &[Size]) -> Vec<String> {
    let mut findings = Vec::new();
    // Functions of one name in one file share an entry: the longest counts.
    let mut longest = Ratchet::new();
    for Size { what, lines } in found {
        let entry = longest.entry(what.clone()).or_default();
        *entry = (*entry).max(*lines);
    }
    for (what, lines) in &longest {
        match allowed.get(what) {
            None => findings.push(format!("{what} has {lines} lines: split it")),
            Some(allowed) if lines > allowed => {
                findings.push(format!("{what} grew from {allowed} to {lines} lines: split it"));
            }
            Some(allowed) if lines < allowed => {
                findings.push(format!("{what} shrank to {lines} lines: lower its entry in the ratchet"));
            }
            Some(_) => {}
        }
    }
    let stale = allowed.keys().filter(|what| !longest.contains_key(*what));
    findings.extend(stale.map(|what| format!("{what} is short enough or gone: remove its entry in the ratchet")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &str, found: &[(&str, usize)], expected: &[&str]) {
        let found: Vec<Size> = found.iter().map(|(what, lines)| Size { what: (*what).into(), lines: *lines }).collect();
        let findings = compare(&parse(allowed).unwrap(), &found);
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expected) {
            assert!(finding.contains(part), "{finding}");
        }
    }

    #[test]
    fn the_list_only_shrinks() {
        let list = "# why\n\nfile a.rs 700\n";
        check(list, &[("file a.rs", 700)], &[]);
        check(list, &[("file a.rs", 701)], &["grew from 700 to 701"]);
        check(list, &[("file a.rs", 699)], &["lower its entry"]);
        check(list, &[], &["remove its entry"]);
        check("", &[("file a.rs", 601)], &["split it"]);
        check("function a.rs new 90\n", &[("function a.rs new", 80), ("function a.rs new", 90)], &[]);
    }

    #[test]
    fn a_broken_list_is_refused() {
        for text in ["file", "file a.rs many"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
