//! What a guest boots from, made once and kept in the cache: the uncompressed kernel and the initial RAM file system.
//! Files are named by what they were made from, so that a new kernel or agent makes new ones.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    initramfs,
    kernel::{self, ImageError, Kernel, ModuleError, NEEDED_MODULES},
    template::clear,
};

/// Boot files could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// The kernel image is of no use.
    #[error("kernel {}", path.display())]
    Image {
        /// Boot image.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// A module is missing.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Reading or writing failed.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Boot files.
#[derive(Debug)]
pub(crate) struct Assets {
    // Held open, so that clearing the cache does not take them away from a process that uses them.
    kernel: File,
    initramfs: File,
    /// Hash of both.
    pub(crate) key: String,
}

impl Assets {
    /// Makes what is not in the cache yet. Blocks.
    pub(crate) fn make(kernel: &Kernel, agent: &[u8], cache_dir: &Path) -> Result<Self, AssetError> {
        let directory = cache_dir.join("boot");
        std::fs::create_dir_all(&directory).map_err(at(&directory))?;
        let identity = identity(&kernel.image)?;
        let image = directory.join(format!("vmlinux-{}-{}", kernel.release, &hash(&[identity.as_bytes()])[..16]));
        if !image.exists() {
            let bytes = std::fs::read(&kernel.image).map_err(at(&kernel.image))?;
            let unpacked =
                kernel::vmlinux(&bytes).map_err(|source| AssetError::Image { path: kernel.image.clone(), source })?;
            write_whole(&image, &unpacked)?;
        }
        let archive = initramfs::build(agent, &kernel::load_order(&kernel.modules, NEEDED_MODULES)?);
        let archive_hash = hash(&[&archive]);
        let initramfs = directory.join(format!("initramfs-{}", &archive_hash[..16]));
        if !initramfs.exists() {
            write_whole(&initramfs, &archive)?;
        }
        let used = [&image, &initramfs].map(|path| path.file_name().unwrap_or_default().to_owned());
        clear(&directory, |name| used.iter().any(|used| used == name));
        let opened = |path: &Path| File::open(path).map_err(at(path));
        let key = hash(&[identity.as_bytes(), archive_hash.as_bytes()]);
        Ok(Self { kernel: opened(&image)?, initramfs: opened(&initramfs)?, key })
    }

    /// A name for what depends on both.
    pub(crate) fn directory_name(&self) -> &str {
        &self.key[..16]
    }

    /// Opens both.
    pub(crate) fn open(&self) -> io::Result<(File, File)> {
        // Opened anew: whoever reads them starts at their start.
        let again = |file: &File| File::open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok((again(&self.kernel)?, again(&self.initramfs)?))
    }
}

/// Tells a file from another under the same name without reading it.
fn identity(path: &Path) -> Result<String, AssetError> {
    let metadata = std::fs::metadata(path).map_err(at(path))?;
    Ok(format!("{} {} {}", path.display(), metadata.len(), metadata.mtime()))
}

fn at(path: &Path) -> impl Fn(io::Error) -> AssetError {
    move |source| AssetError::Io { path: path.to_owned(), source }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), AssetError> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path)).map_err(at(path))
}

/// SHA-256 of the parts, each behind its length, in hexadecimal.
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
