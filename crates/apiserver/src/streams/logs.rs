//! GET pods/NAME/log.

use bytes::Bytes;
use http::HeaderValue;
use isopod_schema::{FieldError, Status};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Placed;
use crate::body::Body;
use crate::context::Context;
use crate::kubelets::LogRequest;
use crate::respond::{self, Response};
use crate::strategy::{meta, text};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

pub(super) async fn answer(context: &Context<'_>) -> Result<Response, Status> {
    if context.info.verb != "get" {
        return Err(Status::method_not_allowed());
    }
    // A pod that waits for a node has an empty log; other streams refuse it.
    if text(&super::pod(context)?, &["spec", "nodeName"]).is_empty() {
        return Ok(respond::with(200, TEXT, Body::empty()));
    }
    let placed = Placed::find(context)?;
    let container = placed.container(context.query.get("container"))?;
    let request = request(context, &placed, &container)?;
    if !request.previous {
        has_started(&placed.pod, &container)?;
    }
    let chunks = context.server.kubelets()?.logs(&placed.node, request).await?;
    let stream = futures::stream::unfold(chunks, |mut chunks| async move {
        let chunk = chunks.recv().await?;
        let bytes = chunk.unwrap_or_else(|error| Bytes::from(format!("\nthe log ends here: {error}\n")));
        Some((bytes, chunks))
    });
    Ok(respond::with(200, TEXT, Body::stream(stream)))
}

fn request(context: &Context<'_>, placed: &Placed, container: &str) -> Result<LogRequest, Status> {
    let query = &context.query;
    let invalid = |field: &str, value: i64, detail: &str| {
        Status::invalid(context.kind, &context.info.name, &[FieldError::invalid(field, value, detail)])
    };
    let amount = |field: &str, least: i64, detail: &str| match query.number::<i64>(field)? {
        Some(value) if value < least => Err(invalid(field, value, detail)),
        value => Ok(value.map(|value| value.unsigned_abs())),
    };
    Ok(LogRequest {
        target: placed.target(container),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: amount("tailLines", 0, "must be greater than or equal to 0")?,
        limit_bytes: amount("limitBytes", 1, "must be greater than 0")?,
        since: since(context)?,
        stream: query.get("stream").filter(|stream| *stream != "All").map(str::to_owned),
    })
}

fn since(context: &Context<'_>) -> Result<Option<Timestamp>, Status> {
    let query = &context.query;
    let bad = || Status::bad_request("sinceTime is no RFC 3339 time");
    match (query.number::<i64>("sinceSeconds")?, query.get("sinceTime")) {
        (Some(_), Some(_)) => Err(Status::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")),
        (Some(seconds), None) => Ok(context.now.checked_sub(SignedDuration::from_secs(seconds)).ok()),
        (None, Some(time)) => time.parse().map(Some).map_err(|_| bad()),
        (None, None) => Ok(None),
    }
}

/// A container that waits to start for the first time has no log.
fn has_started(pod: &Value, container: &str) -> Result<(), Status> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    let status = all.into_iter().find(|status| text(status, &["name"]) == container);
    let Some(status) = status else {
        return if pod["status"]["phase"] == "Pending" {
            Err(waiting(pod, container, "ContainerCreating"))
        } else {
            Ok(())
        };
    };
    let has_run = status["restartCount"].as_i64().unwrap_or(0) > 0 || status["lastState"]["terminated"].is_object();
    match status["state"]["waiting"].as_object() {
        Some(_) if !has_run => Err(waiting(pod, container, text(status, &["state", "waiting", "reason"]))),
        _ => Ok(()),
    }
}

fn waiting(pod: &Value, container: &str, reason: &str) -> Status {
    let pod = meta(pod, "name");
    Status::bad_request(format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"))
}
