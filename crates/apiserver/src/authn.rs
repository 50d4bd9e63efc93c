//! Who is it? Client certificates, service account tokens, impersonation; nobody in particular otherwise.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use isopod_schema::Status;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authz::Attributes;
use crate::pipeline;
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
    let Some(token) = bearer(headers) else {
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
    let extras = headers.keys().any(|name| name.as_str().starts_with("impersonate-extra-"));
    let Some(name) = names.into_iter().next() else {
        if groups.is_empty() && uids.is_empty() && !extras {
            return Ok(user);
        }
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    };
    if extras || !uids.is_empty() {
        return Err(Status::bad_request(
            "impersonating uid or extra is not supported by this server; impersonate user and groups",
        ));
    }
    may_impersonate(server, &user, &name)?;
    for group in &groups {
        demand(server, &user, "groups", "", group)?;
    }
    Ok(assumed(name, groups))
}

fn may_impersonate(server: &ApiServer, user: &UserInfo, name: &str) -> Result<(), Status> {
    match service_account_parts(name) {
        Some((namespace, account)) => demand(server, user, "serviceaccounts", namespace, account),
        None => demand(server, user, "users", "", name),
    }
}

fn demand(server: &ApiServer, user: &UserInfo, resource: &str, namespace: &str, name: &str) -> Result<(), Status> {
    let asked = Attributes {
        verb: "impersonate".into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    };
    pipeline::demand(server, user, &asked)
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
