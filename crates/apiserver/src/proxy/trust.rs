//! Whose certificates are believed on the way to webhooks, extensions, pods and nodes.

use std::sync::{Arc, OnceLock};

use isopod_schema::Status;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::server::ApiServer;

/// What who names no certificates trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Believes any certificate, but no signature that does not fit it: who asks for `https:` of a pod wants it spoken to so,
/// not identified.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const VERSIONS: &str = "the provider knows the safe protocol versions";

/// A configuration that lacks only who the client is.
type Trusting = ConfigBuilder<ClientConfig, WantsClientCert>;

/// Any server will do.
pub(crate) fn anybody() -> Trusting {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    config.expect(VERSIONS).dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
}

/// Any server will do, and need not know who asks.
pub(super) fn any() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| Arc::new(anybody().with_no_client_auth())))
}

/// Servers with a certificate of one of these authorities, in PEM; none: of the system's.
///
/// # Errors
/// When there are none that can be read.
pub(crate) fn roots(pem: &[u8]) -> Result<Trusting, String> {
    let system = match pem.is_empty() {
        true => std::fs::read(SYSTEM_ROOTS).map_err(|error| format!("no caBundle, and {SYSTEM_ROOTS}: {error}"))?,
        false => Vec::new(),
    };
    let pem = if pem.is_empty() { &system } else { pem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    if roots.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions().expect(VERSIONS).with_root_certificates(roots))
}

/// Servers with a certificate of this cluster.
///
/// # Errors
/// When the cluster's own certificate cannot be read.
pub(super) fn cluster(server: &ApiServer) -> Result<Arc<ClientConfig>, Status> {
    let config = roots(server.pki.ca.certificate_pem.as_bytes()).map_err(Status::internal)?;
    Ok(Arc::new(config.with_no_client_auth()))
}
