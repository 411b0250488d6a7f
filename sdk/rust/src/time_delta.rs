//! Lengths of time.

use std::ops::{Add, Mul, Neg, Sub};

/// A length of time in microseconds, negative for backwards. All arithmetic saturates.
///
/// ```
/// use unskew_sdk::TimeDelta;
///
/// let wait = TimeDelta::hours(1) + TimeDelta::minutes(30);
/// assert_eq!(wait.whole_minutes(), 90);
/// assert_eq!(wait.as_seconds_f64(), 5400.0);
/// assert!(wait < TimeDelta::days(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeDelta(i64);

macro_rules! units {
    ($($unit:ident, $whole:ident, $micros:expr;)*) => {
        impl TimeDelta {$(
            #[doc = concat!("So many ", stringify!($unit), ".")]
            pub const fn $unit($unit: i64) -> Self {
                Self($unit.saturating_mul($micros))
            }

            #[doc = concat!("How many whole ", stringify!($unit), ", rounded towards zero.")]
            pub const fn $whole(self) -> i64 {
                self.0 / $micros
            }
        )*}
    };
}

units! {
    days, whole_days, 86_400_000_000;
    hours, whole_hours, 3_600_000_000;
    minutes, whole_minutes, 60_000_000;
    seconds, whole_seconds, 1_000_000;
    millis, whole_millis, 1_000;
}

impl TimeDelta {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// So many microseconds.
    pub const fn micros(micros: i64) -> Self {
        Self(micros)
    }

    /// How many microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How many seconds, with the fraction.
    pub const fn as_seconds_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Add for TimeDelta {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for TimeDelta {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Mul<i64> for TimeDelta {
    type Output = Self;

    fn mul(self, factor: i64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl Neg for TimeDelta {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_agree() {
        assert_eq!(TimeDelta::days(1), TimeDelta::hours(24));
        assert_eq!(TimeDelta::hours(1), TimeDelta::minutes(60));
        assert_eq!(TimeDelta::minutes(1), TimeDelta::seconds(60));
        assert_eq!(TimeDelta::seconds(1), TimeDelta::millis(1000));
        assert_eq!(TimeDelta::millis(1), TimeDelta::micros(1000));
    }

    #[test]
    fn whole_units_are_rounded_towards_zero() {
        assert_eq!(TimeDelta::micros(1_999_999).whole_seconds(), 1);
        assert_eq!((-TimeDelta::micros(1_999_999)).whole_seconds(), -1);
    }

    #[test]
    fn it_saturates() {
        let longest = TimeDelta::micros(i64::MAX);
        assert_eq!(TimeDelta::days(i64::MAX), longest);
        assert_eq!(longest + longest, longest);
        assert_eq!(longest * 2, longest);
        assert_eq!(-TimeDelta::micros(i64::MIN), longest);
        assert_eq!(-longest - longest, TimeDelta::micros(i64::MIN));
    }
}
