//! One webhook: whether it is asked, the review it is sent, and what its answer says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::expressions::{self, Expression, Scope};
use super::{Matching, Objects, Request};
use crate::cel::Type;
use crate::status::{Reason, Status};
use crate::table::Kind;
use crate::validate::FieldError;
use crate::walk;

const REVIEW: (&str, &str) = ("admission.k8s.io/v1", "AdmissionReview");
const TIMEOUT_SECONDS: u64 = 10;
const LONGEST_SECONDS: u64 = 30;
/// What conditions may speak of.
const NAMES: [&str; 3] = ["object", "oldObject", "request"];

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Anywhere, by HTTPS.
    Url(String),
    /// Behind a Service of the cluster.
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Its name.
        name: String,
        /// Path on it.
        path: String,
        /// Port of the Service.
        port: u16,
    },
}

/// A webhook of a configuration.
#[derive(Debug)]
pub struct Webhook {
    /// Name of the configuration that it is in.
    pub configuration: String,
    /// Its own name, a domain.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// Certificates that it is trusted by, in PEM; empty for those of the system.
    pub ca_bundle: Vec<u8>,
    /// How long it may take.
    pub timeout_seconds: u64,
    /// A failure lets the request pass.
    pub ignores_failure: bool,
    /// It is asked again when others changed the object after it.
    pub is_reinvoked: bool,
    has_side_effects: bool,
    speaks_v1: bool,
    matching: Matching,
    conditions: Vec<(String, Expression)>,
}

/// What a webhook answered.
#[derive(Debug)]
pub struct Answer {
    /// The refusal; none when the request may pass.
    pub refusal: Option<Status>,
    /// A JSON patch.
    pub patch: Option<Value>,
    /// For who asked.
    pub warnings: Vec<String>,
    /// Notes for the audit log.
    pub notes: Vec<(String, String)>,
}

/// The place that a `clientConfig` names.
pub(crate) fn target(client: &Value) -> Target {
    let service = &client["service"];
    if service.is_null() {
        return Target::Url(walk::text(client, &["url"]).to_owned());
    }
    let text = |field: &str| walk::text(service, &[field]).to_owned();
    let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
    Target::Service { namespace: text("namespace"), name: text("name"), path: text("path"), port }
}

impl Webhook {
    /// The webhooks of a configuration, in order.
    pub fn read_all(configuration: &Value) -> Vec<Self> {
        let name = walk::text(configuration, &["metadata", "name"]);
        walk::items(configuration, &["webhooks"]).iter().map(|hook| Self::read(name, hook)).collect()
    }

