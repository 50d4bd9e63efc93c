//! Kinds that are questions: created, answered, never stored (facts, section 1.14).

use isopod_planner::admission::Operation;
use isopod_schema::{Kind, Status, validate};
use serde_json::{Value, json};

use crate::admission::Asked;
use crate::authz::{Attributes, Rule};
use crate::context::{Context, WriteOptions};
use crate::negotiate::{self, Form};
use crate::pipeline::authorize;
use crate::respond::{self, Response};
use crate::strategy::text;
use crate::user::UserInfo;
use crate::{authn, create, node_rights, rbac};

pub(crate) async fn create(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    if context.shape.output.form != Form::Object {
        return Err(Status::not_acceptable(&negotiate::MEDIA_TYPES));
    }
    let options = WriteOptions::parse(context)?;
    let mut object = context.decode(body, &options)?;
    object["apiVersion"] = context.kind.api_version().into();
    object["kind"] = context.kind.kind.as_str().into();
    create::place(context, &mut object)?;
    let asked = Asked::new(context, Operation::Create, &object, None, options.dry_run);
    if asked.mutate(&mut object).await? {
        object = create::normalised(context, object)?;
    }
    complete(context.kind, &object)?;
    let errors = validate::review(context.kind, &object);
    if !errors.is_empty() {
        return Err(Status::invalid(context.kind, "", &errors));
    }
    asked.validate(&object).await?;
    object["status"] = answer(context, &object).await?;
    Ok(respond::document(201, &object, &context.shape.output))
}

/// Without these there is no question.
fn complete(kind: &Kind, object: &Value) -> Result<(), Status> {
    let is_missing = |field: &str| text(object, &["spec", field]).is_empty();
    match kind.plural.as_str() {
        "selfsubjectrulesreviews" if is_missing("namespace") => Err(Status::bad_request("no namespace on request")),
        "tokenreviews" if is_missing("token") => {
            Err(Status::bad_request("token is required for TokenReview in authentication"))
        }
        _ => Ok(()),
    }
}

async fn answer(context: &Context<'_>, object: &Value) -> Result<Value, Status> {
    let spec = &object["spec"];
    match context.kind.plural.as_str() {
        "selfsubjectreviews" => Ok(json!({"userInfo": user_value(&context.user)})),
        "selfsubjectaccessreviews" => Ok(access(context, &context.user, spec)),
        "selfsubjectrulesreviews" => Ok(rules(context, text(spec, &["namespace"]))),
        "subjectaccessreviews" | "localsubjectaccessreviews" => Ok(access(context, &subject(spec), spec)),
        "tokenreviews" => Ok(token(context, spec).await),
        _ => Err(Status::method_not_allowed()),
    }
}

pub(crate) fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn subject(spec: &Value) -> UserInfo {
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    UserInfo { name: text(spec, &["user"]).into(), groups, uid: text(spec, &["uid"]).into(), ..UserInfo::default() }
}

fn attributes(spec: &Value) -> Attributes {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let of = |value: &Value, field: &str| text(value, &[field]).to_owned();
    if path.is_object() {
        return Attributes { verb: of(path, "verb"), path: of(path, "path"), ..Attributes::default() };
    }
    Attributes {
        verb: of(resource, "verb"),
        group: of(resource, "group"),
        resource: of(resource, "resource"),
        subresource: of(resource, "subresource"),
        namespace: of(resource, "namespace"),
        name: of(resource, "name"),
        path: String::new(),
        fields: validate::reviews::fields(&resource["fieldSelector"]),
    }
}

fn access(context: &Context<'_>, user: &UserInfo, spec: &Value) -> Value {
    let mut status = json!({"allowed": false});
    let reason = match authorize(&context.server, user, &attributes(spec)) {
        Ok(grant) => {
            status["allowed"] = true.into();
            grant.map(|grant| grant.reason()).unwrap_or_default()
        }
        Err(why) => why,
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

fn rules(context: &Context<'_>, namespace: &str) -> Value {
    let mut held = rbac::rules_for(&context.server.store, &context.user, namespace);
    let all = || vec!["*".to_owned()];
    // The group may do everything even when nothing grants it that; usually a binding says so already.
    if context.user.is_master() && !held.iter().any(|rule| rule.verbs == all() && rule.paths == all()) {
        held.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
        held.push(Rule { verbs: all(), paths: all(), ..Rule::default() });
    }
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) = held.iter().partition(|rule| rule.resources.is_empty());
    let resource = |rule: &&Rule| {
        let mut value = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
        if !rule.names.is_empty() {
            value["resourceNames"] = json!(rule.names);
        }
        value
    };
    let path = |rule: &&Rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths});
    let is_node = node_rights::node_of(&context.user).is_some();
    let mut status = json!({
        "resourceRules": resources.iter().map(resource).collect::<Vec<_>>(),
        "nonResourceRules": paths.iter().map(path).collect::<Vec<_>>(),
        "incomplete": is_node,
    });
    if is_node {
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    status
}

async fn token(context: &Context<'_>, spec: &Value) -> Value {
    let audiences: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match authn::token_user(&context.server, text(spec, &["token"]), &audiences).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user_value(&user), "audiences": audiences}),
        Err(why) => json!({"user": {}, "error": why}),
    }
}
