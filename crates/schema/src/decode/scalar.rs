//! Texts that have a canonical form: times, quantities, base64. The errors are upstream's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, tz::TimeZone};

use crate::quantity;

const TIME_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_TIME_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Whole seconds, UTC.
pub(super) fn time(text: &str) -> Result<String, String> {
    let at = timestamp(text, TIME_LAYOUT)?;
    if text.len() == 20 && text.ends_with('Z') {
        return Ok(text.to_owned());
    }
    Ok(at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Six decimals, UTC.
pub(super) fn micro_time(text: &str) -> Result<String, String> {
    let at = timestamp(text, MICRO_TIME_LAYOUT)?;
    if text.len() == 27 && text.ends_with('Z') {
        return Ok(text.to_owned());
    }
    Ok(at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

fn timestamp(text: &str, layout: &str) -> Result<Timestamp, String> {
    let strict = text.as_bytes().get(10) == Some(&b'T');
    let parsed = strict.then(|| text.parse::<Timestamp>().ok()).flatten();
    parsed.ok_or_else(|| {
        let rest: String = text.chars().collect();
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as \"2006\"")
    })
}

/// The canonical quantity.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    quantity::canonical(text.trim()).ok_or_else(|| quantity::INVALID.to_owned())
}

/// Standard base64 with padding; line breaks are dropped.
pub(super) fn base64(text: String) -> Result<String, String> {
    let text = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text };
    match STANDARD.decode(&text) {
        Ok(_) => Ok(text),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len() / 4 * 4)),
    }
}
