//! Paths below an object that are no streams (facts, section 1.14): status, scale, binding, eviction, token, finalize,
//! ephemeralcontainers, resize.

use std::sync::Arc;

use isopod_planner::admission::Operation;
use isopod_schema::{FieldError, Reason, Status, Verb, crd};
use serde_json::{Value, json};

use crate::admission::Asked;
use crate::applying::Configuration;
use crate::context::{Context, WriteOptions};
use crate::edit::{self, Part, PatchBody};
use crate::respond::{self, Response};
use crate::strategy::{self, meta, text};
use crate::{codec, delete, eviction, negotiate, read, tokens};

pub(crate) async fn answer(context: &Context<'_>, body: bytes::Bytes) -> Result<Response, Status> {
    let name = context.info.subresource.as_str();
    let Some(subresource) = context.kind.subresource(name) else { return Ok(respond::no_such_path()) };
    if !subresource.verbs.iter().any(|verb: &Verb| verb.as_str() == context.info.verb) {
        return Err(Status::method_not_allowed());
    }
    match name {
        "status" | "approval" => part(context, Part::Status, &body).await,
        "finalize" => part(context, Part::Finalize, &body).await,
        "resize" => part(context, Part::Resize, &body).await,
        "ephemeralcontainers" => part(context, Part::EphemeralContainers, &body).await,
        "scale" => scale(context, &body).await,
        "binding" => binding(context, &body).await,
        "eviction" => eviction::answer(context, &body).await,
        "token" => tokens::answer(context, &body).await,
        other => Err(Status::new(
            Reason::MethodNotAllowed,
            format!(
                "the subresource {other:?} of {} is not supported by this server yet",
                context.kind.resource_text()
            ),
        )),
    }
}

async fn part(context: &Context<'_>, part: Part, body: &[u8]) -> Result<Response, Status> {
    match context.info.verb.as_str() {
        "get" => read::get(context).await,
        "patch" => edit::patch(context, part, body).await,
        _ => edit::update(context, part, body).await,
    }
}

// === scale ===

async fn scale(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(context)?;
    let document = match context.info.verb.as_str() {
        "get" => scale_of(context, &codec::decode(&context.shown(&context.info.name).await?.value)?)?,
        "patch" if negotiate::media_type(&context.headers) == edit::APPLY_PATCH => {
            let configuration = applied_scale(context, body)?;
            let change = |current: &Value| configuration.apply(context, Part::Main, current, &options);
            let edited = edit::write_claimed(context, Part::Main, &options, change).await?;
            scale_of(context, &codec::decode(&edited.bytes)?)?
        }
        "patch" => {
            let patch = PatchBody::parse(context, body, &options)?;
            let change = |current: &Value| {
                let scale = scale_of(context, current)?;
                let patched = match &patch {
                    // A Scale has no lists: a strategic patch and a merge patch mean the same.
                    PatchBody::Strategic(patch) => PatchBody::Merge(patch.clone()).apply(context, scale)?,
                    other => other.apply(context, scale)?,
                };
                scaled(context, current, &patched)
            };
            write_scale(context, &options, change).await?
        }
        _ => {
            let wanted = context.decode_other("autoscaling/v1", "Scale", body)?;
            write_scale(context, &options, |current| scaled(context, current, &wanted)).await?
        }
    };
    Ok(respond::document(200, &context.shape.scale(document), &context.shape.output))
}

/// A Scale that is applied, as a configuration of the object that it scales.
fn applied_scale(context: &Context<'_>, body: &[u8]) -> Result<Configuration, Status> {
    let configuration = Configuration::parse(context, body)?;
    configuration.check_kind("autoscaling/v1", "Scale")?;
    let scale = configuration.document();
    let metadata = scale.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let whole = json!({"apiVersion": context.kind.api_version(), "kind": context.kind.kind, "metadata": metadata});
    let has_replicas = scale["spec"].get("replicas").is_some();
    let whole = if has_replicas { scaled(context, &whole, scale)? } else { whole };
    Ok(configuration.with(whole))
}

async fn write_scale(
    context: &Context<'_>,
    options: &WriteOptions,
    change: impl Fn(&Value) -> Result<Value, Status> + Send + Sync,
) -> Result<Value, Status> {
    let edited = edit::apply(context, Part::Main, options, change).await?;
    scale_of(context, &codec::decode(&edited.bytes)?)
}

pub(crate) fn scaled(context: &Context<'_>, current: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(context.kind, &context.info.name, &[error]));
    }
    let mut object = current.clone();
    let builtin = ["spec".to_owned(), "replicas".to_owned()];
    let path = scale_paths(context).map_or(&builtin[..], |paths| &paths.spec_replicas);
    *path.iter().fold(&mut object, |place, name| {
        if !place.is_object() {
            *place = json!({});
        }
        &mut place[name.as_str()]
    }) = replicas.into();
    for field in ["uid", "resourceVersion"] {
        let given = meta(scale, field);
        if !given.is_empty() {
            strategy::metadata(&mut object).insert(field.into(), given.into());
        }
    }
    Ok(object)
}

/// Where a custom kind keeps its replicas.
fn scale_paths<'t>(context: &Context<'t>) -> Option<&'t crd::Scale> {
    context.kind.custom.as_ref().and_then(|custom| custom.scale.as_ref())
}

