//! POST to a collection.

use std::sync::Arc;

use bytes::Bytes;
use isopod_planner::admission::Operation;
use isopod_schema::{FieldError, Status, decode, defaults, names, validate, warnings};
use isopod_store::{Expect, Outcome, Write};
use serde_json::Value;

use crate::admission::{Asked, quota};
use crate::context::{Context, WriteOptions};
use crate::ownership::{self, Claim};
use crate::respond::{self, Response};
use crate::strategy::{self, meta};
use crate::{addresses, codec, conversion, signing, tokens};

/// How often a generated name may meet a taken one.
const NAME_ATTEMPTS: usize = 8;

pub(crate) async fn answer(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(context)?;
    let object = context.decode(body, &options)?;
    let bytes = object_create(context, object, &options).await?;
    respond::object(201, context.kind, bytes, &context.shape)
}

/// Random bytes for names.
pub(crate) fn random() -> [u8; names::SUFFIX_LENGTH] {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    std::array::from_fn(|at| bytes[at])
}

/// Creates an object in stored form; returns its bytes as stored (for a dry run, as they would be).
///
/// # Errors
/// 400, 403, 404 (namespace), 409, 422.
pub(crate) async fn object_create(
    context: &Context<'_>,
    mut object: Value,
    options: &WriteOptions,
) -> Result<Bytes, Status> {
    let claim = Claim::of_client(&mut object);
    create_claimed(context, object, options, &claim).await
}

/// The same with a say in whose the fields are.
///
/// # Errors
/// As [`object_create`].
pub(crate) async fn create_claimed(
    context: &Context<'_>,
    mut object: Value,
    options: &WriteOptions,
    claim: &Claim,
) -> Result<Bytes, Status> {
    place(context, &mut object)?;
    if !meta(&object, "resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let prefix = meta(&object, "generateName").to_owned();
    if !meta(&object, "name").is_empty() {
        return attempt(context, object, options, claim).await;
    }
    if prefix.is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid(context.kind, "", &[error]));
    }
    for _ in 0..NAME_ATTEMPTS {
        let mut named = object.clone();
        let name = names::generate(&prefix, context.server.config.identities.suffix());
        strategy::metadata(&mut named).insert("name".into(), name.into());
        match attempt(context, named, options, claim).await {
            Err(status) if status.reason == isopod_schema::Reason::AlreadyExists => {}
            decided => return decided,
        }
    }
    Err(Status::generate_name_exhausted(context.kind, &prefix))
}

/// The object goes where the URL says; one that says otherwise is refused.
///
/// # Errors
/// 400.
pub(crate) fn place(context: &Context<'_>, object: &mut Value) -> Result<(), Status> {
    let (own, url) = (meta(object, "namespace").to_owned(), context.namespace());
    if context.kind.namespaced && !own.is_empty() && own != url {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(text));
    }
    let metadata = strategy::metadata(object);
    if url.is_empty() {
        metadata.shift_remove("namespace");
    } else {
        metadata.insert("namespace".into(), url.into());
    }
    Ok(())
}

async fn attempt(
    context: &Context<'_>,
    mut object: Value,
    options: &WriteOptions,
    claim: &Claim,
) -> Result<Bytes, Status> {
    let uid = context.server.config.identities.uid();
    let owners = ownership::of_new(context, &object, claim)?;
    strategy::prepare_create(context.stored, &mut object, context.now, &uid);
    signing::claim(context, &mut object);
    let asked = Asked::new(context, Operation::Create, &object, None, options.dry_run);
    let changed = asked.mutate(&mut object).await?;
    if changed || strategy::adds_on_create(context.stored) {
        object = normalised(context, object)?;
    }
    if changed {
        // What follows from the object follows from what it has become.
        strategy::prepare_create(context.stored, &mut object, context.now, &uid);
        signing::claim(context, &mut object);
    }
    ownership::set(&mut object, owners);
    if !options.dry_run {
        tokens::fill(context, &mut object)?;
    }
    let name = meta(&object, "name").to_owned();
    let errors = validate::create(context.stored, &object);
    if !errors.is_empty() {
        return Err(Status::invalid(context.kind, &name, &errors));
    }
    // Only for what is sound: a refused request keeps nobody from an address, however briefly.
    let _reserved = addresses::allocate(context, &mut object, None)?;
    warnings::of(context.stored, &object, None).into_iter().for_each(|warning| context.warn(warning));
    let charge = asked.validate(&object).await?;
    let bytes = write(context, &name, &object, options).await?;
    quota::keep(charge);
    Ok(bytes)
}

/// What admission added is brought into the form of everything that is stored: no nulls, defaults of its own.
pub(crate) fn normalised(context: &Context<'_>, object: Value) -> Result<Value, Status> {
    let decoded = decode::value(context.stored.root(), object);
    let mut object =
        decoded.map_err(|error| Status::internal(format!("admission made no valid object: {error}")))?.value;
    defaults::apply(context.stored, &mut object);
    Ok(object)
}

async fn write(context: &Context<'_>, name: &str, object: &Value, options: &WriteOptions) -> Result<Bytes, Status> {
    let key = context.key(name);
    if options.dry_run {
        return match context.server.store.get(&key) {
            Some(existing) => Err(taken(context, name, &existing.value)),
            None => Ok(Bytes::from(object.to_string())),
        };
    }
    let stored = conversion::for_storage(&context.server, context.kind, object).await?;
    let stored = codec::encode(&stored);
    match context.commit(Write::put(key, Expect::Absent, stored)).await? {
        Outcome::Committed(entry) => Ok(conversion::written(context.kind, &entry, object)),
        Outcome::Lost(Some(existing)) => Err(taken(context, name, &existing.value)),
        Outcome::Lost(None) => Err(Status::server_timeout(context.kind, "create")),
    }
}

fn taken(context: &Context<'_>, name: &str, existing: &Bytes) -> Status {
    match codec::decode(existing) {
        Ok(existing) if strategy::is_deleting(&existing) => Status::already_exists_deleting(context.kind, name),
        _ => Status::already_exists(context.kind, name),
    }
}

/// Creates an object that the server itself needs, of any kind. One that exists already is left alone.
///
/// # Errors
/// As [`object_create`].
pub(crate) async fn ensure(server: &Arc<crate::ApiServer>, object: Value) -> Result<(), Status> {
    let context = Context::internal(server, &object)?;
    if server.store.get(&context.key(meta(&object, "name"))).is_some() {
        return Ok(());
    }
    match object_create(&context, object, &WriteOptions::INTERNAL).await {
        Err(status) if status.reason == isopod_schema::Reason::AlreadyExists => Ok(()),
        other => other.map(|_| ()),
    }
}
