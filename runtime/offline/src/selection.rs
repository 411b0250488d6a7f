//! Which rows of a source a materialization takes.

use unskew_core::time::{Mode, availability};
use unskew_core::view::Source;

/// The rows that a materialization takes. Bounds are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The rows that became available in a range; both bounds are inclusive.
    Range {
        /// The beginning; `None`: from the first row.
        start: Option<i64>,
        /// The end.
        end: i64,
    },
    /// What became available after a watermark, up to an end that is inclusive.
    ///
    /// With a created timestamp late corrections are taken too: a row that was created after the
    /// watermark, whatever its event timestamp. Without one nothing tells when a row arrived, and
    /// the source's `late_by` before the watermark is taken again.
    Since {
        /// Up to where all rows were taken before.
        watermark: i64,
        /// The end.
        end: i64,
    },
}

impl Selection {
    /// The end of the range, inclusive.
    pub const fn end(&self) -> i64 {
        match self {
            Self::Range { end, .. } | Self::Since { end, .. } => *end,
        }
    }

    /// Whether a row of `source` with these timestamps is taken.
    pub fn takes(&self, source: &Source, event: Option<i64>, created: Option<i64>) -> bool {
        let mode = source.point_in_time;
        let (Some(event), Some(available)) = (event, availability(mode, event, created)) else {
            return false;
        };
        if available > self.end() {
            return false;
        }
        match *self {
            Self::Range { start, .. } => start.is_none_or(|start| available >= start),
            Self::Since { watermark, .. } => match mode {
                Mode::Known => available > watermark,
                Mode::Event if source.created_timestamp_column.is_some() => {
                    event > watermark || created.is_some_and(|created| created > watermark)
                }
                Mode::Event => event > watermark.saturating_sub(source.late_by),
            },
        }
    }
}

/// What earlier materializations have taken, by when rows became available.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Everything up to here, inclusive.
    pub watermark: Option<i64>,
    /// Everything within these, bounds inclusive.
    pub ranges: Vec<(i64, i64)>,
}

impl Covered {
    /// Whether rows that became available at `available` were taken.
    pub fn contains(&self, available: i64) -> bool {
        self.watermark
            .is_some_and(|watermark| available <= watermark)
            || self
                .ranges
                .iter()
                .any(|&(start, end)| (start..=end).contains(&available))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(mode: Mode, created: bool, late_by: i64) -> Source {
        Source {
            name: "s".to_owned(),
            path: "s.parquet".to_owned(),
            timestamp_field: "t".to_owned(),
            created_timestamp_column: created.then(|| "c".to_owned()),
            point_in_time: mode,
            late_by,
            columns: std::collections::BTreeMap::new(),
            partition: None,
        }
    }

    /// Which of the events and created timestamps are taken.
    fn taken(selection: Selection, source: &Source, rows: &[(i64, Option<i64>)]) -> Vec<usize> {
        (0..rows.len())
            .filter(|&row| selection.takes(source, Some(rows[row].0), rows[row].1))
            .collect()
    }

    #[test]
    fn a_range_takes_what_became_available_within_it_bounds_included() {
        let rows = [
            (9, Some(9)),
            (10, Some(30)),
            (20, Some(1)),
            (21, Some(15)),
            (15, None),
        ];
        let range = Selection::Range {
            start: Some(10),
            end: 20,
        };
        assert_eq!(
            taken(range, &source(Mode::Event, true, 0), &rows),
            [1, 2, 4]
        );
        assert_eq!(taken(range, &source(Mode::Known, true, 0), &rows), [2]);
        let all = Selection::Range {
            start: None,
            end: 20,
        };
        assert_eq!(
            taken(all, &source(Mode::Event, false, 0), &rows),
            [0, 1, 2, 4]
        );
        assert!(!all.takes(&source(Mode::Event, true, 0), None, Some(1)));
    }

    #[test]
    fn an_increment_takes_late_corrections_where_a_created_timestamp_tells() {
        let rows = [
            (5, Some(10)),
            (5, Some(11)),
            (10, None),
            (11, None),
            (20, Some(40)),
            (21, Some(11)),
        ];
        let since = Selection::Since {
            watermark: 10,
            end: 20,
        };
        assert_eq!(
            taken(since, &source(Mode::Event, true, 0), &rows),
            [1, 3, 4]
        );
        assert_eq!(taken(since, &source(Mode::Known, true, 0), &rows), [1]);
    }

    #[test]
    fn an_increment_without_created_timestamps_reads_late_by_again() {
        let rows = [
            (6, None),
            (7, None),
            (10, None),
            (11, None),
            (20, None),
            (21, None),
        ];
        let since = Selection::Since {
            watermark: 10,
            end: 20,
        };
        assert_eq!(taken(since, &source(Mode::Event, false, 0), &rows), [3, 4]);
        assert_eq!(
            taken(since, &source(Mode::Event, false, 4), &rows),
            [1, 2, 3, 4]
        );
        let first = Selection::Since {
            watermark: i64::MIN,
            end: 20,
        };
        assert_eq!(
            taken(first, &source(Mode::Event, false, 9), &rows),
            [0, 1, 2, 3, 4]
        );
    }

    #[test]
    fn what_is_covered_lies_up_to_the_watermark_or_in_a_range() {
        let covered = Covered {
            watermark: Some(10),
            ranges: vec![(20, 30), (25, 40)],
        };
        let expected = [(10, true), (11, false), (20, true), (40, true), (41, false)];
        for (available, contained) in expected {
            assert_eq!(covered.contains(available), contained, "{available}");
        }
        assert!(!Covered::default().contains(0));
    }
}
