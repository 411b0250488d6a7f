//! Names of definitions: which are valid, and which stand for definitions that were left out.

use std::collections::BTreeSet;

use super::problem::{Place, Problems};
use crate::plan::EVENT_TIMESTAMP;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 100;

/// Names that stand for something in references.
pub(super) const RESERVED: [&str; 4] = ["request", "key", "value", EVENT_TIMESTAMP];

/// Whether `name` may name a definition, a column or a field: a letter or `_`, then letters,
/// digits and `_`, at most 100.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= LONGEST_NAME
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Adds a problem if `name` is no name.
pub(crate) fn check_name(name: &str, what: &str, place: &Place, problems: &mut Problems) {
    if !is_name(name) {
        problems.at(
            place,
            format_args!(
                "`{name}` is no {what} name; a name is a letter or `_`, then letters, digits \
                 and `_`, at most {LONGEST_NAME}"
            ),
        );
    }
}

/// Definitions of one kind that were left out, each with a problem of its own: what refers to one
/// of them cannot be judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Omitted {
    /// Their names, as far as they are known. A name that occurs twice is one, too.
    pub(crate) names: BTreeSet<String>,
    /// Whether some have names that are not known, so that no name can be said to be absent.
    pub(crate) is_nameless: bool,
}

impl Omitted {
    pub(super) fn add(&mut self, name: Option<&str>) {
        match name {
            Some(name) => {
                self.names.insert(name.to_owned());
            }
            None => self.is_nameless = true,
        }
    }

    /// Whether a definition called `name` was left out.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether anything was left out.
    pub(crate) fn any(&self) -> bool {
        self.is_nameless || !self.names.is_empty()
    }
}

/// What was left out, by kind. Nothing refers to feature services.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllOmitted {
    pub(crate) entities: Omitted,
    pub(crate) sources: Omitted,
    /// Feature views and aliases.
    pub(crate) views: Omitted,
    pub(crate) transformations: Omitted,
}

impl AllOmitted {
    pub(super) fn each(&mut self) -> [&mut Omitted; 4] {
        [
            &mut self.entities,
            &mut self.sources,
            &mut self.views,
            &mut self.transformations,
        ]
    }
}
