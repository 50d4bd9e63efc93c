//! The network door: TLS with optional client certificates, HTTP/1.1 and HTTP/2, limits on everything a peer can make
//! us hold.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::audit::Peer;
use crate::authn;
use crate::pipeline::{self, Caller};
use crate::server::ApiServer;
use crate::user::UserInfo;

const CONNECTIONS_MAX: usize = 4_096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest request head in bytes over HTTP/1.1; over HTTP/2 a quarter of it.
const HEADER_BUFFER_BYTES: usize = 256 << 10;
/// Clients open a stream per watch on one connection.
const STREAMS_PER_CONNECTION: u32 = 2_000;
/// How long answers that are under way may take after the server was told to stop.
const DRAIN: Duration = Duration::from_millis(500);

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the serving certificate: {0}\nhint: remove apiserver.crt and apiserver.key from the pki directory; they are made anew"
)]
pub struct ServeError(String);

impl ApiServer {
    /// Serves on these sockets until `shutdown` completes. Watches and streams that are open then are cut off.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub async fn serve(
        self: &Arc<Self>,
        listeners: Vec<TcpListener>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let acceptor = TlsAcceptor::from(Arc::new(tls(self)?));
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(Arc::clone(self), listener, acceptor.clone(), Arc::clone(&room)));
        }
        shutdown.await;
        // Dropping the set ends the accept loops, and each of those its connections.
        tasks.shutdown().await;
        Ok(())
    }
}

fn tls(server: &ApiServer) -> Result<rustls::ServerConfig, ServeError> {
    let failed = |error: &dyn std::fmt::Display| ServeError(error.to_string());
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| failed(&error));
    let pki = &server.pki;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&pki.ca.certificate_pem)?).map_err(|error| failed(&error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::from_pem_slice(pki.serving.key_pem.as_bytes()).map_err(|error| failed(&error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate(&pki.serving.certificate_pem)?], key)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept(server: Arc<ApiServer>, listener: TcpListener, acceptor: TlsAcceptor, room: Arc<Semaphore>) {
    let mut connections = Connections(JoinSet::new());
    loop {
        while connections.0.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let from = Peer(peer.ip());
                let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
                connections.0.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = connection(server, socket, acceptor, from).await {
                        tracing::debug!(%peer, error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, or the peer has gone already. Waiting a little lets other connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Gives connections a moment to finish when their listener ends.
struct Connections(JoinSet<()>);

impl Drop for Connections {
    fn drop(&mut self) {
        let mut tasks = std::mem::take(&mut self.0);
        tokio::spawn(async move {
            let all = async { while tasks.join_next().await.is_some() {} };
            if tokio::time::timeout(DRAIN, all).await.is_err() {
                tasks.shutdown().await;
            }
        });
    }
}

async fn connection(
    server: Arc<ApiServer>,
    socket: TcpStream,
    acceptor: TlsAcceptor,
    from: Peer,
) -> Result<(), String> {
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await;
    let stream = handshake.map_err(|_| "handshake timed out")?.map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(<[_]>::first).and_then(|first| authn::certificate_user(first));
    serve_stream(server, TokioIo::new(stream), user, from).await
}

async fn serve_stream<S>(server: Arc<ApiServer>, stream: S, user: Option<UserInfo>, from: Peer) -> Result<(), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(u32::try_from(HEADER_BUFFER_BYTES / 4).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (server, user) = (Arc::clone(&server), user.clone());
        async move {
            let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            request.extensions_mut().insert(from);
            Ok::<_, std::convert::Infallible>(pipeline::handle(server, request, Caller::Network(user)).await)
        }
    });
    builder.serve_connection_with_upgrades(stream, service).await.map_err(|error| error.to_string())
}
