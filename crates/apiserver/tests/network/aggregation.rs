//! A group version that a server of this process answers for, behind a Service of the cluster.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isopod_apiserver::UserInfo;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::Kubectl;
use crate::site::Site;

const GROUP: &str = "/apis/demo.example.com/v1";
const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.demo.example.com";

/// The extension: one kind, whose objects say who asked.
fn respond(request: &Request<Incoming>, is_well: bool) -> (u16, Value) {
    let headers = request.headers();
    let said =
        |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect() };
    let (user, groups) = (said("x-remote-user"), said("x-remote-group"));
    match request.uri().path() {
        _ if !is_well => (500, json!({})),
        GROUP => (
            200,
            json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "demo.example.com/v1",
                "resources": [
                    {"name": "guests", "singularName": "guest", "namespaced": true, "kind": "Guest", "verbs": ["get", "list"], "shortNames": ["gu"]},
                    {"name": "guests/status", "singularName": "", "namespaced": true, "kind": "Guest", "verbs": ["get"]},
                ],
            }),
        ),
        "/openapi/v3" => (200, json!({"paths": {"apis/demo.example.com/v1": {"serverRelativeURL": "/x"}}})),
        "/openapi/v2" => (200, openapi_v2()),
        "/openapi/v3/apis/demo.example.com/v1" => (200, json!({"openapi": "3.0.0"})),
        path if path.starts_with(&format!("{GROUP}/namespaces/")) => (
            200,
            json!({
                "kind": "Guest", "apiVersion": "demo.example.com/v1", "metadata": {"name": "me", "namespace": "default"},
                "user": user, "groups": groups, "extra": said("x-remote-extra-a%2fb"), "authorization": said("authorization"),
                "host": said("host"), "query": request.uri().query(),
            }),
        ),
        _ => (404, json!({})),
    }
}

/// Says something of a group version that is not its own, and means something else by a name than this server.
fn openapi_v2() -> Value {
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let refers = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
    let get = |name: &str| json!({"get": {"operationId": name, "responses": {"200": {"description": "OK", "schema": refers(name)}}}});
    let kind = json!([{"group": "demo.example.com", "version": "v1", "kind": "Guest"}]);
    json!({
        "swagger": "2.0", "info": {"title": "demo", "version": "v1"},
        "paths": {
            format!("{GROUP}/namespaces/{{namespace}}/guests/{{name}}"): get("com.example.demo.Guest"),
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}": get("com.example.demo.Thief"),
        },
        "definitions": {
            "com.example.demo.Guest": {
                "type": "object", "description": "Somebody who stays.", "x-kubernetes-group-version-kind": kind,
                "properties": {
                    "metadata": refers(meta),
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                    "room": {"type": "string", "description": "Where to find them."},
                },
            },
            "com.example.demo.Thief": {"type": "object"},
            meta: {"type": "object", "description": "Another idea of it."},
        },
    })
}

struct Extension {
    port: u16,
    ca_bundle: String,
    is_well: Arc<AtomicBool>,
}

