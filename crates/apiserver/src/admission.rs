//! Admission: what the cluster adds to a request and whether it lets it pass (facts, section 1.17). Built-in decisions
//! are `isopod_planner`'s; here their facts are read from the store.

pub(crate) mod call;
pub(crate) mod configured;
mod dispatch;
mod facts;
pub(crate) mod places;
pub(crate) mod quota;

use bytes::Bytes;
use isopod_planner::admission::{self as planner, Denied, Operation, Request};
use isopod_schema::{FieldError, Reason, Status, Table, names};
use serde_json::Value;

use crate::context::Context;
use crate::strategy::{meta, text};
use crate::{codec, escalation, signing};

use dispatch::Review;
pub(crate) use facts::Stored;
use quota::Charge;

/// Fields of roles and bindings that say what is granted, and to whom.
const GRANTS: [&str; 3] = ["rules", "aggregationRule", "subjects"];

/// A write on its way through admission.
pub(crate) struct Asked<'c, 't> {
    pub(crate) context: &'c Context<'t>,
    pub(crate) operation: Operation,
    /// The object as it was.
    pub(crate) old: Option<&'c Value>,
    dry_run: bool,
    name: String,
    suffix: String,
}

impl<'c, 't> Asked<'c, 't> {
    pub(crate) fn new(
        context: &'c Context<'t>,
        operation: Operation,
        object: &Value,
        old: Option<&'c Value>,
        dry_run: bool,
    ) -> Self {
        let name = match meta(old.unwrap_or(object), "name") {
            // What opens a stream has no name of its own.
            "" => context.info.name.clone(),
            name => name.to_owned(),
        };
        Self {
            context,
            operation,
            old,
            dry_run,
            name,
            suffix: names::suffix(context.server.config.identities.suffix()),
        }
    }

    fn request(&self) -> Request<'_> {
        let kind = self.context.stored;
        Request {
            operation: self.operation,
            group: &kind.group,
            resource: &kind.plural,
            // An eviction deletes the pod itself.
            subresource: if self.operation == Operation::Delete { "" } else { &self.context.info.subresource },
            namespace: self.context.namespace(),
            name: &self.name,
            old: self.old,
            user: &self.context.user.name,
            groups: &self.context.user.groups,
            suffix: &self.suffix,
        }
    }

    fn refusal(&self, denied: &Denied) -> Status {
        match denied {
            Denied::Forbidden(why) => Status::forbidden(self.context.kind, &self.name, why),
            Denied::Invalid { field, value, why } => {
                let error = FieldError::invalid(field.as_str(), value.as_str(), why.as_str());
                Status::invalid(self.context.kind, &self.name, &[error])
            }
        }
    }

    /// Fills in what the cluster decides; says whether anything was.
    ///
    /// # Errors
    /// 403, 404, 405.
    pub(crate) async fn mutate(&self, object: &mut Value) -> Result<bool, Status> {
        if self.operation == Operation::Create {
            self.may_exist(object)?;
        }
        let changed = self.fill_in(object)?;
        let Some(configured) = dispatch::applicable(self).filter(|configured| !configured.changes_nothing()) else {
            return Ok(changed);
        };
        let (user, uid, before) = (dispatch::user_info(self.context), dispatch::uid(), object.clone());
        // Others may have added what the cluster fills in, such as containers.
        let again = |object: &mut Value| self.fill_in(object).map(|_| ());
        Review::new(self, &user, &uid).mutate(&configured, object, again).await?;
        Ok(changed || *object != before)
    }

    fn fill_in(&self, object: &mut Value) -> Result<bool, Status> {
        let facts = Stored(&self.context.server.store);
        planner::mutate(object, &self.request(), &facts).map_err(|denied| self.refusal(&denied))
    }

    /// What the cluster, policies and webhooks make of the body of a subresource.
    ///
    /// # Errors
    /// 403 and what they refuse with.
    pub(crate) async fn mutate_body(&self, body: Value) -> Result<Value, Status> {
        let mut body = dispatch::named(self, body);
        planner::validate(&body, &self.request(), &Stored(&self.context.server.store))
            .map_err(|denied| self.refusal(&denied))?;
        self.mutate(&mut body).await?;
        Ok(body)
    }

    /// The same for a body to which nothing else is added, approved.
    ///
    /// # Errors
    /// 403 and what they refuse with.
    pub(crate) async fn admit_body(&self, body: Value) -> Result<Value, Status> {
        let body = self.mutate_body(body).await?;
        self.consult(&body).await?;
        Ok(body)
    }

    /// Asks the policies about the final body, then the webhooks; the server's own rules are about objects.
    ///
    /// # Errors
    /// What they refuse with.
    pub(crate) async fn consult(&self, object: &Value) -> Result<(), Status> {
        let Some(configured) = dispatch::applicable(self) else { return Ok(()) };
        let (user, uid) = (dispatch::user_info(self.context), dispatch::uid());
        let review = Review::new(self, &user, &uid);
        review.judge(&configured.policies, object)?;
        review.validate(&configured.validating, object).await
    }

    /// Decides about the final object, null for a deletion. What it costs is charged, and kept by who writes it.
    ///
    /// # Errors
    /// 403, 422.
    pub(crate) async fn validate(&self, object: &Value) -> Result<Option<Charge>, Status> {
        let grants = self.old.is_none_or(|old| GRANTS.iter().any(|field| object[field] != old[field]));
        if grants && self.operation != Operation::Delete {
            escalation::check(self.context, object)?;
        }
        signing::check(self.context, self.operation, object, self.old)?;
        let facts = Stored(&self.context.server.store);
        let warnings = planner::validate(object, &self.request(), &facts).map_err(|denied| self.refusal(&denied))?;
        warnings.into_iter().for_each(|warning| self.context.warn(warning));
        if self.context.record.is_some()
            && let Some(found) = planner::noted(object, &self.request(), &facts)
        {
            self.context.annotate("pod-security.kubernetes.io/audit-violations", found);
        }
        self.consult(object).await?;
        let charged = quota::charge(self.context, &self.request(), object, self.dry_run).await?;
        charged.map_err(|denied| self.refusal(&denied))
    }

    fn may_exist(&self, object: &Value) -> Result<(), Status> {
        if let Some(custom) = &self.context.kind.custom
            && self.context.server.served().terminating.contains(&custom.definition)
        {
            let text = "create not allowed while custom resource definition is terminating";
            return Err(Status::new(Reason::MethodNotAllowed, text));
        }
        namespace_is_open(self.context, object)
    }
}

/// Nothing is created in a namespace that does not exist or is going away.
fn namespace_is_open(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    let namespace = context.namespace();
    // What is only asked about a namespace must not tell whether it exists.
    if namespace.is_empty() || !context.kind.is_stored() {
        return Ok(());
    }
    let Some(entry) = context.server.store.get(&format!("namespaces/{namespace}")) else {
        let namespaces = Table::builtin().resource("", "v1", "namespaces").unwrap_or(context.kind);
        return Err(Status::not_found(namespaces, namespace));
    };
    let is_terminating =
        |bytes: &Bytes| codec::decode(bytes).is_ok_and(|found| text(&found, &["status", "phase"]) == "Terminating");
    if !codec::derived(&entry).terminating.get_or_init(|| is_terminating(&entry.value)) {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let cause = format!("namespace {namespace} is being terminated");
    Err(Status::forbidden(context.kind, meta(object, "name"), &why).with_cause(
        "NamespaceTerminating",
        &cause,
        "metadata.namespace",
    ))
}
