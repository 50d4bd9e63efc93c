//! Paths that are about no object: discovery, OpenAPI, version, health, token keys (facts, sections 1.4 and 1.5).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Method, Request};
use isopod_schema::discovery::{self, Aggregated};
use isopod_schema::openapi::{Document, Documents, V2_PROTOBUF};
use isopod_schema::{Status, Table};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::{self, Routes};
use crate::body::{Body, RequestBody};
use crate::metrics;
use crate::negotiate::{self, Encoding, Offer, Output};
use crate::query::Query;
use crate::respond::{self, Response};
use crate::server::ApiServer;

const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const ROOT_PATHS: [&str; 13] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
    "/",
];

pub(crate) fn answer(server: &ApiServer, request: &Request<RequestBody>, query: &Query) -> Result<Response, Status> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(respond::text(405, "405 method not allowed\n"));
    }
    let headers = request.headers();
    let served = server.served();
    let (table, documents) = (&*served.table, &served.documents);
    let extensions = server.extensions.borrow().clone();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Ok(match parts.as_slice() {
        [] => plain(&json!({"paths": root_paths(table)})),
        ["api"] => groups(table, headers, None, || api_versions(server)),
        ["apis"] => {
            let plain = || aggregation::add_groups(&extensions, discovery::api_group_list(table));
            groups(table, headers, Some(&extensions), plain)
        }
        ["apis", group] => {
            found(headers, discovery::api_group(table, group).or_else(|| aggregation::group(&extensions, group)))
        }
        ["api", version] => found(headers, discovery::api_resource_list(table, "", version)),
        ["apis", group, version] => found(headers, discovery::api_resource_list(table, group, version)),
        ["metrics"] => respond::with(200, METRICS, metrics::page(server)),
        ["version"] => plain(&version(server)),
        ["healthz" | "livez" | "readyz", rest @ ..] => health(parts[0], rest, query),
        ["openapi", "v2"] => openapi_v2(documents, server.openapi.of(&served, &extensions), headers),
        ["openapi", "v3"] => {
            document(headers, &aggregation::add_index(&extensions, documents.v3_index()), "application/json")
        }
        ["openapi", "v3", key @ ..] => openapi_v3(documents, headers, query, &key.join("/")),
        [".well-known", "openid-configuration"] => plain(&server.tokens.openid_configuration()),
        ["openid", "v1", "jwks"] => {
            let keys = server.tokens.jwks().to_string();
            respond::with(200, HeaderValue::from_static("application/jwk-set+json"), keys)
        }
        _ => respond::no_such_path(),
    })
}

fn plain(value: &Value) -> Response {
    respond::document(200, value, &Output::JSON)
}

/// A document of discovery in the form that the client prefers; JSON for who accepts none.
fn negotiated(headers: &HeaderMap, value: &Value) -> Response {
    let output = negotiate::output(headers, &Query::default(), Offer::STATUS).unwrap_or(Output::JSON);
    if output.encoding == Encoding::Protobuf && value["apiVersion"].is_null() {
        // In JSON one of these documents has no version; an envelope always has one.
        let mut whole = value.clone();
        whole["apiVersion"] = "v1".into();
        return respond::document(200, &whole, &output);
    }
    respond::document(200, value, &output)
}

fn found(headers: &HeaderMap, value: Option<Value>) -> Response {
    value.map_or_else(respond::no_such_path, |value| negotiated(headers, &value))
}

fn api_versions(server: &ApiServer) -> Value {
    discovery::api_versions(&server.config.advertise.to_string())
}

fn root_paths(table: &Table) -> Vec<String> {
    let groups = table.groups();
    let mut paths: Vec<String> = ROOT_PATHS.iter().map(|path| (*path).to_owned()).collect();
    for group in groups.iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    paths.sort();
    paths
}

/// `/api`, and `/apis` with what others serve; aggregated when the client prefers that.
fn groups(table: &Table, headers: &HeaderMap, extensions: Option<&Routes>, legacy: impl FnOnce() -> Value) -> Response {
    let Some(format) = negotiate::aggregated(headers) else {
        let mut response = negotiated(headers, &legacy());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        return response;
    };
    let own = discovery::aggregated(table, format, extensions.is_none());
    let body = match extensions {
        Some(extensions) => aggregation::aggregated_items(extensions, own).to_string(),
        None => own.to_string(),
    };
    let etag = format!("\"{}\"", hex(&Sha256::digest(body.as_bytes())));
    let version = if format == Aggregated::V2 { "v2" } else { "v2beta1" };
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let mut response = tagged(headers, &etag, &content_type, body.into());
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// An answer with a tag; 304 when the client has it already.
fn tagged(headers: &HeaderMap, etag: &str, content_type: &str, body: Body) -> Response {
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = http::Response::new(if known { Body::empty() } else { body });
    if known {
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
    }
    for (name, value) in [(ETAG, etag), (CONTENT_TYPE, content_type)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn document(headers: &HeaderMap, document: &Document, content_type: &str) -> Response {
    let body = Body::from(Bytes::from_owner(Arc::clone(&document.bytes)));
    tagged(headers, &format!("\"{}\"", document.hash), content_type, body)
}

/// Also with what extensions say, where there are any that say something.
fn openapi_v2(documents: &Documents, joined: Option<aggregation::Whole>, headers: &HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/com.github.proto-openapi.spec.v2") {
        let found = joined.map_or_else(|| documents.v2_protobuf(), |joined| joined.protobuf);
        return document(headers, &found, V2_PROTOBUF);
    }
    let found = joined.map_or_else(|| documents.v2_json(), |joined| joined.json);
    document(headers, &found, "application/json")
}

fn openapi_v3(documents: &Documents, headers: &HeaderMap, query: &Query, key: &str) -> Response {
    let Some(found) = documents.v3(key) else { return respond::no_such_path() };
    let asked = query.get("hash");
    if let Some(asked) = asked
        && asked != &*found.hash
        && let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{key}?hash={}", found.hash))
    {
        let mut moved = respond::text(301, "");
        moved.headers_mut().insert(LOCATION, location);
        return moved;
    }
    let mut response = document(headers, &found, "application/json");
    if asked.is_some() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}

fn version(server: &ApiServer) -> Value {
    let full = &server.config.kubernetes_version;
    let mut numbers = full.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    json!({
        "major": major, "minor": minor, "gitVersion": format!("{full}+isopod"), "gitCommit": "", "gitTreeState": "clean",
        "emulationMajor": major, "emulationMinor": minor, "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor.parse::<u32>().map_or_else(|_| minor.into(), |minor| minor.saturating_sub(1).to_string()),
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// The server is open before it answers anything, so what can be asked is well when it can be asked.
fn health(which: &str, rest: &[&str], query: &Query) -> Response {
    const CHECKS: [&str; 3] = ["ping", "store", "bootstrap"];
    match rest {
        [] if query.has("verbose") => {
            let excluded: Vec<&str> = query.all("exclude").collect();
            let line = |check: &&str| {
                if excluded.contains(check) { format!("[+]{check} excluded: ok\n") } else { format!("[+]{check} ok\n") }
            };
            respond::text(200, format!("{}{which} check passed\n", CHECKS.iter().map(line).collect::<String>()))
        }
        [] => respond::text(200, "ok"),
        [check] if CHECKS.contains(check) => respond::text(200, "ok"),
        _ => respond::no_such_path(),
    }
}
