//! CertificateSigningRequests of the signers that every cluster has: who may approve and sign, approval of what node agents
//! ask for themselves, certificates, and the end of old requests. What is decided is written through the ordinary door by
//! an identity of its own, which RBAC knows; the key never leaves [`crate::pki`].

mod rules;

pub(crate) use rules::Wanted;

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use isopod_planner::admission::Operation;
use isopod_schema::Status;
use isopod_store::{Entry, Event, EventKind, Expect, ListQuery, Scope, Write};
use serde_json::{Value, json};
use tower::Service;

use crate::authz::Attributes;
use crate::context::{Context, commit};
use crate::edit::Part;
use crate::follow::{self, Follower};
use crate::server::ApiServer;
use crate::strategy::{self, meta, text};
use crate::user::{MASTERS, UserInfo};
use crate::{codec, rbac};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const PREFIX: &str = "certificatesigningrequests.certificates.k8s.io/";
/// Who approves and signs.
pub(crate) const SIGNER: &str = "system:isopod:signer";

fn is_request(context: &Context<'_>) -> bool {
    context.kind.is(GROUP, PLURAL)
}

/// A new request says who asks; nobody can say so himself.
pub(crate) fn claim(context: &Context<'_>, object: &mut Value) {
    if !is_request(context) {
        return;
    }
    let user = &context.user;
    object["spec"]["username"] = user.name.as_str().into();
    object["spec"]["groups"] = json!(user.groups);
    let said = [("uid", json!(user.uid), user.uid.is_empty()), ("extra", json!(user.extra), user.extra.is_empty())];
    for (field, value, is_empty) in said {
        match is_empty {
            true => drop(object["spec"].as_object_mut().map(|spec| spec.shift_remove(field))),
            false => object["spec"][field] = value,
        }
    }
}

fn conditions(object: &Value) -> Vec<Value> {
    object["status"]["conditions"].as_array().cloned().unwrap_or_default()
}

fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Approval changes conditions only; conditions get their times.
pub(crate) fn prepare(context: &Context<'_>, part: Part, new: &mut Value, old: &Value) {
    if !is_request(context) || part != Part::Status {
        return;
    }
    if context.info.subresource == "approval" {
        let wanted = new["status"]["conditions"].clone();
        new["status"] = old["status"].clone();
        new["status"]["conditions"] = wanted;
    }
    let now = strategy::time_text(context.now);
    for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
        let before = conditions(old).into_iter().find(|before| before["type"] == condition["type"]);
        let is_same = before.as_ref().is_some_and(|before| before["status"] == condition["status"]);
        for (field, keeps) in [("lastUpdateTime", true), ("lastTransitionTime", is_same || before.is_none())] {
            if condition[field].is_null() || !keeps {
                condition[field] = now.as_str().into();
            }
        }
    }
}

/// Approving, denying and signing are permissions on the signer.
///
/// # Errors
/// 403.
pub(crate) fn check(
    context: &Context<'_>,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if !is_request(context) {
        return Ok(());
    }
    let signer = text(object, &["spec", "signerName"]);
    let refuse = |why: String| Err(Status::forbidden(context.kind, meta(object, "name"), &why));
    let Some(old) = old else {
        let claims_all = signer == rules::CLIENT && rules::organisations(object).iter().any(|name| name == MASTERS);
        if operation == Operation::Create && claims_all {
            return refuse(format!("use of {} signer with {MASTERS} group is not allowed", rules::CLIENT));
        }
        return Ok(());
    };
    let differs = |kind: &str| condition(object, kind) != condition(old, kind);
    let verb = match context.info.subresource.as_str() {
        "approval" if differs("Approved") || differs("Denied") => "approve",
        "status" if differs("Failed") || object["status"]["certificate"] != old["status"]["certificate"] => "sign",
        _ => return Ok(()),
    };
    let domain = signer.split('/').next().unwrap_or_default();
    let may = |name: &str| {
        let asked = Attributes {
            verb: verb.into(),
            group: GROUP.into(),
            resource: "signers".into(),
            name: name.into(),
            ..Attributes::default()
        };
        rbac::allows(&context.server.store, &context.user, &asked)
    };
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    refuse(format!("user not permitted to {verb} requests with signerName {signer:?}"))
}

/// Approves and signs what waits, and follows what comes.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    follow::start(server, Keeper).await
}

struct Keeper;

impl Follower for Keeper {
    const WHAT: &'static str = "certificate signing requests";

