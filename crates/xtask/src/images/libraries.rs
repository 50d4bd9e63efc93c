//! The libraries of a program from Debian packages, as its own loader finds them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::layer::LayerWriter;
use crate::command::output;

/// The dynamic loader, at the place that programs name.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const DIRECTORIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Whether a package holds libraries, by its name.
pub fn is_library(package: &str) -> bool {
    package.starts_with("lib") || package.starts_with("zlib")
}

/// A file of a tree of unpacked packages.
pub fn read(tree: &Path, path: &str) -> Result<Vec<u8>> {
    let path = tree.join(path);
    fs::read(&path).with_context(|| format!("{}", path.display()))
}

/// Adds what a program of a tree loads, and the loader.
pub fn add(layer: &mut LayerWriter, tree: &Path, program: &str) -> Result<()> {
    for directory in ["lib", "lib64", "usr/lib"].iter().chain(&DIRECTORIES) {
        layer.directory(directory, 0o755)?;
    }
    for path in loaded(tree, program)?.iter().filter(|path| !path.ends_with("ld-linux-x86-64.so.2")) {
        layer.file(path, 0o644, &read(tree, path)?)?;
    }
    layer.file(LOADER, 0o755, &read(tree, &format!("{}/ld-linux-x86-64.so.2", DIRECTORIES[0]))?)
}

/// Paths below the tree of the libraries that a program loads.
fn loaded(tree: &Path, program: &str) -> Result<Vec<String>> {
    let places = DIRECTORIES.map(|place| tree.join(place).display().to_string()).join(":");
    let loader = fs::canonicalize(tree.join(DIRECTORIES[0]).join("ld-linux-x86-64.so.2"))?;
    let text = output(Command::new(loader).arg("--library-path").arg(places).arg("--list").arg(tree.join(program)))?;
    let mut found = Vec::new();
    for line in text.lines().filter_map(|line| line.split_once(" => ")) {
        let path = line.1.split(" (").next().unwrap_or_default();
        let inside = Path::new(path).strip_prefix(tree);
        let inside = inside.with_context(|| format!("{program} needs {}, which no package here has", line.0.trim()))?;
        found.push(inside.display().to_string());
    }
    ensure!(!found.is_empty(), "{program} loads no libraries, says its loader:\n{text}");
    Ok(found)
}
