//! A client that costs little: one HTTP/1.1 connection over TLS, one request at a time.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

/// Where the server is and how to be let in.
#[derive(Clone)]
pub struct Access {
    address: String,
    tls: Arc<ClientConfig>,
}

impl Access {
    pub fn of(address: &str, kubeconfig: &Path) -> Result<Self, Failure> {
        let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
        let part = |value: &Value, name: &str| -> Result<Vec<u8>, Failure> {
            Ok(STANDARD.decode(value[name].as_str().ok_or_else(|| format!("no {name}"))?)?)
        };
        let user = &config["users"][0]["user"];
        let ca = part(&config["clusters"][0]["cluster"], "certificate-authority-data")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca)?)?;
        let certificate = CertificateDer::from_pem_slice(&part(user, "client-certificate-data")?)?;
        let key = PrivateKeyDer::from_pem_slice(&part(user, "client-key-data")?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        Ok(Self { address: address.to_owned(), tls: Arc::new(tls) })
    }
}

/// What is asked for unless a measurement is about something else.
pub const JSON: &str = "application/json";
/// The other encoding of built-in kinds.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    accept: &'static str,
}

impl Connection {
    pub async fn open(access: &Access) -> Result<Self, Failure> {
        let socket = TcpStream::connect(&access.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = TlsConnector::from(Arc::clone(&access.tls)).connect(name, socket).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the server or with the sender; either way nobody waits for it.
        tokio::spawn(connection);
        Ok(Self { sender, accept: JSON })
    }

    /// The same, with answers in this encoding.
    pub fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    pub async fn send(&mut self, method: Method, path: &str, body: String) -> Result<Response<Incoming>, Failure> {
        let media = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
        let request = request.header("accept", self.accept).header("content-type", media);
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::from(body))?).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, text) = (response.status(), response.into_body().collect().await?.to_bytes());
        Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&text)).into())
    }

    /// Reads the answer to its end; its size in bytes.
    pub async fn get(&mut self, path: &str) -> Result<usize, Failure> {
        let mut body = self.send(Method::GET, path, String::new()).await?.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(bytes)
    }

    pub async fn post(&mut self, path: &str, body: String) -> Result<(), Failure> {
        self.send(Method::POST, path, body).await?.into_body().collect().await?;
        Ok(())
    }

    /// Server-side apply.
    pub async fn apply(&mut self, path: &str, body: String) -> Result<(), Failure> {
        self.send(Method::PATCH, path, body).await?.into_body().collect().await?;
        Ok(())
    }
}
