//! The roles and bindings that every cluster has, read from the table beside this file, which says how it is written.

use serde_json::{Value, json};

use crate::rbac::RBAC_GROUP;

const TABLE: &str = include_str!("roles.txt");
const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";

/// A section of the table.
#[derive(Default)]
struct Role<'t> {
    /// Empty for cluster roles.
    namespace: &'t str,
    name: &'t str,
    subjects: Vec<&'t str>,
    binding: &'t str,
    parts_of: Vec<&'t str>,
    gathers: &'t str,
    rules: Vec<Value>,
}

/// All roles and bindings.
pub(super) fn all() -> Vec<Value> {
    let roles = read(TABLE);
    let bindings = roles.iter().filter(|role| !role.subjects.is_empty()).map(Role::bound);
    roles.iter().map(|role| role.object(&roles)).chain(bindings).collect()
}

fn read(table: &str) -> Vec<Role<'_>> {
    let mut roles: Vec<Role<'_>> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (first, rest) = line.trim_start().split_once(' ').unwrap_or((line, ""));
        if !line.starts_with(' ') {
            let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
            roles.push(Role { namespace, name, binding: name, ..Role::default() });
            continue;
        }
        let Some(role) = roles.last_mut() else { continue };
        match first {
            "to" => role.subjects = rest.split(' ').collect(),
            "as" => role.binding = rest,
            "in" => role.parts_of = rest.split(' ').collect(),
            "gathers" => role.gathers = rest,
            _ => role.rules.push(rule(line)),
        }
    }
    roles
}

fn rule(line: &str) -> Value {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    match parts.as_slice() {
        [verbs, groups, resources, names @ ..] => {
            let mut rule = json!({"apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs)});
            if let [names] = names {
                rule["resourceNames"] = json!(words(names));
            }
            rule
        }
        [verbs, paths] => json!({"nonResourceURLs": words(paths), "verbs": words(verbs)}),
        _ => Value::Null,
    }
}

fn words(text: &str) -> Vec<&str> {
    let expand = |word| match word {
        "READ" => READ,
        "WRITE" => WRITE,
        word => word,
    };
    let words = text.split_whitespace().flat_map(|word| expand(word).split(' '));
    words.map(|word| if word == "core" { "" } else { word }).collect()
}

impl Role<'_> {
    fn kind(&self) -> &'static str {
        if self.namespace.is_empty() { "ClusterRole" } else { "Role" }
    }

    /// The rules, for a role that gathers those of others as the controller would bring them together: by the names of the
    /// parts, each once.
    fn all_rules(&self, roles: &[Self]) -> Vec<Value> {
        if self.gathers.is_empty() {
            return self.rules.clone();
        }
        let mut parts: Vec<&Self> = roles.iter().filter(|role| role.parts_of.contains(&self.gathers)).collect();
        parts.sort_by_key(|part| part.name);
        let mut rules = Vec::new();
        for rule in parts.into_iter().flat_map(|part| part.all_rules(roles)) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    fn object(&self, roles: &[Self]) -> Value {
        let mut object = self.named(self.kind(), self.name, json!({"rules": self.all_rules(roles)}));
        let label = |name: &str| format!("{RBAC_GROUP}/aggregate-to-{name}");
        for whole in &self.parts_of {
            object["metadata"]["labels"][label(whole)] = "true".into();
        }
        if !self.gathers.is_empty() {
            let selectors = json!([{"matchLabels": {label(self.gathers): "true"}}]);
            object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        object
    }

    fn bound(&self) -> Value {
        let subject = |text: &&str| match text.split_once(':').unwrap_or(("User", text)) {
            ("ServiceAccount", name) => {
                let (namespace, name) = name.split_once('/').unwrap_or(("", name));
                json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
            }
            (kind, name) => json!({"kind": kind, "name": name, "apiGroup": RBAC_GROUP}),
        };
        let subjects: Vec<Value> = self.subjects.iter().map(subject).collect();
        let role = json!({"apiGroup": RBAC_GROUP, "kind": self.kind(), "name": self.name});
        let kind = format!("{}Binding", self.kind());
        self.named(&kind, self.binding, json!({"subjects": subjects, "roleRef": role}))
    }

    fn named(&self, kind: &str, name: &str, more: Value) -> Value {
        let mut object = json!({
            "apiVersion": format!("{RBAC_GROUP}/v1"), "kind": kind,
            "metadata": {
                "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            },
        });
        if !self.namespace.is_empty() {
            object["metadata"]["namespace"] = self.namespace.into();
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use isopod_schema::{Table, validate};

    use super::*;

    #[test]
    fn what_the_table_says_is_valid_and_whole() {
        let all = all();
        let mut names = BTreeSet::new();
        for object in &all {
            let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
            let row = Table::builtin().object_kind("rbac.authorization.k8s.io/v1", kind).unwrap();
            assert_eq!(validate::create(row, object), [], "{object}");
            assert!(names.insert(format!("{kind} {}/{}", metadata["namespace"], metadata["name"])), "twice: {object}");
            if let Some(role) = object["roleRef"].as_object() {
                let namespace = if role["kind"] == "Role" { &metadata["namespace"] } else { &Value::Null };
                let role = format!("{} {namespace}/{}", role["kind"].as_str().unwrap(), role["name"]);
                assert!(names.contains(&role), "{role}");
            } else {
                assert!(!object["rules"].as_array().unwrap().is_empty(), "{object}");
            }
        }
        let shapes = TABLE.lines().filter(|line| line.starts_with(' ') && line.contains('|')).count();
        let rules = read(TABLE).iter().map(|role| role.rules.len()).sum::<usize>();
        assert_eq!(rules, shapes, "a line of the table was not read");
    }

    #[test]
    fn lines_are_rules() {
        let table = [
            (
                "  READ | core apps | pods",
                json!({"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "list", "watch"]}),
            ),
            ("  get | /a /b/*", json!({"nonResourceURLs": ["/a", "/b/*"], "verbs": ["get"]})),
            (
                "  get update | core | configmaps | one two",
                json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"], "resourceNames": ["one", "two"]}),
            ),
        ];
        for (line, expected) in table {
            assert_eq!(rule(line), expected, "{line}");
        }
    }

    #[test]
    fn editors_see_what_viewers_see_and_administrators_all_of_it() {
        let roles = read(TABLE);
        let rules = |name: &str| roles.iter().find(|role| role.name == name).unwrap().all_rules(&roles);
        let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
        assert!(view.iter().all(|rule| edit.contains(rule)) && edit.iter().all(|rule| admin.contains(rule)));
        assert!(view.len() < edit.len() && edit.len() < admin.len());
        let reads_secrets = |rule: &Value| rule["resources"].as_array().unwrap().contains(&json!("secrets"));
        assert!(!view.iter().any(reads_secrets) && edit.iter().any(reads_secrets));
    }
}
