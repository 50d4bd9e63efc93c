//! How a guest's instructions are executed, and the rate of the host's time stamp counter.
#![expect(unsafe_code, reason = "reading the time stamp counter is an intrinsic")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How a guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// By the processor, through `/dev/kvm`.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

/// How long the rate is measured.
const MEASURE: Duration = Duration::from_millis(200);

/// Two measurements of one machine differ by less than this many parts per million.
const TOLERANCE_PPM: u64 = 300;

/// Rate of the time stamp counter in kHz. Kept in the cache, because templates depend on the exact figure; measured anew
/// when the cache was filled on another machine. Blocks for `MEASURE`.
pub(crate) fn tsc_khz(cache_dir: &Path) -> u64 {
    let measured = measure();
    let file = cache_dir.join("tsc-khz");
    let kept = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match kept {
        Some(kept) if kept.abs_diff(measured) <= measured * TOLERANCE_PPM / 1_000_000 => kept,
        _ => {
            if let Err(error) = std::fs::write(&file, measured.to_string()) {
                tracing::warn!(%error, file = %file.display(), "cannot keep the time stamp counter's rate");
            }
            measured
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn measure() -> u64 {
    // SAFETY: the instruction exists on every x86-64 processor and has no precondition in user space.
    let read = || unsafe { std::arch::x86_64::_rdtsc() };
    let (before, from) = (read(), Instant::now());
    std::thread::sleep(MEASURE);
    let (after, elapsed) = (read(), from.elapsed());
    let khz = u128::from(after.wrapping_sub(before)) * 1_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(khz).unwrap_or(0)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_unless_it_is_another_machines() {
        let dir = tempfile::tempdir().unwrap();
        let first = tsc_khz(dir.path());
        assert_eq!(tsc_khz(dir.path()), first);
        std::fs::write(dir.path().join("tsc-khz"), "17").unwrap();
        assert!(tsc_khz(dir.path()).abs_diff(first) < first / 100 + 1);
    }
}
