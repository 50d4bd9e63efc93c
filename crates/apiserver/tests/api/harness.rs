//! A server in memory, a clock that the test moves, and requests as one line of text.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use isopod_apiserver::{ApiServer, Body, Clock, Config, InProcess, OpenError, UserInfo};
use isopod_store::Limits;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::Service;

/// A server and an identity to ask it with.
#[derive(Clone)]
pub struct Cluster {
    pub server: Arc<ApiServer>,
    seconds: Arc<AtomicI64>,
    door: InProcess,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }
}

/// Start of the test's time: 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600;

impl Cluster {
    pub async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// With a store that gives up earlier.
    pub async fn with_limits(limits: Limits) -> Self {
        let cluster = Self::open_in(None, limits).await;
        cluster.create("serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await;
        cluster
    }

    /// Over what an earlier server left in a directory. That one may still be closing.
    pub async fn in_directory(directory: &std::path::Path) -> Self {
        Self::open_in(Some(directory.to_owned()), Limits::default()).await
    }

    async fn open_in(state_directory: Option<std::path::PathBuf>, store_limits: Limits) -> Self {
        Self::open_with(Config { state_directory, store_limits, ..Config::default() }).await
    }

    /// With settings of its own; the clock is the test's.
    pub async fn open_with(config: Config) -> Self {
        let seconds = Arc::new(AtomicI64::new(BEGIN));
        let clock = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap());
        let config = Config { clock, ..config };
        let opened = async {
            loop {
                match ApiServer::open(config.clone()).await {
                    Err(OpenError::Store(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let server = tokio::time::timeout(Duration::from_secs(10), opened).await.unwrap();
        let door = server.in_process(UserInfo::new("admin", ["system:masters"]));
        Self { server, seconds, door }
    }

    pub fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The same server for another user.
    pub fn user(&self, user: UserInfo) -> Self {
        Self { door: self.server.in_process(user), ..self.clone() }
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Body> {
        let Ok(response) = self.door.clone().call(request).await;
        response
    }

    pub async fn open(&self, line: &str, headers: &[(&str, &str)], body: &str) -> http::Response<Body> {
        let (method, url) = line.split_once(' ').expect("a request line is METHOD URL");
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::from(body.to_owned())).unwrap()).await
    }

    /// Code, media type and bytes of an answer to bytes.
    pub async fn bytes(&self, line: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String, Bytes) {
        let (method, url) = line.split_once(' ').expect("a request line is METHOD URL");
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, body) = self.send(request.body(Full::from(body)).unwrap()).await.into_parts();
        let media = parts.headers.get("content-type").map_or("", |media| media.to_str().unwrap()).to_owned();
        (parts.status.as_u16(), media, body.collect().await.unwrap().to_bytes())
    }

    pub async fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let response = self.open(line, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// A request with JSON in and out; panics unless it succeeds.
    pub async fn ok(&self, line: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(line, &patch_header(line), &body).await;
        assert!(
            StatusCode::from_u16(answer.code).unwrap().is_success(),
            "{line} answered {}: {}",
            answer.code,
            answer.text
        );
        answer.json()
    }

    /// A request that must be refused: code and message.
    pub async fn refused(&self, line: &str, body: Value) -> (u16, String) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(line, &patch_header(line), &body).await;
        assert!(answer.code >= 400, "{line} succeeded: {}", answer.text);
        (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Creates an object of the core group or of `group/version/plural`.
    pub async fn create(&self, resource: &str, namespace: &str, object: Value) -> Value {
        self.ok(&format!("POST {}", collection(resource, namespace)), object).await
    }
}

/// A PATCH without another word is a merge patch.
fn patch_header(line: &str) -> Vec<(&'static str, &'static str)> {
    if line.starts_with("PATCH") { vec![("content-type", "application/merge-patch+json")] } else { Vec::new() }
}

/// The URL of a collection.
pub fn collection(resource: &str, namespace: &str) -> String {
    let (base, plural) = match resource.rsplit_once('/') {
        Some((group_version, plural)) => (format!("/apis/{group_version}"), plural),
        None => ("/api/v1".to_owned(), resource),
    };
    if namespace.is_empty() { format!("{base}/{plural}") } else { format!("{base}/namespaces/{namespace}/{plural}") }
}

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    })
}

pub fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}},
        },
    })
}
