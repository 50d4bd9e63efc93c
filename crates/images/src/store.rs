//! The images of one host: records, disks, and how they come to be.
//!
//! Everything is a file that appears by rename: a crash leaves at most scratch files, which the next start removes.
//! The import command works on the same directory beside a running host agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use oci_spec::image::ImageConfiguration;
use sha2::{Digest, Sha256};

use crate::archive::{self, Parts};
use crate::blob::{Blob, digest_of, hex};
use crate::error::{ImageError, Kind};
use crate::record::{Image, ImageConfig, Origin};
use crate::registry::{self, Credentials};
use crate::tree::Tree;
use crate::{disk, layer};

/// How large images may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all layers as they are sent.
    pub compressed_bytes: u64,
    /// Bytes of all layers unpacked.
    pub unpacked_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { compressed_bytes: 16 << 30, unpacked_bytes: 32 << 30 }
    }
}

/// Where images are kept and how they are pulled.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the store.
    pub directory: PathBuf,
    /// Registries that are spoken to without TLS, besides those on loopback.
    pub insecure_registries: Vec<String>,
    /// How large images may be.
    pub limits: Limits,
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Each time; an imported image counts as the registry's.
    Always,
    /// When the image is not here.
    IfNotPresent,
    /// Never.
    Never,
}

