//! How the state of a view goes on: what a run of a materialization notes in it as it begins, ends
//! or gives up, and what it tells.

use unskew_online::{Begun, Lineage, ViewState};

use super::Gap;

/// What the store still has of what its state tells: all, or it is not known how much. Rows that
/// are there are left alone by whoever writes them again.
pub(super) fn kept(state: ViewState, now: &Lineage) -> ViewState {
    if now.keeps(&state.lineage) {
        return state;
    }
    ViewState {
        begun: state.begun,
        ..ViewState::default()
    }
}

/// How many runs are noted by themselves. Every request reads the state, and runs that are killed
/// leave their marks in it.
const MARKS: usize = 16;

/// The state after a run has begun. Of many that have not ended the first count as given up.
pub(super) fn noted(mut state: ViewState, begun: &Begun) -> ViewState {
    state.begun.push(begun.clone());
    while state.begun.len() > MARKS {
        let Some(first) = state.begun.iter().position(|run| run.id != GIVEN_UP) else {
            break;
        };
        let end = state.begun.remove(first).end;
        match state.begun.iter_mut().find(|run| run.id == GIVEN_UP) {
            Some(mark) => mark.end = mark.end.max(end),
            None => state.begun.insert(0, given_up_at(end)),
        }
    }
    state
}

/// The state after a run has written its rows from `start` (`None`: from the watermark), where
/// `is_gap` says that rows before `start` were not written.
pub(super) fn advanced(
    before: ViewState,
    begun: &Begun,
    start: Option<i64>,
    is_gap: bool,
) -> ViewState {
    let ViewState {
        mut watermark,
        mut pending,
        begun: mut runs,
        lineage,
    } = before;
    let end = begun.end;
    match start {
        Some(start) if is_gap => pending.push((start, end)),
        _ => watermark = watermark.max(Some(end)),
    }
    pending.sort_unstable();
    let mut left: Vec<(i64, i64)> = Vec::new();
    for (start, end) in pending {
        if watermark.is_some_and(|watermark| start <= watermark.saturating_add(1)) {
            watermark = watermark.max(Some(end));
        } else if let Some(last) = left.last_mut()
            && start <= last.1.saturating_add(1)
        {
            last.1 = last.1.max(end);
        } else {
            left.push((start, end));
        }
    }
    // A run that was cut off is made good by one that went as far.
    runs.retain(|run| run.id != begun.id && watermark.is_none_or(|watermark| run.end > watermark));
    ViewState {
        watermark,
        pending: left,
        begun: runs,
        lineage,
    }
}

/// The mark of all runs that gave up.
const GIVEN_UP: &str = "given up";

fn given_up_at(end: i64) -> Begun {
    Begun {
        id: GIVEN_UP.to_owned(),
        end,
    }
}

/// The state after a run has given up; `touched` says that some of its rows may be in the store.
pub(super) fn given_up(mut state: ViewState, begun: &Begun, touched: bool) -> ViewState {
    let ended = |run: &Begun| run.id == begun.id || touched && run.id == GIVEN_UP;
    let end = state
        .begun
        .iter()
        .filter(|run| ended(run))
        .map(|run| run.end)
        .max();
    state.begun.retain(|run| !ended(run));
    if let Some(end) = end.filter(|_| touched) {
        state.begun.push(given_up_at(end));
    }
    state
}

/// Up to where a run goes that has begun and not ended, beyond the watermark.
pub(crate) fn unfinished(state: &ViewState) -> Option<i64> {
    state
        .begun
        .iter()
        .map(|run| run.end)
        .filter(|end| Some(*end) > state.watermark)
        .max()
}

