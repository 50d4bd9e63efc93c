//! Who is it? Client certificates, service account tokens, impersonation; nobody in particular otherwise.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};
use isopod_schema::Status;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authz::Attributes;
use crate::pipeline;
use crate::query::decode_path;
use crate::server::ApiServer;
use crate::user::{AUTHENTICATED, UNAUTHENTICATED, UserInfo, service_account_parts};

/// The identity in a verified client certificate: common name and organisations.
pub(crate) fn certificate_user(certificate_der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    Some(UserInfo::new(name, groups))
}

/// The identity of a request from the network. A certificate wins over a token, as upstream.
///
/// # Errors
/// 401 for credentials that are not good, and without any where that is not allowed.
pub(crate) async fn user(
    server: &ApiServer,
    headers: &HeaderMap,
    path: &str,
    certificate: Option<UserInfo>,
) -> Result<UserInfo, Status> {
    if let Some(user) = certificate {
        return Ok(user);
    }
    let token = match bearer(headers) {
        Some(token) => Some(token),
        None => protocol_bearer(headers)?,
    };
    let Some(token) = token else {
        let allowed = server.oidc.allows_anonymous(path);
        return if allowed { Ok(UserInfo::anonymous()) } else { Err(Status::unauthorized()) };
    };
    token_user(server, &token, &[]).await.map(|(user, _)| user).map_err(|why| {
        tracing::debug!(why, "a bearer token was refused");
        Status::unauthorized()
    })
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// What a protocol of a WebSocket begins with that is a token in base64url: browsers can set no other header.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token among the protocols of a WebSocket, if there is one.
///
/// # Errors
/// 401 when there is more than one, or none that could be answered with, as upstream.
fn protocol_bearer(headers: &HeaderMap) -> Result<Option<String>, Status> {
    let is_websocket = headers.get(UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let (tokens, others): (Vec<_>, Vec<_>) = protocols(headers).partition(|name| name.starts_with(BEARER_PROTOCOL));
    let token = match tokens[..] {
        [] => return Ok(None),
        _ if !is_websocket => return Ok(None),
        [token] if !others.is_empty() => token.trim_start_matches(BEARER_PROTOCOL),
        _ => return Err(Status::unauthorized()),
    };
    let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    token.map(Some).ok_or_else(Status::unauthorized)
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// Takes tokens out of the protocols of a WebSocket: nobody after this is to see them.
pub(crate) fn hide_tokens(headers: &mut HeaderMap) {
    if protocols(headers).any(|name| name.starts_with(BEARER_PROTOCOL)) {
        let others: Vec<&str> = protocols(headers).filter(|name| !name.starts_with(BEARER_PROTOCOL)).collect();
        let others = HeaderValue::from_str(&others.join(", "));
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Ok(others) = others {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
        }
    }
}

/// Who a token is for, and for which of the audiences.
///
/// # Errors
/// Why it is refused.
pub(crate) async fn token_user(
    server: &ApiServer,
    token: &str,
    audiences: &[&str],
) -> Result<(UserInfo, Vec<String>), String> {
    if token.is_empty() {
        return Err("no token".into());
    }
    match server.oidc.check(server, token).await? {
        // Tokens of others say nothing about audiences of the cluster: they are good for its own.
        Some(user) => Ok((user, server.tokens.own_audiences(audiences)?)),
        None => server.tokens.check(server, token, audiences),
    }
}

/// The identity that the request asks to act as, when the real one may do that.
///
/// # Errors
/// 400 for groups without a user, 403.
pub(crate) fn impersonate(server: &ApiServer, headers: &HeaderMap, user: UserInfo) -> Result<UserInfo, Status> {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let (names, groups, uids) = (texts("impersonate-user"), texts("impersonate-group"), texts("impersonate-uid"));
    let uid = uids.into_iter().next().unwrap_or_default();
    let extra: BTreeMap<String, Vec<String>> = extra_keys(headers).map(|(name, key)| (key, texts(name))).collect();
    let Some(name) = names.into_iter().next() else {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    };
    may_impersonate(server, &user, &name)?;
    for group in &groups {
        demand(server, &user, Asked { resource: "groups", name: group, ..Asked::default() })?;
    }
    for (key, value) in extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
        demand(server, &user, Asked { resource: "userextras", subresource: key, name: value, ..Asked::known() })?;
    }
    if !uid.is_empty() {
        demand(server, &user, Asked { resource: "uids", name: &uid, ..Asked::known() })?;
    }
    Ok(UserInfo { uid, extra, ..assumed(name, groups) })
}

/// Names of the headers that say what else is known of the user, with the keys that they mean.
fn extra_keys(headers: &HeaderMap) -> impl Iterator<Item = (&str, String)> {
    let names = headers.keys().map(http::HeaderName::as_str);
    names.filter_map(|name| Some((name, decode_path(name.strip_prefix("impersonate-extra-")?))))
}

fn may_impersonate(server: &ApiServer, user: &UserInfo, name: &str) -> Result<(), Status> {
    let asked = match service_account_parts(name) {
        Some((namespace, name)) => Asked { resource: "serviceaccounts", namespace, name, ..Asked::default() },
        None => Asked { resource: "users", name, ..Asked::default() },
    };
    demand(server, user, asked)
}

/// One thing that somebody wants to pass for.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Asked<'_> {
    /// What authenticators know of a user besides the name and groups.
    fn known() -> Self {
        Self { group: "authentication.k8s.io", ..Self::default() }
    }
}

fn demand(server: &ApiServer, user: &UserInfo, asked: Asked<'_>) -> Result<(), Status> {
    let asked = Attributes {
        verb: "impersonate".into(),
        group: asked.group.into(),
        resource: asked.resource.into(),
        subresource: asked.subresource.into(),
        namespace: asked.namespace.into(),
        name: asked.name.into(),
        ..Attributes::default()
    };
    pipeline::demand(server, user, &asked).map(|_| ())
}

fn assumed(name: String, groups: Vec<String>) -> UserInfo {
    let mut user = match service_account_parts(&name) {
        Some((namespace, account)) if groups.is_empty() => UserInfo::service_account(namespace, account, ""),
        _ => UserInfo { name, groups, ..UserInfo::default() },
    };
    let state = if user.name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(state) {
        user.groups.push(state.into());
    }
    user
}
