//! `cargo xtask`: building, checking, testing, measuring and showing Isopod, so that a person and CI do the same. It is no
//! part of the product, and the product never calls it.

mod build;
mod command;
mod images;
mod schema;
mod setup;
mod steps;

use anyhow::{Result, bail};

const USAGE: &str = "cargo xtask COMMAND

  build [--release]    the guest agent, then the isopod binary that carries it
  guest                the guest agent alone
  setup [--tests]      install the Debian packages that are missing
  images               sample images from Debian packages, under target/images
  schema [--prose]     the facts about the Kubernetes API that the schema crate embeds";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["build"] => build::build(false).map(drop),
        ["build", "--release"] => build::build(true).map(drop),
        ["guest"] => build::guest().map(drop),
        ["setup"] => setup::run_setup(false).map(drop),
        ["setup", "--tests"] => setup::run_setup(true).map(drop),
        ["images"] => images::make().map(drop),
        ["schema", ..] => schema::run(args.into_iter().skip(1)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("not a command of xtask: {}\n\n{USAGE}", words.join(" ")),
    }
}
