//! Long work as steps: each is announced, timed, and listed at the end. It never hides a failure.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The steps done so far.
pub struct Steps {
    started: Instant,
    done: Vec<(String, Duration, bool)>,
}

impl Steps {
    pub fn new() -> Self {
        Self { started: Instant::now(), done: Vec::new() }
    }

    /// Does one step; the first that fails is the last.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let started = Instant::now();
        let result = work();
        let took = started.elapsed();
        self.done.push((name.to_owned(), took, result.is_ok()));
        let mark = if result.is_ok() { "done" } else { "FAILED" };
        println!("    {name}: {mark} in {}", seconds(took));
        result
    }

    /// Does one step and goes on when it fails; `finish` fails then.
    pub fn try_step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        if let Err(error) = self.step(name, work) {
            println!("{error:#}");
        }
    }

    /// Lists all steps; fails when one did.
    pub fn finish(self) -> Result<()> {
        println!("\n{:<24} {:>9}", "step", "time");
        for (name, took, ok) in &self.done {
            println!("{name:<24} {:>9}{}", seconds(*took), if *ok { "" } else { "  FAILED" });
        }
        println!("{:<24} {:>9}", "in all", seconds(self.started.elapsed()));
        let failed: Vec<&str> = self.done.iter().filter(|(.., ok)| !ok).map(|(name, ..)| name.as_str()).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// A duration for people.
pub fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
