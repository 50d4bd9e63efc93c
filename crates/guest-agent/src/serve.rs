//! One conversation after the other, for ever: HTTP/2 over the port, one call per request, one thread for all of it.

use std::{
    convert::Infallible,
    future::Future,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use futures::Stream;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use isopod_guest_api::{limit, method};
use prost::Message;
use tonic::{Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;

use crate::{agent::Agent, calls, port::Port, session};

/// What one stream, and all of them, may have in flight towards the guest, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Calls at once.
const STREAMS: u32 = 512;

/// Serves until the port fails.
pub(crate) fn run(port: OwnedFd) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let agent = Arc::new(Agent::new());
        let reaper = tokio::spawn({
            let agent = agent.clone();
            async move { agent.reaper.run().await }
        });
        tokio::select! {
            result = converse(Port::new(port)?, agent) => result,
            ended = reaper => Err(io::Error::other(format!("the reaper ended: {ended:?}"))),
        }
    })
}

async fn converse(mut port: Port, agent: Arc<Agent>) -> io::Result<Infallible> {
    loop {
        let conversation = port.accept().await?;
        agent.epoch.fetch_add(1, Ordering::Relaxed);
        let service = service_fn({
            let agent = agent.clone();
            move |request| {
                let agent = agent.clone();
                async move { Ok::<_, Infallible>(dispatch(agent, request).await) }
            }
        });
        // How it ended does not matter: the host knows more about that than the guest.
        let _ = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(u32::try_from(limit::CHUNK_BYTES).unwrap_or(64 << 10))
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(16 << 10)
            .serve_connection(TokioIo::new(conversation.clone()), service)
            .await;
        port = conversation.into_port().ok_or_else(|| io::Error::other("a conversation outlived its end"))?;
    }
}

async fn dispatch(agent: Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        method::HELLO => unary(agent, request, calls::hello).await,
        method::CONFIGURE_POD => unary(agent, request, calls::configure_pod).await,
        method::CONFIGURE_NODE => unary(agent, request, calls::configure_node).await,
        method::REMOVE_POD => unary(agent, request, calls::remove_pod).await,
        method::RELEASE_IMAGE => unary(agent, request, calls::release_image).await,
        method::PREPARE => unary(agent, request, calls::prepare).await,
        method::UPDATE_VOLUME => unary(agent, request, calls::update_volume).await,
        method::START_CONTAINER => unary(agent, request, calls::start_container).await,
        method::SIGNAL_CONTAINER => unary(agent, request, calls::signal_container).await,
        method::UPDATE_CONTAINER => unary(agent, request, calls::update_container).await,
        method::REMOVE_CONTAINER => unary(agent, request, calls::remove_container).await,
        method::STATS => unary(agent, request, calls::stats).await,
        method::RESET => unary(agent, request, calls::reset).await,
        method::SHUTDOWN => unary(agent, request, calls::shutdown).await,
        method::EVENTS => streaming(agent, request, calls::events).await,
        method::LOGS => streaming(agent, request, calls::logs).await,
        method::EXEC => bidirectional(agent, request, session::exec).await,
        method::ATTACH => bidirectional(agent, request, session::attach).await,
        method::CONNECT => bidirectional(agent, request, session::connect).await,
        _ => Status::unimplemented("no such call").into_http(),
    }
}

fn grpc<Q, A>() -> Grpc<ProstCodec<A, Q>>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(limit::MESSAGE_TO_GUEST_BYTES)
}

async fn unary<Q, A, F>(agent: Arc<Agent>, request: Request<Incoming>, call: fn(Arc<Agent>, Q) -> F) -> Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Send + Sync + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let answer = call(agent.clone(), request.into_inner());
        async move { answer.await.map(tonic::Response::new) }
    });
    grpc::<Q, A>().unary(service, request).await
}

async fn streaming<Q, A, S, F>(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    call: fn(Arc<Agent>, Q) -> F,
) -> Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Send + Sync + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    F: Future<Output = Result<S, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let answer = call(agent.clone(), request.into_inner());
        async move { answer.await.map(tonic::Response::new) }
    });
    grpc::<Q, A>().server_streaming(service, request).await
}

async fn bidirectional<Q, A, S, F>(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    call: fn(Arc<Agent>, Streaming<Q>) -> F,
) -> Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Send + Sync + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    F: Future<Output = Result<S, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Streaming<Q>>| {
        let answer = call(agent.clone(), request.into_inner());
        async move { answer.await.map(tonic::Response::new) }
    });
    grpc::<Q, A>().streaming(service, request).await
}
