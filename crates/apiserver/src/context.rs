//! What every verb's code is given: who asks for what, of which kind, how to answer, and the server.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use isopod_schema::table::split_api_version;
use isopod_schema::{FieldError, Gvk, Kind, Status, Table, Verb, decode, defaults, protobuf};
use isopod_store::{CommitError, Entry, Outcome, Write};
use jiff::Timestamp;
use serde_json::Value;

use crate::addresses;
use crate::admission::configured;
use crate::audit::Record;
use crate::negotiate::{self, Input, Offer};
use crate::query::Query;
use crate::respond::Shape;
use crate::route::RequestInfo;
use crate::server::ApiServer;
use crate::strategy::{meta, text};
use crate::user::{MASTERS, UserInfo};
use crate::{conversion, convert, ownership};

/// Who writes what the server needs itself.
const INTERNAL_USER: &str = "system:apiserver";

/// A request on its way through a verb's code.
pub(crate) struct Context<'t> {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) info: RequestInfo,
    pub(crate) user: UserInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// All kinds as they are for this request.
    pub(crate) table: &'t Table,
    /// The kind of the URL.
    pub(crate) kind: &'t Arc<Kind>,
    /// The kind its objects are stored as.
    pub(crate) stored: &'t Arc<Kind>,
    pub(crate) shape: Shape,
    pub(crate) now: Timestamp,
    warnings: Mutex<Vec<String>>,
    /// What is recorded of the request, if anything is.
    pub(crate) record: Option<Arc<Record>>,
}

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of a write that come in the query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    validation: FieldValidation,
}

impl WriteOptions {
    /// # Errors
    /// 422 for values that do not exist.
    pub(crate) fn parse(context: &Context<'_>) -> Result<Self, Status> {
        let asked: Vec<&str> = context.query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if asked.iter().any(|value| *value != "All") {
            return Err(ownership::invalid_options(context, &[FieldError::not_supported("dryRun", asked, &["All"])]));
        }
        let dry_run = !asked.is_empty();
        let validation = match context.query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let known = ["", "Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported("fieldValidation", other, &known);
                return Err(ownership::invalid_options(context, &[error]));
            }
        };
        Ok(Self { dry_run, validation })
    }

    /// What the server writes on its own behalf.
    pub(crate) const INTERNAL: Self = Self { dry_run: false, validation: FieldValidation::Ignore };
}

/// # Errors
/// 400 for anything but `All`.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(Status::bad_request(format!("invalid dryRun {value:?}: the only supported value is \"All\"")));
        }
        dry = true;
    }
    Ok(dry)
}

impl Context<'static> {
    /// For writes the server makes on its own behalf, of the built-in kind and into the namespace of `object`.
    ///
    /// # Errors
    /// 404 for a kind that does not exist.
    pub(crate) fn internal(server: &Arc<ApiServer>, object: &Value) -> Result<Self, Status> {
        let (version, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
        let kind = Table::builtin().object_kind(version, kind).ok_or_else(Status::no_such_resource)?;
        Self::own(server, (Table::builtin(), kind), meta(object, "namespace"), meta(object, "name"))
    }
}

impl<'t> Context<'t> {
    pub(crate) fn new(
        server: Arc<ApiServer>,
        info: RequestInfo,
        user: UserInfo,
        query: Query,
        (table, kind): (&'t Table, &'t Arc<Kind>),
        headers: HeaderMap,
    ) -> Result<Self, Status> {
        let now = server.config.clock.now();
        let output = match info.subresource.as_str() {
            // Streams are plain text or take over the connection; what they accept is their own business.
            "log" | "exec" | "attach" | "portforward" | "proxy" => negotiate::Output::JSON,
            _ => negotiate::output(&headers, &query, Offer::of(kind, &info))?,
        };
        let shape = Shape::parse(output, &query, now)?;
        let stored = convert::stored_kind(kind);
        Ok(Self {
            server,
            info,
            user,
            query,
            headers,
            table,
            kind,
            stored,
            shape,
            now,
            warnings: Mutex::default(),
            record: None,
        })
    }

