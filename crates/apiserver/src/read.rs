//! GET of one object and of a collection (facts, section 1.8). Never touches the disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isopod_schema::{Status, protobuf};
use isopod_store::{Entry, List, ListError, ListQuery};
use serde_json::{Value, json};

use crate::body::{Body, Joiner};
use crate::context::Context;
use crate::negotiate::{self, Output};
use crate::options::{self, Page, State};
use crate::respond::{self, Response};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::{codec, conversion, convert, encoded};

/// How long a read waits for a revision from the future.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

pub(crate) async fn get(context: &Context<'_>) -> Result<Response, Status> {
    if let Some(revision) = options::revision(&context.query)? {
        reach(&context.server, revision).await?;
    }
    let entry = context.shown(&context.info.name).await?;
    respond::entry(&context.server, context.kind, &entry, &context.shape)
}

/// Waits until the store has reached a revision.
///
/// # Errors
/// 504 when that takes too long.
pub(crate) async fn reach(server: &ApiServer, revision: u64) -> Result<(), Status> {
    let reached = tokio::time::timeout(FUTURE_WAIT, server.store.reached(revision)).await;
    reached.map_err(|_| Status::version_too_large(revision, server.store.revision()))
}

/// A list's answer before it is encoded.
struct Listed {
    entries: Vec<Arc<Entry>>,
    metadata: Value,
}

pub(crate) async fn list(context: &Context<'_>) -> Result<Response, Status> {
    let selection = Selection::parse(context.kind, &context.query)?;
    let page = Page::parse(&context.query)?;
    if let State::NotOlderThan(revision) | State::Exactly(revision) = page.state {
        reach(&context.server, revision).await?;
    }
    let mut found = match find(context, &selection, &page) {
        Ok(found) => found,
        Err(ListError::Future { asked, current }) => return Err(Status::version_too_large(asked, current)),
        Err(ListError::Compacted { .. }) => return Ok(too_old(&page, &negotiate::status_output(&context.headers))),
    };
    // Fields are selected as the request's version has them.
    found.entries = conversion::shown(&context.server, context.kind, found.entries).await?;
    encode(context, select(context, &selection, &page, found)).await
}

/// 410; a list that was being continued gets a token with which it can go on at the newest state.
fn too_old(page: &Page, output: &Output) -> Response {
    if page.start.is_empty() {
        return respond::refusal(&Status::expired("The resourceVersion for the provided list is too old."), output);
    }
    let status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list: objects that were created, modified or \
         deleted since may be missing or shown in their newer state.",
    );
    let mut body = status.to_value();
    body["metadata"]["continue"] = page.inconsistent_token().into();
    respond::document(status.code, &body, output)
}

/// The prefix of the keys that a list or watch is about.
pub(crate) fn prefix(context: &Context<'_>, selection: &Selection) -> String {
    let namespace = match context.namespace() {
        "" if context.kind.namespaced => selection.namespace().unwrap_or_default(),
        namespace => namespace,
    };
    let prefix = codec::prefix(context.stored, namespace);
    match selection.name() {
        Some(name) if !context.kind.namespaced || !namespace.is_empty() => format!("{prefix}{name}"),
        _ => prefix,
    }
}

/// The page, if the request is about everything; otherwise all there is to select from.
fn find(context: &Context<'_>, selection: &Selection, page: &Page) -> Result<List, ListError> {
    let base = codec::prefix(context.stored, context.namespace());
    context.server.store.list(&ListQuery {
        prefix: prefix(context, selection),
        start: if page.start.is_empty() { String::new() } else { format!("{base}{}", page.start) },
        limit: if selection.is_everything() { page.limit } else { 0 },
        at: if let State::Exactly(revision) = page.state { Some(revision) } else { None },
    })
}

fn select(context: &Context<'_>, selection: &Selection, page: &Page, list: List) -> Listed {
    let base = codec::prefix(context.stored, context.namespace());
    let all = selection.is_everything();
    let (mut entries, mut remaining) = (list.entries, list.remaining);
    if !all {
        entries.retain(|entry| selection.matches(context.stored, entry));
        if page.limit > 0 && entries.len() > page.limit {
            remaining = entries.len() - page.limit;
            entries.truncate(page.limit);
        }
    }
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if let Some(last) = entries.last().filter(|_| remaining > 0) {
        let key = last.key.strip_prefix(&base).unwrap_or_default();
        metadata["continue"] = options::token_after(key, list.revision).into();
        if all {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    Listed { entries, metadata }
}

async fn encode(context: &Context<'_>, listed: Listed) -> Result<Response, Status> {
    let kind = context.kind;
    if context.shape.output.is_message() {
        let messages = encoded::messages(&context.server, kind, &listed.entries).await?;
        return join_messages(context, &messages, &listed.metadata).map(|body| respond::protobuf_body(200, body));
    }
    if context.shape.output.is_plain() {
        let head = json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": listed.metadata})
            .to_string();
        return join(&head, context, &listed.entries).map(respond::json_body);
    }
    let items: Vec<Value> = listed
        .entries
        .iter()
        .map(|entry| codec::decode(&entry.value).map(|object| convert::from_stored(kind, object)))
        .collect::<Result<_, _>>()?;
    Ok(respond::document(200, &context.shape.list(kind, &items, listed.metadata), &context.shape.output))
}

/// The bytes of all entries between the head of a list and its end.
fn join(head: &str, context: &Context<'_>, entries: &[Arc<Entry>]) -> Result<Body, Status> {
    let mut body = Joiner::new();
    body.push(head.strip_suffix('}').unwrap_or(head).as_bytes());
    body.push(b",\"items\":[");
    for (number, entry) in entries.iter().enumerate() {
        if number > 0 {
            body.push(b",");
        }
        body.push(&context.server.encoded.json(context.kind, entry)?);
    }
    body.push(b"]}\n");
    Ok(body.finish())
}

/// The same in protobuf.
fn join_messages(context: &Context<'_>, messages: &[Bytes], metadata: &Value) -> Result<Body, Status> {
    let kind = context.kind;
    let metadata = protobuf::list_head(metadata).map_err(Status::internal)?;
    let heads: Vec<Vec<u8>> = messages.iter().map(|message| protobuf::item_head(message.len())).collect();
    let items_bytes: usize = messages.iter().map(Bytes::len).chain(heads.iter().map(Vec::len)).sum();
    let (head, end) = protobuf::envelope_ends(&kind.api_version(), &kind.list_kind(), metadata.len() + items_bytes);
    let mut body = Joiner::new();
    body.push(&head);
    body.push(&metadata);
    for (head, message) in heads.iter().zip(messages) {
        body.push(head);
        body.push(message);
    }
    body.push(end);
    Ok(body.finish())
}
