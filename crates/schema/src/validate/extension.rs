//! Rules for APIServices.

use serde_json::Value;

use super::{Errors, FieldError};
use crate::names;
use crate::walk;

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

pub(super) fn check(object: &Value, errors: &mut Errors) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let (group, version) = (walk::text(spec, &["group"]), walk::text(spec, &["version"]));
    if group.is_empty() && version != "v1" {
        errors.push(FieldError::required("spec.group", "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        errors.invalid_all("spec.group", group, names::subdomain(group));
    }
    errors.invalid_all("spec.version", version, names::label_1035(version));
    let bounds = [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)];
    for (field, most) in bounds {
        let priority = spec.get(field).and_then(Value::as_i64).unwrap_or_default();
        if !(1..=most).contains(&priority) {
            let text = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(format!("spec.{field}"), priority, text));
        }
    }
    trust(spec, errors);
}

fn trust(spec: &Value, errors: &mut Errors) {
    let is_insecure = spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true));
    let has_bundle = !walk::text(spec, &["caBundle"]).is_empty();
    let Some(service) = spec.get("service").filter(|service| service.is_object()) else {
        if has_bundle {
            let text = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(
                "spec.caBundle",
                format!("{} bytes", walk::text(spec, &["caBundle"]).len()),
                text,
            ));
        }
        if is_insecure {
            let text = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, text));
        }
        return;
    };
    for field in ["namespace", "name"] {
        if walk::text(service, &[field]).is_empty() {
            errors.push(FieldError::required(format!("spec.service.{field}"), ""));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or(443);
    if !(1..=65_535).contains(&port) {
        let text = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid("spec.service.port", port, text));
    }
    if is_insecure && has_bundle {
        let text = "may not be true if caBundle is present";
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, text));
    }
}
