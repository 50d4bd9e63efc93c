//! Server-side apply: PATCH with `application/apply-patch+yaml`. Merging, conflicts and ownership are decided in
//! [`isopod_schema::apply`]; here they become one request, also for an object that does not exist yet.

use isopod_schema::apply::{self, ApplyError, Conflict, Managers, Writer};
use isopod_schema::{FieldError, Reason, Status, decode};
use serde_json::{Value, json};

use crate::context::{Context, WriteOptions};
use crate::edit::{self, Part};
use crate::ownership::{self, Claim, Siblings};
use crate::respond::{self, Response};
use crate::strategy::{self, meta};
use crate::{convert, create};

/// How often an object may come and go while it is being applied.
const ROUNDS: usize = 10;

/// What the client applies.
pub(crate) struct Configuration {
    document: Value,
    manager: String,
    force: bool,
}

pub(crate) async fn answer(
    context: &Context<'_>,
    part: Part,
    body: &[u8],
    options: &WriteOptions,
) -> Result<Response, Status> {
    let configuration = Configuration::parse(context, body)?;
    configuration.check_kind(&context.kind.api_version(), &context.kind.kind)?;
    for _ in 0..ROUNDS {
        let change = |current: &Value| configuration.apply(context, part, current, options);
        match edit::write_claimed(context, part, options, change).await {
            Err(status) if status.reason == Reason::NotFound && part == Part::Main => {}
            Err(status) => return Err(status),
            Ok(edited) => return respond::object(200, context.kind, edited.bytes, &context.shape),
        }
        match configuration.create(context, options).await {
            Err(status) if status.reason == Reason::AlreadyExists => {}
            Err(status) => return Err(status),
            Ok(bytes) => return respond::object(201, context.kind, bytes, &context.shape),
        }
    }
    Err(Status::server_timeout(context.kind, "patch"))
}

