//! Rules for containers of all three classes.

use std::collections::BTreeSet;

use isopod_types::Quantity;
use serde_json::Value;

use super::{Errors, FieldError, ephemeral};
use crate::names;
use crate::walk;

const MAX_PORT: i64 = 65_535;
const MAX_PORT_NAME: usize = 15;
const MAX_UID: i64 = i32::MAX as i64;

/// What the rules of one container need to know of its pod.
pub(super) struct Pod<'a> {
    /// Names of the pod's volumes.
    pub(super) volumes: BTreeSet<&'a str>,
}

/// Which list the container is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Init,
    Main,
    Ephemeral,
}

pub(super) fn check(container: &Value, path: &str, class: Class, pod: &Pod<'_>, errors: &mut Errors) {
    let text = |name: &str| walk::text(container, &[name]);
    if !text("name").is_empty() {
        errors.invalid_all(&format!("{path}.name"), text("name"), names::label(text("name")));
    }
    match text("image") {
        "" => errors.push(FieldError::required(format!("{path}.image"), "")),
        image if image.trim() != image => {
            errors.push(FieldError::invalid(
                format!("{path}.image"),
                image,
                "must not have leading or trailing whitespace",
            ));
        }
        _ => {}
    }
    environment(container, path, errors);
    mounts(container, path, pod, errors);
    if class == Class::Ephemeral {
        ephemeral::check(container, path, errors);
    } else {
        ports(container, path, errors);
        if let Some(resources) = container.get("resources") {
            self::resources(resources, &format!("{path}.resources"), errors);
        }
        probes(container, path, class, errors);
        lifecycle(container, path, class, errors);
        restart_policy(container, path, errors);
    }
    if let Some(context) = container.get("securityContext") {
        security_context(context, &format!("{path}.securityContext"), errors);
    }
}

fn restart_policy(container: &Value, path: &str, errors: &mut Errors) {
    let policy = walk::text(container, &["restartPolicy"]);
    let has_rules = !walk::items(container, &["restartPolicyRules"]).is_empty();
    match policy {
        "" | "Always" | "Never" | "OnFailure" => {}
        other => {
            let supported = ["Always", "Never", "OnFailure"];
            errors.push(FieldError::not_supported(format!("{path}.restartPolicy"), other, &supported));
        }
    }
    if has_rules && policy.is_empty() {
        let text = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(format!("{path}.restartPolicy"), text));
    }
}

fn in_range(number: i64, path: String, errors: &mut Errors) {
    if !(1..=MAX_PORT).contains(&number) {
        errors.push(FieldError::invalid(path, number, "must be between 1 and 65535, inclusive"));
    }
}

