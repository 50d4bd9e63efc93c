//! The one way of a request (facts, section 1.1): identity, limits, permission, then the verb's own code. Every door
//! leads here; no kind has a handler of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, WARNING};
use http::{HeaderMap, HeaderValue, Request};
use isopod_schema::{Status, warnings};

use crate::audit::{Asked, Peer, Record};
use crate::authz::Attributes;
use crate::body::{self, RequestBody};
use crate::context::Context;
use crate::fair::Place;
use crate::metrics::Series;
use crate::query::Query;
use crate::rbac::{self, Grant};
use crate::respond::{self, Response};
use crate::route::RequestInfo;
use crate::server::ApiServer;
use crate::user::UserInfo;
use crate::{
    aggregation, authn, compress, create, delete, discovery, edit, negotiate, node_rights, proxy, read, reviews,
    streams, subresource, usage, watch,
};

/// Longest time for an answer, watches and streams excepted.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a door knows about who knocks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Identity is settled (in process).
    Known(UserInfo),
    /// A network connection; with the identity of its client certificate if it showed one.
    Network(Option<UserInfo>),
}

/// Answers one request.
pub(crate) async fn handle(server: Arc<ApiServer>, request: Request<RequestBody>, caller: Caller) -> Response {
    let (begun, audit) = (Instant::now(), audit_id(request.headers()));
    let (compress, refusals) = (compress::is_wanted(&request), negotiate::status_output(request.headers()));
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let series = Series::of(&server, &info);
    let is_long = info.is_long_running();
    let mut record = None;
    let worked = process(&server, info, query, request, (caller, &audit), &mut record).await;
    let mut response = worked.unwrap_or_else(|status| respond::refusal(&status, &refusals));
    if let Some(record) = record {
        response = record.answered(response, is_long);
    }
    if let Some(series) = series {
        server.metrics.count(series, response.status().as_u16(), begun.elapsed());
        if compress {
            response = compress::apply(response);
        }
    }
    let headers = response.headers_mut();
    headers.insert("audit-id", audit);
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    response
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get("audit-id").filter(|id| id.len() <= 64).cloned();
    let fresh = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
    given.unwrap_or_else(|| fresh().unwrap_or(HeaderValue::from_static("none")))
}

async fn process(
    server: &Arc<ApiServer>,
    info: RequestInfo,
    query: Query,
    mut request: Request<RequestBody>,
    (caller, id): (Caller, &HeaderValue),
    record: &mut Option<Arc<Record>>,
) -> Result<Response, Status> {
    let found = match caller {
        Caller::Known(user) => Ok(user),
        Caller::Network(certificate) => authn::user(server, request.headers(), &info.path, certificate).await,
    };
    authn::hide_tokens(request.headers_mut());
    let (real, refused) = match found {
        Ok(user) => (user, None),
        Err(status) => (UserInfo::default(), Some(status)),
    };
    let assumed = match refused {
        None => authn::impersonate(server, request.headers(), real.clone()),
        Some(status) => Err(status),
    };
    *record = recorded(server, &info, &request, id, &real, assumed.as_ref().ok());
    let user = assumed?;
    let _place = admit(server, &info, &user).await?;
    let allowed = demand(server, &user, &info.attributes(&info.verb));
    if let Some(record) = &record {
        let reason = allowed.as_ref().map(|grant| grant.as_ref().map(Grant::reason).unwrap_or_default());
        record.decided(allowed.is_ok(), &reason.unwrap_or_default());
        request.extensions_mut().insert(Arc::clone(record));
    }
    allowed?;
    let deadline = deadline(&info, &query)?;
    let work = dispatch(Arc::clone(server), info, user, query, request);
    match deadline {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("request did not complete within requested timeout - {}s", limit.as_secs());
                Err(Status::timeout(text))
            }
        },
    }
}

/// Begins to record the request, if somebody wants that.
fn recorded(
    server: &ApiServer,
    info: &RequestInfo,
    request: &Request<RequestBody>,
    id: &HeaderValue,
    user: &UserInfo,
    assumed: Option<&UserInfo>,
) -> Option<Arc<Record>> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (uri, headers) = (request.uri(), request.headers());
    let assumed = assumed.filter(|assumed| *assumed != user);
    server.audit.begin(&Asked { id, uri, headers, info, user, assumed, peer })
}

/// Limits how many requests are worked on at once, fairly between users. Those that last, and the masters, are not counted.
async fn admit(server: &ApiServer, info: &RequestInfo, user: &UserInfo) -> Result<Option<Place>, Status> {
    if info.is_long_running() || !info.is_resource || user.is_master() {
        return Ok(None);
    }
    let queue = if info.is_mutating() { &server.writes } else { &server.reads };
    let refused = |_| Status::too_many_requests("Too many requests, please try again later.", 1);
    queue.place(&user.name).await.map(Some).map_err(refused)
}

