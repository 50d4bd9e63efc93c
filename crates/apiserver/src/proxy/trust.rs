//! Whose certificates are believed on the way to pods and nodes. Never used for anything that carries a credential.

use std::sync::{Arc, OnceLock};

use isopod_schema::Status;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::server::ApiServer;

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

/// Any server will do.
pub(crate) fn any() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.expect(VERSIONS).dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        Arc::new(config.with_no_client_auth())
    };
    Arc::clone(CONFIG.get_or_init(make))
}

/// Servers with a certificate of this cluster.
///
/// # Errors
/// When the cluster's own certificate cannot be read.
pub(super) fn cluster(server: &ApiServer) -> Result<Arc<ClientConfig>, Status> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(server.pki.ca.certificate_pem.as_bytes());
    roots.add(certificate.map_err(Status::internal)?).map_err(Status::internal)?;
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(Arc::new(config.expect(VERSIONS).with_root_certificates(roots).with_no_client_auth()))
}
