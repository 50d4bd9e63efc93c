//! The in-process door: a `tower::Service` that feeds the same pipeline as the network, with a given identity.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;

use crate::body::BoxError;
use crate::pipeline::{self, Caller};
use crate::respond::Response;
use crate::server::ApiServer;
use crate::user::UserInfo;

/// A client's end inside the process; `kube::Client::new` takes it. Requests that take over their connection (exec,
/// attach, port-forward) need a real one and are refused here.
#[derive(Clone)]
pub struct InProcess {
    server: Arc<ApiServer>,
    user: UserInfo,
}

impl InProcess {
    pub(crate) fn new(server: Arc<ApiServer>, user: UserInfo) -> Self {
        Self { server, user }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (Arc::clone(&self.server), self.user.clone());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { Ok(pipeline::handle(server, request, Caller::Known(user)).await) })
    }
}