/// What was not materialized, although something later was.
pub(crate) fn gaps(state: &ViewState) -> Vec<Gap> {
    let ends =
        std::iter::once(state.watermark).chain(state.pending.iter().map(|range| Some(range.1)));
    ends.zip(&state.pending)
        .map(|(end, range)| (end, range.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(watermark: Option<i64>, pending: &[(i64, i64)]) -> ViewState {
        ViewState {
            watermark,
            pending: pending.to_vec(),
            ..ViewState::default()
        }
    }

    fn run(end: i64) -> Begun {
        Begun {
            id: format!("run to {end}"),
            end,
        }
    }

    #[test]
    fn the_watermark_advances_only_if_no_gap_is_left() {
        let cases = [
            // before, start, end, is_gap, after
            (state(None, &[]), None, 10, false, state(Some(10), &[])),
            (state(None, &[]), Some(5), 10, true, state(None, &[(5, 10)])),
            (state(None, &[]), Some(5), 10, false, state(Some(10), &[])),
            (
                state(Some(10), &[]),
                Some(20),
                30,
                true,
                state(Some(10), &[(20, 30)]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                Some(25),
                40,
                true,
                state(Some(10), &[(20, 40)]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                Some(10),
                20,
                false,
                state(Some(30), &[]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                Some(10),
                19,
                false,
                state(Some(30), &[]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                None,
                15,
                false,
                state(Some(15), &[(20, 30)]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                None,
                40,
                false,
                state(Some(40), &[]),
            ),
            (state(Some(10), &[]), None, 5, false, state(Some(10), &[])),
            (
                state(Some(10), &[(50, 60), (20, 30)]),
                None,
                22,
                false,
                state(Some(30), &[(50, 60)]),
            ),
        ];
        for (before, start, end, is_gap, after) in cases {
            assert_eq!(
                advanced(before.clone(), &run(end), start, is_gap),
                after,
                "{before:?} {start:?} {end}"
            );
        }
    }

    #[test]
    fn a_run_that_was_cut_off_is_unfinished_until_another_goes_as_far() {
        let cut = ViewState {
            begun: vec![run(20)],
            ..state(Some(10), &[])
        };
        assert_eq!(unfinished(&cut), Some(20));
        let short = advanced(
            ViewState {
                begun: vec![run(20), run(15)],
                ..cut.clone()
            },
            &run(15),
            None,
            false,
        );
        assert_eq!((short.watermark, unfinished(&short)), (Some(15), Some(20)));
        let far = advanced(
            ViewState {
                begun: vec![run(20), run(25)],
                ..cut
            },
            &run(25),
            None,
            false,
        );
        assert_eq!(far, state(Some(25), &[]));
    }

    #[test]
    fn runs_that_give_up_leave_one_mark_and_none_if_they_wrote_nothing() {
        let both = ViewState {
            begun: vec![run(20), run(30)],
            ..state(Some(10), &[])
        };
        let one = given_up(both.clone(), &run(20), false);
        assert_eq!(one.begun, [run(30)]);
        let one = given_up(given_up(both, &run(30), true), &run(20), true);
        assert_eq!(one.begun, [given_up_at(30)]);
        assert_eq!(advanced(one, &run(30), None, false), state(Some(30), &[]));
    }

    #[test]
    fn marks_of_runs_that_were_killed_do_not_pile_up() {
        let mut noted_all = state(Some(10), &[]);
        for end in 20..120 {
            noted_all = noted(noted_all, &run(end));
        }
        assert_eq!(noted_all.begun.len(), MARKS);
        assert_eq!(noted_all.begun[0], given_up_at(120 - MARKS as i64));
        assert_eq!(noted_all.begun.last(), Some(&run(119)));
        assert_eq!(unfinished(&noted_all), Some(119));
        let after = advanced(noted_all, &run(119), None, false);
        assert_eq!(after, state(Some(119), &[]));
    }

    #[test]
    fn a_state_whose_rows_may_be_lost_counts_for_nothing_but_its_runs() {
        let lost = ViewState {
            lineage: "gone:5:slots".to_owned(),
            begun: vec![run(20)],
            ..state(Some(10), &[(12, 14)])
        };
        let now = Lineage::default();
        let left = ViewState {
            begun: vec![run(20)],
            ..ViewState::default()
        };
        assert_eq!(kept(lost, &now), left);
        let held = state(Some(10), &[(12, 14)]);
        assert_eq!(kept(held.clone(), &now), held);
    }

    #[test]
    fn gaps_lie_before_each_pending_range() {
        assert_eq!(gaps(&state(Some(10), &[])), []);
        assert_eq!(gaps(&state(None, &[(5, 10)])), [(None, 5)]);
        assert_eq!(
            gaps(&state(Some(1), &[(5, 10), (20, 30)])),
            [(Some(1), 5), (Some(10), 20)]
        );
    }
}
