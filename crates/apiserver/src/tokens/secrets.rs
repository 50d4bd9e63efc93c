//! Secrets of type `kubernetes.io/service-account-token`: the server fills them with a token of the account that they name, as the
//! token controller of upstream does later. The token is bound to its Secret, and a Secret to its account: with it they go.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isopod_schema::Status;
use isopod_types::{Object, node::ServiceAccount};
use serde_json::{Value, json};

use super::{Bound, LIFE_SECONDS_MAX, Reference, reference};
use crate::context::Context;
use crate::strategy::{meta, metadata, text};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Puts into a token Secret what it lacks. One whose account is not there, or is another one by now, stays as it is.
///
/// # Errors
/// 500: the token cannot be signed.
pub(crate) fn fill(context: &Context<'_>, secret: &mut Value) -> Result<(), Status> {
    if !context.stored.is("", "secrets") || text(secret, &["type"]) != TYPE || is_full(secret) {
        return Ok(());
    }
    let annotation = |name: &str| text(secret, &["metadata", "annotations", name]).to_owned();
    let (name, uid) = (annotation(ACCOUNT_NAME), annotation(ACCOUNT_UID));
    let Some(account) = reference(&context.server, "serviceaccounts", context.namespace(), &name) else {
        return Ok(());
    };
    if !uid.is_empty() && uid != account.uid {
        return Ok(());
    }
    let values = values(context, secret, &account)?;
    for (key, value) in values {
        if text(secret, &["data", key]).is_empty() {
            secret["data"][key] = STANDARD.encode(value).into();
        }
    }
    secret["metadata"]["annotations"][ACCOUNT_UID] = account.uid.as_str().into();
    own(secret, &account);
    Ok(())
}

fn is_full(secret: &Value) -> bool {
    ["ca.crt", "namespace", "token"].iter().all(|key| !text(secret, &["data", key]).is_empty())
        && !text(secret, &["metadata", "annotations", ACCOUNT_UID]).is_empty()
}

fn values(context: &Context<'_>, secret: &Value, account: &Reference) -> Result<[(&'static str, String); 3], Status> {
    let (server, namespace) = (&context.server, context.namespace());
    let bound = Bound {
        namespace: namespace.into(),
        serviceaccount: account.clone(),
        secret: Some(Reference { name: meta(secret, "name").into(), uid: meta(secret, "uid").into() }),
        ..Bound::default()
    };
    let audiences = vec![server.tokens.issuer.clone()];
    let (token, _) = server.tokens.sign(server, bound, audiences, LIFE_SECONDS_MAX)?;
    Ok([("ca.crt", server.pki.ca.certificate_pem.clone()), ("namespace", namespace.into()), ("token", token)])
}

/// The garbage collector takes a Secret away whose account is gone.
fn own(secret: &mut Value, account: &Reference) {
    let owner = json!({
        "apiVersion": ServiceAccount::api_version(), "kind": ServiceAccount::KIND, "name": account.name, "uid": account.uid,
    });
    let owners = metadata(secret).entry("ownerReferences").or_insert_with(|| json!([]));
    if let Some(owners) = owners.as_array_mut()
        && owners.iter().all(|other| other["uid"] != owner["uid"])
    {
        owners.push(owner);
    }
}
