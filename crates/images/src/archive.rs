//! Image archives: OCI layouts (`oci-layout`, `index.json`) and what `docker save` writes (`manifest.json`), as tar files.

use std::collections::BTreeMap;
use std::io::BufReader;

use oci_spec::image::{ImageIndex, ImageManifest};
use serde::Deserialize;
use tar::EntryType;

use crate::blob::Blob;
use crate::error::ImageError;

/// Bytes a document (manifest, index, configuration) may have.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Entries an archive may have.
const ENTRIES_MAX: usize = 10_000;
/// Layers an image may have.
pub(crate) const LAYERS_MAX: usize = 256;

/// An image as blobs.
#[derive(Debug)]
pub(crate) struct Parts {
    /// References under which the archive names it.
    pub(crate) references: Vec<String>,
    /// Digest of the manifest.
    pub(crate) digest: String,
    /// The configuration document.
    pub(crate) config: Vec<u8>,
    /// Layers, lowest first, compressed or not.
    pub(crate) layers: Vec<Blob>,
}

/// One element of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Archive {
    entries: BTreeMap<String, Blob>,
}

impl Archive {
    fn open(blob: &Blob) -> Result<Self, ImageError> {
        let broken = |error: std::io::Error| ImageError::invalid(format!("not a tar archive: {error}"));
        let mut tar = tar::Archive::new(BufReader::new(blob.clone()));
        let mut entries = BTreeMap::new();
        for entry in tar.entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if name.split('/').any(|part| part == "..") || name.starts_with('/') {
                return Err(ImageError::invalid(format!("the archive has the path {name:?}, which leads out of it")));
            }
            match entry.header().entry_type() {
                EntryType::Regular => {
                    entries.insert(name, blob.slice(entry.raw_file_position(), entry.size()));
                }
                EntryType::Directory | EntryType::XGlobalHeader => {}
                other => return Err(ImageError::invalid(format!("the archive has {name:?} of tar type {other:?}"))),
            }
            if entries.len() > ENTRIES_MAX {
                return Err(ImageError::too_large(format!("the archive has more than {ENTRIES_MAX} entries")));
            }
        }
        Ok(Self { entries })
    }

    fn get(&self, name: &str) -> Result<&Blob, ImageError> {
        self.entries.get(name).ok_or_else(|| ImageError::invalid(format!("the archive has no {name:?}")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        self.get(name)?.read_all(DOCUMENT_BYTES_MAX).map_err(|error| ImageError::invalid(format!("{name}: {error}")))
    }

    /// A blob of an OCI layout, its digest checked.
    fn by_digest(&self, digest: &str) -> Result<&Blob, ImageError> {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("", digest));
        let blob = self.get(&format!("blobs/{algorithm}/{hex}"))?;
        let found = blob.digest().map_err(|error| ImageError::invalid(format!("{digest}: {error}")))?;
        if found != digest {
            return Err(ImageError::invalid(format!("the blob named {digest} has the digest {found}")));
        }
        Ok(blob)
    }

    fn digest_document(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let blob = self.by_digest(digest)?;
        blob.read_all(DOCUMENT_BYTES_MAX).map_err(|error| ImageError::invalid(format!("{digest}: {error}")))
    }
}

/// All images of an archive that are for Linux on x86-64.
pub(crate) fn read(blob: &Blob) -> Result<Vec<Parts>, ImageError> {
    let archive = Archive::open(blob)?;
    if archive.entries.contains_key("index.json") {
        return read_oci(&archive);
    }
    if archive.entries.contains_key("manifest.json") {
        return read_docker(&archive);
    }
    let hint = "hint: make one with docker save, podman save or skopeo copy ... oci-archive:FILE";
    Err(ImageError::invalid(format!("neither index.json nor manifest.json is in the archive ({hint})")))
}

fn read_docker(archive: &Archive) -> Result<Vec<Parts>, ImageError> {
    let text = archive.document("manifest.json")?;
    let broken = |error: serde_json::Error| ImageError::invalid(format!("manifest.json: {error}"));
    let manifests: Vec<DockerManifest> = serde_json::from_slice(&text).map_err(broken)?;
    let one = |manifest: DockerManifest| {
        let config = archive.document(&manifest.config)?;
        check_layers(manifest.layers.len())?;
        let layers: Result<Vec<Blob>, _> = manifest.layers.iter().map(|name| archive.get(name).cloned()).collect();
        let digest = crate::blob::digest_of(&config);
        Ok(Parts { references: manifest.repo_tags.unwrap_or_default(), digest, config, layers: layers? })
    };
    manifests.into_iter().map(one).collect()
}

pub(crate) fn check_layers(count: usize) -> Result<(), ImageError> {
    if count > LAYERS_MAX {
        return Err(ImageError::too_large(format!("the image has {count} layers, the limit is {LAYERS_MAX}")));
    }
    Ok(())
}

fn read_oci(archive: &Archive) -> Result<Vec<Parts>, ImageError> {
    let broken = |error: oci_spec::OciSpecError| ImageError::invalid(format!("index.json: {error}"));
    let text = archive.document("index.json")?;
    let index = ImageIndex::from_reader(&*text).map_err(broken)?;
    let mut found = Vec::new();
    for descriptor in index.manifests() {
        let name = |key: &str| descriptor.annotations().as_ref().and_then(|all| all.get(key)).cloned();
        let reference = name("io.containerd.image.name").or_else(|| name("org.opencontainers.image.ref.name"));
        let mut digest = descriptor.digest().to_string();
        if descriptor.media_type().to_string().contains("index") || descriptor.media_type().to_string().contains("list")
        {
            digest = for_this_platform(archive, &digest)?;
        }
        found.push(read_oci_image(archive, &digest, reference)?);
    }
    Ok(found)
}

fn for_this_platform(archive: &Archive, digest: &str) -> Result<String, ImageError> {
    let text = archive.digest_document(digest)?;
    let index = ImageIndex::from_reader(&*text).map_err(|error| ImageError::invalid(format!("{digest}: {error}")))?;
    let fits = |descriptor: &&oci_spec::image::Descriptor| {
        let platform = descriptor.platform().as_ref();
        platform.is_some_and(|p| p.os().to_string() == "linux" && p.architecture().to_string() == "amd64")
    };
    let found = index.manifests().iter().find(fits);
    found.map(|d| d.digest().to_string()).ok_or_else(|| ImageError::invalid("the archive has no image for linux/amd64"))
}

fn read_oci_image(archive: &Archive, digest: &str, reference: Option<String>) -> Result<Parts, ImageError> {
    let text = archive.digest_document(digest)?;
    let manifest =
        ImageManifest::from_reader(&*text).map_err(|error| ImageError::invalid(format!("{digest}: {error}")))?;
    check_layers(manifest.layers().len())?;
    let config = archive.digest_document(manifest.config().digest().as_ref())?;
    let layers: Result<Vec<Blob>, _> =
        manifest.layers().iter().map(|layer| archive.by_digest(layer.digest().as_ref()).cloned()).collect();
    Ok(Parts { references: reference.into_iter().collect(), digest: digest.into(), config, layers: layers? })
}
