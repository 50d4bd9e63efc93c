//! The `isopod` binary: parse, run, exit code.

mod args;
mod cluster;
mod cost;
mod create;
mod delete;
mod doctor;
mod get;
mod image;
mod kubeconfig;
mod nodegroup;
mod progress;
mod server;
mod streams;

use clap::Parser;

/// Documents are many small pieces of memory that several threads make and drop: a third of the control plane's processor
/// time is saved by an allocator that is made for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let args = args::Args::parse();
    match run(args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(args: args::Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(args::dispatch(args));
    // Tasks that wait for ever must not keep the process.
    runtime.shutdown_background();
    result
}
