//! Webhooks in this process, over TLS: well-behaved ones and others.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::site::{Said, Site};

/// A server of webhooks: what it does is in the path.
pub struct Hooks {
    port: u16,
    ca_bundle: String,
}

/// The review that answers another.
fn answer(review: &Value, response: Value) -> String {
    let mut response = response;
    if response["uid"].is_null() {
        response["uid"] = review["request"]["uid"].clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
}

fn patch(steps: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(steps.to_string())})
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let object = &review["request"]["object"];
    let text = match path.as_str() {
        "/allow" => answer(&review, json!({"allowed": true, "warnings": ["look at this"]})),
        "/label" => {
            answer(&review, patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"hooked": "yes"}}])))
        }
        "/container" => {
            let sidecar = json!({"name": "sidecar", "image": "proxy"});
            answer(&review, patch(json!([{"op": "add", "path": "/spec/containers/-", "value": sidecar}])))
        }
        // Counts how many containers it saw, last.
        "/count" => {
            let count = object["spec"]["containers"].as_array().map_or(0, Vec::len).to_string();
            answer(&review, patch(json!([{"op": "add", "path": "/metadata/annotations", "value": {"count": count}}])))
        }
        // Another command than the one that was asked for.
        "/command" => {
            let command = json!(["echo", "something", "else"]);
            answer(&review, patch(json!([{"op": "replace", "path": "/command", "value": command}])))
        }
        "/refuse" => answer(
            &review,
            json!({"allowed": false, "status": {"message": "not on my watch", "code": 403, "reason": "Forbidden"}}),
        ),
        "/convert" => crate::conversion::convert(&review),
        "/liar" => answer(&review, json!({"uid": "another", "allowed": true})),
        "/garbage" => "<html>".to_owned(),
        "/huge" => "x".repeat(4 << 20),
        "/error" => return Ok(Response::builder().status(500).body(Full::from("oops")).unwrap()),
        "/bad-patch" => answer(&review, patch(json!([{"op": "remove", "path": "/not/there"}]))),
        _ => std::future::pending().await,
    };
    Ok(Response::new(Full::from(text)))
}

impl Hooks {
    pub async fn open() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".into(), "hook.default.svc".into()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service_fn(respond)).await;
                });
            }
        });
        Self { port, ca_bundle: STANDARD.encode(made.cert.pem()) }
    }

    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.ca_bundle})
    }

    /// A webhook for a kind of the core group.
    fn hook(&self, path: &str, resource: &str, more: Value) -> Value {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]});
        let name = format!("{}.example.com", path.trim_start_matches('/'));
        let mut hook = json!({
            "name": name, "clientConfig": self.client(path), "rules": [rule], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        });
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hook
    }
}

const BASE: &str = "/apis/admissionregistration.k8s.io/v1";

async fn configure(site: &Site, kind: &str, hooks: Vec<Value>) {
    let object = json!({"metadata": {"name": "hooks"}, "webhooks": hooks});
    site.post(&format!("{BASE}/{kind}webhookconfigurations"), object).await;
}

async fn unconfigure(site: &Site, kind: &str) {
    site.request("DELETE", &format!("{BASE}/{kind}webhookconfigurations/hooks"), "", Value::Null).await;
}

