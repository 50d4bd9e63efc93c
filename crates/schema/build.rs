//! Hands the descriptions for `kubectl explain` to the crate when `cargo xtask schema --prose` has fetched them. They are not
//! part of the repository; without them everything works and `explain` shows no descriptions.

use std::path::Path;

#[expect(clippy::disallowed_methods, reason = "a build script does I/O; the crate does none")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    let prose = Path::new(&root).join("../../target/schema/prose.json.zst");
    // Naming an absent file would rebuild the crate each time. The xtask that fetches it touches this file instead.
    let bytes = std::fs::read(&prose).unwrap_or_default();
    if !bytes.is_empty() {
        println!("cargo::rerun-if-changed={}", prose.display());
    }
    std::fs::write(Path::new(&out).join("prose.json.zst"), bytes).expect("the build directory can be written");
}
