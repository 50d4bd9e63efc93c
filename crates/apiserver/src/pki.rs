//! The cluster's certificates and keys: a certificate authority, the serving certificate, the administrator's client
//! certificate, and the key that signs service account tokens. Made once, kept in files that only the owner reads.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isopod_store::Sealer;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::config::{Config, OpenError};
use crate::encryption;
use crate::signing::Wanted;
use crate::user::MASTERS;

const AUTHORITY_DAYS: i64 = 3_650;
const LEAF_DAYS: i64 = 730;
/// A certificate with less time left is made anew when the server opens.
/// Certificates for others begin a little earlier: their clocks may be behind.
const BACKDATED_SECONDS: i64 = 300;
const RENEW_DAYS: i64 = 90;
/// Name of this server's certificate for extensions of the API.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";
const ADMINISTRATOR: &str = "kubernetes-admin";

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// All of the cluster's certificates and keys.
pub(crate) struct Pki {
    pub(crate) ca: Identity,
    pub(crate) serving: Identity,
    pub(crate) administrator: Identity,
    /// Vouches for this server to extensions of the API, and for nobody else.
    pub(crate) front_proxy_ca: Identity,
    /// Who this server is to extensions of the API.
    pub(crate) front_proxy: Identity,
    /// P-256 key in PKCS#8 PEM.
    pub(crate) token_key_pem: String,
    /// What seals values on their way to the disk.
    pub(crate) sealer: Arc<dyn Sealer>,
    cluster_name: String,
}

/// Where files are, if anywhere.
struct Files(Option<PathBuf>);

impl Files {
    fn open(config: &Config) -> Result<Self, OpenError> {
        let directory = config.state_directory.as_ref().map(|state| state.join("pki"));
        if let Some(path) = &directory {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| OpenError::File { action: "create", path: path.clone(), source })?;
        }
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.as_deref().unwrap_or(Path::new("(memory)")).join(name)
    }

    fn read(&self, name: &str) -> Result<Option<String>, OpenError> {
        if self.0.is_none() {
            return Ok(None);
        }
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::File { action: "read", path, source }),
        }
    }

    /// Writes beside, then renames: a crash leaves the old file or the new one.
    fn write(&self, name: &str, text: &str) -> Result<(), OpenError> {
        if self.0.is_none() {
            return Ok(());
        }
        let (path, draft) = (self.path(name), self.path(&format!("{name}.new")));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| OpenError::File { action: "write", path, source })
    }

    fn read_identity(&self, name: &str) -> Result<Option<Identity>, OpenError> {
        let (certificate, key) = (self.read(&format!("{name}.crt"))?, self.read(&format!("{name}.key"))?);
        Ok(certificate.zip(key).map(|(certificate_pem, key_pem)| Identity { certificate_pem, key_pem }))
    }

    fn write_identity(&self, name: &str, identity: &Identity) -> Result<(), OpenError> {
        self.write(&format!("{name}.key"), &identity.key_pem)?;
        self.write(&format!("{name}.crt"), &identity.certificate_pem)
    }

    fn unusable(&self, name: &str, why: impl ToString) -> OpenError {
        OpenError::Certificate { path: self.path(name), why: why.to_string() }
    }
}

impl Pki {
    pub(crate) fn open(config: &Config) -> Result<Self, OpenError> {
        let files = Files::open(config)?;
        let ca = authority(&files, "ca", "isopod-ca")?;
        let front_proxy_ca = authority(&files, "front-proxy-ca", "front-proxy-ca")?;
        let front_proxy = leaf(&files, &front_proxy_ca, FRONT_PROXY, &client_params(FRONT_PROXY, None), &[])?;
        let serving = leaf(&files, &ca, "apiserver", &serving_params(config), &serving_names(config))?;
        let administrator = leaf(&files, &ca, "admin", &client_params(ADMINISTRATOR, Some(MASTERS)), &[])?;
        let token_key_pem = match files.read("sa.key")? {
            Some(key) => key,
            None => {
                let key = new_key(&files, "sa.key")?.serialize_pem();
                files.write("sa.key", &key)?;
                key
            }
        };
        let sealer = sealer(&files)?;
        let cluster_name = config.cluster_name.clone();
        Ok(Self { ca, serving, administrator, front_proxy_ca, front_proxy, token_key_pem, sealer, cluster_name })
    }

