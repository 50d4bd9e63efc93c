//! `cargo xtask tidy`: what every source file must be like, and how long functions and files may be. It never looks at what
//! code does.

mod conformance;
mod ratchet;
mod sizes;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{output, root};

/// Entries that a listing of the root may have.
const ROOT_ENTRIES: usize = 13;
/// Where the exceptions are.
const RATCHET: &str = "crates/xtask/ratchet.txt";
/// Names that say nothing about what is inside.
const VAGUE: [&str; 5] = ["common", "helpers", "misc", "util", "utils"];

/// Files of the repository: those that git knows and new ones it does not ignore.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = output(&mut git).context("the files of the repository are asked of git")?;
    let mut files: Vec<String> = listed.lines().filter(|path| root.join(path).is_file()).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Whether a file of Rust belongs to the product rather than to its tests.
fn is_production(path: &str) -> bool {
    !path.split('/').any(|part| ["benches", "examples", "fixtures", "tests", "tests.rs"].contains(&part))
}

fn check_names(files: &[String], findings: &mut Vec<String>) {
    let entries = files.iter().filter_map(|path| path.split('/').next());
    let mut entries: Vec<&str> = entries.filter(|entry| !entry.starts_with('.')).collect();
    entries.dedup();
    if entries.len() > ROOT_ENTRIES {
        findings.push(format!("the root has {} entries, {ROOT_ENTRIES} are allowed", entries.len()));
    }
    for path in files {
        let parts = path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        for part in parts.filter(|part| VAGUE.contains(part)) {
            findings.push(format!("{path}: {part:?} says nothing; name it after what is inside"));
        }
    }
}

/// What is wrong with one file's text.
fn check_text(path: &str, text: &str, findings: &mut Vec<String>) {
    if path.ends_with(".rs") && !text.starts_with("//!") {
        findings.push(format!("{path}: does not begin with `//!` and what the file is"));
    }
    for (index, line) in text.lines().enumerate() {
        if let Some(machine) = machine_path(line) {
            findings.push(format!("{path}:{}: names a place of one machine: {machine}", index + 1));
        }
    }
}

/// A path that exists only on the machine of whoever wrote it.
fn machine_path(line: &str) -> Option<&str> {
    // Split, so that this line is not a finding.
    let roots =
        [["/wo", "rk/"], ["/Us", "ers/"], ["/root/", ".cargo"], ["/root/", ".rustup"]].map(|parts| parts.concat());
    let starts = roots.iter().flat_map(|root| line.match_indices(root.as_str()));
    let mut whole =
        starts.filter(|(at, _)| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || "}>)_-.".contains(c)));
    whole.next().map(|(at, _)| line[at..].split([' ', '"', '\'', '`', ')']).next().unwrap_or_default())
}

/// Fails when a file is not as it should be.
pub fn check() -> Result<()> {
    let root = root();
    let files = files(&root)?;
    let mut findings = Vec::new();
    let mut sizes = Vec::new();
    check_names(&files, &mut findings);
    for path in &files {
        // What is not text holds no prose and no code.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        check_text(path, &text, &mut findings);
        if path.ends_with(".rs") && is_production(path) {
            sizes.extend(sizes::oversized(path, &text)?);
        }
    }
    let ratchet = fs::read_to_string(root.join(RATCHET)).context(RATCHET)?;
    findings.extend(ratchet::compare(&ratchet::parse(&ratchet)?, &sizes));
    let green = fs::read_to_string(root.join(conformance::LIST)).context(conformance::LIST)?;
    findings.extend(conformance::compare(&green, &conformance::before()));
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    println!("tidy: {} files, {} exceptions in {RATCHET}", files.len(), sizes.len());
    Ok(())
}

/// Prints the exceptions that today's tree needs.
pub fn print_sizes() -> Result<()> {
    let root = root();
    for path in files(&root)?.iter().filter(|path| path.ends_with(".rs") && is_production(path)) {
        let text = fs::read_to_string(root.join(path)).with_context(|| path.clone())?;
        for size in sizes::oversized(path, &text)? {
            println!("{size}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let mut findings = Vec::new();
        check_text(path, text, &mut findings);
        check_names(&[path.to_owned()], &mut findings);
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expected) {
            assert!(finding.contains(part), "{finding}");
        }
    }

    #[test]
    fn files_say_what_they_are_and_name_no_machine() {
        check("a/b.rs", "//! A file.\n", &[]);
        check("a/b.md", "# Title\n", &[]);
        check("a/b.rs", "fn main() {}\n", &["does not begin"]);
        check("a/utils.rs", "//! A file.\n", &["\"utils\" says nothing"]);
        check("a/common/b.rs", "//! A file.\n", &["\"common\" says nothing"]);
        let place = ["/wo", "rk/main/x"].concat();
        check("a/b.md", &format!("see `{place}`\n"), &[&format!("a/b.md:1: names a place of one machine: {place}")]);
        check("a/b.md", &format!("workdir={{}}{place}\nlower{place}\n"), &[]);
    }

    #[test]
    fn the_root_stays_small() {
        let names = (10..24).map(|index| index.to_string()).chain([".hidden".into()]);
        let files: Vec<String> = names.map(|name| format!("{name}/file")).collect();
        let mut findings = Vec::new();
        check_names(&files, &mut findings);
        assert_eq!(findings, ["the root has 14 entries, 13 are allowed"]);
    }

    #[test]
    fn tests_are_not_the_product() {
        for (path, expected) in [
            ("crates/a/src/b.rs", true),
            ("crates/a/build.rs", true),
            ("crates/a/tests/b.rs", false),
            ("crates/a/src/b/tests.rs", false),
            ("crates/a/src/b/tests/c.rs", false),
            ("crates/a/benches/b.rs", false),
        ] {
            assert_eq!(is_production(path), expected, "{path}");
        }
    }
}
