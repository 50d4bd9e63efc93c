//! One kept-alive HTTPS connection to the API server, with the administrator's certificate: as little client as possible, so
//! that the server is what is measured.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// The value of a field of a kubeconfig that has one cluster and one user.
fn field(kubeconfig: &str, name: &str) -> Result<String> {
    let (_, rest) = kubeconfig.split_once(name).with_context(|| format!("the kubeconfig has no {name}"))?;
    let value = rest.lines().next().unwrap_or_default().trim_start_matches(['"', ':', ' ']);
    Ok(value.trim_end_matches([',', '"', ' ', '}']).to_owned())
}

fn pem(kubeconfig: &str, name: &str) -> Result<Vec<u8>> {
    let text = field(kubeconfig, name)?;
    base64::engine::general_purpose::STANDARD.decode(text).with_context(|| format!("{name} of the kubeconfig"))
}

fn tls(kubeconfig: &str) -> Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(kubeconfig, "certificate-authority-data")?)?)?;
    let chain =
        CertificateDer::pem_slice_iter(&pem(kubeconfig, "client-certificate-data")?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem(kubeconfig, "client-key-data")?)?;
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

impl Client {
    /// Connects as a kubeconfig says.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let text = fs::read_to_string(kubeconfig).with_context(|| format!("{}", kubeconfig.display()))?;
        let server = field(&text, "server")?;
        let host = server.strip_prefix("https://").context("the server is not https")?.to_owned();
        let tcp = TcpStream::connect(&host).await.with_context(|| host.clone())?;
        tcp.set_nodelay(true)?;
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(&text)?));
        let stream = connector.connect(ServerName::try_from(name)?, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host })
    }

    /// Sends a request and returns the answer when its head is there; anything but success is an error.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        let request = request.header("content-type", "application/json").header("accept", "application/json");
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        if !status.is_success() {
            let said = response.into_body().collect().await?.to_bytes();
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&said));
        }
        Ok(response)
    }

    /// The whole body of an answer.
    pub async fn bytes(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        Ok(self.send(method, path, body).await?.into_body().collect().await?.to_bytes())
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.bytes("GET", path, Bytes::new()).await
    }

    /// POST of a document; returns what was stored.
    pub async fn create(&mut self, path: &str, document: &Value) -> Result<Value> {
        let answer = self.bytes("POST", path, document.to_string().into()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Opens a watch from a revision and gives its events away one by one.
    pub async fn watch(mut self, path: &str) -> Result<Watch> {
        let body = self.send("GET", path, Bytes::new()).await?.into_body();
        Ok(Watch { _client: self, body, received: Vec::new() })
    }
}

/// Events of a watch.
pub struct Watch {
    _client: Client,
    body: Incoming,
    received: Vec<u8>,
}

impl Watch {
    /// The next event.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                ensure!(event["type"] != "ERROR", "watch: {event}");
                return Ok(event);
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            self.received.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }
}
