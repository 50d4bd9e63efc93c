//! Doors for fuzz targets, in builds for fuzzing only: what reads the bytes of registries and archives. Writes nothing but
//! scratch files without a name.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};

use crate::blob::Blob;
use crate::error::ImageError;
use crate::record::ImageConfig;
use crate::tree::Tree;
use crate::{archive, layer, registry};

/// Files in memory, so that no disk is worn out.
const SCRATCH: &str = "/dev/shm";
/// Most bytes of a layer.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

fn blob(bytes: &[u8]) -> Blob {
    let mut file = tempfile::tempfile_in(SCRATCH).expect("scratch files can be made");
    file.write_all(bytes).expect("scratch files can be written");
    Blob::new(Arc::new(file), 0, bytes.len() as u64)
}

/// Unpacks layers and merges them into one tree; every path of it is below its root.
///
/// # Panics
/// When one is not.
pub fn layers(layers: [&[u8]; 2]) {
    let mut tree = Tree::default();
    for (at, bytes) in layers.into_iter().enumerate() {
        let merged = layer::unpack(&blob(bytes), Path::new(SCRATCH), UNPACKED_BYTES_MAX)
            .and_then(|(tar, _)| layer::merge(&mut tree, at, &tar));
        if merged.is_err() {
            break;
        }
    }
    for (path, _) in tree.paths() {
        assert!(!path.split('/').any(|part| part == ".."), "{path:?}");
    }
}

/// Reads an archive of images.
pub fn archive(bytes: &[u8]) {
    let parts: Result<_, ImageError> = archive::read(&blob(bytes));
    for parts in parts.into_iter().flatten() {
        documents(&parts.config);
    }
}

/// Reads a document of each kind, and a text as a reference.
pub fn documents(bytes: &[u8]) {
    drop(ImageIndex::from_reader(bytes));
    drop(ImageManifest::from_reader(bytes));
    if let Ok(configuration) = ImageConfiguration::from_reader(bytes) {
        drop(ImageConfig::from(&configuration));
    }
    drop(registry::parse(&String::from_utf8_lossy(bytes)));
}
