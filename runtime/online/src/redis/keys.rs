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
//! `-` and `.` are written `%XX`, so that a name cannot hold a separator, nor what SCAN takes for a
//! pattern.

use std::fmt::Write as _;
use std::io::Write as _;

use redis::{RedisWrite, ToRedisArgs};
use unskew_core::text::unhex;

use super::slot;
use crate::key::ViewKey;

/// The keys of a view, made once for all that is asked of it.
pub(crate) struct RowKeys {
    state: String,
    /// `}:PROJECT:VIEW:DIGEST`.
    suffix: String,
}

const ROW: &str = "unskew:{";
const STATE: &str = "unskew:state:";
/// The entity of a view without join keys.
const EVERYBODY: &str = "-";

impl RowKeys {
    pub(crate) fn of(view: &ViewKey) -> Self {
        let state = state(view);
        let mut suffix = String::with_capacity(state.len());
        suffix.push_str("}:");
        suffix.push_str(&state[STATE.len()..]);
        Self { state, suffix }
    }

    /// The key of the view's state.
    pub(crate) const fn state(&self) -> &str {
        self.state.as_str()
    }

    /// The hash slot in which the view's state lies.
    pub(crate) fn state_slot(&self) -> u16 {
        slot::of(self.state.as_bytes())
    }

    /// The key of the row of an entity.
    pub(crate) const fn key<'a>(&'a self, entity: &'a [u8]) -> RowKey<'a> {
        RowKey {
            entity,
            suffix: self.suffix.as_str(),
        }
    }

    /// The pattern of all of them.
    pub(crate) fn pattern(&self) -> String {
        format!("{ROW}*{}", self.suffix)
    }

    /// The entity key of a row's key; `None` if it is another's.
    pub(crate) fn entity(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = std::str::from_utf8(key).ok()?;
        let entity = key.strip_prefix(ROW)?.strip_suffix(self.suffix.as_str())?;
        if entity == EVERYBODY {
            return Some(Vec::new());
        }
        unhex(entity).filter(|entity| !entity.is_empty())
    }
}

/// The key of a row, which is written straight into a command.
#[derive(Clone, Copy)]
pub(crate) struct RowKey<'a> {
    entity: &'a [u8],
    suffix: &'a str,
}

impl RowKey<'_> {
    /// How many bytes it has.
    pub(crate) const fn len(&self) -> usize {
        let entity = if self.entity.is_empty() {
            EVERYBODY.len()
        } else {
            2 * self.entity.len()
        };
        ROW.len() + entity + self.suffix.len()
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
        let _ = key.write_all(self.suffix.as_bytes());
    }
}

/// A byte in hexadecimal digits.
const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// The key of the state of a view.
pub(crate) fn state(view: &ViewKey) -> String {
    let mut key = String::with_capacity(96);
    key.push_str(STATE);
    push_path(&mut key, view);
    key
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

fn push_path(path: &mut String, view: &ViewKey) {
    push_escaped(path, &view.project);
    path.push(':');
    push_escaped(path, &view.view);
    path.push(':');
    for &byte in &view.digest.bytes()[..16] {
        path.extend(digits(byte).map(char::from));
    }
}

fn push_escaped(escaped: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use unskew_core::digest::Digest;

    use super::*;

    fn view(project: &str, view: &str) -> ViewKey {
        ViewKey {
            project: project.to_owned(),
            view: view.to_owned(),
            digest: Digest::of(b"meaning"),
        }
    }

    fn written(key: RowKey<'_>) -> Vec<u8> {
        let written = key.to_redis_args().remove(0);
        assert_eq!(written.len(), key.len());
        written
    }

    #[test]
    fn a_key_reads_back_as_its_entity() {
        let keys = RowKeys::of(&view("p", "v"));
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
        let keys = RowKeys::of(&view("shop", "customer"));
        let key = String::from_utf8(written(keys.key(b"\x01\xab"))).unwrap();
        let half = &Digest::of(b"meaning").hex()[..32];
        assert_eq!(key, format!("unskew:{{01ab}}:shop:customer:{half}"));
        assert_eq!(
            state(&view("shop", "customer")),
            format!("unskew:state:shop:customer:{half}")
        );
    }

    #[test]
    fn a_key_lies_in_the_slot_of_its_entity() {
        for name in ["v", "w"] {
            let keys = RowKeys::of(&view("p", name));
            assert_eq!(keys.key(b"\x01\xab").slot(), slot::of(b"01ab"));
            assert_eq!(keys.key(b"").slot(), slot::of(b"-"));
        }
    }

    #[test]
    fn names_cannot_hold_separators_or_patterns() {
        let mut escaped = String::new();
        push_escaped(&mut escaped, "a:b*{}[]?\\é");
        assert_eq!(escaped, "a%3Ab%2A%7B%7D%5B%5D%3F%5C%C3%A9");
        assert_ne!(state(&view("a:b", "c")), state(&view("a", "b:c")));
    }
}
