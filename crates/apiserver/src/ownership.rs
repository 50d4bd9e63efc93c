//! Who owns which fields of what is written: gives every write its `managedFields` (facts, section 1.11). The deciding is
//! done in [`isopod_schema::apply`]; here are the request's names, versions and clock.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::USER_AGENT;
use isopod_schema::apply::{self, Managers, Versions, Writer};
use isopod_schema::status::Details;
use isopod_schema::{FieldError, Kind, Reason, Status, Table, TypeRef};
use serde_json::{Value, json};

use crate::context::Context;
use crate::convert;
use crate::edit::Part;
use crate::strategy;

/// Longest name of a manager, in bytes.
const NAME_LIMIT_BYTES: usize = 128;
const FIELD: &str = "managedFields";

/// Whose the fields of an object are that is about to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Claim {
    /// The writer's that it changes. With what the client sent as `managedFields`, null when it sent none.
    ByChange(Value),
    /// Decided by apply already: the new `managedFields`.
    Decided(Value),
}

impl Claim {
    /// What a client's own object says; takes it out of the object.
    pub(crate) fn of_client(object: &mut Value) -> Self {
        Self::ByChange(strategy::metadata(object).shift_remove(FIELD).unwrap_or_default())
    }
}

/// The name under which the request's writer owns fields: what it says, or else its program's name, or else, for the
/// server's own clients, its user's.
///
/// # Errors
/// 422 for a name that is too long or cannot be printed.
pub(crate) fn manager(context: &Context<'_>) -> Result<String, Status> {
    if let Some(name) = context.query.get("fieldManager") {
        let errors = check_name(name);
        return if errors.is_empty() { Ok(name.to_owned()) } else { Err(invalid_options(context, &errors)) };
    }
    let agent = context.headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let name = agent.as_deref().map_or(context.user.name.as_str(), |agent| agent.split('/').next().unwrap_or_default());
    Ok(shortened(name))
}

fn shortened(name: &str) -> String {
    let mut short: String = name.chars().filter(|letter| is_printable(*letter)).collect();
    short.truncate(short.floor_char_boundary(NAME_LIMIT_BYTES));
    short
}

fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace() || letter == char::REPLACEMENT_CHARACTER)
}

fn check_name(name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > NAME_LIMIT_BYTES {
        errors.push(FieldError::too_long("fieldManager", NAME_LIMIT_BYTES));
    }
    if let Some((at, letter)) = name.char_indices().find(|(_, letter)| !is_printable(*letter)) {
        let code = u32::from(letter);
        let why = format!("should not contain unprintable character: U+{code:04X} (at position {at})");
        errors.push(FieldError::invalid("fieldManager", name, why));
    }
    errors
}

/// 422 about the options in a write's query.
pub(crate) fn invalid_options(context: &Context<'_>, errors: &[FieldError]) -> Status {
    let kind = match context.info.verb.as_str() {
        "patch" => "PatchOptions",
        "update" => "UpdateOptions",
        _ => "CreateOptions",
    };
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let text = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
    let causes = errors.iter().map(FieldError::to_cause).collect();
    let details = Details { group: "meta.k8s.io".into(), kind: kind.into(), causes, ..Details::default() };
    let status = Status::new(Reason::Invalid, format!("{kind}.meta.k8s.io \"\" is invalid: {text}"));
    Status { details: Some(Box::new(details)), ..status }
}

/// `managedFields` of an object that is created, in stored form and before the server adds anything to it.
///
/// # Errors
/// 422 for a manager that cannot be one.
pub(crate) fn of_new(context: &Context<'_>, object: &Value, claim: &Claim) -> Result<Value, Status> {
    let claimed = match claim {
        Claim::Decided(list) => return Ok(list.clone()),
        Claim::ByChange(claimed) => Managers::parse(claimed).unwrap_or_default(),
    };
    let mut new = served(context, object);
    if context.kind.has_status_subresource() && new.get("status").is_some() {
        new.to_mut().as_object_mut().map(|fields| fields.shift_remove("status"));
    }
    record(context, &json!({}), &new, claimed)
}

