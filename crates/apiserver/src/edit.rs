//! PUT and PATCH: read, change, check, compare-and-set, and again when somebody was faster.

use std::sync::Arc;

use bytes::Bytes;
use isopod_planner::admission::Operation;
use isopod_schema::patch::{self as patches, PatchError};
use isopod_schema::{FieldError, Status, validate, warnings};
use isopod_store::{Entry, Expect, Outcome, Write};
use serde_json::Value;

use crate::admission::{Asked, quota};
use crate::context::{Context, WriteOptions};
use crate::create;
use crate::negotiate;
use crate::ownership::{self, Claim};
use crate::respond::{self, Response};
use crate::strategy::{self, meta};
use crate::{addresses, applying, codec, conversion, convert, signing, tokens};

/// Rounds of the compare-and-set loop. Somebody else made progress in each that was lost.
const ROUNDS: usize = 100;

/// The media type of server-side apply.
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Which part of an object an endpoint may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Main,
    /// The status.
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// The node of a pod, which the server itself writes.
    Binding,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// What the containers of a pod may use.
    Resize,
}

/// What an edit came to.
pub(crate) struct Edited {
    pub(crate) bytes: Bytes,
    pub(crate) created: bool,
}

pub(crate) async fn update(context: &Context<'_>, part: Part, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(context)?;
    let object = context.decode(body, &options)?;
    check_address(context, &object)?;
    let exists = context.server.store.get(&context.key(&context.info.name)).is_some();
    if !exists && part == Part::Main && context.kind.flags.create_on_update && meta(&object, "uid").is_empty() {
        context.demand_verb("create")?;
        let bytes = create::object_create(context, without_version(object), &options).await?;
        return respond::object(201, context.kind, bytes, &context.shape);
    }
    if meta(&object, "resourceVersion").is_empty() && !context.kind.flags.unconditional_update {
        let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        return Err(Status::invalid(context.kind, &context.info.name, &[error]));
    }
    let edited = apply(context, part, &options, |_| Ok(object.clone())).await?;
    respond::object(200, context.kind, edited.bytes, &context.shape)
}

fn without_version(mut object: Value) -> Value {
    strategy::metadata(&mut object).shift_remove("resourceVersion");
    object
}

/// Name and namespace of the body must be those of the URL.
pub(crate) fn check_address(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    let (name, url) = (meta(object, "name"), context.info.name.as_str());
    if name != url {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({url})");
        return Err(Status::bad_request(text));
    }
    let namespace = meta(object, "namespace");
    if !namespace.is_empty() && namespace != context.namespace() {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(text));
    }
    Ok(())
}

pub(crate) async fn patch(context: &Context<'_>, part: Part, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(context)?;
    if negotiate::media_type(&context.headers) == APPLY_PATCH {
        return applying::answer(context, part, body, &options).await;
    }
    let patch = PatchBody::parse(context, body, &options)?;
    let edited = apply(context, part, &options, |current| {
        let served = convert::from_stored(context.kind, current.clone());
        let patched = patch.apply(context, served)?;
        let object = context.decode_patched(patched, &options)?;
        check_address(context, &object)?;
        Ok(object)
    })
    .await?;
    respond::object(if edited.created { 201 } else { 200 }, context.kind, edited.bytes, &context.shape)
}

/// A patch and how to read it.
pub(crate) enum PatchBody {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl PatchBody {
    /// # Errors
    /// 400 for a body that does not parse or, when asked to be strict, says something twice; 415 for a kind of patch that is not supported, 422 for an option that only
    /// apply has.
    pub(crate) fn parse(context: &Context<'_>, body: &[u8], options: &WriteOptions) -> Result<Self, Status> {
        if context.query.has("force") {
            let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(ownership::invalid_options(context, &[error]));
        }
        let media = negotiate::media_type(&context.headers);
        let document = || context.decode_patch(body, options);
        match media {
            "application/json-patch+json" => document().map(Self::Json),
            "application/merge-patch+json" => document().and_then(changes).map(Self::Merge),
            "application/strategic-merge-patch+json" if context.kind.custom.is_none() => {
                document().and_then(changes).map(Self::Strategic)
            }
            _ => Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                APPLY_PATCH,
            ])),
        }
    }

    pub(crate) fn apply(&self, context: &Context<'_>, document: Value) -> Result<Value, Status> {
        let patched = match self {
            Self::Json(patch) => patches::json_patch(&document, patch),
            Self::Merge(patch) => {
                let mut document = document;
                patches::merge_patch(&mut document, patch);
                Ok(document)
            }
            Self::Strategic(patch) => patches::strategic_merge(context.kind, document, patch),
        };
        patched.map_err(|error| match error {
            PatchError::Malformed(_) | PatchError::Directive(_) => Status::bad_request(error.to_string()),
            PatchError::TooManyOperations(_) => {
                Status::new(isopod_schema::Reason::RequestEntityTooLarge, error.to_string())
            }
            PatchError::Failed(_) => Status::new(isopod_schema::Reason::Invalid, error.to_string()),
        })
    }
}

