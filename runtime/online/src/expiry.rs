//! When a store may forget a row.

use unskew_core::time::DAY;

/// When the store may forget a row with event timestamp `event` that is written at `now`, under
/// the view's `ttl`; all in microseconds. `None`: never, for a view without ttl.
///
/// A day more than the row can count for: expiry frees memory and decides nothing, `evaluate`
/// alone decides whether a row counts. Counted from the time of writing too, so that rows of the
/// past are there when a model is asked `as_of` a past instant.
pub fn expires_at(event: i64, now: i64, ttl: Option<i64>) -> Option<i64> {
    Some(event.max(now).saturating_add(ttl?).saturating_add(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_outlives_its_ttl_by_a_day() {
        assert_eq!(expires_at(10, 5, Some(7)), Some(17 + DAY));
        assert_eq!(expires_at(5, 10, Some(7)), Some(17 + DAY));
        assert_eq!(expires_at(-10, -5, Some(7)), Some(2 + DAY));
    }

    #[test]
    fn a_view_without_ttl_forgets_nothing() {
        assert_eq!(expires_at(i64::MAX, i64::MIN, None), None);
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        assert_eq!(expires_at(i64::MAX, 0, Some(1)), Some(i64::MAX));
        assert_eq!(expires_at(0, 0, Some(i64::MAX)), Some(i64::MAX));
        assert_eq!(
            expires_at(i64::MIN, i64::MIN, Some(0)),
            Some(i64::MIN + DAY)
        );
    }
}