impl Configuration {
    /// # Errors
    /// 400 for a body that is no document, 422 for missing or wrong options.
    pub(crate) fn parse(context: &Context<'_>, body: &[u8]) -> Result<Self, Status> {
        if context.query.get("fieldManager").is_none() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(ownership::invalid_options(context, &[error]));
        }
        let manager = ownership::manager(context)?;
        let document = parse(body).map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))?;
        if !document.is_object() {
            return Err(Status::bad_request("error decoding YAML: an applied configuration is an object"));
        }
        if document["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        Ok(Self { document, manager, force: context.query.flag("force") })
    }

    /// The configuration itself.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// The same manager's configuration of another object.
    pub(crate) fn with(&self, document: Value) -> Self {
        Self { document, manager: self.manager.clone(), force: self.force }
    }

    /// # Errors
    /// 400 for another kind than that of the URL.
    pub(crate) fn check_kind(&self, api_version: &str, kind: &str) -> Result<(), Status> {
        let text = |field: &str| self.document[field].as_str().unwrap_or_default();
        if text("kind") != kind || text("apiVersion").is_empty() {
            let (version, given) = (text("apiVersion"), text("kind"));
            return Err(Status::bad_request(format!("invalid object type: {}, Kind={given}", slashed(version))));
        }
        if text("apiVersion") != api_version {
            return Err(Status::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {}, expected: {api_version}",
                text("apiVersion")
            )));
        }
        Ok(())
    }

    /// The object that is wanted instead of the stored one, and whose its fields are.
    ///
    /// # Errors
    /// 400, 409, 422.
    pub(crate) fn apply(
        &self,
        context: &Context<'_>,
        part: Part,
        current: &Value,
        options: &WriteOptions,
    ) -> Result<(Value, Claim), Status> {
        let mut live = convert::from_stored(context.kind, current.clone());
        let stored = strategy::metadata(&mut live).shift_remove("managedFields").unwrap_or_default();
        let managers = Managers::parse(&stored)
            .map_err(|error| Status::internal(format!("failed to decode managed fields: {error}")))?;
        self.merge(context, part, &live, managers, options)
    }

    async fn create(&self, context: &Context<'_>, options: &WriteOptions) -> Result<bytes::Bytes, Status> {
        context.demand_verb("create")?;
        let uid = meta(&self.document, "uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(context.kind, &context.info.name, &why));
        }
        let (object, claim) = self.merge(context, Part::Main, &json!({}), Managers::default(), options)?;
        create::create_claimed(context, object, options, &claim).await
    }

    fn merge(
        &self,
        context: &Context<'_>,
        part: Part,
        live: &Value,
        managers: Managers,
        options: &WriteOptions,
    ) -> Result<(Value, Claim), Status> {
        let (api_version, time) = (context.kind.api_version(), strategy::time_text(context.now));
        let (name, subresource) = (self.manager.as_str(), context.info.subresource.as_str());
        let writer = Writer { name, api_version: &api_version, subresource, time: &time };
        let versions = Siblings::new(context);
        apply::check(&versions, &self.document, &api_version).map_err(|error| self.refusal(context, error))?;
        let config = self.without_reset(context, part);
        let applied = apply::apply(&versions, live, &config, managers, writer, self.force);
        let mut applied = applied.map_err(|error| self.refusal(context, error))?;
        apply::refresh_last_applied(&mut applied.object, &self.document, name);
        let object = context.decode_patched(applied.object, options)?;
        edit::check_address(context, &object)?;
        Ok((object, Claim::Decided(applied.managers.to_value())))
    }

    /// The configuration without what this endpoint does not change, so that nobody owns it through here.
    fn without_reset(&self, context: &Context<'_>, part: Part) -> Value {
        let mut config = self.document.clone();
        let Some(fields) = config.as_object_mut() else { return config };
        match part {
            Part::Status => {
                fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
                strategy::metadata(&mut config).shift_remove("ownerReferences");
            }
            Part::EphemeralContainers => only_spec(&mut config, &["ephemeralContainers"]),
            Part::Resize => {
                only_spec(&mut config, &["containers", "initContainers"]);
                for list in ["containers", "initContainers"] {
                    let containers = config.get_mut("spec").and_then(|spec| spec.get_mut(list)?.as_array_mut());
                    for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                        container.retain(|name, _| matches!(name.as_str(), "name" | "resources" | "resizePolicy"));
                    }
                }
            }
            _ if context.kind.has_status_subresource() => {
                fields.shift_remove("status");
            }
            _ => {}
        }
        config
    }

    fn refusal(&self, context: &Context<'_>, error: ApplyError) -> Status {
        match error {
            ApplyError::Conflicts(conflicts) => conflict(&conflicts),
            ApplyError::Config(why) => {
                let (namespace, name) = (meta(&self.document, "namespace"), meta(&self.document, "name"));
                let kind = context.kind;
                let lead = "failed to create typed patch object";
                let (api_version, kind) = (kind.api_version(), &kind.kind);
                Status::bad_request(format!(
                    "{lead} ({namespace}/{name}; {}, Kind={kind}): {why}",
                    slashed(&api_version)
                ))
            }
            ApplyError::Version(_) => Status::internal(error),
        }
    }
}

/// Leaves of a configuration what names the object, and these fields of its spec.
fn only_spec(config: &mut Value, wanted: &[&str]) {
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "spec"));
    }
    let named = |name: &String| matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion");
    strategy::metadata(config).retain(|name, _| named(name));
    if let Some(spec) = config.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|name, _| wanted.contains(&name.as_str()));
    }
}

/// JSON is YAML too, but read much faster as what it is.
fn parse(body: &[u8]) -> Result<Value, decode::DecodeError> {
    match decode::unique_json(body) {
        Err(decode::DecodeError::Syntax(_)) => decode::untyped(decode::Format::Yaml, body),
        decided => decided,
    }
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let status = Status::new(Reason::Conflict, apply::message(conflicts));
    conflicts.iter().fold(status, |status, conflict| {
        status.with_cause("FieldManagerConflict", &format!("conflict with {}", conflict.owner), &conflict.field())
    })
}

/// Group and version as upstream prints them here: the core group has no name, but its slash.
fn slashed(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}
