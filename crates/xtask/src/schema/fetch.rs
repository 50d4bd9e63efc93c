//! Fetches the pinned packages into `target/schema`, through pip and apt, and checks what arrived.
//!
//! Debian unstable is reached with a private apt configuration: the system's own sources stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

const WHEEL: &str = "kubernetes-validate==1.37.0";
const WHEEL_FILE: &str = "kubernetes_validate-1.37.0-py3-none-any.whl";
const WHEEL_SHA256: &str = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9";
/// Debian packages with Kubernetes' Go sources. The release in unstable moves; facts of another minor release are refused.
const PACKAGES: [&str; 4] = [
    "golang-k8s-api-dev",
    "golang-k8s-apimachinery-dev",
    "golang-k8s-client-go-dev",
    "golang-k8s-apiextensions-apiserver-dev",
];
const PACKAGE_VERSION: &str = "0.36.";
const SUITE: &str =
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n";

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn succeed(command: &mut Command, hint: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}\nhint: {hint}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\nhint: {hint}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The wheel with OpenAPI definitions, downloaded unless it is there, with its checksum verified.
pub fn wheel(cache: &Path) -> Result<PathBuf> {
    let file = cache.join("cache").join(WHEEL_FILE);
    if !file.exists() {
        let directory = cache.join("cache");
        std::fs::create_dir_all(&directory)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"])
            .arg(&directory)
            .arg(WHEEL);
        succeed(&mut pip, "apt-get install python3-pip; the package index must be reachable")?;
    }
    let found = sha256_hex(&std::fs::read(&file)?);
    if found != WHEEL_SHA256 {
        bail!("{}: sha256 is {found}, expected {WHEEL_SHA256}\nhint: delete the file and run again", file.display());
    }
    Ok(file)
}

/// A directory with the unpacked Go sources (`k8s.io/...` below it).
pub fn debian_sources(cache: &Path) -> Result<PathBuf> {
    let unpacked = cache.join("debs/x");
    let sources = unpacked.join("usr/share/gocode/src");
    if sources.join("k8s.io/client-go").is_dir() && sources.join("k8s.io/apiextensions-apiserver").is_dir() {
        return Ok(sources);
    }
    let debs = cache.join("debs");
    std::fs::create_dir_all(&debs)?;
    download(cache, &debs)?;
    for entry in std::fs::read_dir(&debs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            succeed(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&unpacked), "runs on Debian only")?;
        }
    }
    Ok(sources)
}

fn download(cache: &Path, debs: &Path) -> Result<()> {
    let apt = std::path::absolute(cache.join("apt"))?;
    std::fs::create_dir_all(apt.join("lists/partial"))?;
    std::fs::create_dir_all(apt.join("archives/partial"))?;
    std::fs::write(apt.join("sid.list"), SUITE)?;
    let hint = "the Debian archive must be reachable and debian-archive-keyring installed";
    succeed(Command::new("apt-get").args(options(&apt)).arg("update"), hint)?;
    succeed(Command::new("apt-get").args(options(&apt)).arg("download").args(PACKAGES).current_dir(debs), hint)?;
    for package in PACKAGES {
        let prefix = format!("{package}_{PACKAGE_VERSION}");
        let names = std::fs::read_dir(debs)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        if !names.into_iter().any(|name| name.starts_with(&prefix)) {
            bail!(
                "{package} is no longer at {PACKAGE_VERSION}x\nhint: move RELEASE, DEFINITIONS and PACKAGE_VERSION together"
            );
        }
    }
    Ok(())
}

fn options(apt: &Path) -> Vec<String> {
    let settings = [
        ("Dir::Etc::sourcelist", "sid.list"),
        ("Dir::State::lists", "lists"),
        ("Dir::Cache", "cache"),
        ("Dir::Cache::archives", "archives"),
    ];
    let paths = settings.into_iter().map(|(key, file)| format!("-o{key}={}", apt.join(file).display()));
    let fixed = ["-q", "-oDir::Etc::sourceparts=-", "-oDir::State::status=/dev/null"];
    paths.chain(fixed.map(str::to_owned)).collect()
}
