//! The proxy subresources of pods, Services and nodes (facts, section 1.14): any method, any path, upgrades too. A pod
//! is reached at its own address only, a Service at the addresses of its ready pods, a node where its agent says that it
//! listens, or its agent is asked within this process; never at an address of this host itself.

mod agent;
mod html;
mod rewrite;
mod target;
pub(crate) mod trust;

#[cfg(fuzzing)]
pub(crate) use html::page;

use http::header::{CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use isopod_schema::Status;
use serde_json::json;

use crate::body::{Body, RequestBody};
use crate::context::Context;
use crate::respond::{self, Response};
use crate::{forward, streams};
use rewrite::Prefix;
use target::Place;

pub(crate) async fn answer(context: &Context<'_>, mut request: Request<RequestBody>) -> Result<Response, Status> {
    if context.kind.subresource("proxy").is_none() {
        return Ok(respond::no_such_path());
    }
    let (prefix, suffix) = split(&context.info.path, if context.kind.namespaced { 7 } else { 5 });
    let options = streams::admitted(context, json!({"path": suffix})).await?;
    let suffix = options["path"].as_str().unwrap_or_default();
    let target = match target::find(context)? {
        Place::Server(target) => target,
        Place::Agent(node) => return agent::answer(context, &node, request.method(), suffix).await,
    };
    let upgrades = request.headers().contains_key(UPGRADE);
    if suffix.is_empty() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(with_slash(request.uri()));
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default();
    let prefix = Prefix { path: prefix.to_owned(), hosts: [target.host.clone(), host.clone()] };
    prepare(&mut request, context, suffix, &host)?;
    let answer = forward::exchange(&context.server, &target.destination, request).await;
    let answer = answer.map_err(|why| Status::unavailable(format!("error trying to reach service: {why}")))?;
    Ok(rewritten(answer, &prefix).await)
}

/// The path of the object's proxy, and what comes after it.
fn split(path: &str, segments: usize) -> (&str, &str) {
    let mut seen = 0;
    let mut inside = false;
    for (at, letter) in path.char_indices() {
        match (letter, inside) {
            ('/', true) if seen == segments => return path.split_at(at),
            ('/', _) => inside = false,
            (_, false) => (inside, seen) = (true, seen + 1),
            _ => {}
        }
    }
    (path, "")
}

/// Relative links in the answer would lead elsewhere without the slash.
fn with_slash(uri: &Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = respond::text(301, "");
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The request as the other side sees it.
fn prepare(request: &mut Request<RequestBody>, context: &Context<'_>, suffix: &str, host: &str) -> Result<(), Status> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if suffix.is_empty() { "/" } else { suffix };
    let uri = format!("{path}{query}");
    *request.uri_mut() = uri.parse().map_err(|error| Status::bad_request(format!("{uri:?} is no path: {error}")))?;
    let headers = request.headers_mut();
    forward::strip_identity(headers);
    let said = [
        (HOST, host),
        (HeaderName::from_static("x-forwarded-uri"), &context.info.path),
        (HeaderName::from_static("x-forwarded-host"), host),
        (HeaderName::from_static("x-forwarded-proto"), "https"),
    ];
    for (name, text) in said {
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(text)) {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// Redirects and pages lead back through the proxy. What the other side says about origins would be said of this server.
async fn rewritten(mut answer: Response, prefix: &Prefix) -> Response {
    let headers = answer.headers_mut();
    for name in ["allow-credentials", "allow-headers", "allow-methods", "allow-origin"] {
        headers.remove(format!("access-control-{name}"));
    }
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok()).map(|to| prefix.rewrite(to));
    if let Some(location) = location {
        if let Ok(location) = HeaderValue::from_str(&location) {
            headers.insert(LOCATION, location);
        }
        return answer;
    }
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let is_page = media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("text/html"));
    if is_page { html::rewritten(answer, prefix).await } else { answer }
}

/// An answer whose body has become another.
fn with_body(mut parts: http::response::Parts, body: impl Into<Body>) -> Response {
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_after_the_proxy() {
        let table = [
            ("/api/v1/namespaces/n/pods/p:80/proxy", 7, ""),
            ("/api/v1/namespaces/n/pods/p/proxy/", 7, "/"),
            ("/api/v1/namespaces/n/services/s/proxy/a%2Fb//c/", 7, "/a%2Fb//c/"),
            ("//api/v1/namespaces//n/pods/p/proxy/x", 7, "/x"),
            ("/api/v1/nodes/n/proxy/metrics/cadvisor", 5, "/metrics/cadvisor"),
        ];
        for (path, segments, suffix) in table {
            let (prefix, found) = split(path, segments);
            assert_eq!((found, format!("{prefix}{found}").as_str()), (suffix, path));
        }
    }
}
