//! Reads roles and bindings from the store for [`crate::authz`]. Parsed policies are kept with their entries, so that
//! a decision reads current state and parses nothing twice.

use std::sync::Arc;

use isopod_store::{Entry, ListQuery, Store};
use serde_json::Value;

use crate::authz::{Attributes, Rule, Subject};
use crate::codec;
use crate::user::UserInfo;

pub(crate) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// A role or binding, parsed.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    subjects: Vec<Subject>,
    /// Kind and name of the role that a binding grants.
    role: (String, String),
}

impl Policy {
    fn parse(bytes: &[u8]) -> Self {
        let Ok(object) = codec::decode(bytes) else { return Self::default() };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let items = |field: &str| object[field].as_array().cloned().unwrap_or_default();
        let text = |field: &str| object["roleRef"][field].as_str().unwrap_or_default().to_owned();
        Self {
            rules: items("rules").iter().map(rule).collect(),
            subjects: items("subjects").iter().filter_map(|item| subject(item, namespace)).collect(),
            role: (text("kind"), text("name")),
        }
    }
}

/// The rules of a role object.
pub(crate) fn rules_of(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().map(rule).collect()
}

/// The rules of the role that a binding refers to; none when it does not exist.
pub(crate) fn rules_of_role(store: &Store, kind: &str, namespace: &str, name: &str) -> Vec<Rule> {
    role_entry(store, kind, namespace, name)
        .map(|role| policy(&role, |policy| policy.rules.clone()))
        .unwrap_or_default()
}

fn role_entry(store: &Store, kind: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
    match kind {
        "ClusterRole" => store.get(&format!("clusterroles.{RBAC_GROUP}/{name}")),
        _ => store.get(&format!("roles.{RBAC_GROUP}/{namespace}/{name}")),
    }
}

fn rule(value: &Value) -> Rule {
    let texts = |field: &str| {
        let list = value[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Rule {
        verbs: texts("verbs"),
        groups: texts("apiGroups"),
        resources: texts("resources"),
        names: texts("resourceNames"),
        paths: texts("nonResourceURLs"),
    }
}

fn subject(value: &Value, namespace: &str) -> Option<Subject> {
    let name = value["name"].as_str()?.to_owned();
    Some(match value["kind"].as_str()? {
        "User" => Subject::User(name),
        "Group" => Subject::Group(name),
        "ServiceAccount" => Subject::ServiceAccount(value["namespace"].as_str().unwrap_or(namespace).to_owned(), name),
        _ => return None,
    })
}

fn policy<R>(entry: &Entry, read: impl FnOnce(&Policy) -> R) -> R {
    let derived = codec::derived(entry);
    read(derived.policy.get_or_init(|| Policy::parse(&entry.value)))
}

/// A binding that gives the user a right.
pub(crate) struct Grant {
    binding: Arc<Entry>,
    /// Which of its subjects the user is.
    subject: usize,
}

impl Grant {
    /// For the log and for who asks, in upstream's words.
    pub(crate) fn reason(&self) -> String {
        let (kind, name) = match self.binding.key.split('/').collect::<Vec<_>>().as_slice() {
            [_, namespace, name] => ("RoleBinding", format!("{name}/{namespace}")),
            [.., name] => ("ClusterRoleBinding", (*name).to_owned()),
            [] => ("ClusterRoleBinding", String::new()),
        };
        policy(&self.binding, |policy| {
            let (role_kind, role) = &policy.role;
            let subject = policy.subjects.get(self.subject).map(ToString::to_string).unwrap_or_default();
            format!("RBAC: allowed by {kind} {name:?} of {role_kind} {role:?} to {subject}")
        })
    }
}

/// The user may do what is asked.
pub(crate) fn allows(store: &Store, user: &UserInfo, asked: &Attributes) -> bool {
    user.is_master() || grant(store, user, asked).is_some()
}

/// What allows the user to do what is asked.
pub(crate) fn grant(store: &Store, user: &UserInfo, asked: &Attributes) -> Option<Grant> {
    find_rule(store, user, &asked.namespace, |rule| rule.allows(asked))
}

/// All rules that hold for the user in a namespace (with those that hold everywhere).
pub(crate) fn rules_for(store: &Store, user: &UserInfo, namespace: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    find_rule(store, user, namespace, |rule| {
        rules.push(rule.clone());
        false
    });
    rules
}

/// The first binding with a rule that is wanted.
fn find_rule(store: &Store, user: &UserInfo, namespace: &str, mut wanted: impl FnMut(&Rule) -> bool) -> Option<Grant> {
    let mut scopes = vec![("clusterrolebindings", String::new())];
    if !namespace.is_empty() {
        scopes.push(("rolebindings", format!("{namespace}/")));
    }
    let bindings =
        scopes.into_iter().flat_map(|(plural, place)| entries(store, &format!("{plural}.{RBAC_GROUP}/{place}")));
    for binding in bindings {
        let Some((subject, role)) = granted(store, &binding, user, namespace) else { continue };
        if policy(&role, |policy| policy.rules.iter().any(&mut wanted)) {
            return Some(Grant { binding, subject });
        }
    }
    None
}

fn entries(store: &Store, prefix: &str) -> Vec<Arc<Entry>> {
    let query = ListQuery { prefix: prefix.into(), ..ListQuery::default() };
    store.list(&query).map(|list| list.entries).unwrap_or_default()
}

/// Which of a binding's subjects the user is, and the role that this gives him.
fn granted(store: &Store, binding: &Entry, user: &UserInfo, namespace: &str) -> Option<(usize, Arc<Entry>)> {
    let (subject, (kind, name)) = policy(binding, |policy| {
        let subject = policy.subjects.iter().position(|subject| subject.is(user))?;
        Some((subject, policy.role.clone()))
    })?;
    role_entry(store, &kind, namespace, &name).map(|role| (subject, role))
}
