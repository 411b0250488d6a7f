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

use std::fmt::Write;

use unskew_core::text::{hex, unhex};

use crate::key::ViewKey;

/// The keys of the rows of a view.
pub(crate) struct RowKeys {
    /// `}:PROJECT:VIEW:DIGEST`.
    suffix: String,
}

const ROW: &str = "unskew:{";
/// The entity of a view without join keys.
const EVERYBODY: &str = "-";

impl RowKeys {
    pub(crate) fn of(view: &ViewKey) -> Self {
        Self {
            suffix: format!("}}:{}", path(view)),
        }
    }

    pub(crate) fn key(&self, entity: &[u8]) -> String {
        if entity.is_empty() {
            return format!("{ROW}{EVERYBODY}{}", self.suffix);
        }
        format!("{ROW}{}{}", hex(entity), self.suffix)
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

/// The key of the state of a view.
pub(crate) fn state(view: &ViewKey) -> String {
    format!("unskew:state:{}", path(view))
}

/// The patterns of the states and of the rows of a project.
pub(crate) fn project_patterns(project: &str) -> [String; 2] {
    let project = escaped(project);
    [
        format!("unskew:state:{project}:*"),
        format!("{ROW}*}}:{project}:*"),
    ]
}

fn path(view: &ViewKey) -> String {
    let half = &view.digest.bytes()[..16];
    format!(
        "{}:{}:{}",
        escaped(&view.project),
        escaped(&view.view),
        hex(half)
    )
}

fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
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

    #[test]
    fn a_key_reads_back_as_its_entity() {
        let keys = RowKeys::of(&view("p", "v"));
        for entity in [&b""[..], b"\0", b"JFK", b"-", &[0xff; 600]] {
            let key = keys.key(entity);
            assert_eq!(keys.entity(key.as_bytes()).as_deref(), Some(entity));
        }
        assert_eq!(
            RowKeys::of(&view("p", "w")).entity(keys.key(b"x").as_bytes()),
            None
        );
    }

    #[test]
    fn a_key_looks_as_documented() {
        let key = RowKeys::of(&view("shop", "customer")).key(b"\x01\xab");
        let half = &Digest::of(b"meaning").hex()[..32];
        assert_eq!(key, format!("unskew:{{01ab}}:shop:customer:{half}"));
        assert_eq!(
            state(&view("shop", "customer")),
            format!("unskew:state:shop:customer:{half}")
        );
    }

    #[test]
    fn names_cannot_hold_separators_or_patterns() {
        assert_eq!(escaped("a:b*{}[]?\\é"), "a%3Ab%2A%7B%7D%5B%5D%3F%5C%C3%A9");
        assert_ne!(state(&view("a:b", "c")), state(&view("a", "b:c")));
    }
}
