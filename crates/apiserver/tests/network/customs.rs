//! Custom kinds with kubectl: what people do with an operator's definitions.

use serde_json::json;

use crate::site::Site;

const DEFINITION: &str = include_str!("definition.yaml");

fn certificate(name: &str, spec: &str) -> String {
    format!("apiVersion: keys.example.org/v1\nkind: Certificate\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// What a command with input says on either stream, and whether it succeeds.
async fn fed(site: &Site, line: &str, input: &str) -> (bool, String) {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let said = site.kubectl_with(&arguments, input).await;
    (said.code == 0, format!("{}{}", said.out, said.err))
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_with_custom_kinds() {
    for site in Site::for_each_kubectl().await {
        let check = async |line: &str, input: &str, succeeds: bool, part: &str| {
            let (success, text) = fed(&site, line, input).await;
            assert!(success == succeeds && text.contains(part), "{}: {line}: {text}", site.client.name);
        };
        check("apply -f -", DEFINITION, true, "certificates.keys.example.org created").await;
        check("wait --for=condition=Established crd/certificates.keys.example.org", "", true, "condition met").await;
        check("api-resources --api-group=keys.example.org", "", true, "Certificate").await;
        check("explain cert.spec", "", true, "What the certificate is for.").await;
        check("explain cert.spec.secretName", "", true, "Where the key and the certificate are kept.").await;
        check("explain cert.metadata.labels", "", true, "labels").await;
        let good = certificate("web", "{secretName: web, issuerRef: {name: ca}, dnsNames: [a.example.org]}");
        check("apply -f -", &good, true, "certificate.keys.example.org/web created").await;
        check("apply -f -", &good, true, "certificate.keys.example.org/web unchanged").await;
        let changed = good.replace("a.example.org", "b.example.org");
        check("apply -f -", &changed, true, "certificate.keys.example.org/web configured").await;
        check("get cert", "", true, "NAME").await;
        check(
            "get cert web -o jsonpath={.spec.issuerRef.kind}/{.spec.copies}/{.spec.dnsNames}",
            "",
            true,
            "Issuer/1/[",
        )
        .await;
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        site.status("/apis/keys.example.org/v1/namespaces/default/certificates/web", status).await;
        check("get cert --no-headers", "", true, "web   True   web").await;
        check("wait --for=condition=Ready cert/web", "", true, "condition met").await;
        check("scale cert web --replicas=3", "", true, "scaled").await;
        check("get cert web -o wide --no-headers", "", true, "web   True   web   3").await;
        check("get cert --field-selector=spec.secretName=other", "", true, "No resources found").await;
        check("label cert web a=b", "", true, "labeled").await;
        check("describe cert web", "", true, "Secret Name:  web").await;
        let refused = [
            // kubectl 1.20 checks this itself, in its own words.
            ("{secretName: x}", "issuerRef"),
            ("{secretName: '', issuerRef: {name: ca}}", "should be at least 1 chars long"),
            ("{secretName: x, issuerRef: {name: ca}, privateKey: {algorithm: DSA}}", "\"DSA\""),
            (
                "{secretName: x, issuerRef: {name: ca}, dnsNames: [a.org, a.org]}",
                "spec.dnsNames[1]: Duplicate value: \"a.org\"",
            ),
            ("{secretName: x, issuerRef: {name: ca}, nonsense: 1}", "nonsense"),
            ("{secretName: x, issuerRef: {name: ca}, privateKey: {algorithm: RSA, size: 512}}", "2048 bits at least"),
            ("{secretName: x, issuerRef: {name: ca}, dnsNames: [a.example.com]}", "names end in .org"),
        ];
        for (spec, part) in refused {
            check("create -f -", &certificate("bad", spec), false, part).await;
        }
        check("patch cert web --type=merge -p {\"spec\":{\"copies\":-1}}", "", false, "greater than or equal to 0")
            .await;
        check("patch cert web --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/dnsNames\"}]", "", true, "patched")
            .await;
        check("delete cert web", "", true, "deleted").await;
        check("apply -f -", &good, true, "created").await;
        check("delete crd certificates.keys.example.org", "", true, "deleted").await;
        check("get cert", "", false, "the server").await;
    }
}
