//! Asks the webhooks and policies that a request concerns. What they are asked and what their answers mean is
//! `isopod_schema::admission`'s.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use isopod_planner::admission::{Facts, Operation};
use isopod_schema::admission::{Action, Answer, Binding, Objects, Policy, Request};
use isopod_schema::{Gvk, Kind, Status, TypeRef, decode, defaults, patch};
use serde_json::{Value, json};

use super::Asked;
use super::configured::{Configured, Hook};
use super::facts::Stored;
use super::places;
use crate::context::Context;
use crate::convert;
use crate::{streams, subresource};

/// What a policy notes for the audit log: different values by key.
type Notes = BTreeMap<String, Vec<String>>;

/// Subresources whose bodies are shown; what the server then writes because of them is its own business.
const WRITTEN_FOR: [&str; 3] = ["binding", "eviction", "token"];

/// Kind of the body of a subresource, where that is not the object's.
fn sent(
    context: &Context<'_>,
    operation: Operation,
    subresource: &str,
) -> Option<(&'static str, &'static str, &'static str)> {
    match subresource {
        "scale" => Some(("autoscaling", "v1", "Scale")),
        "binding" => Some(("", "v1", "Binding")),
        "eviction" => Some(("policy", "v1", "Eviction")),
        "token" => Some(("authentication.k8s.io", "v1", "TokenRequest")),
        other if operation == Operation::Connect => {
            Some(("", "v1", streams::connect_kind(&context.kind.plural, other)))
        }
        _ => None,
    }
}

/// What a request is in the eyes of what is configured.
pub(super) struct Review<'a> {
    context: &'a Context<'a>,
    request: Request<'a>,
    namespace: Arc<Value>,
    old: &'a Value,
}

/// Which webhook is asked, and for which time, as the record of a request says it.
#[derive(Clone, Copy)]
struct Turn {
    is_mutating: bool,
    round: usize,
    index: usize,
}

impl Turn {
    fn key(self, what: &str) -> String {
        format!("{what}.admission.k8s.io/round_{}_index_{}", self.round, self.index)
    }

    fn failed_open(self) -> String {
        self.key(if self.is_mutating { "failed-open.mutating.webhook" } else { "failed-open.validating.webhook" })
    }
}

/// Where the record of a request says which policies it breaks.
const BROKEN: &str = "validation.policy.admission.k8s.io/validation_failure";

static NULL: Value = Value::Null;

/// Who asks, as reviews say it.
pub(super) fn user_info(context: &Context<'_>) -> Value {
    let user = &context.user;
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The kind of the request, then others that show the same objects.
fn kinds<'t>(context: &Context<'t>) -> Vec<&'t Kind> {
    let key = context.stored.resource_text();
    let shows_same =
        |kind: &&Arc<Kind>| !Arc::ptr_eq(kind, context.kind) && convert::stored_kind(kind).resource_text() == key;
    let others = context.table.rows().filter(shows_same).map(|kind| &**kind);
    std::iter::once(&**context.kind).chain(others).collect()
}

/// What is configured, when there is anything and the request is of a kind that is shown.
pub(super) fn applicable(asked: &Asked<'_, '_>) -> Option<Arc<Configured>> {
    let configured = asked.context.server.configured.borrow().clone();
    let is_empty = configured.changes_nothing() && configured.validating.is_empty() && configured.policies.is_empty();
    let is_hidden =
        asked.operation == Operation::Update && WRITTEN_FOR.contains(&asked.context.info.subresource.as_str());
    (!is_empty && !is_hidden).then_some(configured)
}

