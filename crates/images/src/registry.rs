//! Pulls manifests and blobs from an OCI registry into scratch files.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::archive::{DOCUMENT_BYTES_MAX, Parts, check_layers};
use crate::blob::Blob;
use crate::error::{ImageError, Kind};

/// Time to connect to a registry.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a registry may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Layers downloaded at once.
const PARALLEL_LAYERS: usize = 4;

/// User name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The credentials that a `.dockerconfigjson` document holds for an image, if any.
    pub fn from_docker_config(document: &[u8], image: &str) -> Option<Self> {
        let config: serde_json::Value = serde_json::from_slice(document).ok()?;
        let reference = parse(image).ok()?;
        let hosts = [reference.registry(), reference.resolve_registry()];
        let entries = config["auths"].as_object()?;
        let entry = entries.iter().find(|(server, _)| {
            let host = server.trim_start_matches("https://").trim_start_matches("http://").split('/').next();
            host.is_some_and(|host| hosts.contains(&host))
        });
        let entry = entry.map(|(_, entry)| entry)?;
        if let (Some(username), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
            return Some(Self { username: username.into(), password: password.into() });
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(entry["auth"].as_str()?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Self { username: username.into(), password: password.into() })
    }
}

/// A reference, with `docker.io/library` and `latest` filled in.
pub(crate) fn parse(image: &str) -> Result<Reference, ImageError> {
    image
        .parse()
        .map_err(|error| ImageError::new(Kind::InvalidName, format!("couldn't parse image name {image:?}: {error}")))
}

/// Registries on this machine speak HTTP, as other clients have it.
fn is_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.starts_with("127.") || host == "[::1]"
}

fn client(reference: &Reference, insecure: &[String]) -> Result<Client, ImageError> {
    let registry = reference.resolve_registry();
    let plain = is_local(registry) || insecure.iter().any(|host| host == registry);
    let config = ClientConfig {
        protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        platform_resolver: Some(Box::new(oci_client::client::linux_amd64_resolver)),
        ..ClientConfig::default()
    };
    Ok(Client::new(config))
}

/// Says what the registry said.
fn refused(reference: &Reference, error: &OciDistributionError) -> ImageError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let kind = match error {
        OciDistributionError::ImageManifestNotFoundError(_) => Kind::NotFound,
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            Kind::Unauthorized
        }
        OciDistributionError::RequestError(_) => Kind::Unreachable,
        OciDistributionError::RegistryError { envelope, .. } => kind_of(&envelope.to_string()),
        OciDistributionError::ServerError { code: 404, .. } => Kind::NotFound,
        OciDistributionError::ServerError { .. } => Kind::Unreachable,
        _ => Kind::Invalid,
    };
    let hint = match kind {
        Kind::NotFound => "; check the name and tag, or import the image with `isopod image import FILE`",
        Kind::Unauthorized => "; give the pod imagePullSecrets for this registry",
        Kind::Unreachable => {
            "; is the registry reachable from this host? Images can be imported with `isopod image import FILE`"
        }
        _ => "",
    };
    ImageError::new(kind, format!("failed to pull {reference}: {text}{hint}"))
}

fn kind_of(envelope: &str) -> Kind {
    let text = envelope.to_lowercase();
    if text.contains("unauthorized") || text.contains("denied") { Kind::Unauthorized } else { Kind::NotFound }
}

/// Downloads an image's documents and layers; every digest is checked.
pub(crate) async fn download(
    reference: &Reference,
    credentials: Option<&Credentials>,
    insecure: &[String],
    scratch: &Path,
    limit_bytes: u64,
) -> Result<Parts, ImageError> {
    let client = client(reference, insecure)?;
    let auth =
        credentials.map_or(RegistryAuth::Anonymous, |c| RegistryAuth::Basic(c.username.clone(), c.password.clone()));
    let refused = |error: OciDistributionError| refused(reference, &error);
    let (manifest, digest) = client.pull_image_manifest(reference, &auth).await.map_err(refused)?;
    check_layers(manifest.layers.len())?;
    let total: i64 = manifest.layers.iter().map(|layer| layer.size.max(0)).fold(0, i64::saturating_add);
    if u64::try_from(total).unwrap_or(u64::MAX) > limit_bytes {
        return Err(ImageError::too_large(format!(
            "{reference} has {total} bytes of layers, the limit is {limit_bytes}"
        )));
    }
    let config = fetch(&client, reference, &manifest.config, scratch, DOCUMENT_BYTES_MAX).await?;
    let config = config.read_all(DOCUMENT_BYTES_MAX).map_err(|error| ImageError::local(scratch, &error))?;
    let mut fetches = Vec::new();
    for layer in &manifest.layers {
        fetches.push(fetch(&client, reference, layer, scratch, limit_bytes));
    }
    let layers = futures::stream::iter(fetches).buffered(PARALLEL_LAYERS).try_collect().await?;
    Ok(Parts { references: Vec::new(), digest, config, layers })
}

/// Downloads one blob into an unnamed file.
async fn fetch(
    client: &Client,
    reference: &Reference,
    descriptor: &OciDescriptor,
    scratch: &Path,
    limit_bytes: u64,
) -> Result<Blob, ImageError> {
    let mut file = tempfile::tempfile_in(scratch).map_err(|error| ImageError::local(scratch, &error))?;
    let stream = client.pull_blob_stream(reference, descriptor).await;
    let mut stream = stream.map_err(|error| refused(reference, &error))?;
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| broken_download(reference, &descriptor.digest, &error))?;
        length += chunk.len() as u64;
        if length > limit_bytes {
            return Err(ImageError::too_large(format!("{}: more than {limit_bytes} bytes", descriptor.digest)));
        }
        file.write_all(&chunk).map_err(|error| ImageError::local(scratch, &error))?;
    }
    let blob = Blob::new(Arc::new(file), 0, length);
    let found = blob.digest().map_err(|error| ImageError::local(scratch, &error))?;
    if found != descriptor.digest {
        let text = format!("{reference}: the registry sent {found} for {}", descriptor.digest);
        return Err(ImageError::invalid(text));
    }
    Ok(blob)
}

fn broken_download(reference: &Reference, digest: &str, error: &std::io::Error) -> ImageError {
    let text = error.to_string();
    let kind = if text.to_lowercase().contains("digest") { Kind::Invalid } else { Kind::Unreachable };
    ImageError::new(kind, format!("failed to pull {reference}: {digest}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed() {
        for (image, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("public.ecr.aws/x/y:z", "public.ecr.aws/x/y:z"),
        ] {
            assert_eq!(parse(image).unwrap().whole(), expected);
        }
        assert_eq!(parse("Not A Name").unwrap_err().kind, Kind::InvalidName);
    }

    #[test]
    fn credentials_are_found_by_host() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "127.0.0.1:5000": {"username": "a", "password": "b"}}}"#;
        let find = |image| Credentials::from_docker_config(config, image).map(|c| (c.username, c.password));
        assert_eq!(find("127.0.0.1:5000/x"), Some(("a".into(), "b".into())));
        assert_eq!(find("nginx"), Some(("u".into(), "p".into())));
        assert_eq!(find("quay.io/x"), None);
    }
}