async fn create(site: &Site, name: &str) -> Said {
    site.kubectl(&format!("create configmap {name}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_change_what_is_created() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    configure(&site, "mutating", vec![hooks.hook("/label", "configmaps", json!({}))]).await;
    assert_eq!(create(&site, "one").await.code, 0);
    site.says("get configmap one -o jsonpath={.metadata.labels.hooked}", "yes").await;
    unconfigure(&site, "mutating").await;
    assert_eq!(create(&site, "two").await.code, 0);
    site.says("get configmap two -o jsonpath=labels:{.metadata.labels}.", "labels:.").await;
    // Who counts first is asked again after somebody else added a container; the token is mounted in that one, too.
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let both = vec![hooks.hook("/count", "pods", again), hooks.hook("/container", "pods", json!({}))];
    configure(&site, "mutating", both).await;
    site.post(
        "/api/v1/namespaces/default/pods",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}),
    )
    .await;
    site.says("get pod p -o jsonpath={.metadata.annotations.count}", "2").await;
    let mount = "/var/run/secrets/kubernetes.io/serviceaccount";
    site.says("get pod p -o jsonpath={.spec.containers[1].volumeMounts[0].mountPath}", mount).await;
    site.says("get pod p -o jsonpath={.spec.containers[1].imagePullPolicy}", "Always").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_webhooks_refuse_and_warn() {
    for site in Site::for_each_kubectl().await {
        let hooks = Hooks::open().await;
        let selected = json!({"objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}});
        let named = json!({"matchConditions": [{"name": "not-kind", "expression": "object.metadata.name != 'kind'"}]});
        let all = vec![hooks.hook("/allow", "configmaps", json!({})), hooks.hook("/refuse", "configmaps", json!({}))];
        let all = all.into_iter().map(|mut hook| {
            hook.as_object_mut().unwrap().extend(selected.as_object().unwrap().clone());
            hook.as_object_mut().unwrap().extend(named.as_object().unwrap().clone());
            hook
        });
        configure(&site, "validating", all.collect()).await;
        let said = create(&site, "one").await;
        let refusal = "admission webhook \"refuse.example.com\" denied the request: not on my watch";
        assert!(said.code == 1 && said.err.contains(refusal), "{said:?}");
        assert!(said.err.contains("look at this"), "{said:?}");
        assert_eq!(create(&site, "kind").await.code, 0, "a condition leaves it out");
        let free = json!({"metadata": {"name": "free", "labels": {"free": "yes"}}});
        site.post("/api/v1/namespaces/default/configmaps", free).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_fail_are_handled_by_policy() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    let strange = STANDARD.encode(rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem());
    let wrong_ca =
        json!({"clientConfig": {"url": format!("https://127.0.0.1:{}/allow", hooks.port), "caBundle": strange}});
    let nobody = json!({"clientConfig": {"service": {"name": "none", "namespace": "default", "path": "/x"}, "caBundle": strange}});
    for (path, more, part) in [
        ("/hang", json!({}), "context deadline exceeded"),
        ("/liar", json!({}), "received invalid webhook response: expected response.uid="),
        ("/garbage", json!({}), "couldn't decode"),
        ("/huge", json!({}), "at most 3145728 bytes"),
        ("/error", json!({}), "the webhook answered 500 Internal Server Error: oops"),
        ("/allow", wrong_ca, "tls: "),
        ("/allow", nobody, "service \"none\" not found"),
    ] {
        for kind in ["mutating", "validating"] {
            let mut hook = hooks.hook(path, "configmaps", more.clone());
            let name = hook["name"].as_str().unwrap().to_owned();
            configure(&site, kind, vec![hook.clone()]).await;
            let begun = Instant::now();
            let said = create(&site, "one").await;
            let lead = format!("Internal error occurred: failed calling webhook \"{name}\": ");
            assert!(said.code == 1 && said.err.contains(&lead) && said.err.contains(part), "{kind} {path}: {said:?}");
            assert!(begun.elapsed() < Duration::from_secs(6), "{kind} {path}");
            unconfigure(&site, kind).await;
            hook["failurePolicy"] = "Ignore".into();
            configure(&site, kind, vec![hook]).await;
            let said = create(&site, "one").await;
            assert_eq!(said.code, 0, "{kind} {path}: {said:?}");
            unconfigure(&site, kind).await;
            site.says("delete configmap one", "deleted").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_behind_services_and_bad_patches() {
    let (site, hooks) = (Site::open().await, Hooks::open().await);
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    site.post("/api/v1/namespaces/default/services", service).await;
    let slice = json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "https", "port": hooks.port, "protocol": "TCP"}], "endpoints": [{"addresses": ["127.0.0.1"]}],
    });
    site.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    let client = json!({"clientConfig": {"service": {"name": "hook", "namespace": "default", "path": "/refuse"}, "caBundle": hooks.ca_bundle}});
    configure(&site, "validating", vec![hooks.hook("/refuse", "configmaps", client)]).await;
    let said = create(&site, "one").await;
    assert!(said.err.contains("denied the request: not on my watch"), "{said:?}");
    unconfigure(&site, "validating").await;
    configure(&site, "mutating", vec![hooks.hook("/bad-patch", "configmaps", json!({}))]).await;
    let said = create(&site, "one").await;
    assert!(said.code == 1 && said.err.contains("Internal error occurred"), "{said:?}");
    unconfigure(&site, "mutating").await;
    let connect = json!({
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/*"]}],
        "matchConditions": [{"name": "exec", "expression": "request.kind.kind == 'PodExecOptions' && object.command[0] == 'sh'"}],
    });
    site.running_pod("p", &["main"]).await;
    configure(&site, "validating", vec![hooks.hook("/refuse", "pods", connect)]).await;
    let said = site.kubectl("exec p -- sh").await;
    assert!(said.code == 1 && said.err.contains("not on my watch"), "{said:?}");
    let said = site.kubectl("exec p -- true").await;
    assert!(!said.err.contains("not on my watch"), "{said:?}");
    unconfigure(&site, "validating").await;
    let rules = json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]});
    configure(&site, "mutating", vec![hooks.hook("/command", "pods", rules)]).await;
    site.says("exec p -- echo hello", "something else").await;
    unconfigure(&site, "mutating").await;
    // A webhook for everything cannot lock the door to its own configuration.
    let everything =
        json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]});
    configure(&site, "validating", vec![hooks.hook("/refuse", "*", everything)]).await;
    let said = site.kubectl("delete service hook").await;
    assert!(said.code == 1 && said.err.contains("not on my watch"), "{said:?}");
    unconfigure(&site, "validating").await;
    site.says("delete service hook", "deleted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_what_webhooks_did() {
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Request, \
                  resources: [{group: '', resources: [configmaps]}]}]}";
    let (site, hooks) = (Site::with_file("audit-policy.yaml", policy).await, Hooks::open().await);
    let broken = hooks.hook("/garbage", "configmaps", json!({"failurePolicy": "Ignore"}));
    configure(&site, "mutating", vec![broken.clone(), hooks.hook("/label", "configmaps", json!({}))]).await;
    configure(&site, "validating", vec![broken]).await;
    assert_eq!(create(&site, "one").await.code, 0);
    let log = site.directory.path().join("state/audit/audit.log");
    let read = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(event) = text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let event = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the log says nothing");
    let note = |key: &str| event["annotations"][format!("{key}.admission.k8s.io/round_0_index_1")].clone();
    let said = |key: &str| serde_json::from_str::<Value>(note(key).as_str().unwrap()).unwrap();
    let hook = json!({"configuration": "hooks", "webhook": "label.example.com"});
    let with = |more: Value| {
        let mut hook = hook.clone();
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hook
    };
    let steps = json!([{"op": "add", "path": "/metadata/labels", "value": {"hooked": "yes"}}]);
    assert_eq!(said("mutation.webhook"), with(json!({"mutated": true})));
    assert_eq!(said("patch.webhook"), with(json!({"patch": steps, "patchType": "JSONPatch"})));
    for kind in ["mutating", "validating"] {
        let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_0_index_0");
        assert_eq!(event["annotations"][key], "garbage.example.com", "{event}");
    }
}
