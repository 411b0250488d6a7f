//! The rules of time, which both sides follow: microseconds, UTC, years 1 to 9999.
//!
//! [`availability`] and [`validity`] are the only place that decides whether a row counts
//! at an instant.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat};
use serde::{Deserialize, Serialize};

/// 0001-01-01T00:00:00Z in microseconds since 1970.
pub const MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in microseconds since 1970.
pub const MAX: i64 = 253_402_300_799_999_999;
/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;

/// From when a source's row counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// From its event timestamp.
    #[default]
    Event,
    /// From the later of its event timestamp and its created timestamp.
    Known,
}

/// From when a row is available, or `None` if it never is.
///
/// Under [`Mode::Known`] a row without a created timestamp is never available; a row without an
/// event timestamp never is.
pub fn availability(mode: Mode, event: Option<i64>, created: Option<i64>) -> Option<i64> {
    match mode {
        Mode::Event => event,
        Mode::Known => Some(event?.max(created?)),
    }
}

/// Whether a row counts at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It counts.
    Valid,
    /// It is not available yet.
    InFuture,
    /// It is older than the view's ttl allows.
    OutsideMaxAge,
}

/// Whether a row that is available from `available` and has event timestamp `event` counts at
/// `at`, under `ttl` in microseconds (`None`: no limit). Bounds are inclusive.
pub fn validity(at: i64, available: i64, event: i64, ttl: Option<i64>) -> Validity {
    if available > at {
        Validity::InFuture
    } else if ttl.is_some_and(|ttl| at.saturating_sub(event) > ttl) {
        Validity::OutsideMaxAge
    } else {
        Validity::Valid
    }
}

/// A text or number that is no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; an instant is written like 2001-03-01T12:00:00Z, in the years 1 to 9999")]
pub struct InvalidTimestamp(String);

/// Refuses an instant outside the years 1 to 9999.
///
/// # Errors
/// Names the microseconds.
pub fn check(micros: i64) -> Result<i64, InvalidTimestamp> {
    if (MIN..=MAX).contains(&micros) {
        Ok(micros)
    } else {
        Err(InvalidTimestamp(format!(
            "{micros} microseconds since 1970 lie outside of time"
        )))
    }
}

/// Reads an RFC 3339 instant, a local date and time (taken as UTC) or a date (its midnight).
/// What is finer than a microsecond is floored.
///
/// # Errors
/// Quotes the text.
pub fn parse(text: &str) -> Result<i64, InvalidTimestamp> {
    let invalid = || InvalidTimestamp(format!("`{text}` is no instant"));
    let trimmed = text.trim();
    // chrono takes 01-03-01 for the year 1, and +1 too.
    let year = trimmed.as_bytes().first_chunk::<5>();
    if !year.is_some_and(|[year @ .., dash]| *dash == b'-' && year.iter().all(u8::is_ascii_digit)) {
        return Err(invalid());
    }
    let instant = match DateTime::parse_from_rfc3339(trimmed) {
        Ok(instant) => instant.to_utc(),
        Err(_) => ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(trimmed, format).ok())
            .or_else(|| {
                let date = NaiveDate::parse_from_str(trimmed, "%Y-%m-%d").ok()?;
                Some(date.and_time(NaiveTime::MIN))
            })
            .ok_or_else(invalid)?
            .and_utc(),
    };
    check(instant.timestamp_micros())
}

/// Writes an instant in RFC 3339 with `Z`; the fraction, if any, with six digits.
pub fn format(micros: i64) -> String {
    let form = if micros.rem_euclid(SECOND) == 0 {
        SecondsFormat::Secs
    } else {
        SecondsFormat::Micros
    };
    match DateTime::from_timestamp_micros(micros) {
        Some(instant) => instant.to_rfc3339_opts(form, true),
        None => format!("{micros}us"),
    }
}

/// A span of time in microseconds, written `30s`, `15m`, `6h` or `7d`; not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub i64);

