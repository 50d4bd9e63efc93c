//! Requests to pods and Services through the API server, answered by a server of this process.

use std::convert::Infallible;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isopod_apiserver::UserInfo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::site::Site;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PAGE: &str = "<html><a href=\"/next\">next</a><img src=\"pic.png\"></html>";

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

fn whole(builder: http::response::Builder, body: impl Into<Bytes>) -> Answer {
    builder.body(Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed()).unwrap()
}

/// What a request looks like from here.
async fn echo(request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "body": String::from_utf8_lossy(&body),
        "authorization": header("authorization"), "user": header("x-remote-user"), "kept": header("x-kept"),
        "forwarded": header("x-forwarded-uri"), "connection": header("connection"), "hop": header("x-hop"),
    });
    whole(Response::builder().header("access-control-allow-origin", "*"), seen.to_string())
}

async fn serve(mut request: Request<Incoming>) -> Result<Answer, Infallible> {
    Ok(match request.uri().path() {
        "/moved" => whole(Response::builder().status(302).header("location", "/next?a=b"), ""),
        "/page" => whole(Response::builder().header("content-type", "text/html; charset=utf-8"), PAGE),
        "/packed" => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(PAGE.as_bytes()).unwrap();
            let builder = Response::builder().header("content-type", "text/html").header("content-encoding", "gzip");
            whole(builder, packed.finish().unwrap())
        }
        "/cut" => {
            let begun = async { Ok(Frame::data(Bytes::from_static(b"begun"))) };
            // What has begun is sent while the rest is awaited.
            let rest = async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            };
            let chunks = futures::stream::once(begun).chain(futures::stream::once(rest));
            Response::new(BodyExt::boxed(StreamBody::new(chunks)))
        }
        "/socket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let stream = TokioIo::new(upgrade.await.unwrap());
                let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        let upper = message.to_text().unwrap().to_uppercase();
                        socket.send(Message::text(upper)).await.unwrap();
                    }
                }
            });
            let builder =
                Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
            whole(builder, "")
        }
        _ => echo(request).await,
    })
}

/// The port of a server that serves.
async fn open() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let http = hyper::server::conn::http1::Builder::new();
            let connection = http.serve_connection(TokioIo::new(socket), service_fn(serve)).with_upgrades();
            tokio::spawn(async move { connection.await.is_ok() });
        }
    });
    port
}

fn admin() -> UserInfo {
    UserInfo::new("admin", ["system:masters"])
}

async fn ask(site: &Site, method: &str, path: &str) -> (u16, http::HeaderMap, Option<String>) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "api").header("x-kept", "yes").header("authorization", "Bearer secret");
    let request = request.header("x-remote-user", "root").header("connection", "x-hop").header("x-hop", "1");
    site.ask(&admin(), request.body("hello".to_owned()).unwrap()).await
}

async fn message(site: &Site, method: &str, path: &str) -> (u16, String) {
    let (code, _, body) = ask(site, method, path).await;
    let status: Value = serde_json::from_str(&body.unwrap()).unwrap();
    (code, status["message"].as_str().unwrap().to_owned())
}

/// A pod and a Service in front of it.
async fn site() -> (Site, u16) {
    let (site, port) = (Site::open().await, open().await);
    site.running_pod("p", &["main"]).await;
    site.post(SERVICES, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}})).await;
    (site, port)
}

