//! The audit log: who asked what and what came of it, as the policy of the cluster's owner wants it (audit.k8s.io/v1).
//! Never holds up a request, and never grows without bound: what cannot be written in time is counted and dropped.

mod log;
mod policy;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use isopod_schema::{Kind, protobuf};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::{Value, json};

use crate::body::Body;
use crate::config::{Clock, OpenError};
use crate::negotiate::{self, Input};
use crate::respond::Response;
use crate::route::RequestInfo;
use crate::user::UserInfo;
use log::Log;
use policy::{Decision, Policy};
use policy::{Level, Stage};

/// Largest event in bytes; of larger ones the objects are left out.
const EVENT_BYTES: usize = 1 << 20;
/// Says that they were.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// How requests are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// File with a policy of `audit.k8s.io/v1`.
    pub policy: PathBuf,
    /// File that events are written to, one JSON document in a line.
    pub log: PathBuf,
    /// The file is set aside when it is larger, in bytes.
    pub file_bytes: u64,
    /// Files that are kept besides; the oldest goes.
    pub files: usize,
}

impl Audit {
    /// A policy and a log, with upstream's bounds: 100 MB a file, ten of them.
    pub fn new(policy: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { policy: policy.into(), log: log.into(), file_bytes: 100 << 20, files: 10 }
    }

    /// What a state directory says: its `audit-policy.yaml`, if there is one, and the log beside it.
    pub(crate) fn of_directory(directory: &Path) -> Option<Self> {
        let policy = directory.join("audit-policy.yaml");
        policy.exists().then(|| Self::new(policy, directory.join("audit").join("audit.log")))
    }
}

/// Records requests; without a policy, none.
#[derive(Default)]
pub(crate) struct Auditor(Option<Recorder>);

struct Recorder {
    policy: Policy,
    log: Arc<Log>,
    clock: Clock,
}

impl Auditor {
    /// # Errors
    /// A policy that cannot be read or says what does not exist, a log that cannot be written.
    pub(crate) fn open(settings: Option<&Audit>, clock: &Clock) -> Result<Self, OpenError> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        let unusable = |why: String| OpenError::Audit { path: settings.policy.clone(), why };
        let text = std::fs::read_to_string(&settings.policy).map_err(|error| unusable(error.to_string()))?;
        let policy = Policy::parse(&text).map_err(unusable)?;
        let log = Log::open(settings).map_err(|source| OpenError::File {
            action: "open",
            path: settings.log.clone(),
            source,
        })?;
        Ok(Self(Some(Recorder { policy, log: Arc::new(log), clock: clock.clone() })))
    }

    /// Events that were dropped because they could not be written in time.
    pub(crate) fn dropped(&self) -> Option<u64> {
        self.0.as_ref().map(|recorder| recorder.log.dropped())
    }

    /// The record of a request; none when the policy does not want one.
    pub(crate) fn begin(&self, asked: &Asked<'_>) -> Option<Arc<Record>> {
        let recorder = self.0.as_ref()?;
        let decision = recorder.policy.decide(asked.user, asked.info);
        if decision.level == Level::None {
            return None;
        }
        let record = Record {
            log: Arc::clone(&recorder.log),
            clock: recorder.clock.clone(),
            event: Mutex::new(asked.event(&decision, recorder.clock.now())),
            decision,
        };
        record.write(Stage::RequestReceived);
        Some(Arc::new(record))
    }
}

/// What is known of a request before anything is done about it.
pub(crate) struct Asked<'a> {
    pub(crate) id: &'a HeaderValue,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) info: &'a RequestInfo,
    /// Who asks; who it is assumed to be, if somebody else.
    pub(crate) user: &'a UserInfo,
    pub(crate) assumed: Option<&'a UserInfo>,
    pub(crate) peer: Option<IpAddr>,
}

/// The address of who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

fn time_text(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    PRINTER.timestamp_to_string(&time)
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

impl Asked<'_> {
    fn event(&self, decision: &Decision, now: Timestamp) -> Value {
        let text =
            |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": decision.level.as_str(), "auditID": text(Some(self.id)),
            "stage": "", "requestURI": self.uri.path_and_query().map_or("/", |path| path.as_str()),
            "verb": self.info.verb, "user": user_value(self.user),
        });
        if let Some(assumed) = self.assumed {
            event["impersonatedUser"] = user_value(assumed);
        }
        let forwarded = text(self.headers.get("x-forwarded-for"));
        let sources = forwarded.split(',').filter_map(|address| address.trim().parse::<IpAddr>().ok());
        let sources: Vec<String> = sources.chain(self.peer).map(|address| address.to_string()).collect();
        if !sources.is_empty() {
            event["sourceIPs"] = json!(sources);
        }
        let agent = text(self.headers.get(USER_AGENT));
        if !agent.is_empty() {
            event["userAgent"] = agent.into();
        }
        if self.info.is_resource {
            let info = self.info;
            let fields = [
                ("resource", &info.resource),
                ("namespace", &info.namespace),
                ("name", &info.name),
                ("apiGroup", &info.group),
                ("apiVersion", &info.version),
                ("subresource", &info.subresource),
            ];
            for (field, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
                event["objectRef"][field] = text.as_str().into();
            }
        }
        event["requestReceivedTimestamp"] = time_text(now).into();
        event
    }
}

