//! May this user do this? Role-based access control as a pure function of rules; reading the rules is the caller's.

use std::fmt;

use crate::user::UserInfo;

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// Without subresource; empty for a path.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// For requests that are about no resource.
    pub(crate) path: String,
    /// What a field selector demands to be equal: field and value.
    pub(crate) fields: Vec<(String, String)>,
}

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) paths: Vec<String>,
}

/// Whom a binding is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    ServiceAccount(String, String),
}

impl Attributes {
    pub(crate) fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// A field selector demands this.
    pub(crate) fn selects(&self, field: &str, value: &str) -> bool {
        self.fields.iter().any(|(own, wanted)| own == field && wanted == value)
    }

    /// The sentence of a refusal.
    pub(crate) fn refusal(&self, user: &UserInfo) -> String {
        let who = format!("User {:?} cannot {}", user.name, self.verb);
        if !self.is_resource() {
            return format!("{who} path {:?}", self.path);
        }
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        format!("{who} resource {:?} in API group {:?} {place}", self.full_resource(), self.group)
    }

    pub(crate) fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

impl Rule {
    pub(crate) fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource() {
            return self.paths.iter().any(|path| path_matches(path, &asked.path));
        }
        has(&self.groups, &asked.group)
            && self.resources.iter().any(|resource| resource_matches(resource, asked))
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }
}

impl Subject {
    pub(crate) fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(group) => user.is_in(group),
            Self::ServiceAccount(namespace, name) => {
                crate::user::service_account_parts(&user.name) == Some((namespace.as_str(), name.as_str()))
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(formatter, "User {name:?}"),
            Self::Group(name) => write!(formatter, "Group {name:?}"),
            Self::ServiceAccount(namespace, name) => {
                write!(formatter, "ServiceAccount {:?}", format!("{name}/{namespace}"))
            }
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_matches(rule: &str, asked: &Attributes) -> bool {
    match rule.split_once('/') {
        None => rule == "*" || asked.subresource.is_empty() && rule == asked.resource,
        Some(("*", subresource)) => subresource == asked.subresource,
        Some((resource, subresource)) => resource == asked.resource && subresource == asked.subresource,
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
    }

    /// `verbs | groups | resources | names | paths` against `verb group resource[/sub] [name]` or `verb /path`.
    fn check(rule: &str, asked: &str, expected: bool) {
        let parts: Vec<Vec<String>> = rule.split('|').map(words).collect();
        let [verbs, groups, resources, names, paths] = parts.try_into().unwrap();
        let rule = Rule { verbs, groups, resources, names, paths };
        let asked_words = words(asked);
        let mut attributes = Attributes { verb: asked_words[0].clone(), ..Attributes::default() };
        if asked_words[1].starts_with('/') {
            attributes.path = asked_words[1].clone();
        } else {
            attributes.group = asked_words[1].clone();
            let (resource, subresource) = asked_words[2].split_once('/').unwrap_or((&asked_words[2], ""));
            (attributes.resource, attributes.subresource) = (resource.into(), subresource.into());
            attributes.name = asked_words.get(3).cloned().unwrap_or_default();
        }
        assert_eq!(rule.allows(&attributes), expected, "{rule:?} for {asked}");
    }

    #[test]
    fn rules() {
        check("get list | core | pods | |", "get core pods", true);
        check("get list | core | pods | |", "watch core pods", false);
        check("get | core | pods | |", "get apps pods", false);
        check("get | core | pods | |", "get core pods/log", false);
        check("get | core | pods/log | |", "get core pods/log", true);
        check("* | * | * | |", "delete apps deployments/scale", true);
        check("update | * | */scale | |", "update apps deployments/scale", true);
        check("update | * | */scale | |", "update apps deployments", false);
        check("get | core | configmaps | one |", "get core configmaps one", true);
        check("get | core | configmaps | one |", "get core configmaps two", false);
        check("list | core | configmaps | one |", "list core configmaps", false);
        check("get | | | | /healthz /api/*", "get /api/v1", true);
        check("get | | | | /healthz /api/*", "get /healthz", true);
        check("get | | | | /healthz", "get /healthz/x", false);
        check("* | * | * | |", "get /metrics", false);
    }

    #[test]
    fn subjects() {
        let robot = UserInfo::service_account("ns", "robot", "");
        let table = [
            (Subject::ServiceAccount("ns".into(), "robot".into()), true),
            (Subject::ServiceAccount("other".into(), "robot".into()), false),
            (Subject::Group("system:serviceaccounts:ns".into()), true),
            (Subject::Group("system:authenticated".into()), true),
            (Subject::User("system:serviceaccount:ns:robot".into()), true),
            (Subject::User("robot".into()), false),
        ];
        for (subject, expected) in table {
            assert_eq!(subject.is(&robot), expected, "{subject:?}");
        }
    }
}
