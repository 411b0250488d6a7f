//! The keys and values of the embedded store.
//!
//! LMDB's keys are at most 511 bytes, names and entity keys may be longer. A key is
//!
//! ```text
//! kind      1 byte    STATE or ROW
//! project   16 bytes  of the SHA-256 of the project's name
//! view      16 bytes  of the SHA-256 of the view's name and its digest
//! form      1 byte    only of a row: WHOLE or HASHED
//! entity    …         only of a row: the entity key, or its SHA-256 if it is long
//! ```
//!
//! so that what belongs to a project, and to a view, lies together. The value of a row is the
//! encoded row; under a hashed entity key the length of the entity key as u32 LE and the entity key
//! come before it. The value of a state is its JSON.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::key::ViewKey;

/// The length of what stands before the form: kind, project, view.
const PREFIX: usize = 1 + 2 * NAME;
const NAME: usize = 16;
const MAX_KEY: usize = 511;
/// The longest entity key that is held whole.
const MAX_WHOLE: usize = MAX_KEY - PREFIX - 1;

const WHOLE: u8 = 0;
const HASHED: u8 = 1;

/// What a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    State,
    Row,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::State => b's',
            Self::Row => b'r',
        }
    }
}

fn name_hash(parts: &[&[u8]]) -> [u8; NAME] {
    let digest = parts
        .iter()
        .fold(Sha256::new(), Sha256::chain_update)
        .finalize();
    let mut hash = [0; NAME];
    hash.copy_from_slice(&digest[..NAME]);
    hash
}

/// What all keys of a kind in a project begin with.
pub(crate) fn project_prefix(kind: Kind, project: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(PREFIX);
    prefix.push(kind.byte());
    prefix.extend(name_hash(&[project.as_bytes()]));
    prefix
}

/// What all keys of a kind of a view begin with; of its state it is the key.
pub(crate) fn view_prefix(kind: Kind, view: &ViewKey) -> Vec<u8> {
    let mut prefix = project_prefix(kind, &view.project);
    // The digest has one length, so that the two cannot run into each other.
    prefix.extend(name_hash(&[view.digest.bytes(), view.view.as_bytes()]));
    prefix
}

/// The key of a row; `prefix` is the view's of [`Kind::Row`].
pub(crate) fn row_key(prefix: &[u8], entity: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(MAX_KEY.min(prefix.len() + 1 + entity.len()));
    key.extend(prefix);
    if entity.len() <= MAX_WHOLE {
        key.push(WHOLE);
        key.extend(entity);
    } else {
        key.push(HASHED);
        key.extend(Sha256::digest(entity));
    }
    key
}

/// The value under which `row` of `entity` is held.
pub(crate) fn row_value<'a>(entity: &[u8], row: &'a [u8]) -> Cow<'a, [u8]> {
    if entity.len() <= MAX_WHOLE {
        return Cow::Borrowed(row);
    }
    let mut value = Vec::with_capacity(4 + entity.len() + row.len());
    // An entity key is at most `MAX_ROW_BYTES` long.
    value.extend((entity.len() as u32).to_le_bytes());
    value.extend(entity);
    value.extend(row);
    Cow::Owned(value)
}

/// The entity key and the row of what is held under the key of a row; `None` if it is damaged.
pub(crate) fn split<'a>(key: &'a [u8], value: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (form, entity) = key.get(PREFIX..)?.split_first()?;
    if *form == WHOLE {
        return Some((entity, value));
    }
    let (length, rest) = value.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use unskew_core::digest::Digest;

    use super::*;

    fn view(project: &str, view: &str) -> ViewKey {
        ViewKey::new(project, view, Digest::of(b"meaning"))
    }

    #[test]
    fn entity_keys_of_any_length_come_back() {
        let prefix = view_prefix(Kind::Row, &view("p", "v"));
        for length in [0, 1, MAX_WHOLE, MAX_WHOLE + 1, 32, 100_000] {
            let entity = vec![7; length];
            let key = row_key(&prefix, &entity);
            assert!(key.len() <= MAX_KEY, "{length}: {}", key.len());
            assert!(key.starts_with(&prefix));
            let value = row_value(&entity, b"row");
            assert_eq!(split(&key, &value), Some((&*entity, &b"row"[..])));
        }
    }

    #[test]
    fn a_hash_is_not_taken_for_the_key_that_it_spells() {
        let prefix = view_prefix(Kind::Row, &view("p", "v"));
        let long = vec![1; 1000];
        assert_ne!(
            row_key(&prefix, &long),
            row_key(&prefix, &Sha256::digest(&long))
        );
    }

    #[test]
    fn projects_and_views_with_alike_names_are_apart() {
        let prefix = |project, name| view_prefix(Kind::Row, &view(project, name));
        assert_ne!(prefix("a", "bc"), prefix("ab", "c"));
        assert!(!prefix("ab", "c").starts_with(&project_prefix(Kind::Row, "a")));
        assert!(prefix("a", "c").starts_with(&project_prefix(Kind::Row, "a")));
        assert!(!prefix("a", "c").starts_with(&project_prefix(Kind::State, "a")));
    }

    #[test]
    fn a_damaged_value_is_no_row() {
        let key = row_key(&view_prefix(Kind::Row, &view("p", "v")), &[1; 1000]);
        assert_eq!(split(&key, b"\xff\xff\0\0short"), None);
        assert_eq!(split(b"short", b""), None);
    }
}
