//! The guest's kernel: which one, its uncompressed image, and the modules that a microVM needs, in loading order.
//!
//! A kernel is found under a prefix that looks like a Debian package unpacked: `boot/vmlinuz-VERSION` and
//! `lib/modules/VERSION`. The prefix is `/` when the package is installed, or a directory of the cache that `fetch`
//! unpacked it into. The host's own boot files are only ever read.

mod image;
mod lz4;
mod modules;

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::process::Command;

pub use image::{ImageError, vmlinux};
pub use modules::{Module, ModuleError, load_order};

/// Modules that the guest agent loads, in any order: channel, disks, network, overlay, entropy, image formats.
pub const NEEDED_MODULES: &[&str] =
    &["virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "overlay", "virtio_rng", "erofs", "veth"];

/// A kernel on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Release, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// Boot image (`vmlinuz`).
    pub image: PathBuf,
    /// Its modules (`lib/modules/RELEASE`).
    pub modules: PathBuf,
}

/// No usable kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Nothing was found.
    #[error(
        "no guest kernel found under {searched}\nhint: install one with `apt-get install linux-image-cloud-amd64`, or name an image in the configuration"
    )]
    NotFound {
        /// Where it was looked for.
        searched: String,
    },
    /// The file named by the configuration is not `.../boot/vmlinuz-RELEASE`.
    #[error("{} is not named vmlinuz-RELEASE, so its modules cannot be found\nhint: name a file such as /boot/vmlinuz-6.1.0-56-cloud-amd64", .0.display())]
    Name(PathBuf),
    /// The modules are not there.
    #[error("the modules of kernel {release} are not in {}\nhint: reinstall the kernel's package", path.display())]
    NoModules {
        /// Release.
        release: String,
        /// Where they should be.
        path: PathBuf,
    },
    /// A program failed.
    #[error("{program} failed: {reason}\nhint: run `apt-get update` and try again, or install linux-image-cloud-amd64")]
    Program {
        /// Command line.
        program: String,
        /// Its last words.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Finds the kernel that `named` says, or the newest cloud kernel of the machine, or the one in the cache.
///
/// # Errors
/// `KernelError`; `NotFound` says where it looked.
pub fn find(named: Option<&Path>, cache_dir: &Path) -> Result<Kernel, KernelError> {
    if let Some(image) = named {
        return at_image(image);
    }
    let prefixes = [PathBuf::from("/"), cache_dir.join("kernel")];
    match prefixes.iter().find_map(|prefix| newest(prefix)) {
        Some(kernel) => Ok(kernel),
        None => Err(KernelError::NotFound {
            searched: prefixes.map(|prefix| prefix.join("boot").display().to_string()).join(" or "),
        }),
    }
}

/// The kernel whose image this is; its modules are looked for beside it and on the machine.
fn at_image(image: &Path) -> Result<Kernel, KernelError> {
    let release = image
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
        .ok_or_else(|| KernelError::Name(image.to_owned()))?;
    std::fs::metadata(image).map_err(|source| KernelError::Io { path: image.to_owned(), source })?;
    let beside = image.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let modules = [beside, Path::new("/")]
        .map(|prefix| prefix.join("lib/modules").join(&release))
        .into_iter()
        .find(|path| path.join("kernel").is_dir())
        .ok_or_else(|| KernelError::NoModules { release: release.clone(), path: beside.join("lib/modules") })?;
    Ok(Kernel { release, image: image.to_owned(), modules })
}

/// The newest cloud kernel under a prefix that has its modules.
fn newest(prefix: &Path) -> Option<Kernel> {
    let mut releases: Vec<String> = std::fs::read_dir(prefix.join("boot"))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
        .filter(|release| release.contains("-cloud-"))
        .collect();
    releases.sort_by_key(|release| version_key(release));
    releases.iter().rev().find_map(|release| at_image(&prefix.join("boot").join(format!("vmlinuz-{release}"))).ok())
}

/// Orders `6.1.0-9` before `6.1.0-56`.
fn version_key(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Downloads the distribution's cloud kernel and unpacks it into the cache. It is not installed: no boot loader, no
/// `/boot`, no package database is touched. Does nothing when `find` would find one.
///
/// # Errors
/// `KernelError::Program` with the last words of `apt-get` or `dpkg-deb`.
pub async fn fetch(cache_dir: &Path) -> Result<Kernel, KernelError> {
    if let Ok(kernel) = find(None, cache_dir) {
        return Ok(kernel);
    }
    // Whoever comes second finds what the first one fetched.
    let _lock = lock(cache_dir).await?;
    if let Ok(kernel) = find(None, cache_dir) {
        return Ok(kernel);
    }
    let package = package_name().await?;
    let (download, unpacked) = (cache_dir.join("kernel.download"), cache_dir.join("kernel"));
    remove_tree(&download)?;
    let tree = download.join("tree");
    std::fs::create_dir_all(&tree).map_err(|source| KernelError::Io { path: tree.clone(), source })?;
    run(Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", &package])
        .current_dir(&download))
    .await?;
    let archive = std::fs::read_dir(&download)
        .map_err(|source| KernelError::Io { path: download.clone(), source })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| KernelError::Program {
            program: "apt-get download".into(),
            reason: "it left no archive".into(),
        })?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree)).await?;
    remove_tree(&unpacked)?;
    std::fs::rename(&tree, &unpacked).map_err(|source| KernelError::Io { path: unpacked.clone(), source })?;
    remove_tree(&download)?;
    find(None, cache_dir)
}

/// The right to fetch into a cache, among all processes, until the file is dropped.
async fn lock(cache_dir: &Path) -> Result<std::fs::File, KernelError> {
    let path = cache_dir.join("kernel.lock");
    let failed = |source| KernelError::Io { path: path.clone(), source };
    std::fs::create_dir_all(cache_dir).map_err(failed)?;
    let file = std::fs::File::create(&path).map_err(failed)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    locked.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

/// The package behind `linux-image-cloud-amd64` (or `-arm64`).
async fn package_name() -> Result<String, KernelError> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let output = run(Command::new("apt-cache").args(["depends", &format!("linux-image-cloud-{architecture}")])).await?;
    output
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .map(str::to_owned)
        .ok_or_else(|| KernelError::Program { program: "apt-cache depends".into(), reason: "no such package".into() })
}

async fn run(command: &mut Command) -> Result<String, KernelError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let fail = |reason: String| KernelError::Program { program: program.clone(), reason };
    let output = command.output().await.map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr);
        Err(fail(words.lines().last().unwrap_or("no output").to_owned()))
    }
}

fn remove_tree(path: &Path) -> Result<(), KernelError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_with_modules_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("boot")).unwrap();
        for (release, with_modules) in [
            ("6.1.0-9-cloud-amd64", true),
            ("6.1.0-56-cloud-amd64", true),
            ("6.12.0-1-cloud-amd64", false),
            ("6.13.0-amd64", true),
        ] {
            std::fs::write(dir.path().join(format!("boot/vmlinuz-{release}")), "").unwrap();
            if with_modules {
                std::fs::create_dir_all(dir.path().join(format!("lib/modules/{release}/kernel"))).unwrap();
            }
        }
        assert_eq!(newest(dir.path()).unwrap().release, "6.1.0-56-cloud-amd64");
    }

    #[test]
    fn a_named_image_must_say_its_release() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("bzImage");
        std::fs::write(&image, "").unwrap();
        assert!(matches!(find(Some(&image), dir.path()), Err(KernelError::Name(_))));
        assert!(matches!(find(Some(Path::new("/nonexistent/vmlinuz-1")), dir.path()), Err(KernelError::Io { .. })));
    }
}
