//! Passes a request on to another server and its answer back: bodies as streams in both directions, upgrades with the
//! whole connection. Who may be reached and which headers go along is the caller's to decide. Never follows redirects,
//! never reuses a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::header::{
    CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsConnector;

use crate::body::{Body, RequestBody};
use crate::kubelets::Duplex;
use crate::respond::Response;
use crate::server::ApiServer;

/// Requests that are passed on at the same time.
pub(crate) const AT_ONCE: usize = 1_024;
/// Longest time until there is a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time until an answer begins: a profile of some minutes is still an answer.
const HEAD: Duration = Duration::from_secs(600);
/// Largest head of an answer, in bytes.
const HEAD_BYTES: usize = 256 << 10;

/// Headers that are about one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Another server.
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    /// With TLS: what is trusted, and the name in the certificate.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Takes away what was meant for this server: credentials, assumed identities, and what only front proxies may say.
pub(crate) fn strip_identity(headers: &mut HeaderMap) {
    let is_identity = |name: &HeaderName| {
        let name = name.as_str();
        name == "authorization" || name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_identity(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn strip_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Passes the request on. Its path, query and headers are those that the other server will see, its `Host` included.
///
/// # Errors
/// Why there is no answer, in words for a client.
pub(crate) async fn exchange(
    server: &Arc<ApiServer>,
    destination: &Destination,
    mut request: Request<RequestBody>,
) -> Result<Response, String> {
    let Ok(permit) = Arc::clone(&server.forwards).try_acquire_owned() else {
        return Err(format!("{AT_ONCE} requests are being passed on already"));
    };
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade_of(request.headers()).filter(|_| client.is_some());
    prepare(&mut request, upgrade.as_ref());
    let stream = tokio::time::timeout(CONNECT, connect(server, destination)).await;
    let address = destination.address;
    let stream = stream.map_err(|_| format!("dial tcp {address}: i/o timeout"))??;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Ends with the answer's body, or with the streams after an upgrade.
    tokio::spawn(async move { connection.with_upgrades().await.map_err(|error| tracing::debug!(%error, "hung up")) });
    let answer = tokio::time::timeout(HEAD, sender.send_request(request)).await;
    let answer = answer.map_err(|_| format!("{address} did not answer within {}s", HEAD.as_secs()))?;
    let answer = answer.map_err(|error| text_of(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let client = client.ok_or("the other side switched protocols without being asked")?;
        return Ok(switched(answer, client, permit));
    }
    Ok(streamed(answer, permit))
}

/// An error with what caused it, which is what a reader wants to know.
fn text_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = connection.any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(UPGRADE).filter(|_| asks).cloned()
}

/// Makes of a request that came over one connection one that goes over another.
fn prepare(request: &mut Request<RequestBody>, upgrade: Option<&HeaderValue>) {
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hops(headers);
    headers.remove(UPGRADE);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade.clone());
    }
    headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
}

async fn connect(server: &ApiServer, destination: &Destination) -> Result<Box<dyn Duplex>, String> {
    let address = destination.address;
    let failed = |error: std::io::Error| format!("dial tcp {address}: {error}");
    let stream: Box<dyn Duplex> = match server.kubelets() {
        Ok(kubelets) => kubelets.dial(address).await.map_err(failed)?,
        Err(_) => Box::new(TcpStream::connect(address).await.map_err(failed)?),
    };
    match &destination.tls {
        None => Ok(stream),
        Some((config, name)) => {
            let connected = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await;
            connected.map(|stream| Box::new(stream) as Box<dyn Duplex>).map_err(|error| format!("tls: {error}"))
        }
    }
}

fn head(answer: &http::Response<Incoming>) -> http::response::Builder {
    let mut headers = answer.headers().clone();
    strip_hops(&mut headers);
    let mut builder = http::Response::builder().status(answer.status());
    if let Some(to) = builder.headers_mut() {
        *to = headers;
    }
    builder
}

fn streamed(answer: http::Response<Incoming>, permit: OwnedSemaphorePermit) -> Response {
    let builder = head(&answer);
    let body = answer.into_body().into_data_stream().map(move |chunk| {
        let _held = &permit;
        chunk.map_err(|error| tracing::debug!(%error, "an answer that is passed on broke off"))
    });
    builder.body(Body::fallible(body)).unwrap_or_else(|_| http::Response::new(Body::empty()))
}

/// Both sides have switched: from here on it is bytes.
fn switched(mut answer: http::Response<Incoming>, client: OnUpgrade, permit: OwnedSemaphorePermit) -> Response {
    let upgrade = answer.headers().get(UPGRADE).cloned();
    let mut builder = head(&answer);
    if let (Some(headers), Some(upgrade)) = (builder.headers_mut(), upgrade) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    let backend = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let _held = permit;
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => {
                // Whichever side hangs up ends it, which is no error.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade that was passed on failed"),
        }
    });
    builder.body(Body::empty()).unwrap_or_else(|_| http::Response::new(Body::empty()))
}
