//! Finds the guest agent that the binary carries: `ISOPOD_GUEST_AGENT`, or what `cargo xtask guest` built. Without one the binary
//! still builds, and says what to do when it needs it.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=ISOPOD_GUEST_AGENT");
    // Asked at run time: a built script outlives a checkout that was moved.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../..");
    let built = root.join("target/guest/x86_64-unknown-linux-gnu/guest/isopod-guest-agent");
    let agent = std::env::var_os("ISOPOD_GUEST_AGENT").map_or(built, PathBuf::from);
    println!("cargo::rerun-if-changed={}", agent.display());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("guest-agent");
    let content = std::fs::read(&agent).unwrap_or_default();
    if let Err(error) = std::fs::write(&out, content) {
        println!("cargo::error={}: {error}", out.display());
    }
}
