//! API aggregation (facts, section 5): group versions that another server answers for. Requests for them are passed on
//! with the caller's identity in headers, which the other server believes because of this server's client certificate.
//! Keeps nothing of what they say but discovery.

mod check;
mod documents;
mod local;
mod openapi;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use isopod_schema::Status;

use crate::admission::{Stored, places};
use crate::body::RequestBody;
use crate::forward::{self, Destination};
use crate::respond::{self, Response};
use crate::route::RequestInfo;
use crate::server::ApiServer;
use crate::user::UserInfo;

pub(crate) use documents::{add_groups, add_index, aggregated_items, group};
pub(crate) use openapi::{Joined, Whole};
pub(crate) use routes::{Extension, Routes, Snapshot};

/// Largest document about an extension, in bytes.
const DOCUMENT_BYTES: usize = 8 << 20;
/// Longest time for such a document.
const DOCUMENT: Duration = Duration::from_secs(5);

/// Keeps routes, availability, and the APIServices of what this server answers for itself.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    // Written before anybody follows, so that a first start is no burst of events.
    local::start(server).await?;
    routes::start(server).await?;
    check::start(server);
    Ok(())
}

/// Who answers for the path, if another server does.
pub(crate) fn find(server: &ApiServer, info: &RequestInfo) -> Option<Arc<Extension>> {
    let routes = server.extensions.borrow();
    if routes.is_empty() {
        return None;
    }
    let path = info.path.strip_prefix("/openapi/v3").unwrap_or(&info.path);
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some("apis"), Some(group), Some(version)) => routes.get(group, version),
        _ => None,
    }
}

/// Passes a request on.
///
/// # Errors
/// 503 when the other server cannot be reached.
pub(crate) async fn answer(
    server: &Arc<ApiServer>,
    extension: &Extension,
    user: &UserInfo,
    mut request: Request<RequestBody>,
) -> Result<Response, Status> {
    if !extension.is_available {
        return Ok(respond::text(503, "service unavailable\n"));
    }
    let failed = |why: String| Status::unavailable(format!("error trying to reach service: {why}"));
    forward::strip_identity(request.headers_mut());
    identify(request.headers_mut(), user)?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    exchange(server, extension, request, &path).await.map_err(failed)
}

async fn exchange(
    server: &Arc<ApiServer>,
    extension: &Extension,
    mut request: Request<RequestBody>,
    path: &str,
) -> Result<Response, String> {
    let destination = destination(server, extension).await?;
    *request.uri_mut() = path.parse().map_err(|error| format!("{path:?} is no path: {error}"))?;
    if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", extension.server_name(), extension.port)) {
        request.headers_mut().insert(HOST, host);
    }
    forward::exchange(server, &destination, request).await
}

/// Where the extension listens now.
async fn destination(server: &ApiServer, extension: &Extension) -> Result<Destination, String> {
    let facts = Stored(&server.store);
    let (host, port) = places::behind(&facts, &extension.namespace, &extension.service, extension.port)?;
    let config = extension.tls.clone()?;
    let name = extension.server_name().try_into().map_err(|error| format!("{error}"))?;
    let mut found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|error| format!("{host}: {error}"))?;
    let address = found.next().ok_or_else(|| format!("{host} has no address"))?;
    Ok(Destination { address, tls: Some((config, name)) })
}

/// A document of the extension, asked for by the server itself: code, headers, bytes. `known` is the tag of the one that is
/// here already, or empty.
async fn fetch(
    server: &Arc<ApiServer>,
    extension: &Extension,
    path: &str,
    accept: &'static str,
    known: &str,
) -> Result<(u16, HeaderMap, Bytes), String> {
    let body = Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
    let mut request = Request::new(body);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    if let Some(known) = HeaderValue::from_str(known).ok().filter(|known| !known.is_empty()) {
        request.headers_mut().insert(IF_NONE_MATCH, known);
    }
    let own = UserInfo::new("system:kube-aggregator", [crate::user::MASTERS]);
    identify(request.headers_mut(), &own).map_err(|status| status.to_string())?;
    let work = async {
        let (parts, body) = exchange(server, extension, request, path).await?.into_parts();
        let read = Limited::new(body, DOCUMENT_BYTES).collect().await;
        let bytes = read.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes();
        Ok((parts.status.as_u16(), parts.headers, bytes))
    };
    tokio::time::timeout(DOCUMENT, work).await.unwrap_or_else(|_| Err("context deadline exceeded".into()))
}

/// Says who asks, in the headers that are announced in `extension-apiserver-authentication`.
fn identify(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), Status> {
    let mut say = |name: &str, text: &str| -> Result<(), Status> {
        let unsayable = || Status::internal(format!("{text:?} cannot be said in the header {name}"));
        let name: HeaderName = name.parse().map_err(|_| unsayable())?;
        headers.append(name, HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unsayable())?);
        Ok(())
    };
    say("x-remote-user", &user.name)?;
    if !user.uid.is_empty() {
        say("x-remote-uid", &user.uid)?;
    }
    for group in &user.groups {
        say("x-remote-group", group)?;
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        values.iter().try_for_each(|value| say(&name, value))?;
    }
    Ok(())
}

/// A key as part of a header's name: what names cannot hold is written in hexadecimal.
fn escaped(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let text = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    key.bytes().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_into_names() {
        let table = [
            ("scopes", "scopes"),
            ("authentication.kubernetes.io/pod-name", "authentication.kubernetes.io%2fpod-name"),
            ("a%b c", "a%25b%20c"),
            ("é", "%c3%a9"),
        ];
        for (key, expected) in table {
            assert_eq!(escaped(key), expected);
        }
    }
}
