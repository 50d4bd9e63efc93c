//! Certificate signing requests: who says what, who may decide, and what comes of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isopod_apiserver::UserInfo;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::harness::Cluster;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

fn request(name: &str, signer: &str, organisation: &str, common: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, common);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let usages = ["digital signature", "client auth"];
    json!({
        "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer, "usages": usages, "expirationSeconds": 3600, "username": "liar", "groups": ["system:masters"]},
    })
}

fn approved() -> Value {
    json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "test"}]}})
}

async fn get(cluster: &Cluster, name: &str) -> Value {
    cluster.ok(&format!("GET {REQUESTS}/{name}"), Value::Null).await
}

/// Waits for something about the request.
async fn until(cluster: &Cluster, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let object = get(cluster, name).await;
            if holds(&object) {
                return object;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), found).await.unwrap()
}

fn condition(object: &Value, kind: &str) -> Option<String> {
    let all = object["status"]["conditions"].as_array()?;
    all.iter()
        .find(|condition| condition["type"] == kind)
        .map(|condition| format!("{} {}", condition["reason"], condition["message"]))
}

/// May do this with requests, and this with signers.
async fn role(cluster: &Cluster, user: &str, resources: &[&str], verbs: &[&str], signers: Value) -> Cluster {
    let group = "rbac.authorization.k8s.io";
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "resources": resources, "verbs": ["create", "get", "update", "patch"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": verbs, "resourceNames": signers},
    ]);
    cluster.create(&format!("{group}/v1/clusterroles"), "", json!({"metadata": {"name": user}, "rules": rules})).await;
    let subject = json!([{"kind": "User", "name": user, "apiGroup": group}]);
    let binding = json!({"metadata": {"name": user}, "subjects": subject, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user}});
    cluster.create(&format!("{group}/v1/clusterrolebindings"), "", binding).await;
    cluster.user(UserInfo::new(user, ["devs"]))
}

#[tokio::test]
async fn an_approved_request_becomes_a_certificate() {
    let cluster = Cluster::new().await;
    let jane = role(&cluster, "jane", &["certificatesigningrequests"], &["approve"], json!(["example.com/*"])).await;
    let made = jane
        .create("certificates.k8s.io/v1/certificatesigningrequests", "", request("r", CLIENT, "devs", "jane"))
        .await;
    assert_eq!(
        (&made["spec"]["username"], &made["spec"]["groups"]),
        (&json!("jane"), &json!(["devs", "system:authenticated"]))
    );
    let approve = format!("PATCH {REQUESTS}/r/approval");
    assert_eq!(jane.refused(&approve, approved()).await.0, 403, "not the subresource");
    cluster.ok(&approve, approved()).await;
    let signed = until(&cluster, "r", |object| object["status"]["certificate"].is_string()).await;
    assert_eq!(signed["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    let pem = STANDARD.decode(signed["status"]["certificate"].as_str().unwrap()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let (_, ca) = x509_parser::pem::parse_x509_pem(cluster.server.ca_certificate_pem().as_bytes()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca.contents).unwrap();
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(certificate.subject().to_string(), "O=devs, CN=jane");
    assert_eq!(certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp(), 3_900);
    assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth && !certificate.is_ca());
    // What was decided stays.
    let table = [
        (json!({"status": {"conditions": []}}), "approval", "updates may not remove a condition of type \"Approved\""),
        (
            json!({"status": {"certificate": STANDARD.encode("x")}}),
            "status",
            "updates may not modify existing certificate content",
        ),
    ];
    for (patch, part, expected) in table {
        let (code, message) = cluster.refused(&format!("PATCH {REQUESTS}/r/{part}"), patch).await;
        assert_eq!((code, message.contains(expected)), (422, true), "{message}");
    }
}

#[tokio::test]
async fn deciding_and_signing_are_rights_on_the_signer() {
    let cluster = Cluster::new().await;
    let path = "certificates.k8s.io/v1/certificatesigningrequests";
    let parts =
        ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"];
    let jane = role(&cluster, "jane", &parts, &["approve", "sign"], json!(["example.com/*"])).await;
    cluster.create(path, "", request("theirs", CLIENT, "devs", "x")).await;
    cluster.create(path, "", request("ours", "example.com/own", "devs", "x")).await;
    let signed = json!({"status": {"certificate": STANDARD.encode("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n")}});
    let table = [
        (
            "theirs/approval",
            approved(),
            "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\"",
        ),
        ("theirs/status", signed.clone(), "user not permitted to sign requests with signerName"),
    ];
    for (part, patch, expected) in table {
        let (code, message) = jane.refused(&format!("PATCH {REQUESTS}/{part}"), patch).await;
        assert_eq!((code, message.contains(expected)), (403, true), "{message}");
    }
    jane.ok(&format!("PATCH {REQUESTS}/ours/approval"), approved()).await;
    jane.ok(&format!("PATCH {REQUESTS}/ours/status"), signed).await;
    let table = [
        (
            "ours/status",
            json!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}}),
            "may not add a condition of type \"Denied\"",
        ),
        (
            "theirs/approval",
            json!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}}),
            "mutually exclusive",
        ),
        (
            "theirs/approval",
            json!({"status": {"conditions": [{"type": "Denied", "status": "False"}]}}),
            "Unsupported value: \"False\": supported values: \"True\"",
        ),
    ];
    for (part, patch, expected) in table {
        let (code, message) = cluster.refused(&format!("PATCH {REQUESTS}/{part}"), patch).await;
        assert_eq!((code, message.contains(expected)), (422, true), "{message}");
    }
}

