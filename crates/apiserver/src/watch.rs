//! Watches (facts, section 1.9): events of the store, selected and framed, as one long answer. Stored bytes and messages in
//! protobuf are shared by all watchers; a watcher that wants another form pays for it alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use isopod_schema::{Kind, Status, protobuf};
use isopod_store::{Entry, Event, EventKind, ListQuery, Scope, Watch, WatchError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::body::Body;
use crate::config::Clock;
use crate::context::Context;
use crate::customs::{self, Served, Tables};
use crate::encoded::{self, message_of};
use crate::negotiate::Encoding;
use crate::options::Start;
use crate::query::Query;
use crate::respond::{self, Response, Shape};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::{codec, conversion, convert, read};

/// A watch without `timeoutSeconds` ends after a random time between this and twice this.
const LIFE_SECONDS: u64 = 1_800;
/// Longer watches than this many seconds (a year) need not be told apart.
const LIFE_SECONDS_MAX: u64 = 31_536_000;
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// A last bookmark comes so long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Events that are ready are joined into one chunk up to about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// What stands around an object in an event, at most.
const FRAME_BYTES: usize = 48;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A watch under way.
struct Stream {
    server: Weak<ApiServer>,
    kind: Arc<Kind>,
    stored: Arc<Kind>,
    /// Of a custom kind: the table, whose changes may end the watch.
    tables: Option<Tables>,
    selection: Selection,
    shape: Shape,
    clock: Clock,
    /// Objects still to be shown as ADDED.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// Revision of the initial state, while its end still has to be marked.
    end_mark: Option<u64>,
    watch: Option<Watch>,
    ends: Instant,
    bookmark: Option<Instant>,
    headers_sent: bool,
    /// A webhook stands between what is stored and what is shown.
    is_converted: bool,
}

pub(crate) async fn answer(context: &Context<'_>) -> Result<Response, Status> {
    let selection = Selection::parse(context.kind, &context.query)?;
    let start = Start::parse(&context.query)?;
    if let Start::State { not_before: Some(revision), .. } = start {
        read::reach(&context.server, revision).await?;
    }
    let encoding = context.shape.output.encoding;
    let mut stream = match Stream::open(context, selection, start)? {
        Ok(stream) => stream,
        Err(error) => {
            let mut frame = BytesMut::new();
            put_document(&mut frame, encoding, "ERROR", &refusal(&error).to_value());
            return Ok(respond::events(encoding, Body::from(frame.freeze())));
        }
    };
    if conversion::webhook(context.kind).is_some() {
        let initial = stream.initial.as_slice().to_vec();
        stream.initial = conversion::shown(&context.server, context.kind, initial).await?.into_iter();
    }
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next_chunk().await?;
        Some((chunk, stream))
    });
    Ok(respond::events(encoding, Body::stream(chunks)))
}

fn refusal(error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { asked, oldest } => Status::too_old(*asked, *oldest),
        WatchError::Lagged { .. } => Status::expired(error.to_string()),
    }
}

/// One event around any document.
fn put_document(chunk: &mut BytesMut, encoding: Encoding, event: &str, object: &Value) {
    if encoding == Encoding::Protobuf {
        match protobuf::encode(object) {
            Ok(bytes) => put_message(chunk, event, &[&bytes]),
            Err(error) => tracing::error!(%error, "an event cannot be encoded as protobuf"),
        }
    } else {
        put_json(chunk, event, object.to_string().as_bytes());
    }
}

fn put_json(chunk: &mut BytesMut, event: &str, object: &[u8]) {
    chunk.reserve(object.len() + FRAME_BYTES);
    chunk.put_slice(b"{\"type\":\"");
    chunk.put_slice(event.as_bytes());
    chunk.put_slice(b"\",\"object\":");
    chunk.put_slice(object);
    chunk.put_slice(b"}\n");
}

/// One event around the parts of a whole object in protobuf.
fn put_message(chunk: &mut BytesMut, event: &str, object: &[&[u8]]) {
    let object_bytes = object.iter().map(|part| part.len()).sum();
    chunk.reserve(object_bytes + FRAME_BYTES);
    chunk.put_slice(&protobuf::event_head(event, object_bytes));
    object.iter().for_each(|part| chunk.put_slice(part));
}

