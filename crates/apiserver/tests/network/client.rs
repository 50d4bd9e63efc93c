//! Which kubectl programs there are to test with: the installed one, and an old one if the environment names it. One that
//! is missing is skipped, loudly.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Names kubectl 1.20, the version of Debian 11 and 12.
const OLD: &str = "ISOPOD_KUBECTL_1_20";

/// A kubectl program.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub name: &'static str,
    pub program: PathBuf,
    /// 1.20: without WebSockets, server-side field validation, `create token`.
    pub is_old: bool,
}

impl Kubectl {
    pub fn installed() -> Self {
        Self { name: "kubectl", program: "kubectl".into(), is_old: false }
    }

    /// Those that run here.
    pub fn all() -> Vec<Self> {
        let old = std::env::var_os(OLD).filter(|program| !program.is_empty());
        if old.is_none() {
            skipped(&format!("no kubectl 1.20: set {OLD} to the path of one"));
        }
        let old = old.map(|program| Self { name: "kubectl 1.20", program: program.into(), is_old: true });
        [Some(Self::installed()), old].into_iter().flatten().filter(Self::runs).collect()
    }

    /// The installed one, if there is one.
    pub fn newest() -> Option<Self> {
        Some(Self::installed()).filter(Self::runs)
    }

    fn runs(&self) -> bool {
        let said = Command::new(&self.program).args(["version", "--client"]).output();
        let runs = said.as_ref().is_ok_and(|said| said.status.success());
        if !runs {
            let hint = "install the Debian package kubectl or kubernetes-client";
            skipped(&format!("{} at {} does not run; {hint}", self.name, self.program.display()));
        }
        runs
    }
}

/// Not by `eprintln!`, which a test that passes swallows.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