    /// For what the server does with an object on its own behalf.
    ///
    /// # Errors
    /// None in practice: there is nothing in such a request that could be refused.
    pub(crate) fn own(
        server: &Arc<ApiServer>,
        (table, kind): (&'t Table, &'t Arc<Kind>),
        namespace: &str,
        name: &str,
    ) -> Result<Self, Status> {
        let info = RequestInfo { namespace: namespace.into(), name: name.into(), ..RequestInfo::default() };
        let user = UserInfo::new(INTERNAL_USER, [MASTERS]);
        Self::new(Arc::clone(server), info, user, Query::default(), (table, kind), HeaderMap::new())
    }

    /// Refuses what the user may not do with the object of this request.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn demand_verb(&self, verb: &str) -> Result<(), Status> {
        crate::pipeline::demand(&self.server, &self.user, &self.info.attributes(verb)).map(|_| ())
    }

    /// # Errors
    /// 405 when the kind does not offer the verb, 404 when the path has no such place.
    pub(crate) fn check_verb(&self) -> Result<(), Status> {
        let verbs = [
            Verb::Create,
            Verb::Delete,
            Verb::DeleteCollection,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Update,
            Verb::Watch,
        ];
        let verb = verbs.into_iter().find(|verb| verb.as_str() == self.info.verb);
        let posts_to_name = self.info.verb == "create" && !self.info.name.is_empty();
        let needs_name = matches!(self.info.verb.as_str(), "update" | "patch") && self.info.name.is_empty();
        if verb.is_none_or(|verb| !self.kind.allows(verb)) || posts_to_name || needs_name {
            return Err(Status::method_not_allowed());
        }
        let collection = matches!(self.info.verb.as_str(), "list" | "watch") || !self.kind.is_stored();
        if self.kind.namespaced == self.info.namespace.is_empty() && !collection && !self.kind.is("", "namespaces") {
            // A collection over all namespaces is there, to be read.
            let is_read_only = self.info.name.is_empty() && self.info.namespace.is_empty();
            return Err(if is_read_only { Status::method_not_allowed() } else { Status::no_such_resource() });
        }
        Ok(())
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        let (text, mut said) = (text.into(), self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        // A write that was beaten to it is made again.
        if !said.contains(&text) {
            said.push(text);
        }
    }

    /// Notes something in the record of the request.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<Value>) {
        if let Some(record) = &self.record {
            record.annotate(key, value);
        }
    }

    /// Records the body of the request.
    pub(crate) fn note_body(&self, body: &[u8]) {
        if let Some(record) = &self.record {
            record.request(self.kind, &self.headers, body);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The namespace that keys use: none for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.namespaced { &self.info.namespace } else { "" }
    }

    pub(crate) fn key(&self, name: &str) -> String {
        crate::codec::key(self.stored, self.namespace(), name)
    }

    /// The entry of the named object.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn entry(&self, name: &str) -> Result<Arc<Entry>, Status> {
        self.server.store.get(&self.key(name)).ok_or_else(|| Status::not_found(self.kind, name))
    }

    /// The same as the kind of the request shows it, which a webhook may have to say.
    ///
    /// # Errors
    /// 404, 500.
    pub(crate) async fn shown(&self, name: &str) -> Result<Arc<Entry>, Status> {
        conversion::shown_one(&self.server, self.kind, self.entry(name)?).await
    }

    /// Decodes a request body as an object of the kind, applies defaults, and turns it into the stored form.
    ///
    /// # Errors
    /// 400, 415.
    pub(crate) fn decode(&self, body: &[u8], options: &WriteOptions) -> Result<Value, Status> {
        let decoded = match negotiate::input(&self.headers)? {
            Input::Text(format) => decode::object(self.kind, format, body)?,
            // Custom kinds and our own have no messages.
            Input::Protobuf if !protobuf::is_encodable(self.kind.root()) => {
                return Err(Status::unsupported_media_type(&["application/json", "application/yaml"]));
            }
            Input::Protobuf => {
                let document = protobuf::decode(self.kind.root(), body).map_err(|error| unreadable(&error))?;
                decode::object(self.kind, decode::Format::Json, document.to_string().as_bytes())?
            }
        };
        self.report(&decoded, options, |text| {
            let (kind, version) = (&self.kind.kind, &self.kind.version);
            let lead = format!("{kind} in version {version:?} cannot be handled as a {kind}");
            Status::bad_request(format!("{lead}: strict decoding error: {text}"))
        })?;
        Ok(self.finish(decoded.value))
    }

    /// The same for a document that a patch made, which has its own refusal.
    ///
    /// # Errors
    /// 422.
    pub(crate) fn decode_patched(&self, document: Value, options: &WriteOptions) -> Result<Value, Status> {
        let name = &self.info.name;
        let invalid = |text: &str| {
            let error = isopod_schema::FieldError::invalid("patch", text, text);
            Status::invalid(self.kind, name, &[error])
        };
        let decoded = decode::value(self.kind.root(), document).map_err(|error| invalid(&error.to_string()))?;
        self.report(&decoded, options, |text| {
            Status::bad_request(format!("{} {name:?} is invalid: patch: strict decoding error: {text}", self.kind.kind))
        })?;
        Ok(self.finish(decoded.value))
    }

    /// Decodes a patch, which may say nothing twice.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn decode_patch(&self, body: &[u8], options: &WriteOptions) -> Result<Value, Status> {
        let decoded = decode::patch(self.kind.root(), body).map_err(|error| unreadable(&error))?;
        self.report(&decoded, options, |text| Status::bad_request(format!("strict decoding error: {text}")))?;
        Ok(decoded.value)
    }

    fn report(
        &self,
        decoded: &decode::Decoded,
        options: &WriteOptions,
        refuse: impl FnOnce(&str) -> Status,
    ) -> Result<(), Status> {
        match options.validation {
            FieldValidation::Strict if !decoded.problems.is_empty() => return Err(refuse(&decoded.problems_text())),
            FieldValidation::Warn => decoded.problems.iter().for_each(|problem| self.warn(problem.to_string())),
            _ => {}
        }
        Ok(())
    }

    fn finish(&self, mut object: Value) -> Value {
        defaults::apply(self.kind, &mut object);
        convert::to_stored(self.kind, object)
    }

    /// Decodes a body of some other type, such as `DeleteOptions` or `Eviction`.
    ///
    /// # Errors
    /// 400, 415.
    pub(crate) fn decode_other(&self, api_version: &str, kind: &str, body: &[u8]) -> Result<Value, Status> {
        let (group, version) = split_api_version(api_version);
        let ty = self.table.type_of(&Gvk::new(group, version, kind));
        let document = match (negotiate::input(&self.headers)?, ty) {
            (Input::Protobuf, Some(ty)) => protobuf::decode(ty, body).map_err(|error| unreadable(&error))?,
            (Input::Protobuf, None) => return Err(unreadable(&format!("no {kind} in {api_version} is registered"))),
            (Input::Text(format), _) => decode::untyped(format, body).map_err(|error| unreadable(&error))?,
        };
        let Some(ty) = ty else { return Ok(document) };
        let decoded = decode::value(ty, document).map_err(|error| unreadable(&error))?;
        Ok(decoded.value)
    }

    /// # Errors
    /// 413, 500, 503.
    pub(crate) async fn commit(&self, write: Write) -> Result<Outcome, Status> {
        let outcome = commit(&self.server, write).await?;
        if let Outcome::Committed(entry) = &outcome
            && self.stored.group == isopod_schema::admission::GROUP
        {
            configured::in_force(&self.server, entry.mod_revision).await;
        }
        if let Outcome::Committed(entry) = &outcome {
            addresses::objects::in_step(&self.server, entry).await;
        }
        Ok(outcome)
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(error.to_string())
}

/// Writes to the store.
///
/// # Errors
/// 413, 500, 503.
pub(crate) async fn commit(server: &ApiServer, write: Write) -> Result<Outcome, Status> {
    server.store.commit(write).await.map_err(|error| match error {
        CommitError::TooLarge { limit_bytes, .. } => Status::too_large(limit_bytes),
        CommitError::Closed => Status::unavailable(error.to_string()),
        CommitError::Disk(_) => Status::internal(error),
    })
}