/// Wanted and observed replicas and the selector.
///
/// # Errors
/// 500 when an object of a custom kind says nothing about the replicas it wants.
fn replicas_of(context: &Context<'_>, object: &Value) -> Result<(i64, i64, String), Status> {
    let number = |path: &[&str]| path.iter().try_fold(object, |value, name| value.get(name)).and_then(Value::as_i64);
    let Some(paths) = scale_paths(context) else {
        let selector = selector_text(&object["spec"]["selector"], context.kind.group.is_empty());
        let wanted = number(&["spec", "replicas"]).unwrap_or(0);
        return Ok((wanted, number(&["status", "replicas"]).unwrap_or(0), selector));
    };
    fn names(path: &[String]) -> Vec<&str> {
        path.iter().map(String::as_str).collect()
    }
    let wanted = number(&names(&paths.spec_replicas)).ok_or_else(|| {
        Status::internal(format!("the spec replicas field \".{}\" does not exist", paths.spec_replicas.join(".")))
    })?;
    let selector = paths.label_selector.as_ref().map(|path| text(object, &names(path))).unwrap_or_default();
    Ok((wanted, number(&names(&paths.status_replicas)).unwrap_or(0), selector.to_owned()))
}

pub(crate) fn scale_of(context: &Context<'_>, object: &Value) -> Result<Value, Status> {
    let field = |name: &str| object["metadata"][name].clone();
    let (wanted, observed, selector) = replicas_of(context, object)?;
    let mut status = json!({"replicas": observed});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": field("name"), "namespace": field("namespace"), "uid": field("uid"),
            "resourceVersion": field("resourceVersion"), "creationTimestamp": field("creationTimestamp"),
        },
        "spec": {"replicas": wanted},
        "status": status,
    }))
}

/// A selector in its query form. The core group's are plain maps.
fn selector_text(selector: &Value, plain: bool) -> String {
    let labels = if plain { selector } else { &selector["matchLabels"] };
    let equal = labels.as_object().into_iter().flatten();
    let mut terms: Vec<String> =
        equal.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(expression, &["key"]);
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

/// A body that stands for an object names it.
///
/// # Errors
/// 400 when it names another, or none.
pub(crate) fn demand_name(context: &Context<'_>, body: &Value) -> Result<(), Status> {
    let kind = text(body, &["kind"]);
    match meta(body, "name") == context.info.name {
        true => Ok(()),
        false => Err(Status::bad_request(format!("name in URL does not match name in {kind} object"))),
    }
}

// === binding ===

/// Assigns a pod to a node, once.
async fn binding(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(context)?;
    let binding = context.decode_other("v1", "Binding", body)?;
    let binding = Asked::new(context, Operation::Create, &binding, None, options.dry_run).admit_body(binding).await?;
    bind(context, &binding, &options).await?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::document(201, &success, &context.shape.output))
}

/// A binding among others (POST bindings) is the binding of the pod that it names.
///
/// # Errors
/// As the pod's own.
pub(crate) async fn binding_by_name(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let sent = context.decode_other("v1", "Binding", body)?;
    let pods = context.table.resource("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    let (mut info, server) = (context.info.clone(), Arc::clone(&context.server));
    (info.resource, info.subresource, info.name) = ("pods".into(), "binding".into(), meta(&sent, "name").into());
    let (query, headers) = (context.query.clone(), context.headers.clone());
    let of_pod = Context::new(server, info, context.user.clone(), query, (context.table, pods), headers)?;
    binding(&of_pod, body).await
}

async fn bind(context: &Context<'_>, binding: &Value, options: &WriteOptions) -> Result<(), Status> {
    let name = &context.info.name;
    demand_name(context, binding)?;
    let node = text(binding, &["target", "name"]);
    let kind = text(binding, &["target", "kind"]);
    if node.is_empty() || !matches!(kind, "" | "Node") {
        let error = match node.is_empty() {
            true => FieldError::required("target.name", ""),
            false => FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]),
        };
        return Err(Status::invalid(context.kind, name, &[error]));
    }
    // Scheduling changes neither spec as a user sees it nor status alone, so it is written as a whole.
    edit::apply(context, Part::Binding, options, |pod| bound(context, pod, binding, node)).await.map(|_| ())
}

fn bound(context: &Context<'_>, pod: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let name = &context.info.name;
    let refuse = |why: &str| Err(Status::conflict(context.kind, name, why));
    let assigned = text(pod, &["spec", "nodeName"]);
    if strategy::is_deleting(pod) {
        return refuse(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if !assigned.is_empty() {
        return refuse(&format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return refuse(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node.into();
    if let Some(status) = pod["status"].as_object_mut() {
        status.shift_remove("nominatedNodeName");
    }
    for field in ["uid", "resourceVersion"] {
        let given = meta(binding, field);
        if !given.is_empty() {
            strategy::metadata(&mut pod).insert(field.into(), given.into());
        }
    }
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": strategy::time_text(context.now),
    });
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let others = conditions.into_iter().filter(|condition| condition["type"] != "PodScheduled");
    pod["status"]["conditions"] = others.chain([condition]).collect();
    Ok(pod)
}

/// Deletes without options, as an eviction does.
pub(crate) async fn delete_named(context: &Context<'_>, options: &crate::deletion::Options) -> Result<(), Status> {
    delete::named(context, &context.info.name, options).await.map(|_| ())
}
