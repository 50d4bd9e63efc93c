//! PodSecurity: the standards that a namespace's labels hold its pods to.
//!
//! Labels, levels, versions and texts are upstream's. The checks themselves are in [`checks`].

mod checks;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use super::{Denied, Facts, Operation, Request, forbidden, text};

const LABEL: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level changes; upstream's.
const EXAMINED_PODS: usize = 3000;

/// How much pods may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as it was in a version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    /// Minor version; none for the latest.
    minor: Option<u32>,
}

impl Standard {
    /// The checks of this minor version and later ones apply.
    fn since(self, minor: u32) -> bool {
        self.minor.is_none_or(|own| own >= minor)
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// The standard of a mode (`enforce`, `warn`, `audit`); the first wrong label as an error. A wrong label counts as the
/// strictest.
fn standard(namespace: &Value, mode: &str) -> Result<Standard, (Denied, Standard)> {
    let labels = &namespace["metadata"]["labels"];
    let (level_key, version_key) = (format!("{LABEL}{mode}"), format!("{LABEL}{mode}-version"));
    let invalid = |key: &str, why: &str| {
        let denied = Denied::Invalid {
            field: format!("metadata.labels[{key}]"),
            value: text(labels, key).to_owned(),
            why: why.to_owned(),
        };
        (denied, Standard { level: Level::Restricted, minor: None })
    };
    let level = match text(labels, &level_key) {
        "" if labels.get(&level_key).is_none() => Level::Privileged,
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return Err(invalid(&level_key, "must be one of privileged, baseline, restricted")),
    };
    let minor = match text(labels, &version_key) {
        "" | "latest" => None,
        version => match version.strip_prefix("v1.").and_then(|minor| minor.parse().ok()) {
            Some(minor) => Some(minor),
            None => return Err(invalid(&version_key, "must be \"latest\" or \"v1.x\"")),
        },
    };
    Ok(Standard { level, minor })
}

fn lenient(namespace: &Value, mode: &str) -> Standard {
    standard(namespace, mode).unwrap_or_else(|(_, strictest)| strictest)
}

/// Where a workload keeps its pod.
fn template<'a>(object: &'a Value, request: &Request<'_>) -> Option<&'a Value> {
    let found = match (request.group, request.resource) {
        ("", "podtemplates") => &object["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        ("apps", _) | ("batch", "jobs") | ("", "replicationcontrollers") => &object["spec"]["template"],
        _ => return None,
    };
    found.is_object().then_some(found)
}

/// Checks pods, warns about workloads, and about the pods of a namespace that becomes stricter.
pub(super) fn check(object: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(Vec::new());
    }
    let is_pod = request.group.is_empty()
        && request.resource == "pods"
        && matches!(request.subresource, "" | "ephemeralcontainers" | "resize");
    if request.is("", "namespaces") {
        return namespace_changes(object, request, facts);
    }
    let pod = if is_pod { Some(object) } else { template(object, request).filter(|_| request.subresource.is_empty()) };
    let Some(pod) = pod else { return Ok(Vec::new()) };
    let before = request.old.and_then(|old| if is_pod { Some(old) } else { template(old, request) });
    if before.is_some_and(|before| before["spec"] == pod["spec"]) {
        return Ok(Vec::new());
    }
    let Some(namespace) = facts.get("namespaces", "", request.namespace) else { return Ok(Vec::new()) };
    if is_pod {
        let standard = lenient(&namespace, "enforce");
        if let Some(found) = violations(pod, standard) {
            return forbidden(format!("violates PodSecurity \"{standard}\": {found}"));
        }
    }
    let standard = lenient(&namespace, "warn");
    let warning = |found: String| format!("would violate PodSecurity \"{standard}\": {found}");
    Ok(violations(pod, standard).map(warning).into_iter().collect())
}

/// What the namespace's standard for the audit log has against a pod or a workload.
pub(super) fn noted(object: &Value, request: &Request<'_>, facts: &dyn Facts) -> Option<String> {
    if !matches!(request.operation, Operation::Create | Operation::Update) || !request.subresource.is_empty() {
        return None;
    }
    let pod = if request.is("", "pods") { object } else { template(object, request)? };
    let standard = lenient(&*facts.get("namespaces", "", request.namespace)?, "audit");
    violations(pod, standard).map(|found| format!("would violate PodSecurity \"{standard}\": {found}"))
}

/// What is wrong with a pod: reasons with details; none when nothing is.
fn violations(pod: &Value, standard: Standard) -> Option<String> {
    let found = checks::all(pod, standard);
    let shown = |(reason, detail): &(String, String)| {
        if detail.is_empty() { reason.clone() } else { format!("{reason} ({detail})") }
    };
    (!found.is_empty()).then(|| found.iter().map(shown).collect::<Vec<_>>().join(", "))
}

fn namespace_changes(namespace: &Value, request: &Request<'_>, facts: &dyn Facts) -> Result<Vec<String>, Denied> {
    let has_labels = |namespace: &Value| {
        let labels = namespace["metadata"]["labels"].as_object();
        labels.is_some_and(|labels| labels.keys().any(|key| key.starts_with(LABEL)))
    };
    if !has_labels(namespace) {
        return Ok(Vec::new());
    }
    for mode in ["enforce", "audit", "warn"] {
        let was_wrong = request.old.is_some_and(|old| standard(old, mode).is_err());
        if let Err((denied, _)) = standard(namespace, mode)
            && !was_wrong
        {
            return Err(denied);
        }
    }
    let (Some(old), standard) = (request.old, lenient(namespace, "enforce")) else { return Ok(Vec::new()) };
    let before = lenient(old, "enforce");
    if standard == before || standard.level < before.level || standard.level == Level::Privileged {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    for pod in facts.list("pods", request.name).iter().take(EXAMINED_PODS) {
        let reasons: Vec<String> = checks::all(pod, standard).into_iter().map(|(reason, _)| reason).collect();
        if !reasons.is_empty() {
            lines.push(format!("{}: {}", text(&pod["metadata"], "name"), reasons.join(", ")));
        }
    }
    if !lines.is_empty() {
        let name = request.name;
        let lead =
            format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{standard}\"");
        lines.insert(0, lead);
    }
    Ok(lines)
}
