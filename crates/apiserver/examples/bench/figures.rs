//! What was measured: how often, how long, how fast.

use std::time::{Duration, Instant};

/// Times of one kind.
pub struct Figures {
    begun: Instant,
    whole: Duration,
    taken: Vec<Duration>,
}

impl Figures {
    pub fn begin() -> Self {
        Self { begun: Instant::now(), whole: Duration::ZERO, taken: Vec::new() }
    }

    pub fn add(&mut self, taken: Duration) {
        self.taken.push(taken);
    }

    pub fn end(mut self) -> Self {
        self.whole = self.begun.elapsed();
        self.taken.sort_unstable();
        self
    }

    /// Times of what was done one after the other, with other things between.
    pub fn alone(taken: Vec<Duration>) -> Self {
        let ended = Self { taken, ..Self::begin() }.end();
        Self { whole: ended.taken.iter().sum(), ..ended }
    }

    /// The time that this part of all stay below.
    fn quantile(&self, part: f64) -> f64 {
        let at = ((self.taken.len() as f64 * part) as usize).min(self.taken.len().saturating_sub(1));
        self.taken.get(at).map_or(0.0, |taken| taken.as_secs_f64() * 1e3)
    }
}

pub fn print_head() {
    println!("{:<44} {:>7} {:>9} {:>9} {:>9} {:>9}  goal", "", "n", "p50 ms", "p99 ms", "max ms", "a second");
}

pub fn print(what: &str, figures: &Figures, goal: &str) {
    let (n, rate) = (figures.taken.len(), figures.taken.len() as f64 / figures.whole.as_secs_f64());
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| figures.quantile(part));
    println!("{what:<44} {n:>7} {p50:>9.2} {p99:>9.2} {max:>9.2} {rate:>9.0}  {goal}");
}