/// The body of a subresource, saying what it is.
pub(super) fn named(asked: &Asked<'_, '_>, mut body: Value) -> Value {
    if let Some((group, version, kind)) = sent(asked.context, asked.operation, &asked.context.info.subresource) {
        body["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        body["kind"] = kind.into();
    }
    body
}

impl<'a> Review<'a> {
    pub(super) fn new(asked: &'a Asked<'a, 'a>, user: &'a Value, uid: &'a str) -> Self {
        let context = asked.context;
        let facts = Stored(&context.server.store);
        let namespace = match context.namespace() {
            "" => None,
            namespace => facts.get("namespaces", "", namespace),
        };
        let subresource = if asked.operation == Operation::Delete { "" } else { context.info.subresource.as_str() };
        let request = Request {
            operation: asked.operation.as_str(),
            kinds: kinds(context),
            subresource,
            sent: sent(context, asked.operation, subresource),
            namespace: context.namespace(),
            name: &asked.name,
            user,
            dry_run: asked.dry_run,
            uid,
        };
        Self { context, request, namespace: namespace.unwrap_or_default(), old: asked.old.unwrap_or(&NULL) }
    }

    /// An object as a kind shows it.
    fn shown(&self, kind: &Kind, object: &Value) -> Result<Value, Status> {
        match (object, self.request.subresource) {
            (Value::Null, _) => Ok(Value::Null),
            (object, "scale") => subresource::scale_of(self.context, object),
            (object, _) if self.request.sent.is_some() => Ok(object.clone()),
            (object, _) => Ok(convert::from_stored(kind, object.clone())),
        }
    }

    /// Type of what is shown; none for the options of a stream, which are never sent as a document.
    fn shape(&self, kind: &'a Kind) -> Option<TypeRef<'a>> {
        match self.request.sent {
            Some((group, version, name)) => self.context.table.type_of(&Gvk::new(group, version, name)),
            None => Some(kind.root()),
        }
    }

    /// What a webhook or policy made of what it was shown, in the form of the current object.
    fn taken_back(&self, kind: &'a Kind, current: &Value, made: Value, who: &str) -> Result<Value, Status> {
        let broken = |error: &dyn Display| Status::internal(format!("{who} made no valid object: {error}"));
        let mut made = match self.shape(kind) {
            Some(shape) => decode::value(shape, made).map_err(|error| broken(&error))?.value,
            None if made.is_object() => made,
            None => return Err(broken(&"it is no map")),
        };
        match (self.request.sent, self.request.subresource) {
            (None, _) => {
                defaults::apply(kind, &mut made);
                Ok(convert::to_stored(kind, made))
            }
            (Some(_), "scale") => subresource::scaled(self.context, current, &made),
            (Some(_), _) => Ok(made),
        }
    }

    fn objects<'o>(&'o self, object: &'o Value, old: &'o Value) -> Objects<'o> {
        Objects { object, old, namespace: &self.namespace }
    }

    /// Asks one webhook. None when it is not concerned, or failed and that may be.
    async fn ask(&self, hook: &Hook, object: &Value, turn: Turn) -> Result<Option<(&'a Kind, Value, Answer)>, Status> {
        let Some(kind) = hook.webhook.concerns(&self.request, &self.objects(object, self.old)) else { return Ok(None) };
        let (new, old) = (self.shown(kind, object)?, self.shown(kind, self.old)?);
        let objects = self.objects(&new, &old);
        if !hook.webhook.wants(&self.request, kind, &objects)? {
            return Ok(None);
        }
        let review = hook.webhook.review(&self.request, kind, &objects);
        match self.call(hook, &review, turn.is_mutating).await {
            Ok(answer) => {
                for (key, text) in &answer.notes {
                    self.context.annotate(&format!("{}/{key}", hook.webhook.name), text.as_str());
                }
                answer.warnings.iter().for_each(|warning| self.context.warn(warning));
                Ok(Some((kind, new, answer)))
            }
            Err(why) => match hook.webhook.failure(&why) {
                Some(status) => Err(status),
                None => {
                    self.context.annotate(&turn.failed_open(), hook.webhook.name.as_str());
                    tracing::warn!(webhook = hook.webhook.name, why, "a webhook failed, which may be");
                    Ok(None)
                }
            },
        }
    }

    async fn call(&self, hook: &Hook, review: &Value, mutating: bool) -> Result<Answer, String> {
        let called = |why: String| format!("failed to call webhook: {why}");
        let place = places::find(&Stored(&self.context.server.store), &hook.webhook.target).map_err(called)?;
        let limit = Duration::from_secs(hook.webhook.timeout_seconds);
        let body = review.to_string().into();
        let body = hook.client.post(&place, body, limit).await.map_err(called)?;
        hook.webhook.read_answer(&body, self.request.uid, mutating)
    }

    /// Lets one webhook change the object.
    async fn change(&self, hook: &Hook, object: &mut Value, turn: Turn) -> Result<bool, Status> {
        let Some((kind, shown, answer)) = self.ask(hook, object, turn).await? else { return Ok(false) };
        if let Some(refusal) = answer.refusal {
            return Err(refusal);
        }
        let Some(patch) = answer.patch.filter(|patch| patch.as_array().is_some_and(|steps| !steps.is_empty())) else {
            self.note_mutation(hook, turn, false, None);
            return Ok(true);
        };
        let name = &hook.webhook.name;
        if object.is_null() {
            let text = "attempted to modify the object, which is not supported for this operation";
            return Err(Status::internal(format!("admission webhook {name:?} {text}")));
        }
        let patched = patch::json_patch(&shown, &patch).map_err(Status::internal)?;
        let changed = self.taken_back(kind, object, patched, &format!("admission webhook {name:?}"))?;
        self.note_mutation(hook, turn, changed != *object, Some(patch));
        *object = changed;
        Ok(true)
    }

    /// Records what a webhook did, and how where bodies are recorded too.
    fn note_mutation(&self, hook: &Hook, turn: Turn, mutated: bool, patch: Option<Value>) {
        let Some(record) = &self.context.record else { return };
        let (configuration, webhook) = (&hook.webhook.configuration, &hook.webhook.name);
        let done = json!({"configuration": configuration, "webhook": webhook, "mutated": mutated});
        record.annotate(&turn.key("mutation.webhook"), done.to_string());
        if let Some(patch) = patch.filter(|_| record.shows_bodies()) {
            let how =
                json!({"configuration": configuration, "webhook": webhook, "patch": patch, "patchType": "JSONPatch"});
            record.annotate(&turn.key("patch.webhook"), how.to_string());
        }
    }

    /// Lets one policy change the object; says whether it was concerned.
    fn change_by_policy(
        &self,
        (policy, bindings): &(Policy, Vec<Binding>),
        object: &mut Value,
    ) -> Result<bool, Status> {
        if object.is_null() {
            return Ok(false);
        }
        let Some(kind) = policy.concerns(&self.request, &self.objects(object, self.old)) else { return Ok(false) };
        let mut was_asked = false;
        for binding in bindings {
            if !binding.concerns(&self.request, &self.objects(object, self.old)) {
                continue;
            }
            was_asked = true;
            for params in self.parameters(policy, binding)? {
                let (new, old) = (self.shown(kind, object)?, self.shown(kind, self.old)?);
                let made = policy.mutated(&self.request, (kind, self.shape(kind)), &self.objects(&new, &old), &params);
                let who = format!("policy '{}' with binding '{}'", policy.name, binding.name);
                let take = |made| self.taken_back(kind, object, made, &who).map_err(|status| status.to_string());
                let made = made.and_then(|made| made.map(take).transpose());
                match made {
                    Ok(Some(made)) => *object = made,
                    Ok(None) => {}
                    Err(why) if policy.ignores_failure => tracing::warn!(who, why, "a policy failed, which may be"),
                    Err(why) => {
                        let why = format!("{who} denied request: {why}");
                        return Err(Status::forbidden(self.context.kind, self.request.name, &why));
                    }
                }
            }
        }
        Ok(was_asked)
    }

    /// Asks all mutating policies and webhooks in order; and again those that want it when others changed the object
    /// after them.
    pub(super) async fn mutate(
        &self,
        configured: &Configured,
        object: &mut Value,
        between: impl FnOnce(&mut Value) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let (policies, hooks) = (&configured.mutations, &configured.mutating);
        let before = object.clone();
        let mut left = Vec::with_capacity(policies.len());
        for policy in policies {
            let was_asked = self.change_by_policy(policy, object)?;
            left.push((was_asked && policy.0.is_reinvoked).then(|| object.clone()));
        }
        let mut seen = Vec::with_capacity(hooks.len());
        for (index, hook) in hooks.iter().enumerate() {
            let was_asked = self.change(hook, object, Turn { is_mutating: true, round: 0, index }).await?;
            seen.push((was_asked && hook.webhook.is_reinvoked).then(|| object.clone()));
        }
        if *object == before {
            return Ok(());
        }
        between(object)?;
        for (policy, left) in policies.iter().zip(left) {
            if left.is_some_and(|left| left != *object) {
                self.change_by_policy(policy, object)?;
            }
        }
        for (index, (hook, seen)) in hooks.iter().zip(seen).enumerate() {
            if seen.is_some_and(|seen| seen != *object) {
                self.change(hook, object, Turn { is_mutating: true, round: 1, index }).await?;
            }
        }
        Ok(())
    }

    /// Asks all validating webhooks at the same time; the first refusal in order counts. Boxed: the compiler does not
    /// see through futures that borrow this much.
    pub(super) fn validate<'f>(&'f self, hooks: &'f [Hook], object: &'f Value) -> BoxFuture<'f, Result<(), Status>> {
        Box::pin(async move {
            let turn = |index| Turn { is_mutating: false, round: 0, index };
            for answer in
                join_all(hooks.iter().enumerate().map(|(index, hook)| self.ask(hook, object, turn(index)))).await
            {
                if let Some((_, _, Answer { refusal: Some(refusal), .. })) = answer? {
                    return Err(refusal);
                }
            }
            Ok(())
        })
    }

    /// Asks all policies.
    pub(super) fn judge(&self, policies: &[(Policy, Vec<Binding>)], object: &Value) -> Result<(), Status> {
        for (policy, bindings) in policies {
            let objects = self.objects(object, self.old);
            let Some(kind) = policy.concerns(&self.request, &objects) else { continue };
            let in_force = bindings.iter().filter(|binding| binding.concerns(&self.request, &objects));
            let in_force: Vec<&Binding> = in_force.collect();
            if in_force.is_empty() {
                continue;
            }
            let (new, old) = (self.shown(kind, object)?, self.shown(kind, self.old)?);
            let (shown, mut notes) = (self.objects(&new, &old), Notes::new());
            let judged = in_force
                .into_iter()
                .try_for_each(|binding| self.judge_bound(policy, binding, (kind, &shown), &mut notes));
            for (key, values) in notes {
                self.context.annotate(&format!("{}/{key}", policy.name), values.join(", "));
            }
            judged?;
        }
        Ok(())
    }

    fn judge_bound(
        &self,
        policy: &Policy,
        binding: &Binding,
        (kind, objects): (&Kind, &Objects<'_>),
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let mut broken = Vec::new();
        for params in self.parameters(policy, binding)? {
            let opinion = policy.opinion(&self.request, kind, objects, &params);
            for (key, value) in opinion.notes {
                let values = notes.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            for verdict in opinion.verdicts {
                for action in &binding.actions {
                    match action {
                        Action::Deny => {
                            let (asked, name) = (self.context.kind, self.request.name);
                            return Err(verdict.refusal(asked, name, &policy.name, &binding.name));
                        }
                        Action::Warn => self.context.warn(verdict.warning(&policy.name, &binding.name)),
                        Action::Audit => broken.push(json!({
                            "message": verdict.message, "policy": policy.name, "binding": binding.name,
                            "expressionIndex": verdict.index, "validationActions": binding.action_names(),
                        })),
                    }
                }
            }
        }
        if !broken.is_empty() {
            self.context.annotate(BROKEN, Value::from(broken).to_string());
        }
        Ok(())
    }

    /// The parameters of a binding; null once for a policy without.
    fn parameters(&self, policy: &Policy, binding: &Binding) -> Result<Vec<Value>, Status> {
        let wanted = &binding.parameters;
        let Some((version, kind)) = &policy.parameters else { return Ok(vec![Value::Null]) };
        if wanted.name.is_none() && wanted.selector.is_none() {
            return Ok(vec![Value::Null]);
        }
        let refuse = |why: String| match policy.ignores_failure {
            true => Ok(Vec::new()),
            false => {
                let why = format!(
                    "policy '{}' with binding '{}' denied request: failed to configure binding: {why}",
                    policy.name, binding.name
                );
                Err(Status::forbidden(self.context.kind, self.request.name, &why))
            }
        };
        let Some(kind) = self.context.table.object_kind(version, kind) else {
            return refuse(format!("failed to find resource referenced by paramKind: '{version}, Kind={kind}'"));
        };
        let namespace = match (kind.namespaced, wanted.namespace.as_str()) {
            (false, _) => "",
            (true, "") => self.request.namespace,
            (true, namespace) => namespace,
        };
        if kind.namespaced && namespace.is_empty() {
            return refuse(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into(),
            );
        }
        let facts = Stored(&self.context.server.store);
        let is_selected =
            |object: &Arc<Value>| wanted.selector.as_ref().is_some_and(|found| found.matches_object(object));
        let found: Vec<Arc<Value>> = match &wanted.name {
            Some(name) => facts.get(&kind.resource_text(), namespace, name).into_iter().collect(),
            None => facts.list(&kind.resource_text(), namespace).into_iter().filter(is_selected).collect(),
        };
        if found.is_empty() && !wanted.may_be_absent {
            return refuse("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        Ok(found.iter().map(|object| convert::from_stored(kind, (**object).clone())).collect())
    }
}

/// What identifies a request to webhooks.
pub(super) fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}