    /// Signs what may be signed; the certificate in PEM. It ends when this authority does, at the latest.
    ///
    /// # Errors
    /// Why it could not be signed.
    pub(crate) fn sign(&self, wanted: Wanted, now: Timestamp) -> Result<String, String> {
        let shown = |error: rcgen::Error| error.to_string();
        let ends = authority_end(&self.ca.certificate_pem).ok_or("the authority's certificate cannot be read")?;
        let time = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| error.to_string());
        let mut request = wanted.request;
        request.params.not_before = time(now.as_second() - BACKDATED_SECONDS)?;
        request.params.not_after = time((now.as_second() + wanted.seconds).min(ends))?;
        let key = KeyPair::from_pem(&self.ca.key_pem).map_err(shown)?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca.certificate_pem, key).map_err(shown)?;
        request.signed_by(&issuer).map(|certificate| certificate.pem()).map_err(shown)
    }

    /// A kubeconfig with the administrator's certificate inside.
    pub(crate) fn kubeconfig(&self, server_url: &str, context: &str) -> String {
        let (cluster, user) = (&self.cluster_name, format!("{context}-admin"));
        let ca = STANDARD.encode(&self.ca.certificate_pem);
        let certificate = STANDARD.encode(&self.administrator.certificate_pem);
        let key = STANDARD.encode(&self.administrator.key_pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {context:?}\npreferences: {{}}\n\
             clusters:\n- name: {cluster:?}\n  cluster:\n    server: {server_url:?}\n    certificate-authority-data: {ca}\n\
             contexts:\n- name: {context:?}\n  context:\n    cluster: {cluster:?}\n    user: {user:?}\n\
             users:\n- name: {user:?}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        )
    }
}

/// The file of encryption at rest.
const ENCRYPTION: &str = "encryption.yaml";

fn sealer(files: &Files) -> Result<Arc<dyn Sealer>, OpenError> {
    let unusable = |why| OpenError::Encryption { path: files.path(ENCRYPTION), why };
    let text = match files.read(ENCRYPTION)? {
        Some(text) => text,
        None => {
            let text = encryption::fresh().map_err(unusable)?;
            files.write(ENCRYPTION, &text)?;
            text
        }
    };
    encryption::parse(&text).map_err(unusable)
}

fn new_key(files: &Files, name: &str) -> Result<KeyPair, OpenError> {
    KeyPair::generate().map_err(|error| files.unusable(name, error))
}

fn subject(name: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(organisation) = organisation {
        subject.push(DnType::OrganizationName, organisation);
    }
    subject.push(DnType::CommonName, name);
    subject
}

fn params(subject: DistinguishedName, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    // Clients whose clock is a little behind must be able to connect at once.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
    params
}

/// The authority in the files, or a new one when there is none.
fn authority(files: &Files, file: &str, name: &str) -> Result<Identity, OpenError> {
    if let Some(kept) = files.read_identity(file)? {
        return Ok(kept);
    }
    let key = new_key(files, &format!("{file}.key"))?;
    let mut params = params(subject(name, None), AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).map_err(|error| files.unusable(&format!("{file}.crt"), error))?;
    let ca = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    files.write_identity(file, &ca)?;
    Ok(ca)
}

/// Every name and address that the serving certificate is good for, sorted.
fn serving_names(config: &Config) -> Vec<String> {
    let service = std::net::Ipv4Addr::from(u32::from(config.service_cidr.network()) + 1);
    let fixed = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ];
    let mut names: Vec<String> = fixed.iter().map(|name| (*name).to_owned()).collect();
    names.extend([service.to_string(), config.advertise.ip().to_string()]);
    names.extend(config.server_names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn serving_params(config: &Config) -> CertificateParams {
    let mut params = params(subject("kube-apiserver", None), LEAF_DAYS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let name = |text: &String| match text.parse::<IpAddr>() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) => text.as_str().try_into().ok().map(SanType::DnsName),
    };
    params.subject_alt_names = serving_names(config).iter().filter_map(name).collect();
    params
}

fn client_params(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = params(subject(name, group), LEAF_DAYS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// The certificate in the files, or a new one when there is none, it ends soon, or it is for other names.
fn leaf(
    files: &Files,
    ca: &Identity,
    name: &str,
    params: &CertificateParams,
    names: &[String],
) -> Result<Identity, OpenError> {
    if let Some(kept) = files.read_identity(name)?
        && is_good(&kept.certificate_pem, names)
    {
        return Ok(kept);
    }
    let unusable = |error: rcgen::Error| files.unusable("ca.crt", error);
    let authority_key = KeyPair::from_pem(&ca.key_pem).map_err(|error| files.unusable("ca.key", error))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem, authority_key).map_err(unusable)?;
    let key = new_key(files, name)?;
    let certificate = params.signed_by(&key, &issuer).map_err(unusable)?;
    let identity = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    files.write_identity(name, &identity)?;
    Ok(identity)
}

/// When a certificate ends, in seconds since 1970.
fn authority_end(certificate_pem: &str) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

fn is_good(certificate_pem: &str, names: &[String]) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&pem.contents) else { return false };
    let renew_at = OffsetDateTime::now_utc() + Duration::days(RENEW_DAYS);
    certificate.validity().not_after.timestamp() > renew_at.unix_timestamp() && alternative_names(&certificate) == names
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    let mut names: Vec<String> = names.flatten().filter_map(text).collect();
    names.sort();
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
