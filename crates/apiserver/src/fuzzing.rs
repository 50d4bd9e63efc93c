//! Doors for fuzz targets, in builds for fuzzing only: a whole server, and parsers that are nobody else's business.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::runtime::Runtime;

pub use crate::oidc::fuzzing::token;
use crate::pipeline::{self, Caller};
use crate::streams::fuzzing as streams;
pub use crate::streams::fuzzing::{channel_message, spdy_frames};
use crate::{ApiServer, Config, UserInfo};

/// A server in memory that answers one request after another.
pub struct Server {
    runtime: Runtime,
    server: Arc<ApiServer>,
}

impl Server {
    /// An empty one.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(ApiServer::open(Config::default())).expect("an empty server opens");
        Self { runtime, server }
    }

    /// Status code and body of the answer; none when this is no HTTP request, or its answer goes on.
    pub fn answer(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<(u16, Bytes)> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let is_known = !headers.iter().any(|(name, value)| *name == "authorization" && !value.is_empty());
        let caller = match is_known {
            true => Caller::Known(UserInfo::new("fuzz", ["system:masters"])),
            false => Caller::Network(None),
        };
        let body = Full::new(Bytes::copy_from_slice(body)).map_err(Into::into).boxed_unsync();
        let request = request.body(body).ok()?;
        self.runtime.block_on(async {
            let handled = pipeline::handle(Arc::clone(&self.server), request, caller);
            // A list of a version to come waits for it.
            let answer = tokio::time::timeout(std::time::Duration::from_millis(20), handled).await.ok()?;
            let code = answer.status().as_u16();
            Some((code, answer.into_body().whole()?.concat().into()))
        })
    }
}

/// Connections without a network.
pub struct Connections(Runtime);

impl Connections {
    /// What they need.
    ///
    /// # Panics
    /// When there are no resources for it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it may panic")]
    pub fn new() -> Self {
        Self(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"))
    }

    /// Plays a whole SPDY connection.
    pub fn spdy(&self, bytes: &[u8]) {
        self.0.block_on(streams::spdy_connection(bytes));
    }

    /// Plays a whole WebSocket connection of each protocol.
    pub fn websocket(&self, bytes: &[u8]) {
        self.0.block_on(streams::websocket_connection(bytes));
    }

    /// A page of a proxied server, rewritten.
    #[must_use]
    pub fn page(bytes: &[u8]) -> Vec<u8> {
        crate::proxy::page(bytes)
    }
}
