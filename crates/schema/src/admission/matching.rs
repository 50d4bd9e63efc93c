//! Rules and selectors: does a request concern a webhook or policy at all.

use serde_json::Value;

use super::{Objects, Request, is_configuration};
use crate::selector::LabelSelector;
use crate::table::Kind;
use crate::walk;

#[derive(Debug)]
struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    operations: Vec<String>,
    names: Vec<String>,
    /// `*`, `Namespaced` or `Cluster`.
    scope: String,
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    walk::items(value, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    fn read(rule: &Value) -> Self {
        Self {
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources"),
            operations: texts(rule, "operations"),
            names: texts(rule, "resourceNames"),
            scope: walk::text(rule, &["scope"]).to_owned(),
        }
    }

    fn covers(&self, request: &Request<'_>, kind: &Kind) -> bool {
        let scope = match self.scope.as_str() {
            "Namespaced" => kind.namespaced,
            "Cluster" => !kind.namespaced,
            _ => true,
        };
        scope
            && has(&self.operations, request.operation)
            && has(&self.groups, &kind.group)
            && has(&self.versions, &kind.version)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
            && self.resources.iter().any(|pattern| resource_matches(pattern, &kind.plural, request.subresource))
    }
}

/// `pods`, `pods/status`, `pods/*`, `*/scale`, `*` (no subresources), `*/*`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    let (of, below) = pattern.split_once('/').unwrap_or((pattern, ""));
    (of == "*" || of == resource) && (below == subresource || (below == "*"))
}

/// Rules and selectors of a webhook, a policy or a binding.
#[derive(Debug)]
pub struct Matching {
    /// None: everything.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    /// Only the kind that was asked for counts, not others that show the same objects.
    exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

fn selector(value: &Value) -> LabelSelector {
    if value.is_null() {
        return LabelSelector::everything();
    }
    // One that does not parse was refused when it was written.
    LabelSelector::from_value(value).unwrap_or_else(|_| LabelSelector::nothing())
}

impl Matching {
    /// From a webhook, a policy's `matchConstraints` or a binding's `matchResources`.
    pub fn read(value: &Value) -> Self {
        let rules = |field: &str| walk::items(value, &[field]).iter().map(Rule::read).collect::<Vec<_>>();
        let is_webhook = value.get("rules").is_some() || value.get("clientConfig").is_some();
        let found = if is_webhook { rules("rules") } else { rules("resourceRules") };
        Self {
            rules: (is_webhook || !found.is_empty()).then_some(found),
            excluded: rules("excludeResourceRules"),
            exact: walk::text(value, &["matchPolicy"]) == "Exact",
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
        }
    }

    /// The kind as which the request concerns it, if it does. Requests about the configuration of admission concern
    /// nothing, so that a mistake can be undone.
    pub fn find<'a>(&self, request: &Request<'a>, objects: &Objects<'_>) -> Option<&'a Kind> {
        let kinds = if self.exact { &request.kinds[..1] } else { &request.kinds[..] };
        if is_configuration(request.kinds[0]) {
            return None;
        }
        let rules = self.rules.as_deref();
        let covers = |rules: &[Rule], kind: &Kind| rules.iter().any(|rule| rule.covers(request, kind));
        let found = kinds.iter().find(|kind| rules.is_none_or(|rules| covers(rules, kind)))?;
        let is_excluded = kinds.iter().any(|kind| covers(&self.excluded, kind));
        (!is_excluded && self.selects(request, objects)).then_some(*found)
    }

    fn selects(&self, request: &Request<'_>, objects: &Objects<'_>) -> bool {
        let labels = |object: &Value| self.objects.matches_object(object);
        let by_object = self.objects.is_everything()
            || (!objects.object.is_null() && labels(objects.object))
            || (!objects.old.is_null() && labels(objects.old));
        by_object && self.selects_namespace(request, objects)
    }

    /// Objects outside of namespaces are never left out; a namespace is looked at itself.
    fn selects_namespace(&self, request: &Request<'_>, objects: &Objects<'_>) -> bool {
        if request.kinds[0].is("", "namespaces") {
            let shown = if objects.object.is_null() { objects.old } else { objects.object };
            return self.namespaces.matches_object(shown);
        }
        request.namespace.is_empty() || self.namespaces.matches_object(objects.namespace)
    }
}
