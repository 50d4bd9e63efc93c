//! What a cluster of this machine can do, in numbers: the measures of the design, with how many samples each has. It judges
//! nothing: a slow machine is no failure. Started by `cargo xtask bench`, which builds the binary that is measured.

mod client;
mod control_plane;
mod machine;
mod pods;
mod report;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use report::Report;
use server::Site;

/// Where the measured cluster keeps its state; the guest kernel in it stays for the next time.
const STATE_DIR: &str = "target/bench";
const RUN_DIR: &str = "/run/isopod-bench";

fn main() -> ExitCode {
    // `cargo bench` adds arguments of its own.
    let result = tokio::runtime::Runtime::new().context("runtime").and_then(|runtime| runtime.block_on(bench()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).map_or_else(|| manifest.to_owned(), Path::to_owned)
}

async fn bench() -> Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let root = root();
    let site = Site {
        binary: root.join("target/release/isopod"),
        state_dir: root.join(STATE_DIR),
        run_dir: RUN_DIR.into(),
        images: root.join("target/images"),
    };
    machine::print(&site)?;
    let mut report = Report::new();
    // What an earlier run left when it was interrupted.
    site.remove()?;
    let result = measure(&site, &mut report).await;
    site.remove()?;
    result
}

async fn measure(site: &Site, report: &mut Report) -> Result<()> {
    site.create()?;
    control_plane::start_from_nothing(site, report).await?;
    let server = site.start().await?;
    site.import_images()?;
    control_plane::idle(&server, report).await?;
    pods::one_by_one(site, report).await?;
    pods::at_once(site, report).await?;
    control_plane::creates(site, report).await?;
    control_plane::list(site, report).await?;
    server.stop().await?;
    control_plane::restart(site, report).await
}
