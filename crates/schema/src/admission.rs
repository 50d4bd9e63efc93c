//! Configured admission: which webhooks and policies a request concerns, what they are asked, and what their answers
//! mean (facts, section 1.17).
//!
//! Everything here is a function of documents. Who keeps configurations, calls webhooks and fetches parameters is the API
//! server.

mod expressions;
mod matching;
mod mutation;
mod policy;
#[cfg(test)]
mod tests;
mod webhook;

use serde_json::{Map, Value, json};

use crate::table::Kind;
use crate::validate::FieldError;
use crate::walk;

pub(crate) use expressions::{Expression, Scope};
pub use matching::Matching;
pub use policy::{Action, Binding, Parameters, Policy, Verdict};
pub(crate) use webhook::target;
pub use webhook::{Answer, Target, Webhook};

/// Group of the kinds that configure admission.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// A request as configured admission sees it, besides the objects.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'static str,
    /// The kind that was asked for, then others that show the same objects.
    pub kinds: Vec<&'a Kind>,
    /// Part of the object that is addressed; empty for all of it.
    pub subresource: &'a str,
    /// Kind of what is sent to a subresource, when it is not the object's: group, version, kind.
    pub sent: Option<(&'a str, &'a str, &'a str)>,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// Who asks, as in `authentication.k8s.io/v1 UserInfo`.
    pub user: &'a Value,
    /// Nothing will be written.
    pub dry_run: bool,
    /// Identifies the request.
    pub uid: &'a str,
}

/// What the request is about, as one of its kinds shows it.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// The new object; null for a deletion.
    pub object: &'a Value,
    /// The object as it was; null for a creation.
    pub old: &'a Value,
    /// The namespace; null for cluster-scoped kinds.
    pub namespace: &'a Value,
}

fn is_configuration(kind: &Kind) -> bool {
    kind.group == GROUP
}

impl Request<'_> {
    /// The request in the words of a review, without the objects; `kind` is the one they are shown as.
    fn document(&self, kind: &Kind) -> Map<String, Value> {
        let asked = self.kinds[0];
        let named = |kind: &Kind| match self.sent {
            Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
            None => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
        };
        let resource = |kind: &Kind| json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
        let mut document = json!({
            "uid": self.uid, "kind": named(kind), "resource": resource(kind), "requestKind": named(asked),
            "requestResource": resource(asked), "name": self.name, "operation": self.operation, "userInfo": self.user,
            "dryRun": self.dry_run,
        });
        if !self.subresource.is_empty() {
            document["subResource"] = json!(self.subresource);
            document["requestSubResource"] = json!(self.subresource);
        }
        if !self.namespace.is_empty() {
            document["namespace"] = json!(self.namespace);
        }
        match document {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// What is wrong with expressions of a configuration, by path.
pub(crate) fn check(kind: &Kind, object: &Value) -> Vec<FieldError> {
    match kind.plural.as_str() {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            let hooks = walk::items(object, &["webhooks"]).iter().enumerate();
            hooks.flat_map(|(at, hook)| webhook::check(hook, &format!("webhooks[{at}]"))).collect()
        }
        "validatingadmissionpolicies" => policy::check(object),
        "validatingadmissionpolicybindings" => policy::check_binding(object),
        "mutatingadmissionpolicies" => policy::check_mutating(object),
        "mutatingadmissionpolicybindings" => policy::check_mutating_binding(object),
        _ => Vec::new(),
    }
}
