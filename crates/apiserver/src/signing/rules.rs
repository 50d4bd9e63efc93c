//! What the signers of every cluster sign, and what they refuse (upstream's constraints). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose as Extended, IsCa, KeyUsagePurpose,
    SanType,
};
use serde_json::Value;

use crate::strategy::{meta, text};

/// Clients of the API server.
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Node agents as clients of the API server.
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Node agents as servers.
const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// A certificate lasts so long unless less is asked for.
const YEAR_SECONDS: i64 = 31_536_000;
const DECIDED_SECONDS: i64 = 3_600;
const PENDING_SECONDS: i64 = 86_400;

/// A certificate that may be signed.
pub(crate) struct Wanted {
    pub(crate) request: CertificateSigningRequestParams,
    /// How long it is good for.
    pub(crate) seconds: i64,
}

/// Text in PEM as a field of bytes.
pub(super) fn encoded(pem: &str) -> String {
    STANDARD.encode(pem)
}

fn parse(object: &Value) -> Result<CertificateSigningRequestParams, String> {
    let bytes = STANDARD.decode(text(object, &["spec", "request"])).map_err(|error| error.to_string())?;
    let pem = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    CertificateSigningRequestParams::from_pem(&pem).map_err(|error| format!("unable to parse csr: {error}"))
}

fn value_text(value: &DnValue) -> String {
    match value {
        DnValue::Utf8String(text) => text.clone(),
        DnValue::PrintableString(text) => text.as_str().to_owned(),
        DnValue::Ia5String(text) => text.as_str().to_owned(),
        DnValue::TeletexString(text) => text.as_str().to_owned(),
        _ => String::new(),
    }
}

fn named(request: &CertificateSigningRequestParams, wanted: &DnType) -> Vec<String> {
    let names = request.params.distinguished_name.iter();
    names.filter(|(ty, _)| *ty == wanted).map(|(_, value)| value_text(value)).collect()
}

/// Organisations that a request asks for: groups of the user that the certificate will be for.
pub(super) fn organisations(object: &Value) -> Vec<String> {
    parse(object).map(|request| named(&request, &DnType::OrganizationName)).unwrap_or_default()
}

fn usages(object: &Value) -> Vec<&str> {
    let mut usages: Vec<&str> =
        object["spec"]["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    usages.sort_unstable();
    usages
}

/// The node that a request is by, when it is one that a node agent makes for itself.
pub(super) fn node_client(object: &Value) -> Option<String> {
    if text(object, &["spec", "signerName"]) != NODE_CLIENT {
        return None;
    }
    let request = parse(object).ok()?;
    check_node_client(object, &request).ok()?;
    named(&request, &DnType::CommonName).pop()
}

/// What becomes of an approved request: a certificate, or why not. None for the signers of others.
pub(super) fn judge(object: &Value) -> Option<Result<Wanted, String>> {
    let check = match text(object, &["spec", "signerName"]) {
        CLIENT => check_client,
        NODE_CLIENT => check_node_client,
        NODE_SERVING => check_node_serving,
        _ => return None,
    };
    Some(parse(object).and_then(|request| {
        check(object, &request)?;
        Ok(wanted(object, request))
    }))
}

fn wanted(object: &Value, mut request: CertificateSigningRequestParams) -> Wanted {
    let asked = object["spec"]["expirationSeconds"].as_i64().unwrap_or(YEAR_SECONDS);
    let (keys, extended) = purposes(&usages(object));
    request.params.is_ca = IsCa::ExplicitNoCa;
    request.params.key_usages = keys;
    request.params.extended_key_usages = extended;
    Wanted { request, seconds: asked.clamp(600, YEAR_SECONDS) }
}

fn purposes(usages: &[&str]) -> (Vec<KeyUsagePurpose>, Vec<Extended>) {
    let key = |usage: &&str| match *usage {
        "signing" | "digital signature" => Some(KeyUsagePurpose::DigitalSignature),
        "key encipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        _ => None,
    };
    let extended = |usage: &&str| match *usage {
        "client auth" => Some(Extended::ClientAuth),
        "server auth" => Some(Extended::ServerAuth),
        _ => None,
    };
    (usages.iter().filter_map(key).collect(), usages.iter().filter_map(extended).collect())
}

fn check_usages(object: &Value, required: &str) -> Result<(), String> {
    let found = usages(object);
    let is_known = |usage: &&str| *usage == required || matches!(*usage, "digital signature" | "key encipherment");
    if !found.contains(&required) || !found.iter().all(is_known) {
        return Err(format!(
            "usages {found:?} are not allowed: {required:?}, \"digital signature\" and \"key encipherment\" are"
        ));
    }
    Ok(())
}

/// Exactly what node agents ask for: newer ones leave out the encipherment of keys.
fn check_node_usages(object: &Value, required: &str) -> Result<(), String> {
    check_usages(object, required)?;
    if usages(object).contains(&"digital signature") { Ok(()) } else { Err("usages lack \"digital signature\"".into()) }
}

fn check_client(object: &Value, request: &CertificateSigningRequestParams) -> Result<(), String> {
    if organisations(object).iter().any(|name| name == crate::user::MASTERS) {
        return Err("organization system:masters is not allowed".into());
    }
    if named(request, &DnType::CommonName).is_empty() {
        return Err("the subject has no common name".into());
    }
    check_usages(object, "client auth")
}

fn check_node(request: &CertificateSigningRequestParams) -> Result<String, String> {
    if named(request, &DnType::OrganizationName) != [NODES] {
        return Err(format!("organization is not {NODES}"));
    }
    let name = named(request, &DnType::CommonName).pop().unwrap_or_default();
    if name.strip_prefix(NODE_PREFIX).is_none_or(str::is_empty) {
        return Err(format!("subject common name does not begin with {NODE_PREFIX}"));
    }
    Ok(name)
}

fn check_node_client(object: &Value, request: &CertificateSigningRequestParams) -> Result<(), String> {
    check_node(request)?;
    if !request.params.subject_alt_names.is_empty() {
        return Err("subject alternative names are not allowed".into());
    }
    check_node_usages(object, "client auth")
}

fn check_node_serving(object: &Value, request: &CertificateSigningRequestParams) -> Result<(), String> {
    let name = check_node(request)?;
    if name != text(object, &["spec", "username"]) {
        return Err("subject common name is not the requesting user".into());
    }
    let names = &request.params.subject_alt_names;
    if !names.iter().all(|name| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_))) {
        return Err("only DNS names and IP addresses are allowed as subject alternative names".into());
    }
    if names.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    check_node_usages(object, "server auth")
}

