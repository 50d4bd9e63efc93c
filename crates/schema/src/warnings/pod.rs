//! Warnings about pods and templates of pods.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{OLD_VOLUMES, claim, fractional, node_label, node_labels, node_term};
use crate::walk;

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const NO_MATCH: &str = "a null labelSelector results in matching no pod";

/// A pod, or a template; `path` ends with a dot unless it is empty.
pub(super) fn check(pod: &Value, path: &str, found: &mut Vec<String>) {
    if !pod.is_object() {
        return;
    }
    let spec = format!("{path}spec");
    annotations(pod, path, found);
    placement(&pod["spec"], &spec, found);
    volumes(&pod["spec"], &spec, found);
    repetitions(&pod["spec"], &spec, found);
    ports(&pod["spec"], &spec, found);
    for (container, path) in containers(&pod["spec"], &spec) {
        resources(container, &path, found);
        environment(container, &path, found);
    }
    if pod["spec"]["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        found.push(format!("{spec}.terminationGracePeriodSeconds: {why}"));
    }
}

/// Containers of all sorts, with their paths.
fn containers<'p>(spec: &'p Value, path: &str) -> Vec<(&'p Value, String)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let of_list = |list: &'static str| {
        let items = walk::items(spec, &[list]).iter().enumerate();
        items.map(move |(at, container)| (container, format!("{path}.{list}[{at}]")))
    };
    lists.into_iter().flat_map(of_list).collect()
}

fn annotations(pod: &Value, path: &str, found: &mut Vec<String>) {
    let has = |key: &str| !pod["metadata"]["annotations"][key].is_null();
    let mut say = |key: &str, why: &str| found.push(format!("{path}metadata.annotations[{key}]: {why}"));
    ANNOTATIONS.iter().filter(|(key, _)| has(key)).for_each(|(key, why)| say(key, why));
    let spec = &pod["spec"];
    let has_profile = |holder: &Value| !holder["securityContext"]["seccompProfile"].is_null();
    let whole = "seccomp.security.alpha.kubernetes.io/pod";
    if has(whole) && !has_profile(spec) {
        say(whole, SECCOMP);
    }
    for (container, _) in containers(spec, "") {
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", walk::text(container, &["name"]));
        if has(&key) && !has_profile(container) {
            say(&key, SECCOMP);
        }
    }
}

fn placement(spec: &Value, path: &str, found: &mut Vec<String>) {
    for (key, why) in node_labels(&spec["nodeSelector"]) {
        found.push(format!("{path}.nodeSelector[{key}]: {why}"));
    }
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let nodes = format!("{path}.affinity.nodeAffinity");
    let terms = walk::items(spec, &["affinity", "nodeAffinity", required, "nodeSelectorTerms"]);
    for (at, term) in terms.iter().enumerate() {
        node_term(term, &format!("{nodes}.{required}.nodeSelectorTerms[{at}]"), found);
    }
    for (at, term) in walk::items(spec, &["affinity", "nodeAffinity", preferred]).iter().enumerate() {
        node_term(&term["preference"], &format!("{nodes}.{preferred}[{at}].preference"), found);
    }
    for (at, constraint) in walk::items(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{at}]");
        let key = walk::text(constraint, &["topologyKey"]);
        if let Some(why) = node_label(key) {
            found.push(format!("{path}.topologyKey: {key} is {why}"));
        }
        if constraint["labelSelector"].is_null() {
            found.push(format!("{path}.labelSelector: {NO_MATCH}"));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (at, term) in walk::items(spec, &["affinity", kind, required]).iter().enumerate() {
            if term["labelSelector"].is_null() {
                found.push(format!("{path}.affinity.{kind}.{required}[{at}].labelSelector: {NO_MATCH}"));
            }
        }
        for (at, term) in walk::items(spec, &["affinity", kind, preferred]).iter().enumerate() {
            if term["podAffinityTerm"]["labelSelector"].is_null() {
                found.push(format!(
                    "{path}.affinity.{kind}.{preferred}[{at}].podAffinityTerm.labelSelector: {NO_MATCH}"
                ));
            }
        }
    }
}