/// Gives an object that replaces another its `managedFields`. Both are in stored form; the new one has all that this
/// request changes, and the old one's `managedFields`.
///
/// # Errors
/// 422 for a manager that cannot be one.
pub(crate) fn settle(
    context: &Context<'_>,
    part: Part,
    old: &Value,
    new: &mut Value,
    claim: Claim,
) -> Result<(), Status> {
    let list = match claim {
        // Upstream's scheduler does not own where it put a pod.
        _ if part == Part::Binding => return Ok(()),
        Claim::Decided(list) => list,
        Claim::ByChange(claimed) => {
            let managers = claimed_or_stored(context, &claimed, &old["metadata"][FIELD]);
            record(context, &served(context, old), &served(context, new), managers)?
        }
    };
    let before = &old["metadata"][FIELD];
    let is_same = new == old && (apply::same_but_times(&list, before) || (before.is_null() && is_empty(&list)));
    if !is_same {
        set(new, list);
    }
    Ok(())
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

/// `metadata.managedFields` becomes the list; an empty one is left out.
pub(crate) fn set(object: &mut Value, list: Value) {
    let metadata = strategy::metadata(object);
    if is_empty(&list) {
        metadata.shift_remove(FIELD);
    } else {
        metadata.insert(FIELD.into(), list);
    }
}

/// Clients may write entries themselves, or drop all of them. What they send through a subresource, and what cannot be
/// read, counts for nothing.
fn claimed_or_stored(context: &Context<'_>, claimed: &Value, stored: &Value) -> Managers {
    if context.info.subresource.is_empty() {
        if Managers::is_reset(claimed) {
            return Managers::default();
        }
        if let Ok(managers) = Managers::parse(claimed)
            && !managers.0.is_empty()
        {
            return managers;
        }
    }
    Managers::parse(stored).unwrap_or_default()
}

fn record(context: &Context<'_>, old: &Value, new: &Value, managers: Managers) -> Result<Value, Status> {
    let (name, time) = (manager(context)?, strategy::time_text(context.now));
    let api_version = context.kind.api_version();
    let writer = Writer { name: &name, api_version: &api_version, subresource: &context.info.subresource, time: &time };
    Ok(apply::update(&Siblings::new(context), old, new, managers, writer).to_value())
}

/// An object as the version of the URL shows it.
fn served<'a>(context: &Context<'_>, object: &'a Value) -> Cow<'a, Value> {
    if convert::is_needed(context.kind) {
        Cow::Owned(convert::from_stored(context.kind, object.clone()))
    } else {
        Cow::Borrowed(object)
    }
}

/// The versions in which objects of a kind are served.
pub(crate) struct Siblings<'a> {
    kind: &'a Arc<Kind>,
    table: &'a Table,
}

impl<'a> Siblings<'a> {
    pub(crate) fn new(context: &Context<'a>) -> Self {
        Self { kind: context.kind, table: context.table }
    }

    /// The kind in another version, if its objects are the same ones.
    fn in_version(&self, api_version: &str) -> Option<&Arc<Kind>> {
        if api_version == self.kind.api_version() {
            return Some(self.kind);
        }
        let other = self.table.object_kind(api_version, &self.kind.kind)?;
        let (stored, own) = (convert::stored_kind(other), convert::stored_kind(self.kind));
        let is_same = match (&stored.custom, &own.custom) {
            // For who owns what, versions that a webhook converts between are compared field by field.
            (Some(other), Some(own)) => other.definition == own.definition,
            _ => stored.stored_api_version() == own.stored_api_version(),
        };
        (stored.is(&own.group, &own.plural) && is_same).then_some(other)
    }
}

impl Versions for Siblings<'_> {
    fn root(&self, api_version: &str) -> Option<TypeRef<'_>> {
        self.in_version(api_version).map(|kind| kind.root())
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.in_version(from)?, self.in_version(to)?);
        Some(convert::from_stored(to, convert::to_stored(from, object.clone())))
    }
}
