//! Connections to a pod's own address: plain, HTTP with or without TLS, and gRPC's health service. What a pod answers is read
//! within limits and believed in nothing but its status.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::Uri;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::drivers::{Duplex, Machine};
use crate::guest::Link;

/// Bytes of headers that an answer may have.
const HEADER_BYTES: usize = 64 << 10;

/// Bytes of a health service's answer.
const HEALTH_BYTES: usize = 4 << 10;

/// `SERVING` of `grpc.health.v1.HealthCheckResponse`.
pub(crate) const SERVING: i32 = 1;

/// A port of a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

/// Connects.
pub(crate) async fn connect(machine: &dyn Machine, target: Target) -> Result<Box<dyn Duplex>, String> {
    let Target { address, port } = target;
    machine.dial(address, port).await.map_err(|error| format!("dial tcp {address}:{port}: connect: {}", error.kind()))
}

/// The status of the answer to a request.
pub(crate) async fn http_status(
    machine: &dyn Machine,
    target: Target,
    over_tls: bool,
    request: http::Request<String>,
) -> Result<u16, String> {
    let plain = connect(machine, target).await?;
    let stream: Box<dyn Duplex> = if over_tls { Box::new(encrypt(target, plain).await?) } else { plain };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the sender, or with the stream.
    let driven = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    driven.abort();
    answer.map(|answer| answer.status().as_u16())
}

async fn encrypt(target: Target, plain: Box<dyn Duplex>) -> Result<impl Duplex, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::IpAddress(std::net::IpAddr::V4(target.address).into());
    TlsConnector::from(Arc::new(config)).connect(name, plain).await.map_err(|error| error.to_string())
}

/// What gRPC's health service says of a service.
pub(crate) async fn grpc_health(machine: &dyn Machine, target: Target, service: &str) -> Result<i32, String> {
    let stream = connect(machine, target).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(16 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driven = tokio::spawn(connection);
    let origin =
        Uri::try_from(format!("http://{}:{}", target.address, target.port)).map_err(|error| error.to_string())?;
    let mut grpc = Grpc::with_origin(Link(sender), origin).max_decoding_message_size(HEALTH_BYTES);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let answer = grpc.unary(request, path, codec).await;
    driven.abort();
    answer.map(|answer| answer.into_inner().status).map_err(|status| format!("{}: {}", status.code(), status.message()))
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Takes any certificate, as the kubelet does: a probe asks whether somebody answers, not who.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
