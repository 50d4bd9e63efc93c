//! The controllers' way to the API, on which requests fail: before they were applied, after, or because the process that
//! sent them is no more. Requests go one at a time, in the order they were sent.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use isopod_apiserver::InProcess;
use kube::client::Body;
use serde_json::json;
use tower::Service;

use super::random::Random;

/// What happens to requests, and what happened.
#[derive(Debug)]
pub(super) struct Faults {
    random: Random,
    /// Writes out of a thousand that fail.
    pub(super) failing: usize,
    /// Writes out of a thousand at which the controllers die, before or after.
    pub(super) deadly: usize,
    /// The process that sends requests is dead.
    pub(super) is_down: bool,
    /// Collections that were written to since somebody looked.
    pub(super) touched: Vec<String>,
    /// Writes that were applied, events apart.
    pub(super) writes: u64,
    /// What was asked and what came of it, since somebody looked.
    pub(super) log: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Through,
    /// Not applied, with this answer.
    Refused(u16),
    /// Applied, but nobody hears of it.
    Lost,
}

impl Faults {
    pub(super) fn new(random: Random) -> Self {
        let (touched, log) = (Vec::new(), Vec::new());
        Self { random, failing: 0, deadly: 0, is_down: false, touched, writes: 0, log }
    }

    fn verdict(&mut self, method: &Method, path: &str) -> Verdict {
        if self.is_down {
            return Verdict::Refused(503);
        }
        // What is said about things decides nothing.
        if method == Method::GET || path.contains("/events") {
            return Verdict::Through;
        }
        if self.random.chance(self.deadly) {
            self.is_down = true;
            return if self.random.chance(500) { Verdict::Lost } else { Verdict::Refused(503) };
        }
        if !self.random.chance(self.failing) {
            return Verdict::Through;
        }
        match self.random.below(3) {
            // A creation that meets a conflict was told that the object exists, which would be a lie.
            0 if method == Method::PATCH => Verdict::Refused(409),
            0 | 1 => Verdict::Refused(500),
            _ => Verdict::Lost,
        }
    }

    fn applied(&mut self, method: &Method, path: &str, verdict: Verdict, code: u16) {
        if method == Method::GET {
            return;
        }
        self.log.push(format!("  {method} {path}: {code}{}", if verdict == Verdict::Lost { ", lost" } else { "" }));
        if code < 300 && !path.contains("/events") {
            self.writes += 1;
            self.touched.push(collection(path));
        }
    }
}

/// The path of the whole collection that a write to this path changes.
pub(super) fn collection(path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let root = if parts.first() == Some(&"api") { 2 } else { 3 };
    let (root, rest) = parts.split_at(root.min(parts.len()));
    let plural = match rest {
        ["namespaces", _, "finalize" | "status"] | ["namespaces", _] => "namespaces",
        ["namespaces", _, plural, ..] | [plural, ..] => plural,
        [] => "",
    };
    format!("/{}/{plural}", root.join("/"))
}

/// The way itself.
#[derive(Clone)]
pub(super) struct Faulty {
    inner: InProcess,
    faults: Arc<Mutex<Faults>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Faulty {
    pub(super) fn new(inner: InProcess, faults: Arc<Mutex<Faults>>) -> Self {
        Self { inner, faults, turn: Arc::default() }
    }

    async fn answer(mut self, request: Request<Body>) -> Response<Body> {
        let _turn = self.turn.lock().await;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let verdict = self.faults().verdict(&method, &path);
        if let Verdict::Refused(code) = verdict {
            self.faults().log.push(format!("  {method} {path}: {code}, made up"));
            return status(code);
        }
        let response = match self.inner.call(request).await {
            Ok(response) => whole(response).await,
            Err(never) => match never {},
        };
        self.faults().applied(&method, &path, verdict, response.status().as_u16());
        if verdict == Verdict::Lost { status(500) } else { response }
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer with all of its body; the controllers' writes are never answered by streams.
async fn whole(response: Response<isopod_apiserver::Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(parts, Body::from(body.to_bytes())),
        Err(_) => status(500),
    }
}

fn status(code: u16) -> Response<Body> {
    let reason = if code == 409 { "Conflict" } else { "InternalError" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": "simulated"});
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

impl Service<Request<Body>> for Faulty {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_change_collections() {
        for (path, expected) in [
            ("/api/v1/namespaces/x/pods/p/status", "/api/v1/pods"),
            ("/api/v1/namespaces/x/finalize", "/api/v1/namespaces"),
            ("/api/v1/namespaces/x", "/api/v1/namespaces"),
            ("/api/v1/nodes/n", "/api/v1/nodes"),
            ("/apis/apps/v1/namespaces/x/deployments", "/apis/apps/v1/deployments"),
        ] {
            assert_eq!(collection(path), expected, "{path}");
        }
    }
}