async fn slice(site: &Site, name: &str, port: u16, endpoint: Value) {
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "ports": [{"name": "web", "port": port}], "endpoints": [endpoint],
    });
    site.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_asked_with_any_method_and_path() {
    let (site, port) = site().await;
    let base = format!("{PODS}/p:{port}/proxy");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let (code, headers, body) = ask(&site, method, &format!("{base}/a%2Fb//c/?d=%20e")).await;
        let seen: Value = serde_json::from_str(&body.unwrap()).unwrap();
        let expected = json!({
            "method": method, "uri": "/a%2Fb//c/?d=%20e", "body": "hello", "authorization": null, "user": null,
            "kept": "yes", "forwarded": format!("{base}/a%2Fb//c/"), "connection": null, "hop": null,
        });
        assert_eq!((code, seen), (200, expected), "{method}");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    let (code, headers, body) = ask(&site, "GET", &format!("{base}?x=y")).await;
    assert_eq!(
        (code, headers["location"].to_str().unwrap(), body),
        (301, format!("{base}/?x=y").as_str(), Some(String::new()))
    );
    assert_eq!(ask(&site, "HEAD", &format!("{base}/")).await.0, 200);
    let (code, headers, _) = ask(&site, "GET", &format!("{base}/moved")).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (302, format!("{base}/next?a=b").as_str()));
    for page in ["page", "packed"] {
        let (_, _, body) = ask(&site, "GET", &format!("{base}/{page}")).await;
        assert_eq!(body.unwrap(), PAGE.replace("/next", &format!("{base}/next")), "{page}");
    }
    assert_eq!(ask(&site, "GET", &format!("{base}/cut")).await.2, None, "what broke off is not whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_lead_to_ready_pods_only() {
    let (site, port) = site().await;
    let path = |name: &str| format!("{SERVICES}/{name}/proxy/x");
    let pod = json!({"kind": "Pod", "name": "p", "namespace": "default"});
    slice(&site, "unready", port, json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "targetRef": pod}))
        .await;
    slice(&site, "foreign", port, json!({"addresses": ["10.0.0.2"], "targetRef": pod})).await;
    slice(&site, "nobody", port, json!({"addresses": ["10.0.0.1"]})).await;
    let table = [
        ("s:web", 503, "no endpoints available for service \"s:web\""),
        ("s:81", 503, "no service port 81 found for service \"s\""),
        ("x", 404, "services \"x\" not found"),
        ("ftp:s:80", 400, "invalid services request \"ftp:s:80\""),
    ];
    for (name, code, part) in table {
        let (found, message) = message(&site, "GET", &path(name)).await;
        assert_eq!((found, message.contains(part)), (code, true), "{name}: {message}");
    }
    slice(&site, "ready", port, json!({"addresses": ["10.0.0.1"], "targetRef": pod})).await;
    for name in ["s:web", "s:80", "http:s:web"] {
        let (code, _, body) = ask(&site, "GET", &path(name)).await;
        assert_eq!((code, body.unwrap().contains("\"uri\":\"/x\"")), (200, true), "{name}");
    }
    assert_eq!(message(&site, "GET", &path("s")).await.0, 503, "a port that has a name is asked for");
    // Nothing speaks TLS there.
    let (code, text) = message(&site, "GET", &path("https:s:web")).await;
    assert_eq!((code, text.contains("error trying to reach service: tls:")), (503, true), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_serve_nothing_are_asked_all_the_same() {
    let (site, _) = site().await;
    for node in ["node-1", "gone"] {
        site.post("/api/v1/nodes", json!({"metadata": {"name": node}})).await;
    }
    let get = async |line: &str| {
        let said = site.kubectl(&format!("get --raw /api/v1/nodes/{line}")).await;
        if said.code == 0 { said.out } else { said.err }
    };
    assert_eq!(get("node-1/proxy/healthz").await, "ok");
    let pods: Value = serde_json::from_str(&get("node-1/proxy/pods").await).unwrap();
    assert_eq!((&pods["kind"], &pods["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("p")));
    let summary: Value = serde_json::from_str(&get("node-1/proxy/stats/summary").await).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["uid"], pods["items"][0]["metadata"]["uid"]);
    assert!(get("node-1/proxy/metrics/resource").await.contains("pod_memory_working_set_bytes{"));
    assert!(get("node-1/proxy/none").await.contains("could not find the requested resource"));
    assert!(get("gone/proxy/healthz").await.contains("no such node"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_to_this_host_or_past_his_rights() {
    let (site, _) = site().await;
    for address in ["127.0.0.1", "169.254.169.254", "::1", ""] {
        site.status(&format!("{PODS}/p"), json!({"podIP": address, "podIPs": [{"ip": address}]})).await;
        let (code, text) = message(&site, "GET", &format!("{PODS}/p:6443/proxy/")).await;
        assert_eq!((code, text.as_str()), (400, "address not allowed"), "{address}");
    }
    // Method by method, as RBAC knows verbs.
    let rules = json!([{"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "looker"}, "rules": rules});
    site.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role).await;
    let binding = json!({
        "metadata": {"name": "looker"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looker"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    site.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    let jane = UserInfo::new("jane", [] as [&str; 0]);
    for (method, code) in [("GET", 400), ("HEAD", 400), ("POST", 403), ("DELETE", 403)] {
        let request = Request::builder().method(method).uri(format!("{PODS}/p/proxy/")).body(String::new()).unwrap();
        assert_eq!(site.ask(&jane, request).await.0, code, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_go_through() {
    let (site, port) = site().await;
    let token = site.token("admin").await;
    let mut stream = site.connect().await;
    let head = format!(
        "GET {PODS}/p:{port}/proxy/socket HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\nConnection: \
         Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for word in ["one", "two"] {
        socket.send(Message::text(word)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(word.to_uppercase()));
    }
    // What is no upgrade there is an answer like any other.
    let (code, _, _) = ask(&site, "GET", &format!("{PODS}/p:1/proxy/socket")).await;
    assert_eq!(code, 503);
}
