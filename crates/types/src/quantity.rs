//! Resource quantities (`500m`, `1.5Gi`, `2e3`).
//!
//! Source: the grammar of `k8s.io/apimachinery/pkg/api/resource`. A quantity is kept as a whole number of thousandths, rounded
//! up, which is exact for everything that sizes a pod.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in thousandths of its unit (cores, bytes, pieces).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: i128,
}

/// Text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity (hint: a number with one of the suffixes m k M G T P E Ki Mi Gi Ti Pi Ei)")]
pub struct ParseQuantityError(pub String);

const KIB: i128 = 1024;
/// Larger amounts are cut to this, as upstream does.
const MILLI_MAX: i128 = i64::MAX as i128 * 1000;

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { milli: 0 };

    /// From thousandths.
    pub const fn from_milli(milli: i128) -> Self {
        Self { milli }
    }

    /// From whole units.
    pub const fn from_units(units: i128) -> Self {
        Self { milli: units * 1000 }
    }

    /// Thousandths, exact up to the rounding at parsing.
    pub const fn milli(self) -> i128 {
        self.milli
    }

    /// Whole units, rounded up.
    pub const fn units_ceil(self) -> i128 {
        self.milli.div_euclid(1000) + if self.milli.rem_euclid(1000) == 0 { 0 } else { 1 }
    }

    /// Sum, saturating.
    pub const fn plus(self, other: Self) -> Self {
        Self { milli: self.milli.saturating_add(other.milli) }
    }
}

/// The factor of a suffix, as a fraction of thousandths.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let whole = |factor: i128| Some((factor * 1000, 1));
    match suffix {
        "" => whole(1),
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1000)),
        "m" => Some((1, 1)),
        "k" => whole(1000),
        "M" => whole(1000i128.pow(2)),
        "G" => whole(1000i128.pow(3)),
        "T" => whole(1000i128.pow(4)),
        "P" => whole(1000i128.pow(5)),
        "E" => whole(1000i128.pow(6)),
        "Ki" => whole(KIB),
        "Mi" => whole(KIB.pow(2)),
        "Gi" => whole(KIB.pow(3)),
        "Ti" => whole(KIB.pow(4)),
        "Pi" => whole(KIB.pow(5)),
        "Ei" => whole(KIB.pow(6)),
        _ => exponent(suffix),
    }
}

/// `e3`, `E-2`: a power of ten.
fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let power: i32 = digits.strip_prefix('+').unwrap_or(digits).parse().ok()?;
    let magnitude = 10i128.checked_pow(power.unsigned_abs().min(if power < 0 { 18 } else { 34 }))?;
    if power < 0 { Some((1000, magnitude)) } else { Some((1000 * magnitude, 1)) }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseQuantityError(text.into()))
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let (number, suffix) = body.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let (up, down) = scale(suffix)?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(down)?;
    let product = digits.checked_mul(up)?;
    let milli = (product / divisor + i128::from(product % divisor != 0)).min(MILLI_MAX);
    Some(Quantity { milli: if negative { -milli } else { milli } })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milli % 1000 != 0 {
            return write!(f, "{}m", self.milli);
        }
        let units = self.milli / 1000;
        let binary = [("Gi", KIB.pow(3)), ("Mi", KIB.pow(2)), ("Ki", KIB)];
        match binary.iter().find(|(_, factor)| units != 0 && units % factor == 0) {
            Some((suffix, factor)) => write!(f, "{}{suffix}", units / factor),
            None => write!(f, "{units}"),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            other => other.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, milli: Option<i128>) {
        assert_eq!(text.parse::<Quantity>().ok().map(Quantity::milli), milli, "{text}");
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, milli) in [
            ("1", 1000),
            ("0.5", 500),
            (".5", 500),
            ("250m", 250),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("1E2", 100_000),
            ("1e-3", 1),
            ("100u", 1),
            ("1n", 1),
            ("-1", -1000),
            ("+3", 3000),
            ("5.", 5000),
            ("1E", 10i128.pow(21)),
            ("0.001e20", 10i128.pow(20)),
            ("47777777777777777E", MILLI_MAX),
            ("-1e19", -MILLI_MAX),
        ] {
            check(text, Some(milli));
        }
        for text in ["", "m", "1.2.3", "abc", "1 Gi", "1gi", "--1", "0x10", "1ee3", "."] {
            check(text, None);
        }
    }

    #[test]
    fn printing_keeps_the_value() {
        for text in ["0", "250m", "1", "512Mi", "30Gi", "1000", "1500m", "9223372036854775807"] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), text);
        }
        let cut: Quantity = "47777777777777777E".parse().unwrap();
        assert_eq!(cut.to_string().parse(), Ok(cut));
    }
}