/// A patch that says what changes says it in an object.
fn changes(document: Value) -> Result<Value, Status> {
    let found = match &document {
        Value::Object(_) => return Ok(document),
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    let text =
        format!("error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
    Err(Status::bad_request(text))
}

/// Changes the named object: `change` makes the wanted object (stored form) of the current one and may be called
/// several times.
///
/// # Errors
/// 404, 409, 422, and what `change` refuses.
pub(crate) async fn apply(
    context: &Context<'_>,
    part: Part,
    options: &WriteOptions,
    change: impl Fn(&Value) -> Result<Value, Status> + Send + Sync,
) -> Result<Edited, Status> {
    let change = |current: &Value| {
        let mut wanted = change(current)?;
        let claim = Claim::of_client(&mut wanted);
        Ok((wanted, claim))
    };
    write_claimed(context, part, options, change).await
}

/// The same with a say in whose the fields are.
///
/// # Errors
/// As [`apply`].
pub(crate) async fn write_claimed(
    context: &Context<'_>,
    part: Part,
    options: &WriteOptions,
    change: impl Fn(&Value) -> Result<(Value, Claim), Status> + Send + Sync,
) -> Result<Edited, Status> {
    let name = &context.info.name;
    for _ in 0..ROUNDS {
        let current = context.entry(name)?;
        let shown = conversion::shown_one(&context.server, context.kind, Arc::clone(&current)).await?;
        let old = codec::decode(&shown.value)?;
        let (wanted, claim) = change(&old)?;
        check_preconditions(context, &wanted, &old)?;
        let mut new = strategy::prepare_update(context.stored, part, wanted, &old);
        signing::prepare(context, part, &mut new, &old);
        ownership::settle(context, part, &old, &mut new, claim)?;
        let asked = Asked::new(context, Operation::Update, &new, Some(&old), options.dry_run);
        if asked.mutate(&mut new).await? {
            new = prepared_again(context, part, new, &old)?;
        }
        if !options.dry_run {
            tokens::fill(context, &mut new)?;
        }
        let _reserved = if part == Part::Main { addresses::allocate(context, &mut new, Some(&old))? } else { None };
        check(context, part, &new, &old)?;
        if part == Part::Main && validate::generation_changed(context.stored, &new, &old) {
            warnings::of(context.stored, &new, Some(&old)).into_iter().for_each(|warning| context.warn(warning));
        }
        let charge = asked.validate(&new).await?;
        if new == old && !conversion::is_outdated(context.kind, &current) {
            return Ok(Edited { bytes: shown.value.clone(), created: false });
        }
        if let Some(bytes) = write(context, &current, &new, options).await? {
            quota::keep(charge);
            return Ok(Edited { bytes, created: false });
        }
    }
    Err(Status::server_timeout(context.kind, "update"))
}

/// What admission changed is brought into the stored form; who owns which fields was settled before.
fn prepared_again(context: &Context<'_>, part: Part, new: Value, old: &Value) -> Result<Value, Status> {
    let managers = new["metadata"].get("managedFields").cloned();
    let mut new = strategy::prepare_update(context.stored, part, create::normalised(context, new)?, old);
    signing::prepare(context, part, &mut new, old);
    if let Some(managers) = managers {
        strategy::metadata(&mut new).insert("managedFields".into(), managers);
    }
    Ok(new)
}

/// UID and resourceVersion of the wanted object, when given, must be the current ones.
fn check_preconditions(context: &Context<'_>, wanted: &Value, old: &Value) -> Result<(), Status> {
    let name = &context.info.name;
    let (uid, current) = (meta(wanted, "uid"), meta(old, "uid"));
    if !uid.is_empty() && uid != current {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {current}");
        return Err(Status::conflict(context.kind, name, &why));
    }
    let version = meta(wanted, "resourceVersion");
    if !version.is_empty() && version != "0" && version != meta(old, "resourceVersion") {
        return Err(Status::stale(context.kind, name));
    }
    Ok(())
}

fn check(context: &Context<'_>, part: Part, new: &Value, old: &Value) -> Result<(), Status> {
    let mut errors = strategy::check_update(new, old);
    errors.extend(match part {
        Part::Status if context.info.subresource == "approval" => validate::update_approval(new, old),
        Part::Status => validate::update_status(context.stored, new, old),
        Part::Finalize | Part::Binding => Vec::new(),
        Part::Resize => validate::resize(context.stored, new, old),
        Part::EphemeralContainers => validate::update_ephemeral_containers(context.stored, new, old),
        Part::Main => validate::update(context.stored, new, old),
    });
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(context.kind, &context.info.name, &errors)) }
}

/// Writes the new object, or deletes it when nothing holds it any longer. None when the compare was lost.
async fn write(
    context: &Context<'_>,
    current: &Entry,
    new: &Value,
    options: &WriteOptions,
) -> Result<Option<Bytes>, Status> {
    if options.dry_run {
        return Ok(Some(Bytes::from(new.to_string())));
    }
    let (key, expect) = (context.key(&context.info.name), Expect::Revision(current.mod_revision));
    let stored = conversion::for_storage(&context.server, context.kind, new).await?;
    let stored = codec::encode(&stored);
    let write = match strategy::is_finished(context.stored, new) {
        true => Write::delete(key, expect, Some(stored)),
        false => Write::put(key, expect, stored),
    };
    Ok(match context.commit(write).await? {
        Outcome::Committed(entry) => Some(conversion::written(context.kind, &entry, new)),
        Outcome::Lost(_) => None,
    })
}