/// Nobody needs the request any more.
pub(super) fn is_over(object: &Value, now: Timestamp) -> bool {
    let age = |time: &str| time.parse::<Timestamp>().map_or(0, |time| now.as_second() - time.as_second());
    let all = object["status"]["conditions"].as_array();
    if let Some(ended) = ends(object) {
        return ended <= now.as_second() || decided(all, &age, "Approved");
    }
    let is_pending = all.is_none_or(Vec::is_empty);
    decided(all, &age, "Denied")
        || decided(all, &age, "Failed")
        || is_pending && age(meta(object, "creationTimestamp")) > PENDING_SECONDS
}

fn decided(all: Option<&Vec<Value>>, age: &impl Fn(&str) -> i64, kind: &str) -> bool {
    let mut of_kind = all.into_iter().flatten().filter(|condition| condition["type"] == kind);
    of_kind.any(|condition| age(text(condition, &["lastUpdateTime"])) > DECIDED_SECONDS)
}

/// When the issued certificate ends, in seconds since 1970.
fn ends(object: &Value) -> Option<i64> {
    let pem = STANDARD.decode(object["status"]["certificate"].as_str()?).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    /// `O=.. CN=..`, then alternative names, as a request to a signer.
    fn request(signer: &str, organisation: &str, name: &str, names: &[&str], usages: &[&str]) -> Value {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        json!({"spec": {"request": encoded(&pem), "signerName": signer, "usages": usages, "username": "system:node:n"}})
    }

    #[test]
    fn signers_have_constraints() {
        let (client, server) =
            (["digital signature", "client auth"], ["digital signature", "key encipherment", "server auth"]);
        let table = [
            (CLIENT, "devs", "jane", &[][..], &client[..], None),
            (CLIENT, "system:masters", "jane", &[], &client, Some("system:masters is not allowed")),
            (CLIENT, "devs", "jane", &[], &server, Some("are not allowed")),
            (NODE_CLIENT, NODES, "system:node:n", &[], &client, None),
            (NODE_CLIENT, "devs", "system:node:n", &[], &client, Some("organization is not system:nodes")),
            (NODE_CLIENT, NODES, "jane", &[], &client, Some("does not begin with system:node:")),
            (NODE_CLIENT, NODES, "system:node:", &[], &client, Some("does not begin with system:node:")),
            (NODE_CLIENT, NODES, "system:node:n", &["a.b"], &client, Some("are not allowed")),
            (NODE_CLIENT, NODES, "system:node:n", &[], &["client auth"], Some("lack \"digital signature\"")),
            (NODE_SERVING, NODES, "system:node:n", &["a.b", "10.0.0.1"], &server, None),
            (NODE_SERVING, NODES, "system:node:m", &["a.b"], &server, Some("not the requesting user")),
            (NODE_SERVING, NODES, "system:node:n", &[], &server, Some("DNS or IP subjectAltName is required")),
            (NODE_SERVING, NODES, "system:node:n", &["a.b"], &client, Some("are not allowed")),
        ];
        for (signer, organisation, name, names, usages, expected) in table {
            let object = request(signer, organisation, name, names, usages);
            let refused = judge(&object).unwrap().err();
            match (expected, &refused) {
                (None, None) => {}
                (Some(part), Some(why)) if why.contains(part) => {}
                _ => panic!("{signer} {organisation} {name} {names:?} {usages:?}: {refused:?}"),
            }
        }
        assert!(judge(&request("example.com/own", "x", "y", &[], &client)).is_none());
        assert_eq!(
            node_client(&request(NODE_CLIENT, NODES, "system:node:n", &[], &client)).as_deref(),
            Some("system:node:n")
        );
    }

    #[test]
    fn requests_are_over_some_time() {
        let now: Timestamp = "2026-01-02T00:00:01Z".parse().unwrap();
        let object = |kind: &str, time: &str| {
            let made = json!({"creationTimestamp": "2026-01-01T00:00:00Z"});
            let all = if kind.is_empty() { json!([]) } else { json!([{"type": kind, "lastUpdateTime": time}]) };
            json!({"metadata": made, "status": {"conditions": all}})
        };
        let table = [
            ("Denied", "2026-01-01T22:00:00Z", true),
            ("Denied", "2026-01-01T23:30:00Z", false),
            ("Failed", "2026-01-01T22:00:00Z", true),
            // Approved, and the certificate still to come.
            ("Approved", "2026-01-01T22:00:00Z", false),
            ("", "", true),
        ];
        for (kind, time, expected) in table {
            assert_eq!(is_over(&object(kind, time), now), expected, "{kind} {time}");
        }
    }
}