/// What is wrong with a port name: IANA service names.
pub(super) fn port_name(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > MAX_PORT_NAME {
        wrong.push(format!("must be no more than {MAX_PORT_NAME} characters"));
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.bytes().all(allowed) {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

fn ports(container: &Value, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, port) in walk::items(container, &["ports"]).iter().enumerate() {
        let path = format!("{path}.ports[{at}]");
        let name = walk::text(port, &["name"]);
        if !name.is_empty() {
            errors.invalid_all(&format!("{path}.name"), name, port_name(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        match port.get("containerPort").and_then(Value::as_i64).unwrap_or_default() {
            0 => errors.push(FieldError::required(format!("{path}.containerPort"), "")),
            number => in_range(number, format!("{path}.containerPort"), errors),
        }
        if let Some(number) = port.get("hostPort").and_then(Value::as_i64) {
            in_range(number, format!("{path}.hostPort"), errors);
        }
    }
}

fn environment(container: &Value, path: &str, errors: &mut Errors) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for (at, variable) in walk::items(container, &["env"]).iter().enumerate() {
        let path = format!("{path}.env[{at}]");
        let name = walk::text(variable, &["name"]);
        let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
        if !printable {
            let rule =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(format!("{path}.name"), name, rule));
        }
        let Some(source) = variable.get("valueFrom") else { continue };
        let count = SOURCES.iter().filter(|name| source.get(**name).is_some()).count();
        let path = format!("{path}.valueFrom");
        if count != 1 {
            let wrong = if count == 0 {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            } else {
                "may not have more than one field specified at a time"
            };
            errors.push(FieldError::invalid(path, "", wrong));
        } else if !walk::text(variable, &["value"]).is_empty() {
            errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
        }
    }
}

fn mounts(container: &Value, path: &str, pod: &Pod<'_>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    for (at, mount) in walk::items(container, &["volumeMounts"]).iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        let (name, target) = (walk::text(mount, &["name"]), walk::text(mount, &["mountPath"]));
        if !pod.volumes.contains(name) {
            errors.push(FieldError::not_found(format!("{path}.name"), name));
        }
        if !target.is_empty() && !paths.insert(target) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), target, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            relative_path(walk::text(mount, &[field]), &format!("{path}.{field}"), errors);
        }
        if mount.get("subPath").is_some() && mount.get("subPathExpr").is_some() {
            errors.push(FieldError::invalid(
                format!("{path}.subPathExpr"),
                walk::text(mount, &["subPathExpr"]),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
}

/// A path that stays below where it starts.
pub(super) fn relative_path(text: &str, path: &str, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

/// Requests and limits: known names, not negative, requests within limits.
pub(super) fn resources(resources: &Value, path: &str, errors: &mut Errors) {
    let list = |name: &str| resources.get(name).and_then(Value::as_object);
    for side in ["limits", "requests"] {
        for (name, quantity) in list(side).into_iter().flatten() {
            let path = format!("{path}.{side}[{name}]");
            resource(name, quantity, &path, errors);
        }
    }
    let (Some(requests), limits) = (list("requests"), list("limits")) else { return };
    for (name, request) in requests {
        let limit = limits.and_then(|limits| limits.get(name));
        let path = format!("{path}.requests");
        if limit.is_none() && is_extended(name) {
            let text = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(format!("{}.limits", path.trim_end_matches(".requests")), text));
        }
        let (Some(asked), Some(most)) = (parse(request), limit.and_then(parse)) else { continue };
        if is_extended(name) && asked != most {
            let text =
                format!("must be equal to {name} limit of {}", limit.and_then(Value::as_str).unwrap_or_default());
            errors.push(FieldError::invalid(path, request.clone(), text));
        } else if asked > most {
            let text = format!(
                "must be less than or equal to {name} limit of {}",
                limit.and_then(Value::as_str).unwrap_or_default()
            );
            errors.push(FieldError::invalid(path, request.clone(), text));
        }
    }
}

fn parse(quantity: &Value) -> Option<Quantity> {
    quantity.as_str()?.parse().ok()
}

/// Not one of Kubernetes' own: whole pieces, limit and request equal.
fn is_extended(name: &str) -> bool {
    (name.contains('/') && !name.contains("kubernetes.io/")) || name.starts_with("hugepages-")
}

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn resource(name: &str, quantity: &Value, path: &str, errors: &mut Errors) {
    errors.invalid_all(path, name, names::qualified(name));
    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
    let Some(amount) = parse(quantity) else { return };
    if amount < Quantity::ZERO {
        errors.push(FieldError::invalid(path, quantity.clone(), "must be greater than or equal to 0"));
    }
    if is_extended(name) && amount.milli() % 1000 != 0 {
        errors.push(FieldError::invalid(path, quantity.clone(), "must be an integer"));
    }
}

const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

fn probes(container: &Value, path: &str, class: Class, errors: &mut Errors) {
    let sidecar = walk::text(container, &["restartPolicy"]) == "Always";
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(name) else { continue };
        let path = format!("{path}.{name}");
        if class == Class::Init && !sidecar {
            errors.push(FieldError::forbidden(path, "may not be set for init containers without restartPolicy=Always"));
            continue;
        }
        handler(probe, &path, &HANDLERS, errors);
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            errors.non_negative(probe, number, &path);
        }
        let successes = probe.get("successThreshold").and_then(Value::as_i64).unwrap_or(1);
        if name != "readinessProbe" && successes != 1 {
            errors.push(FieldError::invalid(format!("{path}.successThreshold"), successes, "must be 1"));
        }
    }
}

fn lifecycle(container: &Value, path: &str, class: Class, errors: &mut Errors) {
    let Some(lifecycle) = container.get("lifecycle") else { return };
    let sidecar = walk::text(container, &["restartPolicy"]) == "Always";
    let path = format!("{path}.lifecycle");
    if class == Class::Init && !sidecar {
        errors.push(FieldError::forbidden(path, "may not be set for init containers without restartPolicy=Always"));
        return;
    }
    for name in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.get(name) {
            handler(hook, &format!("{path}.{name}"), &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        }
    }
}

/// Exactly one handler, and a sound one.
fn handler(holder: &Value, path: &str, kinds: &[&str], errors: &mut Errors) {
    let given: Vec<&&str> = kinds.iter().filter(|kind| holder.get(**kind).is_some()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [kind] => one_handler(&holder[**kind], kind, &format!("{path}.{kind}"), errors),
        [_, more @ ..] => {
            for kind in more {
                errors
                    .push(FieldError::forbidden(format!("{path}.{kind}"), "may not specify more than 1 handler type"));
            }
        }
    }
}

fn one_handler(handler: &Value, kind: &str, path: &str, errors: &mut Errors) {
    match kind {
        "exec" if walk::items(handler, &["command"]).is_empty() => {
            errors.push(FieldError::required(format!("{path}.command"), ""));
        }
        "httpGet" | "tcpSocket" => {
            match handler.get("port") {
                None => errors.push(FieldError::required(format!("{path}.port"), "")),
                Some(Value::String(name)) => errors.invalid_all(&format!("{path}.port"), name, port_name(name)),
                Some(number) => in_range(number.as_i64().unwrap_or_default(), format!("{path}.port"), errors),
            }
            if kind == "httpGet" && walk::text(handler, &["path"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.path"), ""));
            }
        }
        "grpc" => {
            in_range(handler.get("port").and_then(Value::as_i64).unwrap_or_default(), format!("{path}.port"), errors)
        }
        _ => {}
    }
}

/// Ranges and contradictions of a security context, the pod's or a container's.
pub(super) fn security_context(context: &Value, path: &str, errors: &mut Errors) {
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context.get(name).and_then(Value::as_i64)
            && !(0..=MAX_UID).contains(&id)
        {
            let rule = format!("must be between 0 and {MAX_UID}, inclusive");
            errors.push(FieldError::invalid(format!("{path}.{name}"), id, rule));
        }
    }
    let is = |name: &str, value: bool| context.get(name) == Some(&Value::Bool(value));
    if is("privileged", true) && is("allowPrivilegeEscalation", false) {
        let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), text));
    }
    if let Some(profile) = context.get("seccompProfile") {
        let localhost = profile.get("localhostProfile").is_some();
        let path = format!("{path}.seccompProfile.localhostProfile");
        match (walk::text(profile, &["type"]), localhost) {
            ("Localhost", false) => {
                errors.push(FieldError::required(path, "must be set when seccomp type is Localhost"))
            }
            ("Localhost", true) | (_, false) => {}
            (_, true) => errors.push(FieldError::invalid(path, "", "can only be set when seccomp type is Localhost")),
        }
    }
}
