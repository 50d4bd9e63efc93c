//! Nobody may grant rights that they do not hold: writing a role needs its rules (or the verb `escalate`), writing a
//! binding needs the rules of its role (or the verb `bind`).

use isopod_schema::Status;
use serde_json::Value;

use crate::authz::{Attributes, Rule};
use crate::context::Context;
use crate::rbac::{self, RBAC_GROUP};
use crate::strategy::{meta, text};

/// # Errors
/// 403 with what is missing.
pub(crate) fn check(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    if context.kind.group != RBAC_GROUP || context.user.is_master() {
        return Ok(());
    }
    let (verb, resource, name, wanted) = match context.kind.plural.as_str() {
        "roles" | "clusterroles" => {
            ("escalate", context.kind.plural.clone(), meta(object, "name").to_owned(), written(object))
        }
        _ => {
            let (kind, name) = (text(object, &["roleRef", "kind"]), text(object, &["roleRef", "name"]));
            let resource = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
            let rules = rbac::rules_of_role(&context.server.store, kind, context.namespace(), name);
            ("bind", resource.to_owned(), name.to_owned(), rules)
        }
    };
    let asked = Attributes {
        verb: verb.into(),
        group: RBAC_GROUP.into(),
        resource,
        name,
        namespace: context.namespace().to_owned(),
        ..Attributes::default()
    };
    if rbac::allows(&context.server.store, &context.user, &asked) {
        return Ok(());
    }
    let held = rbac::rules_for(&context.server.store, &context.user, context.namespace());
    let missing: Vec<String> = wanted.iter().filter(|rule| !covered(rule, &held)).map(describe).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let who = format!("user {:?} (groups={:?})", context.user.name, context.user.groups);
    let why = format!("{who} is attempting to grant RBAC permissions not currently held:\n{}", missing.join("\n"));
    Err(Status::forbidden(context.kind, meta(object, "name"), &why))
}

/// The rules that a role grants. One that gathers those of others may come to grant anything.
fn written(role: &Value) -> Vec<Rule> {
    let mut rules = rbac::rules_of(role);
    if !role["aggregationRule"].is_null() {
        let all = || vec!["*".to_owned()];
        rules.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), paths: all(), ..Rule::default() });
    }
    rules
}

/// Each thing that the rule allows is allowed by one of the rules held.
fn covered(wanted: &Rule, held: &[Rule]) -> bool {
    let single = |verb: &String, attributes: Attributes| {
        let asked = Attributes { verb: verb.clone(), ..attributes };
        held.iter().any(|rule| grants(rule, &asked))
    };
    let paths = wanted.paths.iter().all(|path| {
        wanted.verbs.iter().all(|verb| single(verb, Attributes { path: path.clone(), ..Attributes::default() }))
    });
    let resources = wanted.verbs.iter().all(|verb| {
        wanted.groups.iter().all(|group| {
            wanted.resources.iter().all(|resource| {
                let names = if wanted.names.is_empty() { &[String::new()] } else { wanted.names.as_slice() };
                names.iter().all(|name| single(verb, resource_attributes(group, resource, name)))
            })
        })
    });
    paths && resources
}

fn resource_attributes(group: &str, resource: &str, name: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

/// A wildcard in what is asked is met only by a wildcard in the rule; [`Rule::allows`] compares texts, which does that.
fn grants(rule: &Rule, asked: &Attributes) -> bool {
    rule.allows(asked)
}

fn describe(rule: &Rule) -> String {
    if rule.resources.is_empty() {
        return format!("{{NonResourceURLs:{:?}, Verbs:{:?}}}", rule.paths, rule.verbs);
    }
    format!("{{APIGroups:{:?}, Resources:{:?}, Verbs:{:?}}}", rule.groups, rule.resources, rule.verbs)
}