impl Policy {
    /// From `imagePullPolicy`.
    pub fn from_text(text: &str) -> Self {
        match text {
            "Never" => Self::Never,
            "Always" => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// The images of one host. Clones share it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    options: Arc<Options>,
    /// One pull at a time per image: the others wait and find it done.
    pulls: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl ImageStore {
    /// Opens the store and removes what a crash left.
    ///
    /// # Errors
    /// `Local` when the directory cannot be made.
    pub fn open(options: Options) -> Result<Self, ImageError> {
        for part in ["images", "disks", "scratch"] {
            let path = options.directory.join(part);
            fs::create_dir_all(&path).map_err(|error| ImageError::local(path, &error))?;
        }
        // A provider that is installed already is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        Ok(Self { options: Arc::new(options), pulls: Arc::default() })
    }

    /// Removes scratch files of earlier processes. For the host agent's start, while nobody imports.
    pub fn sweep(&self) {
        for entry in fs::read_dir(self.scratch()).into_iter().flatten().flatten() {
            if fs::remove_file(entry.path()).is_err() {
                tracing::warn!(path = %entry.path().display(), "scratch file cannot be removed");
            }
        }
    }

    fn scratch(&self) -> PathBuf {
        self.options.directory.join("scratch")
    }

    fn record_path(&self, reference: &str) -> PathBuf {
        let name = hex(&Sha256::digest(reference.as_bytes()));
        self.options.directory.join("images").join(format!("{name}.json"))
    }

    /// The image of this name on this host.
    pub fn find(&self, image: &str) -> Option<Image> {
        let reference = registry::parse(image).ok()?.whole();
        let text = fs::read(self.record_path(&reference)).ok()?;
        let found: Image = serde_json::from_slice(&text).ok()?;
        found.disk.exists().then_some(found)
    }

    /// All images of this host, by name.
    pub fn list(&self) -> Vec<Image> {
        let entries = fs::read_dir(self.options.directory.join("images")).into_iter().flatten().flatten();
        let read = |entry: fs::DirEntry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok();
        let mut images: Vec<Image> = entries.filter_map(read).collect();
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        images
    }

    /// Makes an image available as the policy says.
    ///
    /// # Errors
    /// [`ImageError`] with the registry's reason.
    pub async fn ensure(
        &self,
        image: &str,
        policy: Policy,
        credentials: Option<Credentials>,
    ) -> Result<Image, ImageError> {
        let reference = registry::parse(image)?;
        let lock = self.pulls.lock().map(|mut pulls| pulls.entry(reference.whole()).or_default().clone());
        let lock = lock.map_err(|_| ImageError::new(Kind::Local, "an earlier pull broke off; restart isopod"))?;
        let _one_at_a_time = lock.lock().await;
        match self.find(image) {
            Some(found) if policy != Policy::Always || found.origin == Origin::Imported => return Ok(found),
            None if policy == Policy::Never => {
                let text = format!("Container image {image:?} is not present with pull policy of Never");
                return Err(ImageError::new(Kind::NeverPull, text));
            }
            _ => {}
        }
        let limits = self.options.limits;
        let insecure = &self.options.insecure_registries;
        let scratch = self.scratch();
        let parts =
            registry::download(&reference, credentials.as_ref(), insecure, &scratch, limits.compressed_bytes).await?;
        let store = self.clone();
        let keep = move || store.keep(&parts, &reference.whole(), Origin::Pulled);
        tokio::task::spawn_blocking(keep).await.map_err(|error| ImageError::new(Kind::Local, error.to_string()))?
    }

    /// Imports every image of an OCI or docker archive; `name` replaces the archive's own names.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge` for broken and hostile archives, `Local` for this machine's troubles.
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let blob = layer::open_archive(path, &self.scratch(), self.options.limits.unpacked_bytes)?;
        let mut images = Vec::new();
        for parts in archive::read(&blob)? {
            let names = name.map_or_else(|| parts.references.clone(), |name| vec![name.to_owned()]);
            if names.is_empty() {
                let hint = "hint: give one with --name";
                return Err(ImageError::invalid(format!("the archive does not name its image ({hint})")));
            }
            for name in names {
                let reference = registry::parse(&name)?.whole();
                images.push(self.keep(&parts, &reference, Origin::Imported)?);
            }
        }
        if images.is_empty() {
            return Err(ImageError::invalid("the archive holds no image"));
        }
        Ok(images)
    }

    /// Flattens an image, unless its disk is here already, and writes its record.
    fn keep(&self, parts: &Parts, reference: &str, origin: Origin) -> Result<Image, ImageError> {
        let configuration = ImageConfiguration::from_reader(&*parts.config)
            .map_err(|error| ImageError::invalid(format!("{reference}: configuration: {error}")))?;
        let diff_ids = configuration.rootfs().diff_ids();
        if diff_ids.len() != parts.layers.len() {
            let (named, there) = (diff_ids.len(), parts.layers.len());
            return Err(ImageError::invalid(format!("{reference}: {named} layers are named and {there} are there")));
        }
        let chain = digest_of(diff_ids.join("\n").as_bytes());
        let disk = self.options.directory.join("disks").join(format!("{}.ext4", chain.trim_start_matches("sha256:")));
        let (disk_bytes, content_bytes) = match fs::metadata(&disk) {
            Ok(metadata) => (metadata.len(), self.content_bytes(&disk)),
            Err(_) => self.flatten(&parts.layers, diff_ids, &chain, &disk)?,
        };
        let image = Image {
            reference: reference.into(),
            digest: parts.digest.clone(),
            id: digest_of(&parts.config),
            disk,
            disk_bytes,
            content_bytes,
            config: ImageConfig::from(&configuration),
            origin,
        };
        self.write_record(&image)?;
        Ok(image)
    }

    fn content_bytes(&self, disk: &Path) -> u64 {
        self.list().iter().find(|image| image.disk == disk).map_or(0, |image| image.content_bytes)
    }

    fn flatten(&self, layers: &[Blob], diff_ids: &[String], chain: &str, to: &Path) -> Result<(u64, u64), ImageError> {
        let scratch = self.scratch();
        let mut left = self.options.limits.unpacked_bytes;
        let (mut tree, mut unpacked) = (Tree::default(), Vec::new());
        for (index, (blob, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
            let (tar, digest) = layer::unpack(blob, &scratch, left)?;
            if digest != *diff_id {
                return Err(ImageError::invalid(format!("layer {index} unpacks to {digest}, not to {diff_id}")));
            }
            left -= tar.length();
            layer::merge(&mut tree, index, &tar)?;
            unpacked.push(tar);
        }
        let partial = tempfile::Builder::new().suffix(".ext4").tempfile_in(&scratch);
        let partial = partial.map_err(|error| ImageError::local(&scratch, &error))?.into_temp_path();
        let sizes = disk::write(&tree, &unpacked, chain, &partial)?;
        readable(&partial).map_err(|error| ImageError::local(partial.to_path_buf(), &error))?;
        partial.persist(to).map_err(|error| ImageError::local(to, &error.error))?;
        Ok(sizes)
    }

    fn write_record(&self, image: &Image) -> Result<(), ImageError> {
        let path = self.record_path(&image.reference);
        let text = serde_json::to_vec_pretty(image).map_err(|error| ImageError::invalid(error.to_string()))?;
        let partial =
            tempfile::NamedTempFile::new_in(self.scratch()).map_err(|error| ImageError::local(&path, &error))?;
        fs::write(partial.path(), text).map_err(|error| ImageError::local(&path, &error))?;
        partial.persist(&path).map_err(|error| ImageError::local(&path, &error.error))?;
        Ok(())
    }

    /// Forgets an image, and its disk when no other image has it and it is not `in_use`.
    ///
    /// # Errors
    /// `NotFound`, or `Local`.
    pub fn remove(&self, image: &str, in_use: &BTreeSet<PathBuf>) -> Result<(), ImageError> {
        let missing =
            || ImageError::new(Kind::NotFound, format!("no image {image:?} on this host (hint: isopod image list)"));
        let found = self.find(image).ok_or_else(missing)?;
        let path = self.record_path(&found.reference);
        fs::remove_file(&path).map_err(|error| ImageError::local(&path, &error))?;
        let shared = self.list().iter().any(|other| other.disk == found.disk);
        if !shared && !in_use.contains(&found.disk) {
            fs::remove_file(&found.disk).map_err(|error| ImageError::local(&found.disk, &error))?;
        }
        Ok(())
    }
}

/// Image disks are opened by unprivileged VMM processes.
fn readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o444))
}
