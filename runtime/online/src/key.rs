//! By what a stored row is found.

use unskew_core::digest::Digest;
use unskew_core::text::digits;
use unskew_core::view::View;

/// A view's rows under one meaning: a project, a view and its view digest.
///
/// Rows of another digest are other rows, so that a row is only ever served under the meaning with
/// which it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewKey {
    /// The project.
    pub project: String,
    /// The view's own name, never an alias.
    pub view: String,
    /// The view digest.
    pub digest: Digest,
    path: Box<str>,
}

impl ViewKey {
    /// The key of `view` in `project`.
    pub fn of(project: &str, view: &View) -> Self {
        Self::new(project, &view.name, view.digest())
    }

    /// The key of the view called `view` in `project`, of that digest.
    pub fn new(project: &str, view: &str, digest: Digest) -> Self {
        let mut path = String::with_capacity(project.len() + view.len() + 34);
        push_escaped(&mut path, project);
        path.push(':');
        push_escaped(&mut path, view);
        path.push(':');
        path.extend(
            digest.bytes()[..16]
                .iter()
                .flat_map(|&byte| digits(byte))
                .map(char::from),
        );
        Self {
            project: project.to_owned(),
            view: view.to_owned(),
            digest,
            path: path.into(),
        }
    }

    /// `PROJECT:VIEW:DIGEST`, with the first half of the digest and with names that are escaped:
    /// made once, since it is a part of the name of each row in Redis.
    pub(crate) const fn path(&self) -> &str {
        &self.path
    }
}

/// Appends a name whose bytes other than letters, digits, `_`, `-` and `.` are written `%XX`, so that
/// it cannot hold a separator, nor what Redis takes for a pattern.
pub(crate) fn push_escaped(escaped: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.extend(digits(byte).map(|digit| char::from(digit.to_ascii_uppercase())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_hold_separators_or_patterns() {
        let mut escaped = String::new();
        push_escaped(&mut escaped, "a:b*{}[]?\\é");
        assert_eq!(escaped, "a%3Ab%2A%7B%7D%5B%5D%3F%5C%C3%A9");
        let path = |project, view| ViewKey::new(project, view, Digest::of(b"")).path;
        assert_ne!(path("a:b", "c"), path("a", "b:c"));
    }
}