/// What is recorded of one request.
pub(crate) struct Record {
    log: Arc<Log>,
    clock: Clock,
    decision: Decision,
    event: Mutex<Value>,
}

impl Record {
    fn change(&self, change: impl FnOnce(&mut Value)) {
        change(&mut self.event.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes something about the request.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<Value>) {
        self.change(|event| event["annotations"][key] = value.into());
    }

    /// Whether what is in requests is recorded too.
    pub(crate) fn shows_bodies(&self) -> bool {
        self.decision.level >= Level::Request
    }

    /// Whether the user may do it, and what says so.
    pub(crate) fn decided(&self, allowed: bool, reason: &str) {
        self.annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// The body of the request, where the policy wants it.
    pub(crate) fn request(&self, kind: &Kind, headers: &HeaderMap, body: &[u8]) {
        if !self.shows_bodies() || body.is_empty() || body.len() > EVENT_BYTES {
            return;
        }
        let document = match negotiate::input(headers) {
            Ok(Input::Protobuf) => protobuf::decode(kind.root(), body).ok(),
            // Patches say their own media types; most of them are JSON.
            _ => serde_json::from_slice(body).ok().or_else(|| yaml(body)),
        };
        if let Some(document) = document {
            let document = self.shown(document);
            self.change(|event| event["requestObject"] = document);
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.decision.omits_managed_fields {
            let strip = |object: &mut Value| {
                object["metadata"].as_object_mut().map(|metadata| metadata.shift_remove("managedFields"));
            };
            if object["metadata"].is_object() {
                strip(&mut object);
            }
            object["items"]
                .as_array_mut()
                .into_iter()
                .flatten()
                .filter(|item| item["metadata"].is_object())
                .for_each(strip);
            if object["items"].is_null() {
                object.as_object_mut().map(|fields| fields.shift_remove("items"));
            }
        }
        object
    }

    /// The answer has begun, or is there whole. The end of a stream is recorded when it comes.
    pub(crate) fn answered(self: &Arc<Self>, response: Response, is_long: bool) -> Response {
        let code = response.status().as_u16();
        let whole = response.body().whole().map(|chunks| chunks.concat());
        let json =
            response.headers().get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(b"application/json"));
        let wants = self.decision.level == Level::RequestResponse || code >= 400;
        let document = whole.filter(|bytes| wants && json && bytes.len() <= EVENT_BYTES);
        let document: Option<Value> = document.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        self.change(|event| event["responseStatus"] = status(code, document.as_ref()));
        if let Some(document) = document.filter(|_| self.decision.level == Level::RequestResponse) {
            let document = self.shown(document);
            self.change(|event| event["responseObject"] = document);
        }
        if !is_long {
            self.write(Stage::ResponseComplete);
            return response;
        }
        self.write(Stage::ResponseStarted);
        let end = End(Arc::clone(self));
        response.map(|body: Body| body.with(end))
    }

    fn write(&self, stage: Stage) {
        if self.decision.omits(stage) {
            return;
        }
        let mut event = self.event.lock().unwrap_or_else(PoisonError::into_inner);
        event["stage"] = stage.as_str().into();
        event["stageTimestamp"] = time_text(self.clock.now()).into();
        let mut line = event.to_string();
        if line.len() > EVENT_BYTES {
            let mut short = event.clone();
            ["requestObject", "responseObject"].iter().for_each(|field| {
                short.as_object_mut().map(|fields| fields.shift_remove(*field));
            });
            short["annotations"][TRUNCATED] = "true".into();
            line = short.to_string();
        }
        line.push('\n');
        self.log.push(Bytes::from(line));
    }
}

fn yaml(body: &[u8]) -> Option<Value> {
    isopod_schema::decode::untyped(isopod_schema::decode::Format::Yaml, body).ok()
}

/// The status of an answer; of a refusal also why.
fn status(code: u16, document: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code});
    if let Some(document) = document.filter(|document| document["kind"] == "Status") {
        for field in ["status", "reason", "message", "details"] {
            if let Some(value) = document.get(field) {
                status[field] = value.clone();
            }
        }
    }
    status
}

/// Records the end of a stream.
struct End(Arc<Record>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.write(Stage::ResponseComplete);
    }
}