    fn scopes(&self) -> Vec<Scope> {
        vec![Scope::Prefix(PREFIX.into())]
    }

    async fn settle(&mut self, server: &Arc<ApiServer>, events: Option<&[Arc<Event>]>) -> Result<(), Status> {
        match events {
            None => {
                for entry in entries(server)? {
                    settle(server, &entry).await?;
                }
            }
            Some(events) => {
                for event in events.iter().filter(|event| event.kind == EventKind::Put) {
                    settle(server, &event.entry).await?;
                }
            }
        }
        Ok(())
    }
}

fn entries(server: &ApiServer) -> Result<Vec<Arc<Entry>>, Status> {
    let query = ListQuery { prefix: PREFIX.into(), ..ListQuery::default() };
    server.store.list(&query).map(|list| list.entries).map_err(Status::internal)
}

async fn settle(server: &Arc<ApiServer>, entry: &Entry) -> Result<(), Status> {
    let mut object = codec::decode(&entry.value)?;
    let decided = condition(&object, "Denied").is_some() || condition(&object, "Failed").is_some();
    if decided || !object["status"]["certificate"].is_null() {
        return Ok(());
    }
    if condition(&object, "Approved").is_none() {
        let Some(message) = approval(server, &object) else { return Ok(()) };
        add_condition(&mut object, "Approved", "AutoApproved", message);
        return write(server, &object, "approval").await;
    }
    match rules::judge(&object) {
        None => return Ok(()),
        Some(Err(why)) => add_condition(&mut object, "Failed", "SignerValidationFailure", &why),
        Some(Ok(wanted)) => match server.pki.sign(wanted, server.config.clock.now()) {
            Ok(pem) => object["status"]["certificate"] = rules::encoded(&pem).into(),
            Err(why) => add_condition(&mut object, "Failed", "SigningError", &why),
        },
    }
    write(server, &object, "status").await
}

fn add_condition(object: &mut Value, kind: &str, reason: &str, message: &str) {
    let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message});
    let all = conditions(object).into_iter().chain([condition]).collect::<Vec<_>>();
    object["status"]["conditions"] = all.into();
}

/// Why nobody needs to look at a request: a node agent asks for its own client certificate, and may.
fn approval(server: &ApiServer, object: &Value) -> Option<&'static str> {
    let node = rules::node_client(object)?;
    let groups = object["spec"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let user = UserInfo {
        name: text(object, &["spec", "username"]).into(),
        groups: groups.map(str::to_owned).collect(),
        ..UserInfo::default()
    };
    let may = |subresource: &str| {
        let asked = Attributes {
            verb: "create".into(),
            group: GROUP.into(),
            resource: PLURAL.into(),
            subresource: subresource.into(),
            ..Attributes::default()
        };
        rbac::allows(&server.store, &user, &asked)
    };
    if node == user.name && may("selfnodeclient") {
        return Some("Auto approving self kubelet client certificate after SubjectAccessReview.");
    }
    may("nodeclient").then_some("Auto approving kubelet client certificate after SubjectAccessReview.")
}

/// Somebody who is faster wins: the change comes back as an event.
async fn write(server: &Arc<ApiServer>, object: &Value, subresource: &str) -> Result<(), Status> {
    let uri = format!("/apis/{GROUP}/v1/{PLURAL}/{}/{subresource}", meta(object, "name"));
    let request = Request::put(uri).header("content-type", "application/json");
    let request = request.body(Full::from(Bytes::from(object.to_string()))).map_err(Status::internal)?;
    let Ok(answer) = server.in_process(UserInfo::new(SIGNER, [] as [&str; 0])).call(request).await;
    let code = answer.status().as_u16();
    if matches!(code, 200 | 404 | 409) {
        return Ok(());
    }
    let text = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Err(Status::internal(format!("{code}: {}", String::from_utf8_lossy(&text))))
}

/// Removes requests that are over: an hour after they were decided, a day after they were made, or when the certificate
/// has ended.
pub(crate) async fn expire(server: &ApiServer) {
    let now = server.config.clock.now();
    let old = entries(server).unwrap_or_default();
    let is_over = |entry: &&Arc<Entry>| codec::decode(&entry.value).is_ok_and(|object| rules::is_over(&object, now));
    for entry in old.iter().filter(is_over) {
        let write = Write::delete(entry.key.clone(), Expect::Revision(entry.mod_revision), None);
        if let Err(error) = commit(server, write).await {
            tracing::error!(%error, "an old signing request could not be removed");
        }
    }
}