impl Span {
    /// Reads `30s`, `15m`, `6h`, `7d` or `0`.
    ///
    /// # Errors
    /// Says what would be valid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no duration; write 30s, 15m, 6h or 7d");
        if text.trim() == "0" {
            return Ok(Self(0));
        }
        let text = text.trim();
        let unit = match text.chars().last() {
            Some('s') => SECOND,
            Some('m') => 60 * SECOND,
            Some('h') => 3_600 * SECOND,
            Some('d') => DAY,
            _ => return Err(invalid()),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let count: i64 = digits.parse().map_err(|_| invalid())?;
        Ok(Self(count.saturating_mul(unit)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (DAY, 'd'),
            (3_600 * SECOND, 'h'),
            (60 * SECOND, 'm'),
            (SECOND, 's'),
        ];
        match units
            .iter()
            .find(|(unit, _)| self.0 != 0 && self.0 % unit == 0)
        {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None if self.0 == 0 => f.write_str("0"),
            None => write!(f, "{}us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_reads_back_from_its_text() {
        for micros in [MIN, -1, 0, 1, 983_448_000_000_000, 983_448_000_000_001, MAX] {
            assert_eq!(parse(&format(micros)), Ok(micros), "{}", format(micros));
        }
        assert_eq!(format(983_448_000_000_000), "2001-03-01T12:00:00Z");
        assert_eq!(format(-1), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_timestamp_without_a_zone_is_utc_and_nanoseconds_are_floored() {
        assert_eq!(parse("2001-03-01T12:00:00"), Ok(983_448_000_000_000));
        assert_eq!(parse("2001-03-01 12:00:00"), Ok(983_448_000_000_000));
        assert_eq!(parse("2001-03-01"), Ok(983_404_800_000_000));
        assert_eq!(parse("2001-03-01T13:00:00+01:00"), Ok(983_448_000_000_000));
        assert_eq!(parse("2001-03-01 12:00:00+00:00"), Ok(983_448_000_000_000));
        assert_eq!(parse("1970-01-01T00:00:00.000001999Z"), Ok(1));
        assert_eq!(parse("1969-12-31T23:59:59.999999999Z"), Ok(-1));
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "soon",
            "2001-02-30",
            "0000-12-31T00:00:00Z",
            "12",
            "2001-03-01T12:00:00 PST",
            "01-03-01",
            "1-3-1",
            "+2001-03-01",
            "12001-03-01",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(check(MAX + 1).is_err() && check(MIN - 1).is_err());
    }

    #[test]
    fn ttl_bounds_are_inclusive_and_arithmetic_saturates() {
        assert_eq!(validity(10, 3, 3, Some(7)), Validity::Valid);
        assert_eq!(validity(11, 3, 3, Some(7)), Validity::OutsideMaxAge);
        assert_eq!(validity(11, 3, 3, None), Validity::Valid);
        assert_eq!(validity(3, 3, 3, Some(7)), Validity::Valid);
        assert_eq!(validity(2, 3, 3, Some(7)), Validity::InFuture);
        assert_eq!(
            validity(i64::MAX, 0, i64::MIN, Some(i64::MAX)),
            Validity::Valid
        );
    }

    #[test]
    fn a_row_is_available_from_event_or_from_when_it_was_known() {
        assert_eq!(availability(Mode::Event, Some(5), Some(9)), Some(5));
        assert_eq!(availability(Mode::Event, None, Some(9)), None);
        assert_eq!(availability(Mode::Known, Some(5), Some(9)), Some(9));
        assert_eq!(availability(Mode::Known, Some(5), Some(2)), Some(5));
        assert_eq!(availability(Mode::Known, Some(5), None), None);
    }

    #[test]
    fn spans() {
        assert_eq!(Span::parse("7d").unwrap().0, 7 * DAY);
        assert_eq!(Span::parse("0").unwrap().0, 0);
        for text in ["0", "1s", "90m", "36h", "7d"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Span::parse("9223372036854775807d").unwrap().0, i64::MAX);
        for text in ["", "d", "-1d", "7w", "1.5h", "7 d", "7é"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }
}