/// Believes who the site says it is, by the certificates that the site publishes.
async fn open(site: &Site) -> Extension {
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published = site.request("GET", path, "", Value::Null).await;
    let data = &published["data"];
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    let mut roots = RootCertStore::empty();
    let ca = data["requestheader-client-ca-file"].as_str().unwrap();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let made = rcgen::generate_simple_self_signed(["demo.default.svc".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        config.with_client_cert_verifier(verifier).with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, well) = (acceptor.clone(), Arc::clone(&well));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (code, value) = respond(&request, well.load(Ordering::SeqCst));
                    let body = Full::new(Bytes::from(value.to_string()));
                    let response =
                        Response::builder().status(code).header("content-type", "application/json").body(body);
                    async move { Ok::<_, Infallible>(response.unwrap()) }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Extension { port, ca_bundle: STANDARD.encode(made.cert.pem()), is_well }
}

fn api_service(ca_bundle: &str) -> Value {
    json!({
        "metadata": {"name": "v1.demo.example.com"},
        "spec": {
            "group": "demo.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
            "caBundle": ca_bundle, "service": {"namespace": "default", "name": "demo", "port": 443},
        },
    })
}

/// Waits until the condition has this status and reason; its message.
async fn reaches(site: &Site, status: &str, reason: &str) -> String {
    let reached = async {
        loop {
            let object = site.request("GET", SERVICE, "", Value::Null).await;
            let condition = &object["status"]["conditions"][0];
            if condition["status"] == status && condition["reason"] == reason {
                return condition["message"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap_or_else(|_| panic!("never {status} {reason}"))
}

async fn ask(site: &Site, user: &UserInfo, line: &str) -> (u16, Option<Value>) {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path).header("authorization", "Bearer secret");
    let request = request.header("x-remote-user", "root").header("x-remote-group", "system:masters");
    let (code, _, body) = site.ask(user, request.body(String::new()).unwrap()).await;
    (code, serde_json::from_str(&body.unwrap()).ok())
}

/// A Service with a ready endpoint, and the registration.
async fn registered() -> (Site, Extension) {
    let site = Site::open().await;
    let extension = open(&site).await;
    site.post("/apis/apiregistration.k8s.io/v1/apiservices", api_service(&extension.ca_bundle)).await;
    let text = reaches(&site, "False", "ServiceNotFound").await;
    assert_eq!(text, "service/demo in \"default\" is not present");
    let service = json!({"metadata": {"name": "demo"}, "spec": {"ports": [{"port": 443}]}});
    site.post("/api/v1/namespaces/default/services", service).await;
    reaches(&site, "False", "MissingEndpoints").await;
    let slice = json!({
        "metadata": {"name": "demo-1", "labels": {"kubernetes.io/service-name": "demo"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": extension.port}], "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    site.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    assert_eq!(reaches(&site, "True", "Passed").await, "all checks passed");
    (site, extension)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_answers_and_knows_who_asks() {
    let (site, extension) = registered().await;
    let mut jane = UserInfo::new("jane", ["guests"]);
    let line = format!("GET {GROUP}/namespaces/default/guests/me?a=b");
    assert_eq!(ask(&site, &jane, &line).await.0, 403, "rights are asked for here first");
    let rules = json!([{"apiGroups": ["demo.example.com"], "resources": ["guests"], "verbs": ["get"]}]);
    site.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", json!({"metadata": {"name": "g"}, "rules": rules}))
        .await;
    let binding = json!({
        "metadata": {"name": "g"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "g"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    site.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    jane.extra.insert("a/b".into(), vec!["x".into(), "y".into()]);
    let (code, guest) = ask(&site, &jane, &line).await;
    let guest = guest.unwrap();
    assert_eq!(
        (code, &guest["user"], &guest["groups"]),
        (200, &json!(["jane"]), &json!(["guests", "system:authenticated"]))
    );
    assert_eq!(
        (&guest["extra"], &guest["authorization"], &guest["query"]),
        (&json!(["x", "y"]), &json!([]), &json!("a=b"))
    );
    assert_eq!(guest["host"], json!(["demo.default.svc:443"]));
    let admin = UserInfo::new("admin", ["system:masters"]);
    let (code, document) = ask(&site, &admin, "GET /openapi/v3/apis/demo.example.com/v1").await;
    assert_eq!((code, document), (200, Some(json!({"openapi": "3.0.0"}))));
    // One that fails is asked no longer than until the next look.
    extension.is_well.store(false, Ordering::SeqCst);
    let patch = json!({"spec": {"versionPriority": 16}});
    site.request("PATCH", SERVICE, "application/merge-patch+json", patch).await;
    let text = reaches(&site, "False", "FailedDiscoveryCheck").await;
    assert!(text.contains("bad status from https://demo.default.svc:443/apis/demo.example.com/v1: 500"), "{text}");
    assert_eq!(ask(&site, &admin, &line).await, (503, None));
    site.request("DELETE", SERVICE, "", Value::Null).await;
    let gone = async { while ask(&site, &admin, &line).await.0 != 404 {} };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_shows_what_others_serve() {
    let (site, _extension) = registered().await;
    let admin = UserInfo::new("admin", ["system:masters"]);
    let groups = ask(&site, &admin, "GET /apis").await.1.unwrap();
    let own = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "demo.example.com").unwrap();
    assert_eq!(own["preferredVersion"]["groupVersion"], "demo.example.com/v1");
    let request = Request::builder().uri("/apis");
    let request = request.header("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let (_, _, body) = site.ask(&admin, request.body(String::new()).unwrap()).await;
    let document: Value = serde_json::from_str(&body.unwrap()).unwrap();
    let item = document["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "demo.example.com");
    let kind = json!({"group": "demo.example.com", "version": "v1", "kind": "Guest"});
    let expected = json!([{
        "resource": "guests", "responseKind": kind, "singularResource": "guest", "scope": "Namespaced",
        "verbs": ["get", "list"], "shortNames": ["gu"],
        "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}],
    }]);
    assert_eq!(
        (&item.unwrap()["versions"][0]["resources"], &item.unwrap()["versions"][0]["freshness"]),
        (&expected, &json!("Current"))
    );
    let index = ask(&site, &admin, "GET /openapi/v3").await.1.unwrap();
    assert!(index["paths"]["apis/demo.example.com/v1"].is_object());
    let Some(_) = Kubectl::newest() else { return };
    site.says("get gu me -o jsonpath={.user}", "kubernetes-admin").await;
    site.says("get apiservices v1.demo.example.com", "default/demo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_has_what_others_say_of_their_own() {
    let (site, extension) = registered().await;
    let admin = UserInfo::new("admin", ["system:masters"]);
    let has = async || {
        let document = ask(&site, &admin, "GET /openapi/v2").await.1.unwrap();
        document["definitions"]["com.example.demo.Guest"].is_object()
    };
    let document = ask(&site, &admin, "GET /openapi/v2").await.1.unwrap();
    let (paths, definitions) = (&document["paths"], &document["definitions"]);
    assert!(paths[format!("{GROUP}/namespaces/{{namespace}}/guests/{{name}}")].is_object());
    assert_eq!(definitions["com.example.demo.Thief"], Value::Null);
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert_eq!(
        (&definitions[format!("{meta}_v2")]["description"], &definitions[meta]["properties"]["name"]["type"]),
        (&json!("Another idea of it."), &json!("string"))
    );
    assert_eq!(
        definitions["com.example.demo.Guest"]["properties"]["metadata"],
        json!({"$ref": format!("#/definitions/{meta}_v2")})
    );
    let own = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["get"]["responses"]["200"]["schema"];
    assert_eq!(own["$ref"], "#/definitions/io.k8s.api.apps.v1.Deployment");
    if Kubectl::newest().is_some() {
        site.says("explain guests.room --output plaintext-openapiv2", "Where to find them.").await;
    }
    // Of one that is down stays what it said last; of one that is gone, nothing.
    extension.is_well.store(false, Ordering::SeqCst);
    site.request("DELETE", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/demo-1", "", Value::Null).await;
    reaches(&site, "False", "MissingEndpoints").await;
    assert!(has().await);
    site.request("DELETE", SERVICE, "", Value::Null).await;
    let gone = async { while has().await {} };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_server_serves_is_listed_and_stays_its_own() {
    let site = Site::open().await;
    let list = async || {
        let list = site.request("GET", "/apis/apiregistration.k8s.io/v1/apiservices", "", Value::Null).await;
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        list["items"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    let names = list().await;
    assert!(
        ["v1.", "v1.apps", "v2.autoscaling"].iter().all(|name| names.iter().any(|known| known == name)),
        "{names:?}"
    );
    let core = site.request("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.", "", Value::Null).await;
    assert_eq!(
        (&core["status"]["conditions"][0]["reason"], &core["spec"]["groupPriorityMinimum"]),
        (&json!("Local"), &json!(18_000))
    );
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({
        "metadata": {"name": "racks.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "racks", "kind": "Rack"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    site.post(definitions, definition).await;
    let custom = "v1.stable.example.com".to_owned();
    let listed = async |expected: bool| {
        let listed = async { while list().await.contains(&custom) != expected {} };
        tokio::time::timeout(Duration::from_secs(10), listed).await.unwrap();
    };
    listed(true).await;
    site.request("DELETE", &format!("{definitions}/racks.stable.example.com"), "", Value::Null).await;
    listed(false).await;
    // Nobody takes away what the server is made of.
    let taken = json!({"spec": {"insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "x"}}});
    let apps = "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps";
    site.request("PATCH", apps, "application/merge-patch+json", taken).await;
    site.request("GET", "/apis/apps/v1/deployments", "", Value::Null).await;
}