impl Stream {
    fn open(context: &Context<'_>, selection: Selection, start: Start) -> Result<Result<Self, WatchError>, Status> {
        let store = &context.server.store;
        let prefix = match context.info.name.as_str() {
            name if !name.is_empty() && (!context.kind.namespaced || !context.namespace().is_empty()) => {
                context.key(name)
            }
            _ => read::prefix(context, &selection),
        };
        let (initial, from, end_mark) = match start {
            Start::After(revision) => (Vec::new(), revision, None),
            Start::Now => (Vec::new(), store.revision(), None),
            Start::State { end_mark, .. } => {
                let list = store.list(&ListQuery { prefix: prefix.clone(), ..ListQuery::default() });
                let list = list.map_err(Status::internal)?;
                (list.entries, list.revision, end_mark.then_some(list.revision))
            }
        };
        // A name is followed by nothing, a collection by names.
        let scope = if prefix.ends_with('/') { Scope::Prefix(prefix) } else { Scope::Key(prefix) };
        let watch = match store.watch(scope, from) {
            Ok(watch) => Some(watch),
            Err(error) => return Ok(Err(error)),
        };
        let ends = Instant::now() + lifetime(&context.query)?;
        let bookmark = context.query.flag("allowWatchBookmarks").then(|| next_bookmark(ends));
        Ok(Ok(Self {
            server: Arc::downgrade(&context.server),
            kind: Arc::clone(context.kind),
            stored: Arc::clone(context.stored),
            tables: context.kind.custom.is_some().then(|| context.server.tables()),
            selection,
            shape: Shape { ..context.shape },
            clock: context.server.config.clock.clone(),
            initial: initial.into_iter(),
            end_mark,
            watch,
            ends,
            bookmark,
            headers_sent: false,
            is_converted: conversion::webhook(context.kind).is_some(),
        }))
    }

