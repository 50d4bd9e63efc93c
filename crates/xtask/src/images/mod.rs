//! `cargo xtask images`: sample images from Debian packages, so that everything can be tried without a public registry. They
//! are files under `target/images`, made once; nothing of them is ever committed or pushed anywhere.

mod archive;
mod busybox;
mod layer;
mod libraries;
mod nginx;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::root;
use crate::packages::Packages;
use archive::Image;

/// Changes when what is made changes, so that archives of older recipes are made again.
const RECIPE: &str = "2";

/// Where the archives are.
pub fn directory() -> PathBuf {
    root().join("target/images")
}

/// The archive of a sample image.
pub fn archive(name: &str) -> PathBuf {
    directory().join(name).with_extension("tar")
}

/// Makes the archives that are missing; true when something was made.
pub fn make() -> Result<bool> {
    let directory = directory();
    fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
    let stamp = directory.join("recipe");
    let made = ["busybox", "nginx"].iter().all(|name| archive(name).is_file());
    if made && fs::read_to_string(&stamp).is_ok_and(|recipe| recipe == RECIPE) {
        println!("images are there: {}", shown(&directory));
        return Ok(false);
    }
    let packages = Packages::open(directory.join("packages"))?;
    let shell = busybox::layer(&packages)?;
    write("busybox", &busybox::image(&shell))?;
    write("nginx", &nginx::image(&packages, &shell)?)?;
    fs::write(&stamp, RECIPE).with_context(|| format!("{}", stamp.display()))?;
    Ok(true)
}

fn write(name: &str, image: &Image) -> Result<()> {
    let path = archive(name);
    let bytes = image.to_docker_archive()?;
    println!("{}: {}, {:.1} MiB", shown(&path), image.tags.join(", "), bytes.len() as f64 / f64::from(1 << 20));
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("{}", partial.display()))?;
    fs::rename(&partial, &path).with_context(|| format!("{}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
