//! Which histories of writes the servers of a store continue.

use std::fmt::Write as _;

/// The histories of writes that the servers of a store continue, and how far they are.
///
/// A server that takes another's place may have missed its last writes, and one that begins anew
/// has lost all that it did not save: both begin another history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Ordered by their ids.
    histories: Vec<History>,
}

/// What one server continues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct History {
    /// Names it.
    pub(crate) id: String,
    /// How many bytes of writes there were.
    pub(crate) offset: u64,
    /// The history that it was a copy of before, and the number of the first byte that it has not
    /// of it.
    pub(crate) former: Option<(String, u64)>,
    /// Tells which slots of a cluster the server has; empty where there are none.
    pub(crate) slots: String,
}

impl Lineage {
    pub(crate) fn of(mut histories: Vec<History>) -> Self {
        histories.sort_unstable();
        Self { histories }
    }

    /// The names of the histories.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.histories.iter().map(|history| history.id.as_str())
    }

    /// Whether the histories are the same as those of `other`: nothing that was written in between
    /// is lost.
    pub fn is_same(&self, other: &Self) -> bool {
        self.ids().eq(other.ids())
    }

    /// Whether the slots have not moved either.
    pub(crate) fn is_unmoved(&self, other: &Self) -> bool {
        let (one, two) = (self.histories.iter(), other.histories.iter());
        self.is_same(other) && one.map(|it| &it.slots).eq(two.map(|it| &it.slots))
    }

    /// What [`Self::keeps`] has to know later of now. Empty unless it is a cluster: elsewhere all
    /// that is written lies in one history, in its order, and who has the end of it has all.
    pub fn mark(&self) -> String {
        let mut mark = String::new();
        for history in self.histories.iter().filter(|it| !it.slots.is_empty()) {
            let comma = if mark.is_empty() { "" } else { "," };
            let History {
                id, offset, slots, ..
            } = history;
            // Writing to a string does not fail.
            let _ = write!(mark, "{comma}{id}:{offset}:{slots}");
        }
        mark
    }

    /// Whether all that had been written at `mark` is still there. `false` in doubt: a server took
    /// another's place since, and what it has not of its history is unknown, or slots moved too.
    pub fn keeps(&self, mark: &str) -> bool {
        if mark.is_empty() {
            return true;
        }
        let then = mark.split(',').map(|history| {
            let (id, rest) = history.split_once(':')?;
            let (offset, slots) = rest.split_once(':')?;
            Some((id, offset.parse::<u64>().ok()?, slots))
        });
        let Some(then) = then.collect::<Option<Vec<_>>>() else {
            return false;
        };
        // What moved from one server to another was acknowledged there.
        if self.ids().eq(then.iter().map(|(id, ..)| *id)) {
            return true;
        }
        then.iter().all(|(id, offset, slots)| {
            self.histories.iter().any(|now| {
                let former = now.former.as_ref();
                let copied = || former.is_some_and(|(of, end)| of == id && offset < end);
                now.slots == *slots && (now.id == *id || copied())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(id: &str, offset: u64, slots: &str) -> History {
        History {
            id: id.to_owned(),
            offset,
            former: None,
            slots: slots.to_owned(),
        }
    }

    /// A server that took the place of the one of history `id`, of which it has what comes before
    /// byte `end`.
    fn heir(id: &str, end: u64, slots: &str) -> History {
        History {
            former: Some((id.to_owned(), end)),
            ..history("new", 1_000, slots)
        }
    }

    #[test]
    fn a_mark_is_kept_where_every_history_goes_on_or_was_copied_as_far() {
        let then = Lineage::of(vec![history("b", 70, "y"), history("a", 50, "x")]);
        assert_eq!(then.mark(), "a:50:x,b:70:y");
        let cases = [
            (vec![history("a", 60, "x"), history("b", 70, "y")], true),
            // Slots moved; no history ended.
            (vec![history("a", 60, "z"), history("b", 70, "w")], true),
            (vec![heir("a", 51, "x"), history("b", 70, "y")], true),
            (vec![heir("a", 50, "x"), history("b", 70, "y")], false),
            // What moved after the mark may be among what was lost.
            (vec![heir("a", 51, "z"), history("b", 70, "w")], false),
            (vec![history("c", 60, "x"), history("b", 70, "y")], false),
            (vec![history("b", 70, "y")], false),
            (vec![], false),
            // A server that joined, and has no slots of theirs.
            (
                vec![
                    history("a", 50, "x"),
                    history("b", 70, "y"),
                    history("c", 1, "v"),
                ],
                true,
            ),
        ];
        for (now, kept) in cases {
            let now = Lineage::of(now);
            assert_eq!(now.keeps(&then.mark()), kept, "{now:?}");
            assert!(now.keeps(""));
            assert!(!now.keeps("a") && !now.keeps("a:x:x"));
        }
    }

    #[test]
    fn one_history_needs_no_mark() {
        let one = Lineage::of(vec![history("a", 50, "")]);
        let later = Lineage::of(vec![history("a", 60, "")]);
        let other = Lineage::of(vec![history("b", 60, "")]);
        assert_eq!(one.mark(), "");
        assert!(one.is_same(&later) && !one.is_same(&other));
    }

    #[test]
    fn slots_that_moved_are_seen() {
        let one = Lineage::of(vec![history("a", 1, "x"), history("b", 1, "y")]);
        let moved = Lineage::of(vec![history("a", 2, "z"), history("b", 1, "w")]);
        assert!(one.is_same(&moved) && !one.is_unmoved(&moved));
        assert!(one.is_unmoved(&one));
    }
}
