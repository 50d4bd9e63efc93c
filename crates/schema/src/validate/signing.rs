//! Rules for CertificateSigningRequests.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Errors, FieldError};
use crate::names;
use crate::walk;

const LEAST_SECONDS: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Conditions that decide; each is true or absent.
const DECIDING: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn check(object: &Value, errors: &mut Errors) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let request = walk::text(spec, &["request"]);
    if !is_pem(request, "CERTIFICATE REQUEST") {
        let text = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid("spec.request", request, text));
    }
    let usages = walk::items(spec, &["usages"]);
    if usages.is_empty() {
        errors.push(FieldError::required("spec.usages", ""));
    }
    let mut seen = BTreeSet::new();
    for (at, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(format!("spec.usages[{at}]"), usage, &USAGES));
        } else if !seen.insert(usage) {
            errors.push(FieldError::duplicate(format!("spec.usages[{at}]"), usage));
        }
    }
    signer(walk::text(spec, &["signerName"]), errors);
    if let Some(seconds) = spec.get("expirationSeconds").and_then(Value::as_i64)
        && seconds < LEAST_SECONDS
    {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", seconds, text));
    }
}

fn signer(name: &str, errors: &mut Errors) {
    let path = "spec.signerName";
    match name.split_once('/') {
        _ if name.is_empty() => errors.push(FieldError::required(path, "")),
        _ if name == LEGACY => {
            errors.push(FieldError::invalid(path, name, "the legacy signerName is not allowed via this API version"));
        }
        Some((domain, rest)) if domain.contains('.') && !rest.is_empty() => {
            errors.invalid_all(path, name, names::subdomain(domain));
            for part in rest.split('.') {
                errors.invalid_all(path, name, names::subdomain(part));
            }
        }
        _ => {
            let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid(path, name, text));
        }
    }
}

/// Base64 of one or more PEM blocks of a type.
fn is_pem(encoded: &str, kind: &str) -> bool {
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    text.contains(&begin) && text.contains(&end) && text.matches("-----BEGIN ").count() == text.matches(&begin).count()
}

/// Checks a change of the status; approval may decide, and nothing else may.
pub(super) fn update_status(object: &Value, old: &Value, is_approval: bool, errors: &mut Errors) {
    let path = "status.conditions";
    let (new, before) = (walk::items(object, &["status", "conditions"]), walk::items(old, &["status", "conditions"]));
    let of = |list: &'_ [Value], kind: &str| list.iter().find(|condition| condition["type"] == kind).cloned();
    let mut seen = BTreeSet::new();
    for (at, condition) in new.iter().enumerate() {
        let kind = walk::text(condition, &["type"]);
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{path}[{at}].type"), ""));
        } else if !seen.insert(kind) {
            errors.push(FieldError::duplicate(format!("{path}[{at}].type"), kind));
        }
        match walk::text(condition, &["status"]) {
            "" => errors.push(FieldError::required(format!("{path}[{at}].status"), "")),
            status if DECIDING.contains(&kind) && status != "True" => {
                errors.push(FieldError::not_supported(format!("{path}[{at}].status"), status, &["True"]));
            }
            _ => {}
        }
    }
    if of(new, "Approved").is_some() && of(new, "Denied").is_some() {
        let text = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(path, new.to_vec(), text));
    }
    for kind in DECIDING {
        let may_add = is_approval == (kind != "Failed");
        match (of(before, kind), of(new, kind)) {
            (Some(_), None) => {
                errors
                    .push(FieldError::forbidden(path, format!("updates may not remove a condition of type {kind:?}")));
            }
            (None, Some(_)) if !may_add => {
                errors.push(FieldError::forbidden(path, format!("updates may not add a condition of type {kind:?}")));
            }
            _ => {}
        }
    }
    certificate(object, old, errors);
}

fn certificate(object: &Value, old: &Value, errors: &mut Errors) {
    let path = "status.certificate";
    let (new, before) = (walk::text(object, &["status", "certificate"]), walk::text(old, &["status", "certificate"]));
    if new == before {
        return;
    }
    if !before.is_empty() {
        errors.push(FieldError::forbidden(path, "updates may not modify existing certificate content"));
    } else if !is_pem(new, "CERTIFICATE") {
        errors.push(FieldError::invalid(path, "<certificate data>", "must contain at least one CERTIFICATE PEM block"));
    }
}
