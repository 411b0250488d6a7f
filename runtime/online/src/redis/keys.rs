//! The names of values in Redis.
//!
//! ```text
//! unskew:{ENTITY}:PROJECT:VIEW:DIGEST    a row
//! unskew:state:PROJECT:VIEW:DIGEST       the state of a view
//! ```
//!
//! `ENTITY` is the entity key in hexadecimal digits, `-` for the empty one of a view of one row for
//! everybody. In braces it is the hash tag: in a cluster all views of an entity lie in one slot.
//! `DIGEST` is the first half of the view digest. A name's bytes other than letters, digits, `_`,
//! `-` and `.` are written `%XX` ([`ViewKey`]), so that a name cannot hold a separator, nor what SCAN
//! takes for a pattern.

use std::io::Write as _;

use redis::{RedisWrite, ToRedisArgs};
use unskew_core::text::{digits, unhex};

use super::slot;
use crate::key::{ViewKey, push_escaped};

/// The keys of a view.
#[derive(Clone, Copy)]
pub(crate) struct RowKeys<'a> {
    /// `PROJECT:VIEW:DIGEST`.
    path: &'a str,
}

const ROW: &str = "unskew:{";
/// What stands between the entity and the path.
const END: &str = "}:";
const STATE: &str = "unskew:state:";
/// The entity of a view without join keys.
const EVERYBODY: &str = "-";

impl<'a> RowKeys<'a> {
    pub(crate) const fn of(view: &'a ViewKey) -> Self {
        Self { path: view.path() }
    }

    /// The key of the view's state.
    pub(crate) const fn state(self) -> StateKey<'a> {
        StateKey(self.path)
    }

    /// The key of the row of an entity.
    pub(crate) const fn key(self, entity: &'a [u8]) -> RowKey<'a> {
        RowKey {
            entity,
            path: self.path,
        }
    }

    /// The pattern of all of them.
    pub(crate) fn pattern(self) -> String {
        format!("{ROW}*{END}{}", self.path)
    }

    /// The entity key of a row's key; `None` if it is another's.
    pub(crate) fn entity(self, key: &[u8]) -> Option<Vec<u8>> {
        let key = std::str::from_utf8(key).ok()?;
        let entity = key.strip_prefix(ROW)?.strip_suffix(self.path)?;
        let entity = entity.strip_suffix(END)?;
        if entity == EVERYBODY {
            return Some(Vec::new());
        }
        unhex(entity).filter(|entity| !entity.is_empty())
    }
}

/// The key of the state of a view, which is written straight into a command.
#[derive(Clone, Copy)]
pub(crate) struct StateKey<'a>(&'a str);

impl StateKey<'_> {
    /// How many bytes it has.
    pub(crate) const fn len(&self) -> usize {
        STATE.len() + self.0.len()
    }

    /// The hash slot in which it lies.
    pub(crate) fn slot(&self) -> u16 {
        slot::of_bytes(STATE.bytes().chain(self.0.bytes()))
    }
}

impl ToRedisArgs for StateKey<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut key = out.writer_for_next_arg();
        // A command is written to in memory, which cannot fail.
        let _ = key.write_all(STATE.as_bytes());
        let _ = key.write_all(self.0.as_bytes());
    }
}

/// The key of a row, which is written straight into a command.
#[derive(Clone, Copy)]
pub(crate) struct RowKey<'a> {
    entity: &'a [u8],
    path: &'a str,
}

impl RowKey<'_> {
    /// How many bytes it has.
    pub(crate) const fn len(&self) -> usize {
        let entity = if self.entity.is_empty() {
            EVERYBODY.len()
        } else {
            2 * self.entity.len()
        };
        ROW.len() + entity + END.len() + self.path.len()
    }

    /// The hash slot in which it lies: that of what stands in braces, the same for all views of an
    /// entity.
    pub(crate) fn slot(&self) -> u16 {
        if self.entity.is_empty() {
            return slot::of(EVERYBODY.as_bytes());
        }
        let digits = self.entity.iter().flat_map(|&byte| digits(byte));
        slot::of_bytes(digits)
    }
}

impl ToRedisArgs for RowKey<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut key = out.writer_for_next_arg();
        // A command is written to in memory, which cannot fail.
        let _ = key.write_all(ROW.as_bytes());
        if self.entity.is_empty() {
            let _ = key.write_all(EVERYBODY.as_bytes());
        }
        let mut hex = [0; 64];
        for bytes in self.entity.chunks(hex.len() / 2) {
            for (two, &byte) in hex.chunks_exact_mut(2).zip(bytes) {
                two.copy_from_slice(&digits(byte));
            }
            let _ = key.write_all(&hex[..2 * bytes.len()]);
        }
        let _ = key.write_all(END.as_bytes());
        let _ = key.write_all(self.path.as_bytes());
    }
}

/// The patterns of the states and of the rows of a project.
pub(crate) fn project_patterns(project: &str) -> [String; 2] {
    let mut escaped = String::new();
    push_escaped(&mut escaped, project);
    let project = escaped;
    [
        format!("{STATE}{project}:*"),
        format!("{ROW}*}}:{project}:*"),
    ]
}

#[cfg(test)]
mod tests {
    use unskew_core::digest::Digest;

    use super::*;

    fn view(project: &str, view: &str) -> ViewKey {
        ViewKey::new(project, view, Digest::of(b"meaning"))
    }

    fn written(key: RowKey<'_>) -> Vec<u8> {
        let written = key.to_redis_args().remove(0);
        assert_eq!(written.len(), key.len());
        written
    }

    #[test]
    fn a_key_reads_back_as_its_entity() {
        let view_key = view("p", "v");
        let keys = RowKeys::of(&view_key);
        for entity in [
            &b""[..],
            b"\0",
            b"JFK",
            b"-",
            &[0xff; 31],
            &[0xfe; 32],
            &[0xff; 600],
        ] {
            let key = written(keys.key(entity));
            assert_eq!(keys.entity(&key).as_deref(), Some(entity));
        }
        assert_eq!(
            RowKeys::of(&view("p", "w")).entity(&written(keys.key(b"x"))),
            None
        );
    }

    #[test]
    fn a_key_looks_as_documented() {
        let view_key = view("shop", "customer");
        let keys = RowKeys::of(&view_key);
        let key = String::from_utf8(written(keys.key(b"\x01\xab"))).unwrap();
        let half = &Digest::of(b"meaning").hex()[..32];
        assert_eq!(key, format!("unskew:{{01ab}}:shop:customer:{half}"));
        let state = keys.state();
        let written = String::from_utf8(state.to_redis_args().remove(0)).unwrap();
        assert_eq!(written, format!("unskew:state:shop:customer:{half}"));
        assert_eq!(written.len(), state.len());
        assert_eq!(state.slot(), slot::of(written.as_bytes()));
    }

    #[test]
    fn a_key_lies_in_the_slot_of_its_entity() {
        for name in ["v", "w"] {
            let view_key = view("p", name);
            let keys = RowKeys::of(&view_key);
            assert_eq!(keys.key(b"\x01\xab").slot(), slot::of(b"01ab"));
            assert_eq!(keys.key(b"").slot(), slot::of(b"-"));
        }
    }
}
