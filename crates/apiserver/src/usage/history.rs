//! From counters to rates: how many nanoseconds of processor time a second something used of late. Pure; time is in samples.

use std::collections::BTreeMap;

/// Series that are remembered; beyond it all that were not asked for lately are forgotten.
const SERIES_MAX: usize = 65_536;
/// A rate is a mean over at least this long where there were samples before: nanoseconds.
const WINDOW_NANOS: i64 = 10_000_000_000;
/// Samples nearer to each other than this say nothing.
const NEAREST_NANOS: i64 = 100_000_000;
/// A series nobody asked about for this long is forgotten when room is short.
const KEPT_NANOS: i64 = 600_000_000_000;

/// A counter at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Nanoseconds since the Unix epoch.
    pub(crate) at_unix_nanos: i64,
    /// Processor time used until then.
    pub(crate) cpu_nanos: u64,
}

/// A mean over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds of processor time per second.
    pub(crate) cpu_nanos_per_second: u64,
    /// How long the time was.
    pub(crate) window_nanos: i64,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    /// Rates begin here.
    base: Sample,
    /// The base of later, once it is old enough.
    next: Sample,
}

/// What was measured lately.
#[derive(Debug, Default)]
pub(crate) struct History(BTreeMap<String, Series>);

fn between(base: Sample, now: Sample) -> Option<Rate> {
    let window_nanos = now.at_unix_nanos.checked_sub(base.at_unix_nanos).filter(|nanos| *nanos >= NEAREST_NANOS)?;
    let used = u128::from(now.cpu_nanos.checked_sub(base.cpu_nanos)?);
    let per_second = used * 1_000_000_000 / u128::try_from(window_nanos).ok()?;
    Some(Rate { cpu_nanos_per_second: u64::try_from(per_second).unwrap_or(u64::MAX), window_nanos })
}

impl History {
    /// Takes a sample in; the mean since an earlier one, when there is one that says something.
    pub(crate) fn add(&mut self, name: &str, now: Sample) -> Option<Rate> {
        self.trim(now.at_unix_nanos);
        let Some(series) = self.0.get_mut(name) else {
            self.0.insert(name.to_owned(), Series { base: now, next: now });
            return None;
        };
        // A counter that went back, or a clock: it began anew.
        if now.cpu_nanos < series.next.cpu_nanos || now.at_unix_nanos < series.next.at_unix_nanos {
            *series = Series { base: now, next: now };
            return None;
        }
        if now.at_unix_nanos - series.next.at_unix_nanos >= WINDOW_NANOS {
            (series.base, series.next) = (series.next, now);
        }
        between(series.base, now)
    }

    fn trim(&mut self, now_unix_nanos: i64) {
        if self.0.len() >= SERIES_MAX {
            self.0.retain(|_, series| now_unix_nanos.saturating_sub(series.next.at_unix_nanos) < KEPT_NANOS);
        }
        if self.0.len() >= SERIES_MAX {
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means_since_a_sample_that_is_old_enough() {
        let mut history = History::default();
        // second, thousandths of a second of processor time used until then; thousandths of a CPU, window in seconds
        for (second, used_ms, expected) in [
            (100, 5_000, None),
            (101, 5_500, Some((500, 1))),
            (105, 7_000, Some((400, 5))),
            (110, 7_000, Some((200, 10))),
            (111, 8_000, Some((272, 11))),
            (120, 8_000, Some((100, 10))),
            (150, 38_000, Some((1000, 30))),
            (151, 100, None),
            (153, 300, Some((100, 2))),
            (140, 400, None),
        ] {
            let sample = Sample { at_unix_nanos: second * 1_000_000_000, cpu_nanos: used_ms * 1_000_000 };
            let found = history.add("a", sample);
            let found = found.map(|rate| (rate.cpu_nanos_per_second / 1_000_000, rate.window_nanos / 1_000_000_000));
            assert_eq!(found, expected, "{second}");
        }
    }
}
