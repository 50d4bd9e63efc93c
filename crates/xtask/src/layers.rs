//! `cargo xtask layers`: the crate graph is what `layers.txt` allows. It compares; it never proposes a new edge.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::command::{cargo, output, root};

const PREFIX: &str = "isopod-";

/// What one crate may use.
#[derive(Debug, Default, PartialEq)]
struct Rule {
    /// Crates of this workspace, without their prefix.
    uses: BTreeSet<String>,
    /// Third-party crates that it may not use.
    banned: BTreeSet<String>,
}

/// What crates use, or may use, by the name of the crate without its prefix.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn parse_rules(text: &str) -> Result<BTreeMap<String, Rule>> {
    let mut rules = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (name, rest) = line.split_once(':').with_context(|| format!("layers.txt: no colon in {line:?}"))?;
        let (uses, banned) = rest.split_once("no:").unwrap_or((rest, ""));
        let rule = Rule { uses: words(uses), banned: words(banned) };
        ensure!(rules.insert(name.trim().to_owned(), rule).is_none(), "layers.txt: {name} is there twice");
    }
    Ok(rules)
}

/// Direct dependencies of each crate. Those of its tests and benches are free.
fn parse_metadata(metadata: &Value) -> Result<Uses> {
    let mut uses = Uses::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let name = package["name"].as_str().context("a package without name")?;
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let names = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let names = names.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        uses.insert(short(name).to_owned(), names.collect());
    }
    Ok(uses)
}

fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Every difference, as a sentence that says what to do.
fn compare(rules: &BTreeMap<String, Rule>, uses: &Uses) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, used) in uses {
        let Some(rule) = rules.get(name) else {
            findings.push(format!("{name} is not in layers.txt: say there what it may use"));
            continue;
        };
        for dependency in used {
            let own = dependency.strip_prefix(PREFIX);
            if own.is_some_and(|own| !rule.uses.contains(own)) {
                findings.push(format!("{name} uses {}, which layers.txt does not allow", short(dependency)));
            }
            if rule.banned.contains(dependency) {
                findings.push(format!("{name} uses {dependency}, which layers.txt bans there"));
            }
        }
    }
    let stale = rules.keys().filter(|name| !uses.contains_key(*name));
    findings.extend(stale.map(|name| format!("{name} is in layers.txt and no crate any more")));
    findings
}

/// Fails when the graph is not as `layers.txt` says.
pub fn check() -> Result<()> {
    let path = root().join("layers.txt");
    let rules = parse_rules(&std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?)?;
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let uses = parse_metadata(&serde_json::from_str(&metadata)?)?;
    let findings = compare(&rules, &uses);
    if !findings.is_empty() {
        bail!("{}\nhint: a new edge needs a note in docs/decisions, then a word in layers.txt", findings.join("\n"));
    }
    println!("layers: {} crates use only what layers.txt allows", uses.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &str = "# comment\n\ntypes:  no: tokio\nstore:\ncontrollers: types no: redb\n";

    fn check(packages: &[(&str, &[(&str, Value)])], expected: &[&str]) {
        let dependency = |(name, kind): &(&str, Value)| json!({"name": name, "kind": kind});
        let package = |(name, dependencies): &(&str, &[(&str, Value)])| json!({"name": name, "dependencies": dependencies.iter().map(dependency).collect::<Vec<_>>()});
        let metadata = json!({"packages": packages.iter().map(package).collect::<Vec<_>>()});
        let findings = compare(&parse_rules(RULES).unwrap(), &parse_metadata(&metadata).unwrap());
        assert_eq!(findings, expected);
    }

    #[test]
    fn edges_are_compared_with_the_rules() {
        let (normal, dev, build) = (Value::Null, json!("dev"), json!("build"));
        let types: (&str, &[(&str, Value)]) = ("isopod-types", &[]);
        let store: (&str, &[(&str, Value)]) = ("isopod-store", &[]);
        let with = |dependency: &'static str, kind: &Value| (dependency, kind.clone());
        check(&[types, store, ("isopod-controllers", &[with("isopod-types", &normal), with("kube", &normal)])], &[]);
        check(&[types, store, ("isopod-controllers", &[with("isopod-store", &dev), with("redb", &dev)])], &[]);
        check(
            &[types, store, ("isopod-controllers", &[with("isopod-store", &normal)])],
            &["controllers uses store, which layers.txt does not allow"],
        );
        check(
            &[("isopod-types", &[with("tokio", &build)]), store, ("isopod-controllers", &[])],
            &["types uses tokio, which layers.txt bans there"],
        );
        check(
            &[types, ("isopod-new", &[]), ("isopod-controllers", &[])],
            &["new is not in layers.txt: say there what it may use", "store is in layers.txt and no crate any more"],
        );
    }

    #[test]
    fn broken_rules_are_refused() {
        for text in ["types", "types:\ntypes:\n"] {
            assert!(parse_rules(text).is_err(), "{text}");
        }
    }
}
