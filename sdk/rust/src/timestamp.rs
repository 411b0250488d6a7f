//! Moments of time, and their place in the calendar.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use crate::TimeDelta;

/// A moment: microseconds since 1970-01-01T00:00:00 UTC.
///
/// The calendar is the proleptic Gregorian one, in UTC, without leap seconds. All of it is integer
/// arithmetic, and addition and subtraction saturate.
///
/// ```
/// use unskew_sdk::{TimeDelta, Timestamp};
///
/// let departure = Timestamp::from_civil(2024, 2, 28, 23, 30, 0).unwrap();
/// let arrival = departure + TimeDelta::hours(2);
/// assert_eq!(arrival.to_string(), "2024-02-29T01:30:00Z");
/// assert_eq!((arrival.month(), arrival.day(), arrival.hour()), (2, 29, 1));
/// assert_eq!(arrival.weekday(), 3); // a Thursday
/// assert_eq!(arrival - departure, TimeDelta::minutes(120));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

impl Timestamp {
    /// 1970-01-01T00:00:00 UTC.
    pub const UNIX_EPOCH: Self = Self(0);

    /// The moment so many microseconds after 1970-01-01T00:00:00 UTC, or before it if negative.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The moment of a date (year 1 to 9999, month and day from 1) and a time of day in UTC;
    /// `None` if there is no such date or time.
    ///
    /// ```
    /// use unskew_sdk::Timestamp;
    ///
    /// let moment = Timestamp::from_civil(1970, 1, 2, 0, 0, 1).unwrap();
    /// assert_eq!(moment.as_micros(), 86_401_000_000);
    /// assert_eq!(Timestamp::from_civil(2023, 2, 29, 0, 0, 0), None);
    /// ```
    pub const fn from_civil(
        year: i32,
        month: i32,
        day: i32,
        hour: i32,
        minute: i32,
        second: i32,
    ) -> Option<Self> {
        let date = 1 <= year
            && year <= 9999
            && 1 <= month
            && month <= 12
            && 1 <= day
            && day <= days_in_month(year, month);
        let time =
            0 <= hour && hour < 24 && 0 <= minute && minute < 60 && 0 <= second && second < 60;
        if !date || !time {
            return None;
        }
        let seconds = (hour as i64 * 60 + minute as i64) * 60 + second as i64;
        let days = days_from_civil(year as i64, month as i64, day as i64);
        Some(Self(days * MICROS_PER_DAY + seconds * MICROS_PER_SECOND))
    }

    /// Microseconds since 1970-01-01T00:00:00 UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The year.
    pub const fn year(self) -> i32 {
        self.civil().0
    }

    /// The month, 1 to 12.
    pub const fn month(self) -> i32 {
        self.civil().1
    }

    /// The day of the month, 1 to 31.
    pub const fn day(self) -> i32 {
        self.civil().2
    }

    /// The day of the year, 1 to 366.
    pub const fn day_of_year(self) -> i32 {
        (self.days() - days_from_civil(self.year() as i64, 1, 1)) as i32 + 1
    }

    /// The day of the week: 0 is Monday, 6 is Sunday.
    pub const fn weekday(self) -> i32 {
        // 1970-01-01 was a Thursday.
        (self.days() + 3).rem_euclid(7) as i32
    }

    /// The hour of the day, 0 to 23.
    pub const fn hour(self) -> i32 {
        (self.micros_of_day() / (3600 * MICROS_PER_SECOND)) as i32
    }

    /// The minute of the hour, 0 to 59.
    pub const fn minute(self) -> i32 {
        (self.micros_of_day() / (60 * MICROS_PER_SECOND) % 60) as i32
    }

    /// The second of the minute, 0 to 59.
    pub const fn second(self) -> i32 {
        (self.micros_of_day() / MICROS_PER_SECOND % 60) as i32
    }

    /// The microsecond of the second, 0 to 999,999.
    pub const fn microsecond(self) -> i32 {
        (self.micros_of_day() % MICROS_PER_SECOND) as i32
    }

    /// The beginning of the day.
    ///
    /// ```
    /// use unskew_sdk::Timestamp;
    ///
    /// let moment = Timestamp::from_civil(2024, 5, 1, 12, 30, 0).unwrap();
    /// assert_eq!(Some(moment.start_of_day()), Timestamp::from_civil(2024, 5, 1, 0, 0, 0));
    /// ```
    pub const fn start_of_day(self) -> Self {
        Self(self.0.saturating_sub(self.micros_of_day()))
    }

    /// Days since 1970-01-01.
    const fn days(self) -> i64 {
        self.0.div_euclid(MICROS_PER_DAY)
    }

    const fn micros_of_day(self) -> i64 {
        self.0.rem_euclid(MICROS_PER_DAY)
    }

