//! When the service account tokens in pods' volumes are renewed. The shell asks for them and keeps time.
//!
//! Source: the kubelet's contract: after four fifths of a token's life, or after a day.

use jiff::SignedDuration;

/// Longest time that a token is used, in seconds, however long it would live.
const LONGEST_SECONDS: i64 = 24 * 3600;

/// How long a token that lives for `seconds` from now is used before another takes its place.
pub fn renew_after(seconds: i64) -> SignedDuration {
    SignedDuration::from_millis((seconds.max(0).saturating_mul(800)).min(LONGEST_SECONDS * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_well_before_they_end() {
        for (seconds, expected) in [
            (600, 480_000),
            (3607, 2_885_600),
            (100_000, 80_000_000),
            (31_536_000, 86_400_000),
            (-1, 0),
            (i64::MAX, 86_400_000),
        ] {
            assert_eq!(renew_after(seconds).as_millis(), expected, "{seconds}");
        }
    }
}