/// What allows it: the group of the masters, a node agent's own rights, or a binding. Otherwise why not, if there is more
/// to say than that nothing does.
pub(crate) fn authorize(server: &ApiServer, user: &UserInfo, asked: &Attributes) -> Result<Option<Grant>, String> {
    if user.is_master() {
        return Ok(None);
    }
    let as_node = node_rights::decide(server, user, asked).unwrap_or_else(|| Err(String::new()));
    match as_node {
        Ok(()) => Ok(None),
        Err(why) => rbac::grant(&server.store, user, asked).map(Some).ok_or(why),
    }
}

/// Refuses what the user may not do; returns what allows it.
///
/// # Errors
/// 403.
pub(crate) fn demand(server: &ApiServer, user: &UserInfo, asked: &Attributes) -> Result<Option<Grant>, Status> {
    authorize(server, user, asked).map_err(|more| {
        let mut why = asked.refusal(user);
        if !more.is_empty() {
            why = format!("{why}: {more}");
        }
        match asked.is_resource() {
            true => Status::forbidden_resource(&asked.group, &asked.full_resource(), &asked.name, &why),
            false => Status::forbidden_path(&why),
        }
    })
}

fn deadline(info: &RequestInfo, query: &Query) -> Result<Option<Duration>, Status> {
    if info.is_long_running() {
        return Ok(None);
    }
    let Some(text) = query.get("timeout") else { return Ok(Some(DEADLINE)) };
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>();
    match seconds {
        Ok(0) => Ok(Some(DEADLINE)),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds).min(DEADLINE))),
        // Go's duration syntax has more forms; they can only shorten the wait.
        Err(_) if text.starts_with(|first: char| first.is_ascii_digit()) => Ok(Some(DEADLINE)),
        Err(_) => Err(Status::bad_request(format!("invalid timeout specified in the request URL: {text:?}"))),
    }
}

async fn dispatch(
    server: Arc<ApiServer>,
    info: RequestInfo,
    user: UserInfo,
    query: Query,
    request: Request<RequestBody>,
) -> Result<Response, Status> {
    if let Some(extension) = aggregation::find(&server, &info) {
        return aggregation::answer(&server, &extension, &user, request).await;
    }
    if !info.is_resource {
        return discovery::answer(&server, &request, &query);
    }
    // One request sees one table, whatever happens to definitions meanwhile.
    let served = server.served();
    let Some(kind) = served.table.resource(&info.group, &info.version, &info.resource) else {
        // Of a group that there is, every path is the group's own.
        let is_known = served.table.kinds().any(|kind| kind.group == info.group && kind.version == info.version);
        return if is_known { Err(Status::no_such_resource()) } else { Ok(respond::no_such_path()) };
    };
    let mut context = Context::new(server, info, user, query, (&served.table, kind), request.headers().clone())?;
    context.record = request.extensions().get().cloned();
    if let Some(warning) = warnings::deprecation(kind) {
        context.warn(warning);
    }
    let refused = |status| respond::refusal(&status, &negotiate::status_output(&context.headers));
    let mut response = perform(&context, request).await.unwrap_or_else(refused);
    for warning in context.take_warnings() {
        if let Ok(value) = HeaderValue::from_str(&format!("299 - {warning:?}")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    Ok(response)
}

/// Boxed: the compiler does not see through this many futures that borrow that it can be sent between threads.
fn perform<'a>(context: &'a Context<'a>, request: Request<RequestBody>) -> BoxFuture<'a, Result<Response, Status>> {
    Box::pin(perform_verb(context, request))
}

async fn perform_verb(context: &Context<'_>, request: Request<RequestBody>) -> Result<Response, Status> {
    let info = &context.info;
    if !info.subresource.is_empty() {
        if info.subresource == "proxy" {
            return proxy::answer(context, request).await;
        }
        if streams::is_stream(&info.subresource) {
            return streams::answer(context, request).await;
        }
        let body = body::read(request.into_body()).await?;
        context.note_body(&body);
        return subresource::answer(context, body).await;
    }
    context.check_verb()?;
    match info.verb.as_str() {
        "get" if usage::is_measured(context.kind) => usage::get(context).await,
        "list" if usage::is_measured(context.kind) => usage::list(context).await,
        "get" => read::get(context).await,
        "list" => read::list(context).await,
        "watch" => {
            let answer = watch::answer(context).await?;
            streams::messages::watch(request, answer, context.shape.output.encoding)
        }
        verb => {
            let body = body::read(request.into_body()).await?;
            context.note_body(&body);
            match verb {
                "create" if context.kind.is("", "bindings") => subresource::binding_by_name(context, &body).await,
                "create" if !context.kind.is_stored() => reviews::create(context, &body).await,
                "create" => create::answer(context, &body).await,
                "update" => edit::update(context, edit::Part::Main, &body).await,
                "patch" => edit::patch(context, edit::Part::Main, &body).await,
                "delete" => delete::one(context, &body).await,
                _ => delete::collection(context, &body).await,
            }
        }
    }
}
