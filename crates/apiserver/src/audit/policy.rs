//! What is recorded of which request: a policy of audit.k8s.io/v1. The first rule that matches decides. Pure.

use serde::Deserialize;

use crate::route::RequestInfo;
use crate::user::UserInfo;

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Level {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

impl Stage {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) level: Level,
    omitted: Vec<Stage>,
    pub(super) omits_managed_fields: bool,
}

impl Decision {
    pub(super) fn omits(&self, stage: Stage) -> bool {
        self.omitted.contains(&stage)
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.is_empty() || list.iter().any(|item| item == wanted)
}

impl Policy {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            let (version, kind) = (&policy.api_version, &policy.kind);
            return Err(format!("it is a {kind:?} of {version:?}, not a Policy of audit.k8s.io/v1"));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules: add one, such as `- level: Metadata`".into());
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            let is_about_objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if is_about_objects && !rule.paths.is_empty() {
                return Err(format!("rules[{at}]: rules cannot apply to both regular resources and non-resource URLs"));
            }
            if let Some(path) = rule.paths.iter().find(|path| !is_pattern(path)) {
                return Err(format!(
                    "rules[{at}].nonResourceURLs: {path:?} must begin with / and have * at the end only"
                ));
            }
        }
        Ok(policy)
    }

    pub(super) fn decide(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches(user, info));
        let omitted = rule.into_iter().flat_map(|rule| &rule.omit_stages).chain(&self.omit_stages).copied().collect();
        Decision {
            level: rule.map_or(Level::None, |rule| rule.level),
            omitted,
            omits_managed_fields: rule.and_then(|rule| rule.omit_managed_fields).unwrap_or(self.omit_managed_fields),
        }
    }
}

fn is_pattern(path: &str) -> bool {
    path == "*" || path.starts_with('/') && !path.trim_end_matches('*').contains('*')
}

impl Rule {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let by_user = has(&self.users, &user.name)
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group)));
        if !by_user || !has(&self.verbs, &info.verb) {
            return false;
        }
        match (info.is_resource, self.paths.is_empty()) {
            _ if self.paths.is_empty() && self.resources.is_empty() && self.namespaces.is_empty() => true,
            (true, true) => has(&self.namespaces, &info.namespace) && self.covers(info),
            (false, false) => self.paths.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => info.path.starts_with(start),
                None => info.path == *pattern,
            }),
            _ => false,
        }
    }

    fn covers(&self, info: &RequestInfo) -> bool {
        self.resources.is_empty() || self.resources.iter().any(|resources| resources.covers(info))
    }
}

impl Resources {
    fn covers(&self, info: &RequestInfo) -> bool {
        let matches = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || *pattern == info.resource && info.subresource.is_empty(),
            Some(("*", below)) => below == info.subresource,
            Some((of, "*")) => of == info.resource,
            Some((of, below)) => of == info.resource && below == info.subresource,
        };
        self.group == info.group
            && (self.resources.is_empty() || self.resources.iter().any(matches))
            && has(&self.resource_names, &info.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ['system:kube-proxy'], verbs: [watch]}
- {level: None, nonResourceURLs: ['/healthz*', '/version']}
- {level: Metadata, resources: [{group: '', resources: [secrets, configmaps, 'pods/log', '*/status']}], omitManagedFields: false}
- {level: RequestResponse, resources: [{group: apps}], namespaces: [prod], omitStages: [ResponseStarted]}
- {level: Request, userGroups: [devs], resources: [{group: '', resources: ['pods/*'], resourceNames: [p]}]}
- {level: Metadata, userGroups: ['system:authenticated']}
";

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let table = [
            ("system:kube-proxy", "GET /api/v1/pods?watch=1", Level::None),
            ("system:kube-proxy", "GET /api/v1/pods", Level::Metadata),
            ("jane", "GET /healthz/ping", Level::None),
            ("jane", "GET /versions", Level::Metadata),
            ("jane", "GET /api/v1/namespaces/n/secrets/s", Level::Metadata),
            ("jane", "GET /api/v1/namespaces/n/pods/p/log", Level::Metadata),
            ("jane", "POST /apis/apps/v1/namespaces/prod/deployments", Level::RequestResponse),
            ("jane", "POST /apis/apps/v1/namespaces/test/deployments", Level::Metadata),
            ("jane", "PUT /api/v1/namespaces/n/pods/p", Level::Request),
            ("jane", "PUT /api/v1/namespaces/n/pods/q", Level::Metadata),
            ("nobody", "PUT /api/v1/namespaces/n/pods/p", Level::None),
        ];
        for (name, line, expected) in table {
            let (method, url) = line.split_once(' ').unwrap();
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query));
            let user = match name {
                "nobody" => UserInfo::anonymous(),
                name => UserInfo::new(name, ["devs"]),
            };
            let decision = policy.decide(&user, &info);
            assert_eq!(decision.level, expected, "{name} {line}");
            assert!(decision.omits(Stage::RequestReceived));
            assert_eq!(decision.omits(Stage::ResponseStarted), expected == Level::RequestResponse);
        }
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        let table = [
            ("rules: []", "not a Policy of audit.k8s.io/v1"),
            ("apiVersion: audit.k8s.io/v1\nkind: Policy", "it has no rules"),
            ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]", "Loud"),
            ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, who: me}]", "who"),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: ['/a'], namespaces: [n]}]",
                "both regular resources",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: ['/a*b']}]",
                "at the end only",
            ),
        ];
        for (text, part) in table {
            let why = Policy::parse(text).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
