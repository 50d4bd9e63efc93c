//! DELETE of one object and of a collection.

use std::sync::Arc;

use bytes::Bytes;
use isopod_planner::admission::Operation;
use isopod_schema::Status;
use isopod_store::{Entry, Expect, ListQuery, Outcome, Write};
use serde_json::{Value, json};

use crate::admission::Asked;
use crate::context::Context;
use crate::deletion::{self, Options, Plan};
use crate::negotiate::Form;
use crate::respond::{self, Response};
use crate::selection::Selection;
use crate::strategy::meta;
use crate::{codec, conversion, convert};

const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];
const ROUNDS: usize = 100;

/// What a deletion came to.
pub(crate) struct Deleted {
    pub(crate) bytes: Bytes,
    /// The object is no more.
    pub(crate) gone: bool,
}

pub(crate) async fn one(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let options = options(context, body)?;
    let deleted = named(context, &context.info.name, &options).await?;
    if deleted.gone && !context.kind.flags.returns_deleted && context.shape.output.form == Form::Object {
        let object = codec::decode(&deleted.bytes)?;
        let body = Status::success(context.kind, meta(&object, "name"), meta(&object, "uid"));
        return Ok(respond::document(200, &body, &context.shape.output));
    }
    let code = if options.waits && !deleted.gone { 202 } else { 200 };
    respond::object(code, context.kind, deleted.bytes, &context.shape)
}

/// Options come in the body or in the query.
pub(crate) fn options(context: &Context<'_>, body: &[u8]) -> Result<Options, Status> {
    let mut document = if body.is_empty() { json!({}) } else { context.decode_other("v1", "DeleteOptions", body)? };
    let query = &context.query;
    if body.is_empty() {
        if let Some(seconds) = query.number::<i64>("gracePeriodSeconds")? {
            document["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = query.get("propagationPolicy") {
            document["propagationPolicy"] = policy.into();
        }
        if query.has("orphanDependents") {
            document["orphanDependents"] = query.flag("orphanDependents").into();
        }
    }
    let options = Options::parse(&document)?;
    let dry_run = options.dry_run || crate::context::dry_run(query.all("dryRun"))?;
    Ok(Options { dry_run, ..options })
}

/// Deletes the named object as far as that is possible now.
///
/// # Errors
/// 403, 404, 409.
pub(crate) async fn named(context: &Context<'_>, name: &str, options: &Options) -> Result<Deleted, Status> {
    if context.kind.is("", "namespaces") && IMMORTAL_NAMESPACES.contains(&name) {
        return Err(Status::forbidden(context.kind, name, "this namespace may not be deleted"));
    }
    for _ in 0..ROUNDS {
        let current = context.entry(name)?;
        let object = codec::decode(&current.value)?;
        deletion::check_preconditions(context.kind, &object, options)?;
        let shown = conversion::shown_one(&context.server, context.kind, Arc::clone(&current)).await?;
        admit(context, &codec::decode(&shown.value)?, options.dry_run).await?;
        let plan = deletion::plan(context.stored, &object, options, context.now);
        if let Some(deleted) = carry_out(context, &current, plan, options.dry_run).await? {
            return Ok(deleted);
        }
    }
    Err(Status::server_timeout(context.kind, "delete"))
}

async fn admit(context: &Context<'_>, object: &Value, dry_run: bool) -> Result<(), Status> {
    let asked = Asked::new(context, Operation::Delete, object, Some(object), dry_run);
    asked.mutate(&mut Value::Null).await?;
    asked.validate(&Value::Null).await.map(|_| ())
}

/// None when somebody changed the object meanwhile.
async fn carry_out(
    context: &Context<'_>,
    current: &Arc<Entry>,
    plan: Plan,
    dry_run: bool,
) -> Result<Option<Deleted>, Status> {
    let expect = Expect::Revision(current.mod_revision);
    let (write, gone) = match &plan {
        Plan::Keep => {
            return Ok(Some(Deleted { bytes: last_shown(context, Arc::clone(current)).await, gone: false }));
        }
        Plan::Remove(last) => (Write::delete(current.key.clone(), expect, Some(codec::encode(last))), true),
        Plan::Mark(marked) => (Write::put(current.key.clone(), expect, codec::encode(marked)), false),
    };
    if let (true, Plan::Remove(object) | Plan::Mark(object)) = (dry_run, &plan) {
        let entry = Arc::new(current.shown_as(codec::encode(object)));
        return Ok(Some(Deleted { bytes: last_shown(context, entry).await, gone }));
    }
    Ok(match context.commit(write).await? {
        Outcome::Committed(entry) => Some(Deleted { bytes: last_shown(context, entry).await, gone }),
        Outcome::Lost(_) => None,
    })
}

/// The object as the kind of the request shows it. What is done is done: a webhook that fails now changes the answer only.
async fn last_shown(context: &Context<'_>, entry: Arc<Entry>) -> Bytes {
    let stored = entry.value.clone();
    let shown = conversion::shown_one(&context.server, context.kind, entry).await;
    shown.map_or(stored, |shown| shown.value.clone())
}

pub(crate) async fn collection(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    crate::options::check_list(&context.query)?;
    let options = options(context, body)?;
    let selection = Selection::parse(context.kind, &context.query)?;
    let prefix = codec::prefix(context.stored, context.namespace());
    let listed = context.server.store.list(&ListQuery { prefix, ..ListQuery::default() });
    let listed = listed.map_err(Status::internal)?;
    let entries = conversion::shown(&context.server, context.kind, listed.entries).await?;
    let mut items: Vec<Value> = Vec::new();
    for entry in entries.iter().filter(|entry| selection.matches(context.stored, entry)) {
        let name = entry.key.rsplit('/').next().unwrap_or_default();
        match named(context, name, &options).await {
            Ok(deleted) => items.push(convert::from_stored(context.kind, codec::decode(&deleted.bytes)?)),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = json!({"resourceVersion": context.server.store.revision().to_string()});
    Ok(respond::document(200, &context.shape.list(context.kind, &items, metadata), &context.shape.output))
}
