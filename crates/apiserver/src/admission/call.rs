//! Calls a webhook: HTTPS with the certificates that it is trusted by, one request at a time on a connection, connections
//! kept for the next call. Every call has a time limit and every answer a size limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy::trust;

/// Largest answer.
const ANSWER_BYTES: usize = 3 << 20;
/// Connections that wait for the next call.
const IDLE: usize = 8;

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where to connect.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name in the certificate.
    pub(crate) server_name: String,
    /// As errors name it, with its path.
    pub(crate) url: String,
}

type Sender = SendRequest<Full<Bytes>>;

/// The way to one webhook.
pub(crate) struct Client {
    /// Or why there is none.
    tls: Result<Arc<ClientConfig>, String>,
    idle: Mutex<Vec<(Place, Sender)>>,
}

impl Client {
    /// With these certificates in PEM; none: the system's.
    pub(crate) fn new(ca_bundle: &[u8]) -> Self {
        let tls = trust::roots(ca_bundle).map(|config| Arc::new(config.with_no_client_auth()));
        Self { tls, idle: Mutex::default() }
    }

    /// Posts a document; the answer's body.
    ///
    /// # Errors
    /// What went wrong, in the words that follow `failed to call webhook: `.
    pub(crate) async fn post(&self, place: &Place, body: Bytes, limit: Duration) -> Result<Bytes, String> {
        let url = format!("{}?timeout={}s", place.url, limit.as_secs());
        let failed = |why: String| format!("Post {url:?}: {why}");
        self.limited(place, &url, Some(body), limit).await.map_err(failed)
    }

    /// Gets a document; the answer's body.
    ///
    /// # Errors
    /// What went wrong.
    pub(crate) async fn get(&self, place: &Place, limit: Duration) -> Result<Bytes, String> {
        let failed = |why: String| format!("Get {:?}: {why}", place.url);
        self.limited(place, &place.url, None, limit).await.map_err(failed)
    }

    async fn limited(&self, place: &Place, url: &str, body: Option<Bytes>, limit: Duration) -> Result<Bytes, String> {
        let answer = tokio::time::timeout(limit, self.exchange(place, url, body)).await;
        answer.unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }

    async fn exchange(&self, place: &Place, url: &str, body: Option<Bytes>) -> Result<Bytes, String> {
        if let Some(sender) = self.idle(place) {
            // The other side may have closed it while it waited.
            if let Ok(answer) = self.send(place, url, body.clone(), sender).await {
                return Ok(answer);
            }
        }
        let sender = self.connect(place).await?;
        self.send(place, url, body, sender).await
    }

    fn idle(&self, place: &Place) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, sender)| !sender.is_closed());
        let at = idle.iter().position(|(known, sender)| known == place && sender.is_ready())?;
        Some(idle.swap_remove(at).1)
    }

    async fn connect(&self, place: &Place) -> Result<Sender, String> {
        let tls = TlsConnector::from(self.tls.clone()?);
        let name = ServerName::try_from(place.server_name.clone()).map_err(|error| error.to_string())?;
        let (host, port) = (place.host.trim_matches(['[', ']']), place.port);
        let failed = |error: std::io::Error| format!("dial tcp {host}:{port}: {error}");
        let socket = TcpStream::connect((host, port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let stream = tls.connect(name, socket).await.map_err(|error| format!("tls: {error}"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Ends with its sender.
        tokio::spawn(async move { connection.await.map_err(|error| tracing::debug!(%error, "a webhook hung up")) });
        Ok(sender)
    }

    async fn send(&self, place: &Place, url: &str, body: Option<Bytes>, mut sender: Sender) -> Result<Bytes, String> {
        let shown = |error: &dyn std::fmt::Display| error.to_string();
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| shown(&error))?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(if body.is_some() { Method::POST } else { Method::GET })
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("isopod/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default())).map_err(|error| shown(&error))?;
        let response = sender.send_request(request).await.map_err(|error| shown(&error))?;
        let status = response.status();
        let read = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let answer =
            read.map_err(|error| format!("the answer could not be read (at most {ANSWER_BYTES} bytes): {error}"))?;
        if !status.is_success() {
            let said: String = String::from_utf8_lossy(&answer.to_bytes()).chars().take(200).collect();
            return Err(format!("the webhook answered {status}: {said}"));
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push((place.clone(), sender));
        }
        Ok(answer.to_bytes())
    }
}
