//! `cargo xtask test`: the whole suite, from pure functions to real clients against real microVMs. What cannot run on this
//! machine is listed by name and reason, never passed over in silence.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::check::require_nextest;
use crate::command::{cargo, root, run};
use crate::packages::Packages;
use crate::steps::Steps;
use crate::{build, images, setup};

/// What a test prints when it cannot run here.
const SKIPPED: &str = "SKIPPED: ";

/// Where tests with Debian's kubectl find it; it is not installed, because it would hide a newer one.
const OLD_KUBECTL: &str = "ISOPOD_KUBECTL_1_20";

/// Debian's kubectl, beside what is installed.
fn old_kubectl() -> Result<PathBuf> {
    let packages = Packages::open(root().join("target/packages"))?;
    Ok(packages.unpack("kubernetes-client", &["kubernetes-client".to_owned()])?.join("usr/bin/kubectl"))
}

/// Runs everything; fails when one test does.
pub fn test() -> Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", || setup::run_setup(true))?;
    steps.step("cargo-nextest", require_nextest)?;
    steps.step("guest agent", build::guest)?;
    steps.step("images", images::make)?;
    let kubectl = steps.step("Debian's kubectl", old_kubectl)?;
    let report = root().join("target/nextest/all/junit.xml");
    drop(fs::remove_file(&report));
    steps.step("build tests", || run(cargo().args(["nextest", "run", "--workspace", "--no-run"])))?;
    steps.try_step("tests", || {
        run(cargo()
            .args(["nextest", "run", "--workspace", "--profile", "all", "--cargo-quiet"])
            .env(OLD_KUBECTL, &kubectl))
    });
    steps.try_step("what was skipped", || {
        let text = fs::read_to_string(&report).with_context(|| format!("{}", report.display()))?;
        let skipped = skipped(&text);
        skipped.iter().for_each(|line| println!("skipped: {line}"));
        println!("{} test(s) skipped themselves", skipped.len());
        Ok(())
    });
    steps.finish()
}

/// Tests that said they cannot run here, with their reasons, from a report in JUnit's form.
fn skipped(report: &str) -> Vec<String> {
    let mut test = "";
    let mut found = Vec::new();
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("<testcase name=\"") {
            test = rest.split('"').next().unwrap_or_default();
        }
        if let Some((_, reason)) = line.split_once(SKIPPED) {
            found.push(format!("{test}: {}", reason.split('<').next().unwrap_or_default().trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_found_in_the_report() {
        let report = "<testsuite name=\"a\">
            <testcase name=\"one\" classname=\"a\"><system-err>fine</system-err></testcase>
            <testcase name=\"two\" classname=\"a\">
                <system-err>SKIPPED: needs root</system-err>
            </testcase>
            <testcase name=\"three\" classname=\"a\"><system-err>a line
SKIPPED: no registry
another</system-err></testcase>
        </testsuite>";
        assert_eq!(skipped(report), ["two: needs root", "three: no registry"]);
        assert!(skipped("<testsuite/>").is_empty());
    }
}