fn volumes(spec: &Value, path: &str, found: &mut Vec<String>) {
    for (at, volume) in walk::items(spec, &["volumes"]).iter().enumerate() {
        let path = format!("{path}.volumes[{at}]");
        for (name, why) in OLD_VOLUMES.iter().filter(|(name, _)| volume[*name].is_object()) {
            found.push(format!("{path}.{name}: {why}"));
        }
        let template = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
        claim(template, &format!("{path}.ephemeral.volumeClaimTemplate.spec"), found);
    }
}

/// The same address or secret twice.
fn repetitions(spec: &Value, path: &str, found: &mut Vec<String>) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let items = walk::items(spec, &[list]);
        let values: Vec<&str> = items.iter().map(|item| walk::text(item, &[field])).collect();
        for (at, value) in values.iter().enumerate() {
            if values[..at].contains(value) {
                found.push(format!("{path}.{list}[{at}].{field}: duplicate {field} {value:?}"));
            }
            if list == "imagePullSecrets" && value.is_empty() {
                found.push(format!("{path}.{list}[{at}].{field}: invalid empty name {value:?}"));
            }
        }
    }
    for resource in ["memory", "ephemeral-storage"] {
        fractional(&spec["overhead"], resource, &format!("{path}.overhead"), found);
    }
}

fn resources(container: &Value, path: &str, found: &mut Vec<String>) {
    for (resource, list) in [
        ("memory", "limits"),
        ("memory", "requests"),
        ("ephemeral-storage", "limits"),
        ("ephemeral-storage", "requests"),
    ] {
        fractional(&container["resources"][list], resource, &format!("{path}.resources.{list}"), found);
    }
}

/// A variable that is said again, unless it is made of what it was.
fn environment(container: &Value, path: &str, found: &mut Vec<String>) {
    let variables = walk::items(container, &["env"]);
    for (at, variable) in variables.iter().enumerate() {
        let name = walk::text(variable, &["name"]);
        let is_repeated = variables[..at].iter().any(|other| walk::text(other, &["name"]) == name);
        let (value, itself) = (walk::text(variable, &["value"]), format!("$({name})"));
        let builds_on_it = variable["valueFrom"].is_null() && value != itself && value.contains(&itself);
        if is_repeated && !builds_on_it {
            let why = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            found.push(format!("{path}.env[{at}]: {why}"));
        }
    }
}

fn ports(spec: &Value, path: &str, found: &mut Vec<String>) {
    let mut seen: Vec<(&Value, String)> = Vec::new();
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let all = containers(spec, path);
    for (container, path) in &all {
        for (at, port) in walk::items(container, &["ports"]).iter().enumerate() {
            let path = format!("{path}.ports[{at}]");
            for (other, place) in &seen {
                if let Some(how) = collision(port, other) {
                    found.push(format!("{path}: {how} port definition with {place}"));
                }
            }
            let name = walk::text(port, &["name"]);
            if let Some(first) = names.get(name) {
                let use_of = format!("services and probes that select ports by name will use {first}");
                found.push(format!("{path}: duplicate port name {name:?} with {first}, {use_of}"));
            } else if !name.is_empty() {
                names.insert(name, path.clone());
            }
            seen.push((port, path));
        }
    }
}

/// How two ports of a pod get into each other's way.
fn collision(port: &Value, other: &Value) -> Option<&'static str> {
    let number = |port: &Value, field: &str| port[field].as_i64().unwrap_or(0);
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_owned();
    if number(port, "containerPort") != number(other, "containerPort") || protocol(port) != protocol(other) {
        return None;
    }
    let (host, other_host) = (number(port, "hostPort"), number(other, "hostPort"));
    let (ip, other_ip) = (walk::text(port, &["hostIP"]), walk::text(other, &["hostIP"]));
    match () {
        () if ip == other_ip && host == other_host => Some("duplicate"),
        () if host == 0 || other_host == 0 => Some("overlapping"),
        () if host == other_host && ip.is_empty() != other_ip.is_empty() => Some("dangerously ambiguous"),
        () => None,
    }
}
