//! What is kept about an image on disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where an image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Pulled from its registry.
    Pulled,
    /// Imported from an archive by the user; counts as what its registry would give.
    Imported,
}

/// An image that is ready to be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Full reference, such as `docker.io/library/nginx:latest`.
    pub reference: String,
    /// Digest of the manifest, `sha256:...`.
    pub digest: String,
    /// Digest of the configuration, `sha256:...`.
    pub id: String,
    /// The read-only ext4 disk.
    pub disk: PathBuf,
    /// Length of the disk in bytes; it is sparse.
    pub disk_bytes: u64,
    /// Bytes of file content.
    pub content_bytes: u64,
    /// How its process runs.
    pub config: ImageConfig,
    /// Where it came from.
    pub origin: Origin,
}

/// How an image's process runs, from the OCI configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Entry point.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User.
    pub user: String,
    /// Signal that asks it to stop, `SIGTERM` when empty.
    pub stop_signal: String,
}

impl From<&oci_spec::image::ImageConfiguration> for ImageConfig {
    fn from(configuration: &oci_spec::image::ImageConfiguration) -> Self {
        let Some(config) = configuration.config() else { return Self::default() };
        Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone().unwrap_or_default(),
        }
    }
}
