//! Aggregated ClusterRoles: their rules are those of the roles that they select, so that whoever brings a kind says with a label
//! who may view and edit it.
//!
//! Source: behaviour of upstream's ClusterRole aggregation controller.

use std::collections::BTreeMap;

use isopod_types::rbac::ClusterRole;
use isopod_types::{Object as _, ObjectMeta};
use serde_json::{Value, json};

use crate::plan::{Plan, Target, Write};

/// Whether a role's rules are part of an aggregated one's.
pub fn selects(role: &ClusterRole, other: &ObjectMeta) -> bool {
    let selectors = role.aggregation_rule.iter().flat_map(|rule| &rule.cluster_role_selectors);
    role.metadata.name != other.name && selectors.into_iter().any(|selector| selector.matches(&other.labels))
}

/// Brings an aggregated role's rules to those of the roles that it selects.
pub fn plan<'a>(role: &ClusterRole, all: impl Iterator<Item = &'a ClusterRole>) -> Plan {
    if role.aggregation_rule.is_none() || role.metadata.is_deleting() {
        return Plan::nothing();
    }
    let parts: BTreeMap<&str, &ClusterRole> =
        all.filter(|other| selects(role, &other.metadata)).map(|other| (&*other.metadata.name, other)).collect();
    let mut rules: Vec<&Value> = Vec::new();
    for rule in parts.values().flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    if role.rules.iter().flatten().eq(rules.iter().copied()) {
        return Plan::nothing();
    }
    let target = Target::of::<ClusterRole>(role.meta());
    Plan { writes: vec![Write::Patch { target, subresource: "", patch: json!({"rules": rules}) }], again_at: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: &str, selects: &[&str], rules: &[&str]) -> ClusterRole {
        let selector = |label: &&str| json!({"matchLabels": {*label: "true"}});
        let mut role = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        if !selects.is_empty() {
            role["aggregationRule"] = json!({"clusterRoleSelectors": selects.iter().map(selector).collect::<Vec<_>>()});
        }
        serde_json::from_value(role).unwrap()
    }

    fn check(role: &ClusterRole, others: &[ClusterRole], expected: Option<&[&str]>) {
        let plan = plan(role, others.iter().chain([role]));
        let rules = plan.writes.first().map(|write| match write {
            Write::Patch { patch, .. } => patch["rules"].clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(rules, expected.map(|rules| json!(rules)));
    }

    #[test]
    fn rules_are_those_of_the_parts() {
        let parts =
            [role("b", "view", &[], &["r2", "r1"]), role("a", "view", &[], &["r1"]), role("c", "edit", &[], &["r9"])];
        check(&role("view", "", &["view"], &[]), &parts, Some(&["r1", "r2"]));
        check(&role("view", "", &["view"], &["r1", "r2"]), &parts, None);
        check(&role("all", "", &["view", "edit"], &[]), &parts, Some(&["r1", "r2", "r9"]));
        check(&role("none", "", &["other"], &["old"]), &parts, Some(&[]));
        // It is no part of itself, and a role without a rule of aggregation is nobody's business.
        check(&role("self", "view", &["view"], &["r1", "r2"]), &parts, None);
        check(&role("plain", "view", &[], &["x"]), &parts, None);
    }
}
