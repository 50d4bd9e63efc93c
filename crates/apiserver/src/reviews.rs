//! Kinds that are questions: created, answered, never stored (facts, section 1.14).

use isopod_schema::{Reason, Status};
use serde_json::{Value, json};

use crate::authn;
use crate::authz::{Attributes, Rule};
use crate::context::{Context, WriteOptions};
use crate::negotiate::{self, Form};
use crate::rbac;
use crate::respond::{self, Response};
use crate::strategy::text;
use crate::user::UserInfo;

pub(crate) async fn create(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    if context.shape.output.form != Form::Object {
        return Err(Status::not_acceptable(&negotiate::MEDIA_TYPES));
    }
    let options = WriteOptions::parse(&context.query)?;
    let mut object = context.decode(body, &options)?;
    object["apiVersion"] = context.kind.api_version().into();
    object["kind"] = context.kind.kind.as_str().into();
    object["status"] = answer(context, &object).await?;
    Ok(respond::document(201, &object, &context.shape.output))
}

async fn answer(context: &Context<'_>, object: &Value) -> Result<Value, Status> {
    let spec = &object["spec"];
    match context.kind.plural.as_str() {
        "selfsubjectreviews" => Ok(json!({"userInfo": user_value(&context.user)})),
        "selfsubjectaccessreviews" => access(context, &context.user, spec),
        "selfsubjectrulesreviews" => Ok(rules(context, text(spec, &["namespace"]))),
        "subjectaccessreviews" => access(context, &subject(spec), spec),
        "localsubjectaccessreviews" => {
            let namespace = text(spec, &["resourceAttributes", "namespace"]);
            if namespace != context.namespace() {
                let text = format!("spec.resourceAttributes.namespace must be {:?}", context.namespace());
                return Err(Status::new(Reason::Invalid, text));
            }
            access(context, &subject(spec), spec)
        }
        "tokenreviews" => Ok(token(context, spec).await),
        _ => Err(Status::method_not_allowed(context.kind, "create")),
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

fn attributes(spec: &Value) -> Result<Attributes, Status> {
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let of = |value: &Value, field: &str| text(value, &[field]).to_owned();
    match (resource.is_object(), path.is_object()) {
        (true, false) => Ok(Attributes {
            verb: of(resource, "verb"),
            group: of(resource, "group"),
            resource: of(resource, "resource"),
            subresource: of(resource, "subresource"),
            namespace: of(resource, "namespace"),
            name: of(resource, "name"),
            path: String::new(),
        }),
        (false, true) => Ok(Attributes { verb: of(path, "verb"), path: of(path, "path"), ..Attributes::default() }),
        _ => {
            let text =
                "spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(Status::new(Reason::Invalid, text))
        }
    }
}

fn access(context: &Context<'_>, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
    let asked = attributes(spec)?;
    Ok(json!({"allowed": crate::pipeline::may(&context.server, user, &asked)}))
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
    json!({
        "resourceRules": resources.iter().map(resource).collect::<Vec<_>>(),
        "nonResourceRules": paths.iter().map(path).collect::<Vec<_>>(),
        "incomplete": false,
    })
}

async fn token(context: &Context<'_>, spec: &Value) -> Value {
    let audiences: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match authn::token_user(&context.server, text(spec, &["token"]), &audiences).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user_value(&user), "audiences": audiences}),
        Err(why) => json!({"user": {}, "error": why}),
    }
}
