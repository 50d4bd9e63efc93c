//! The canonical text of resource quantities, as upstream writes it back.
//!
//! Arithmetic on quantities is [`isopod_types::Quantity`]'s; here only the text matters (`0.5` becomes `500m`, `1024Mi`
//! becomes `1Gi`), because what was stored is what clients read and compare.

/// What upstream says of a text that is no quantity.
pub const INVALID: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
/// Larger amounts are cut to this.
const MAX_UNITS: i128 = i64::MAX as i128;
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How an amount was written, and so how it is written back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    Decimal,
    Binary,
    Exponent,
}

/// The canonical text; none when it is not a quantity.
pub fn canonical(text: &str) -> Option<String> {
    let (nano, notation) = parse(text)?;
    Some(print(nano, notation))
}

/// The canonical text after rounding up to thousandths, as done for limits, requests and capacities.
pub fn canonical_milli(text: &str) -> Option<String> {
    let (nano, notation) = parse(text)?;
    Some(print(div_away(nano, 1_000_000) * 1_000_000, notation))
}

/// It is an amount that is no whole number.
pub fn is_fractional(text: &str) -> bool {
    parse(text).is_some_and(|(nano, _)| nano % NANO != 0)
}

fn parse(text: &str) -> Option<(i128, Notation)> {
    let negative = text.starts_with('-');
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let (number, suffix) = body.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (notation, base, power) = parse_suffix(suffix)?;
    let nano = amount(whole, fraction, base, power).min(MAX_UNITS * NANO);
    Some((if negative { -nano } else { nano }, notation))
}

fn parse_suffix(suffix: &str) -> Option<(Notation, i128, i32)> {
    let position = |list: &[&str]| list.iter().position(|known| *known == suffix).and_then(|at| i32::try_from(at).ok());
    if let Some(at) = position(&DECIMAL) {
        return Some((Notation::Decimal, 10, (at - 3) * 3));
    }
    if let Some(at) = position(&BINARY) {
        return Some((Notation::Binary, 1024, at));
    }
    let power = suffix.strip_prefix(['e', 'E'])?;
    let power: i32 = power.strip_prefix('+').unwrap_or(power).parse().ok()?;
    Some((Notation::Exponent, 10, power.clamp(-100, 100)))
}

/// Billionths, rounded away from zero, saturating.
fn amount(whole: &str, fraction: &str, base: i128, power: i32) -> i128 {
    let digits = format!("{whole}{fraction}");
    // Digits that can no longer matter are cut: 38 are all that fits, and a binary factor has up to 19 of them.
    let (mantissa, lost) = leading(digits.trim_start_matches('0'), if base == 10 { 36 } else { 19 });
    let up = i32::try_from(fraction.len()).unwrap_or(i32::MAX).saturating_sub(i32::try_from(lost).unwrap_or(i32::MAX));
    let exponent = if base == 10 { (9 + power).saturating_sub(up) } else { 9i32.saturating_sub(up) };
    let binary = if base == 10 { 1 } else { base.pow(power.unsigned_abs()) };
    let Some(mantissa) = mantissa.checked_mul(binary) else { return i128::MAX };
    match 10i128.checked_pow(exponent.unsigned_abs()) {
        Some(scale) if exponent >= 0 => mantissa.checked_mul(scale).unwrap_or(i128::MAX),
        Some(scale) => div_away(mantissa, scale),
        None if exponent >= 0 && mantissa != 0 => i128::MAX,
        None => i128::from(mantissa != 0),
    }
}

/// So many digits at most, and how many were cut off, which count as one more in the last place.
fn leading(digits: &str, most: usize) -> (i128, usize) {
    let (kept, lost) = digits.split_at(digits.len().min(most));
    let kept: i128 = kept.parse().unwrap_or(0);
    (kept + i128::from(lost.bytes().any(|digit| digit != b'0')), lost.len())
}

fn div_away(value: i128, divisor: i128) -> i128 {
    let rest = value % divisor;
    value / divisor + if rest == 0 { 0 } else { rest.signum() }
}

fn print(nano: i128, notation: Notation) -> String {
    let small = nano.abs() < 1024 * NANO;
    if notation == Notation::Binary && !small {
        let mut units = div_away(nano, NANO);
        let mut at = 0;
        while units % 1024 == 0 && at + 1 < BINARY.len() {
            units /= 1024;
            at += 1;
        }
        return format!("{units}{}", BINARY[at]);
    }
    let (mut mantissa, mut at) = (nano, 0);
    if mantissa == 0 {
        return "0".into();
    }
    while mantissa % 1000 == 0 && at + 1 < DECIMAL.len() {
        mantissa /= 1000;
        at += 1;
    }
    match (notation, at) {
        (Notation::Exponent, 3) | (Notation::Decimal | Notation::Binary, _) => format!("{mantissa}{}", DECIMAL[at]),
        (Notation::Exponent, _) => format!("{mantissa}e{}", (i64::try_from(at).unwrap_or(0) - 3) * 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_texts() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(canonical(text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1.5Gi", "1536Mi"),
            ("1000000", "1M"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("1e3", "1e3"),
            ("1000Ki", "1000Ki"),
            ("0", "0"),
            ("0Gi", "0"),
            ("-1", "-1"),
            ("+1.50", "1500m"),
            ("2189911118588232550.8991111", "2189911118588232550899111100n"),
            ("2189911118588232550899111100n", "2189911118588232550899111100n"),
            ("1234567890123456789012345678901234567890e-30", "1234567890123456790e-9"),
            ("1234567890123456789012345678901234567890", "9223372036854775807"),
            ("0.00000000000000000000000000000000000000000001", "1n"),
            ("1.00000000000000000000000000000000000000000001Ki", "1025"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("100E", "9223372036854775807"),
            ("1.0000000000000000000000000000001", "1000000001n"),
        ] {
            check(text, Some(expected));
        }
        for text in ["", ".", "abc", "1kk", "1 Gi", "1.2.3", "1e", "--1", "0x10"] {
            check(text, None);
        }
        assert_eq!(canonical_milli("0.0001").as_deref(), Some("1m"));
    }
}