    /// The next piece of the answer; `None` at its end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        self.push_initial(&mut chunk);
        while chunk.is_empty() {
            let watch = self.watch.as_mut()?;
            let changed = customs::changed(self.tables.as_mut());
            let timer = self.bookmark.map_or(self.ends, |bookmark| bookmark.min(self.ends));
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) if self.is_converted => self.push_converted(event, &mut chunk).await,
                    Some(Ok(event)) => self.push_ready(&event, &mut chunk),
                    // The client knows the revision of its last event and comes back.
                    Some(Err(_)) | None => self.watch = None,
                },
                () = sleep_until(timer) => self.push_timed(&mut chunk),
                served = changed => self.push_last(&served, &mut chunk),
            }
        }
        Some(chunk.freeze())
    }

    fn push_initial(&mut self, chunk: &mut BytesMut) {
        while chunk.len() < CHUNK_BYTES {
            let Some(entry) = self.initial.next() else { break };
            if self.selection.matches(&self.stored, &entry) {
                self.push(chunk, "ADDED", &entry);
            }
        }
        if !self.initial.as_slice().is_empty() {
            return;
        }
        // The room of a long list would stay for as long as the watch does.
        self.initial = Vec::new().into_iter();
        if let Some(revision) = self.end_mark.take() {
            self.push_bookmark(chunk, revision, true);
        }
    }

    fn push_ready(&mut self, first: &Arc<Event>, chunk: &mut BytesMut) {
        self.push_event(chunk, first);
        while chunk.len() < CHUNK_BYTES {
            let Some(event) = self.watch.as_mut().and_then(Watch::try_next) else { break };
            self.push_event(chunk, &event);
        }
    }

    /// One event, as a webhook shows it. One that cannot be shown ends the watch.
    async fn push_converted(&mut self, event: Arc<Event>, chunk: &mut BytesMut) {
        let Some(server) = self.server.upgrade() else {
            self.watch = None;
            return;
        };
        match conversion::shown_event(&server, &self.kind, event).await {
            Ok(event) => self.push_event(chunk, &event),
            Err(status) => {
                put_document(chunk, self.shape.output.encoding, "ERROR", &status.to_value());
                self.watch = None;
            }
        }
    }

    /// A kind that is not the one the watch began with ends it, after what happened before.
    fn push_last(&mut self, served: &Served, chunk: &mut BytesMut) {
        if served.has(&self.kind) {
            return;
        }
        // Nobody may convert to that kind any more.
        while !self.is_converted
            && let Some(event) = self.watch.as_mut().and_then(Watch::try_next)
        {
            self.push_event(chunk, &event);
        }
        self.watch = None;
    }

    fn push_timed(&mut self, chunk: &mut BytesMut) {
        let now = Instant::now();
        if self.ends <= now {
            self.watch = None;
            return;
        }
        if let (Some(due), Some(watch)) = (self.bookmark, &self.watch)
            && due <= now
        {
            let revision = watch.progress();
            self.bookmark = Some(next_bookmark(self.ends)).filter(|next| *next > now);
            self.push_bookmark(chunk, revision, false);
        }
    }

    fn push_event(&mut self, chunk: &mut BytesMut, event: &Event) {
        let matches = |entry: &Entry| self.selection.matches(&self.stored, entry);
        let before = event.previous.as_ref().filter(|previous| matches(previous)).cloned();
        let after = event.kind == EventKind::Put && matches(&event.entry);
        match (before, after) {
            (None, true) => self.push(chunk, "ADDED", &event.entry),
            (Some(_), true) => self.push(chunk, "MODIFIED", &event.entry),
            (Some(_), false) if event.kind == EventKind::Delete => self.push(chunk, "DELETED", &event.entry),
            (Some(previous), false) => {
                let last = codec::restamp(&previous.value, event.revision());
                self.push_stored(chunk, "DELETED", &last);
            }
            (None, false) => {}
        }
    }

    fn push(&mut self, chunk: &mut BytesMut, event: &str, entry: &Entry) {
        let (output, server) = (self.shape.output, self.server.upgrade());
        let shared = server.as_ref().map(|server| &server.encoded);
        match shared {
            Some(encoded) if output.is_message() => {
                let message = encoded.message(&self.kind, entry);
                self.push_message(chunk, event, message);
            }
            Some(encoded) if output.is_plain() => match encoded.json(&self.kind, entry) {
                Ok(bytes) => put_json(chunk, event, &bytes),
                Err(status) => put_document(chunk, Encoding::Json, "ERROR", &status.to_value()),
            },
            _ => self.push_stored(chunk, event, &entry.value),
        }
    }

    /// The same of stored bytes that are no entry.
    fn push_stored(&mut self, chunk: &mut BytesMut, event: &str, bytes: &Bytes) {
        let output = self.shape.output;
        if output.is_message() {
            self.push_message(chunk, event, message_of(&self.kind, bytes));
        } else if output.is_plain() && !convert::is_needed(&self.kind) {
            put_json(chunk, event, bytes);
        } else {
            self.push_shaped(chunk, event, bytes);
        }
    }

    fn push_message(&mut self, chunk: &mut BytesMut, event: &str, message: Result<Bytes, Status>) {
        match message {
            Ok(message) => {
                let whole = encoded::whole(&self.kind, message);
                put_message(chunk, event, &whole.each_ref().map(|part| &part[..]));
            }
            Err(status) => put_document(chunk, Encoding::Protobuf, "ERROR", &status.to_value()),
        }
    }

    fn push_shaped(&mut self, chunk: &mut BytesMut, event: &str, stored: &Bytes) {
        match codec::decode(stored) {
            Ok(object) => {
                let object = self.shaped(convert::from_stored(&self.kind, object));
                put_document(chunk, self.shape.output.encoding, event, &object);
            }
            Err(status) => put_document(chunk, self.shape.output.encoding, "ERROR", &status.to_value()),
        }
    }

    fn shaped(&mut self, object: Value) -> Value {
        let headers = !std::mem::replace(&mut self.headers_sent, true);
        // Ages in rows are those of the moment the row is sent.
        self.shape.now = self.clock.now();
        self.shape.object(&self.kind, object, headers)
    }

    fn push_bookmark(&mut self, chunk: &mut BytesMut, revision: u64, end_of_initial: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
        let object = self.shaped(object);
        put_document(chunk, self.shape.output.encoding, "BOOKMARK", &object);
    }
}

fn next_bookmark(ends: Instant) -> Instant {
    (Instant::now() + BOOKMARK_PERIOD).min(ends.checked_sub(LAST_BOOKMARK).unwrap_or(ends))
}

fn lifetime(query: &Query) -> Result<Duration, Status> {
    let random = || LIFE_SECONDS + uuid::Uuid::new_v4().as_u128() as u64 % LIFE_SECONDS;
    Ok(Duration::from_secs(match query.number::<i64>("timeoutSeconds")? {
        None | Some(0) => random(),
        // A time that has passed already.
        Some(seconds) => u64::try_from(seconds).unwrap_or(0).min(LIFE_SECONDS_MAX),
    }))
}
