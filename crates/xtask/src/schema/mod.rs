//! `cargo xtask schema`: makes the facts that the schema crate embeds, from pinned registry packages.
//!
//! Two results: `crates/schema/data/schema.json.zst`, facts without prose, committed; and `target/schema/prose.json.zst`, the
//! descriptions for `kubectl explain`, never committed. `--prose` makes only the second, which needs no Debian packages.

mod facts;
mod fetch;
mod go;
mod overlay;
mod reduce;
mod ssa;
mod zip;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Kubernetes minor release the table describes.
const RELEASE: &str = "1.36";
/// Definitions inside the wheel.
const DEFINITIONS: &str = "kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json";
const ZSTD_LEVEL: i32 = 19;
/// Where the schema crate's build script looks for descriptions.
const PROSE: &str = "target/schema/prose.json.zst";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether the descriptions are there already.
pub fn has_prose() -> bool {
    root().join(PROSE).is_file()
}

/// Runs the subcommand.
pub fn run(args: impl IntoIterator<Item = String>) -> Result<()> {
    let args: Vec<String> = args.into_iter().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            write_prose()?;
            write_facts()
        }
        // The text is pinned: once there, it stays.
        ["--prose"] if has_prose() => Ok(()),
        ["--prose"] => write_prose(),
        other => bail!("unknown arguments {other:?}\nhint: cargo xtask schema [--prose]"),
    }
}

fn definitions() -> Result<Value> {
    let cache = root().join("target/schema");
    let wheel = fetch::wheel(&cache)?;
    let bytes = zip::extract(&std::fs::read(&wheel)?, DEFINITIONS)?;
    let document: Value = serde_json::from_slice(&bytes).context("definitions in the wheel")?;
    document.get("$defs").cloned().context("the definitions file has no $defs")
}

fn write_compressed(path: &std::path::Path, value: &Value) -> Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let packed = zstd::encode_all(bytes.as_slice(), ZSTD_LEVEL)?;
    println!("{}: {} bytes, {} compressed", path.display(), bytes.len(), packed.len());
    std::fs::write(path, packed).with_context(|| format!("write {}", path.display()))
}

fn write_prose() -> Result<()> {
    let prose = reduce::prose(&definitions()?);
    write_compressed(&root().join(PROSE), &prose)?;
    // The crate's build script cannot watch a file that may be absent, so it is told this way.
    let script = root().join("crates/schema/build.rs");
    let file =
        std::fs::File::options().append(true).open(&script).with_context(|| format!("open {}", script.display()))?;
    file.set_modified(std::time::SystemTime::now()).with_context(|| format!("touch {}", script.display()))
}

fn write_facts() -> Result<()> {
    let sources = fetch::debian_sources(&root().join("target/schema"))?;
    let packages = go::read_packages(&sources)?;
    let defaults = ssa::read(&sources)?;
    let facts = reduce::facts(&definitions()?, &packages, &defaults)?;
    write_compressed(&root().join("crates/schema/data/schema.json.zst"), &facts.to_value(RELEASE))
}
