//! `cargo xtask`: building, checking, testing, measuring and showing Isopod, so that a person and CI do the same. It is no
//! part of the product, and the product never calls it.

mod bench;
mod build;
mod check;
mod command;
mod demo;
mod fuzz;
mod images;
mod layers;
mod leftovers;
mod packages;
mod schema;
mod setup;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "cargo xtask COMMAND

  up                   a cluster with a sample Deployment, from nothing
  down                 removes it and proves that nothing is left
  test                 the whole suite, as CI runs it
  build [--release]    the guest agent, then the isopod binary that carries it
  guest                the guest agent alone
  setup [--tests]      install the Debian packages that are missing
  bench                start, memory, writes, lists, pods in numbers
  bench --scale        10,000 pods on 1,000 simulated nodes, from their Deployments' creation to Running
  bench --api          the API server alone with 10,000 pods and 1,000 watchers
  check                format, clippy, layers, tidy, tests of the pure crates
  fuzz [TARGET] [--seconds N]
                       all fuzz targets or one, 30 seconds each
  fuzz --check         only whether they compile
  layers               the crate graph against layers.txt
  tidy [--sizes]       rules for files and sizes; --sizes prints today's exceptions
  images               sample images from Debian packages, under target/images
  schema [--prose]     the facts about the Kubernetes API that the schema crate embeds";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: Vec<String>) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["build"] => build::build(false).map(drop),
        ["build", "--release"] => build::build(true).map(drop),
        ["guest"] => build::guest().map(drop),
        ["setup"] => setup::run_setup(false).map(drop),
        ["setup", "--tests"] => setup::run_setup(true).map(drop),
        ["up"] => demo::up(),
        ["down"] => demo::down(),
        ["test"] => test::test(),
        ["bench"] => bench::bench(),
        ["bench", "--scale"] => bench::scale(),
        ["bench", "--api", more @ ..] => bench::api(more),
        ["check"] => check::check(),
        ["fuzz", args @ ..] => fuzz::fuzz(args),
        ["layers"] => layers::check(),
        ["tidy"] => tidy::check(),
        ["tidy", "--sizes"] => tidy::print_sizes(),
        ["images"] => images::make().map(drop),
        ["schema", ..] => schema::run(args.into_iter().skip(1)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("not a command of xtask: {}\n\n{USAGE}", words.join(" ")),
    }
}
