//! Debian packages, downloaded and unpacked under `target`. Nothing is installed on the machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{output, run};

/// A directory of packages.
pub struct Packages {
    directory: PathBuf,
}

impl Packages {
    pub fn open(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        Ok(Self { directory })
    }

    /// The packages that a package needs to run: itself and, transitively, those that `wanted` accepts.
    pub fn closure(&self, package: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut found = vec![package.to_owned()];
        let mut next = 0;
        while let Some(package) = found.get(next).cloned() {
            next += 1;
            for needed in self.depends(&package)? {
                if wanted(&needed) && !found.contains(&needed) {
                    found.push(needed);
                }
            }
        }
        Ok(found)
    }

    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let ask = || output(Command::new("apt-cache").args(["depends", "--important", package]));
        // A machine that was just installed has no lists yet.
        let text = ask().or_else(|_| update().and_then(|()| ask()))?;
        Ok(text.lines().filter_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_owned())).collect())
    }

    /// Unpacks packages into one tree; returns where. A tree that is there is taken as it is.
    pub fn unpack(&self, name: &str, packages: &[String]) -> Result<PathBuf> {
        let tree = self.directory.join(name);
        if tree.is_dir() {
            return Ok(tree);
        }
        let partial = self.directory.join(format!("{name}.partial"));
        drop(fs::remove_dir_all(&partial));
        let downloads = partial.join("downloads");
        fs::create_dir_all(&downloads).with_context(|| format!("{}", downloads.display()))?;
        println!("downloading Debian packages: {}", packages.join(" "));
        let mut download = Command::new("apt-get");
        download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(&downloads);
        output(&mut download).or_else(|_| update().and_then(|()| output(&mut download)))?;
        for entry in fs::read_dir(&downloads)? {
            run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&partial))?;
        }
        fs::remove_dir_all(&downloads)?;
        fs::rename(&partial, &tree).with_context(|| format!("{}", tree.display()))?;
        Ok(tree)
    }
}

fn update() -> Result<()> {
    output(Command::new("apt-get").args(["-q", "update"])).map(drop).context("Debian's package lists cannot be fetched")
}