#[tokio::test]
async fn node_agents_need_nobody_and_the_rest_is_checked() {
    let cluster = Cluster::new().await;
    let path = "certificates.k8s.io/v1/certificatesigningrequests";
    let node =
        role(&cluster, "system:node:n", &["certificatesigningrequests"], &["approve"], json!(["example.com/none"]))
            .await;
    let node = node.user(UserInfo::new("system:node:n", ["system:nodes"]));
    node.create(path, "", request("own", NODE_CLIENT, "system:nodes", "system:node:n")).await;
    let own = until(&cluster, "own", |object| object["status"]["certificate"].is_string()).await;
    assert!(condition(&own, "Approved").unwrap().contains("Auto approving self kubelet client certificate"));
    // Another node's certificate is for somebody to approve; one that a signer does not sign says why.
    node.create(path, "", request("other", NODE_CLIENT, "system:nodes", "system:node:m")).await;
    cluster.create(path, "", request("bad", NODE_CLIENT, "devs", "jane")).await;
    cluster.ok(&format!("PATCH {REQUESTS}/bad/approval"), approved()).await;
    let bad = until(&cluster, "bad", |object| condition(object, "Failed").is_some()).await;
    assert!(
        condition(&bad, "Failed").unwrap().contains("\"SignerValidationFailure\" \"organization is not system:nodes\"")
    );
    assert_eq!(condition(&get(&cluster, "other").await, "Approved"), None);
    let refused = [
        (
            request("x", CLIENT, "system:masters", "jane"),
            403,
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        ),
        (
            request("x", "kubernetes.io/legacy-unknown", "d", "j"),
            422,
            "the legacy signerName is not allowed via this API version",
        ),
        (request("x", "signer", "d", "j"), 422, "must be a fully qualified domain and path"),
    ];
    for (body, code, part) in refused {
        let (found, message) = cluster.refused(&format!("POST {REQUESTS}"), body).await;
        assert_eq!((found, message.contains(part)), (code, true), "{message}");
    }
    let mut bad = request("x", CLIENT, "d", "j");
    bad["spec"]["request"] = STANDARD.encode("junk").into();
    bad["spec"]["usages"] = json!(["flying", "any", "any"]);
    bad["spec"]["expirationSeconds"] = 10.into();
    let (_, message) = cluster.refused(&format!("POST {REQUESTS}"), bad).await;
    for part in [
        "PEM block type must be CERTIFICATE REQUEST",
        "spec.usages[0]: Unsupported value",
        "spec.usages[2]: Duplicate",
        "600 seconds",
    ] {
        assert!(message.contains(part), "{message}");
    }
}