    fn read(configuration: &str, hook: &Value) -> Self {
        let text = |field: &str| walk::text(hook, &[field]);
        let conditions = walk::items(hook, &["matchConditions"]);
        let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS);
        Self {
            configuration: configuration.to_owned(),
            name: text("name").to_owned(),
            target: target(&hook["clientConfig"]),
            ca_bundle: STANDARD.decode(walk::text(hook, &["clientConfig", "caBundle"])).unwrap_or_default(),
            timeout_seconds: seconds.clamp(1, LONGEST_SECONDS),
            ignores_failure: text("failurePolicy") == "Ignore",
            is_reinvoked: text("reinvocationPolicy") == "IfNeeded",
            has_side_effects: !matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            speaks_v1: walk::items(hook, &["admissionReviewVersions"]).iter().any(|version| version == "v1"),
            matching: Matching::read(hook),
            conditions: expressions::read(conditions, "expression", &NAMES, &Type::Bool),
        }
    }

    /// The kind as which it is asked about the request; none when it is not.
    pub fn concerns<'a>(&self, request: &Request<'a>, objects: &Objects<'_>) -> Option<&'a Kind> {
        self.matching.find(request, objects)
    }

    /// Its conditions hold. `objects` are as the kind shows them.
    ///
    /// # Errors
    /// 403 when a condition cannot be evaluated and failures count; 400 for a dry run that it cannot do.
    pub fn wants(&self, request: &Request<'_>, kind: &Kind, objects: &Objects<'_>) -> Result<bool, Status> {
        let asked = Value::Object(request.document(kind));
        let mut scope = Scope::new(&[("object", objects.object), ("oldObject", objects.old), ("request", &asked)]);
        let wants = match expressions::all_hold(&self.conditions, &mut scope) {
            Ok(wants) => wants,
            Err(_) if self.ignores_failure => false,
            Err(why) => return Err(Status::forbidden(request.kinds[0], request.name, &why)),
        };
        if wants && request.dry_run && self.has_side_effects {
            let text = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Status::bad_request(text));
        }
        Ok(wants)
    }

    /// The review to send.
    pub fn review(&self, request: &Request<'_>, kind: &Kind, objects: &Objects<'_>) -> Value {
        let mut asked = request.document(kind);
        asked.insert("object".into(), objects.object.clone());
        asked.insert("oldObject".into(), objects.old.clone());
        let options = match request.operation {
            "CREATE" => "CreateOptions",
            "UPDATE" => "UpdateOptions",
            "DELETE" => "DeleteOptions",
            _ => "",
        };
        if !options.is_empty() {
            asked.insert("options".into(), json!({"apiVersion": "meta.k8s.io/v1", "kind": options}));
        }
        json!({"apiVersion": REVIEW.0, "kind": REVIEW.1, "request": asked})
    }

    /// Reads the answer to a review. A mutating webhook may send a patch.
    ///
    /// # Errors
    /// An answer that is none: the words after `failed calling webhook "x": `.
    pub fn read_answer(&self, body: &[u8], uid: &str, mutating: bool) -> Result<Answer, String> {
        if !self.speaks_v1 {
            return Err("webhook does not accept v1 AdmissionReview".into());
        }
        let answer: Value = serde_json::from_slice(body)
            .map_err(|error| format!("failed to call webhook: couldn't decode: {error}"))?;
        let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
        let (version, kind) = (walk::text(&answer, &["apiVersion"]), walk::text(&answer, &["kind"]));
        if (version, kind) != REVIEW {
            let expected = "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview";
            return invalid(format!("{expected}, got {version}, Kind={kind}"));
        }
        let Some(response) = answer.get("response").filter(|response| response.is_object()) else {
            return invalid("webhook response was absent".into());
        };
        let found = walk::text(response, &["uid"]);
        if found != uid {
            return invalid(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let patch = self.patch(response, mutating)?;
        let warnings = walk::items(response, &["warnings"]).iter().filter_map(Value::as_str).map(str::to_owned);
        let allowed = response["allowed"] == true;
        Ok(Answer {
            refusal: (!allowed).then(|| self.refusal(&response["status"])),
            patch: patch.filter(|_| allowed),
            warnings: warnings.collect(),
            notes: notes(&response["auditAnnotations"]),
        })
    }

    fn patch(&self, response: &Value, mutating: bool) -> Result<Option<Value>, String> {
        let invalid = |why: &str| Err(format!("received invalid webhook response: {why}"));
        let text = walk::text(response, &["patch"]);
        match (text.is_empty(), response["patchType"].as_str(), mutating) {
            (true, None, _) => return Ok(None),
            (false, _, false) => return invalid("webhook response.patch is not allowed for validating webhooks"),
            (true, Some(_), _) => return invalid("webhook returned response.patchType but not response.patch"),
            (false, None, _) => return invalid("webhook returned response.patch but not response.patchType"),
            (false, Some("JSONPatch"), true) => {}
            (false, Some(other), true) => {
                return invalid(&format!(
                    "invalid value {other:?} for response.patchType, only JSONPatch is supported"
                ));
            }
        }
        let bytes = STANDARD.decode(text).map_err(|error| format!("response.patch is not base64: {error}"))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("response.patch is not JSON: {error}"))
    }

    /// What a refused request is answered with, in the webhook's words.
    fn refusal(&self, status: &Value) -> Status {
        let lead = format!("admission webhook {:?} denied the request", self.name);
        let (message, reason) = (walk::text(status, &["message"]), walk::text(status, &["reason"]));
        let text = match (message, reason) {
            ("", "") => format!("{lead} without explanation"),
            ("", reason) => format!("{lead}: {reason}"),
            (message, _) => format!("{lead}: {message}"),
        };
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
        Status { code, ..Status::new(Reason::parse(reason), text) }
    }

    /// What a failure to get an answer comes to; none when failures let the request pass.
    pub fn failure(&self, why: &str) -> Option<Status> {
        let text = format!("failed calling webhook {:?}: {why}", self.name);
        (!self.ignores_failure).then(|| Status::internal(text))
    }
}

/// Notes for the audit log: texts by name.
fn notes(value: &Value) -> Vec<(String, String)> {
    let all = value.as_object().into_iter().flatten();
    all.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned()))).collect()
}

/// What is wrong with a webhook that its type does not say.
pub(super) fn check(hook: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let conditions = walk::items(hook, &["matchConditions"]);
    expressions::check(
        conditions,
        (&format!("{path}.matchConditions"), "expression"),
        &NAMES,
        &Type::Bool,
        &mut errors,
    );
    let empty = Map::new();
    let client = hook["clientConfig"].as_object().unwrap_or(&empty);
    let (url, service) = (client.get("url"), client.get("service").filter(|service| !service.is_null()));
    let at = |field: &str| format!("{path}.clientConfig.{field}");
    match (url.and_then(Value::as_str), service) {
        (Some(url), None) if !url.starts_with("https://") => {
            errors.push(FieldError::invalid(at("url"), url, "'https' is the only allowed URL scheme"));
        }
        (Some(_), None) | (None, Some(_)) => {}
        _ => errors
            .push(FieldError::required(format!("{path}.clientConfig"), "exactly one of url or service is required")),
    }
    if let Some(seconds) = hook["timeoutSeconds"].as_i64()
        && !(1..=30).contains(&seconds)
    {
        let text = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(format!("{path}.timeoutSeconds"), seconds, text));
    }
    errors
}