    /// Year, month and day, by Howard Hinnant's `civil_from_days`
    /// (<https://howardhinnant.github.io/date_algorithms.html>): eras of 400 years, and years that
    /// begin in March, so that the leap day is the last.
    const fn civil(self) -> (i32, i32, i32) {
        let days = self.days() + DAYS_FROM_MARCH_OF_YEAR_0;
        let era = days.div_euclid(DAYS_PER_ERA);
        let day_of_era = days.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + (month <= 2) as i64;
        (year as i32, month as i32, day as i32)
    }
}

const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;

/// Days since 1970-01-01, by Howard Hinnant's `days_from_civil`.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - (month <= 2) as i64;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_FROM_MARCH_OF_YEAR_0
}

const fn days_in_month(year: i32, month: i32) -> i32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// As in RFC 3339: `2024-05-01T12:30:00Z`, with a fraction of six digits where it is not 0.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        let (hour, minute, second) = (self.hour(), self.minute(), self.second());
        let sign = if year < 0 { "-" } else { "" };
        let year = year.unsigned_abs();
        write!(
            f,
            "{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        match self.microsecond() {
            0 => f.write_str("Z"),
            micros => write!(f, ".{micros:06}Z"),
        }
    }
}

impl Add<TimeDelta> for Timestamp {
    type Output = Self;

    fn add(self, delta: TimeDelta) -> Self {
        Self(self.0.saturating_add(delta.as_micros()))
    }
}

impl Sub<TimeDelta> for Timestamp {
    type Output = Self;

    fn sub(self, delta: TimeDelta) -> Self {
        Self(self.0.saturating_sub(delta.as_micros()))
    }
}

/// How long `other` is before `self`.
impl Sub for Timestamp {
    type Output = TimeDelta;

    fn sub(self, other: Self) -> TimeDelta {
        TimeDelta::micros(self.0.saturating_sub(other.0))
    }
}

impl AddAssign<TimeDelta> for Timestamp {
    fn add_assign(&mut self, delta: TimeDelta) {
        *self = *self + delta;
    }
}

impl SubAssign<TimeDelta> for Timestamp {
    fn sub_assign(&mut self, delta: TimeDelta) {
        *self = *self - delta;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut expected = (1799, 12, 31);
        let first = days_from_civil(1800, 1, 1);
        for days in first..first + DAYS_PER_ERA {
            let (year, month, day) = expected;
            expected = if day < days_in_month(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
            let moment = Timestamp(days * MICROS_PER_DAY + MICROS_PER_DAY - 1);
            assert_eq!(moment.civil(), expected);
            let (year, month, day) = expected;
            let start = Timestamp::from_civil(year, month, day, 0, 0, 0);
            assert_eq!(start, Some(moment.start_of_day()));
            assert_eq!(moment.weekday(), (days + 3).rem_euclid(7) as i32);
        }
    }

    #[test]
    fn known_moments() {
        for (micros, text, weekday, day_of_year) in [
            (0, "1970-01-01T00:00:00Z", 3, 1),
            (-1, "1969-12-31T23:59:59.999999Z", 2, 365),
            (951_868_800_000_000, "2000-03-01T00:00:00Z", 2, 61),
            (1_735_689_599_000_001, "2024-12-31T23:59:59.000001Z", 1, 366),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00Z", 0, 1),
            (
                253_402_300_799_999_999,
                "9999-12-31T23:59:59.999999Z",
                4,
                365,
            ),
        ] {
            let moment = Timestamp::from_micros(micros);
            assert_eq!(moment.to_string(), text);
            assert_eq!(
                (moment.weekday(), moment.day_of_year()),
                (weekday, day_of_year),
                "{text}"
            );
        }
    }

    #[test]
    fn the_extremes_have_a_date_and_saturate() {
        let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        assert_eq!((first.year(), last.year()), (-290_308, 294_247));
        assert_eq!(first.start_of_day(), first);
        assert_eq!(last + TimeDelta::micros(1), last);
        assert_eq!(first - TimeDelta::days(1), first);
        assert_eq!(last - first, TimeDelta::micros(i64::MAX));
    }

    #[test]
    fn what_is_not_in_the_calendar_is_none() {
        for (year, month, day, hour, minute, second) in [
            (0, 1, 1, 0, 0, 0),
            (10_000, 1, 1, 0, 0, 0),
            (2024, 0, 1, 0, 0, 0),
            (2024, 13, 1, 0, 0, 0),
            (1900, 2, 29, 0, 0, 0),
            (2024, 4, 31, 0, 0, 0),
            (2024, 1, 0, 0, 0, 0),
            (2024, 1, 1, 24, 0, 0),
            (2024, 1, 1, 0, 60, 0),
            (2024, 1, 1, 0, 0, -1),
        ] {
            let moment = Timestamp::from_civil(year, month, day, hour, minute, second);
            assert_eq!(moment, None);
        }
        assert!(Timestamp::from_civil(2000, 2, 29, 23, 59, 59).is_some());
    }
}
