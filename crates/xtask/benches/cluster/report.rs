//! Results as lines of a table, printed as they come.

use std::time::Duration;

/// Prints results.
pub struct Report(());

impl Report {
    /// Prints the head of the table.
    pub fn new() -> Self {
        println!("{:<52} {:>6} {:>10} {:>10}  more", "measure", "n", "p50", "p99");
        Self(())
    }

    /// Samples of how long something takes.
    pub fn times(&mut self, measure: &str, samples: &[Duration], more: &str) {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let at = |percent| milliseconds(percentile(&sorted, percent));
        println!("{measure:<52} {:>6} {:>10} {:>10}  {more}", sorted.len(), at(50), at(99));
    }

    /// One value of another kind.
    pub fn value(&mut self, measure: &str, value: &str, more: &str) {
        println!("{measure:<52} {:>6} {value:>10} {:>10}  {more}", 1, "");
    }
}

/// The sample that so many percent of the samples do not exceed; samples are sorted.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// A duration for people.
pub fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 100.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}
