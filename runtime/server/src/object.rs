//! JSON objects whose values stay the text that they are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::{fmt, io};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Problem;

/// The members of a JSON object, in order, none twice.
#[derive(Debug, Default)]
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// It is no JSON, no object, or has a member twice.
    pub(crate) fn of_body(body: &'a [u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body)
            .map_err(|error| Problem::NotJson(format!("it is no UTF-8: {error}")))?;
        let value: &RawValue =
            serde_json::from_str(text).map_err(|error| Problem::NotJson(error.to_string()))?;
        Self::of(value, "the body", "")
    }

    /// Reads the member `name` of a body.
    ///
    /// # Errors
    /// It is no object, or has a member twice.
    pub(crate) fn of_member(value: &'a RawValue, name: &str) -> Result<Self, Problem> {
        Self::of(value, name, &format!("{name}."))
    }

    fn of(value: &'a RawValue, name: &str, prefix: &str) -> Result<Self, Problem> {
        let form = |_| Problem::Form {
            field: name.to_owned(),
            found: kind(value).to_owned(),
            valid: "an object".to_owned(),
        };
        if !value.get().starts_with('{') {
            return Err(form(()));
        }
        // What is an object but has no form of its own: a name with half a surrogate.
        let object: Self = serde_json::from_str(value.get())
            .map_err(|error| Problem::NotJson(format!("in {name}: {error}")))?;
        match object.repeated() {
            Some(name) => Err(Problem::Duplicate(format!("{prefix}{}", shortened(name)))),
            None => Ok(object),
        }
    }

    /// A name that stands twice.
    fn repeated(&self) -> Option<&str> {
        /// Up to so many members a comparison of all is quicker than a set.
        const FEW: usize = 8;
        let mut names = self.members.iter().map(|(name, _)| &**name);
        if self.members.len() <= FEW {
            let before = |index: usize| self.members[..index].iter().map(|(name, _)| &**name);
            let mut names = names.enumerate();
            let found = names.find(|&(index, name)| before(index).any(|known| known == name));
            return found.map(|(_, name)| name);
        }
        let mut seen = BTreeSet::new();
        names.find(|&name| !seen.insert(name))
    }

    /// The members, in order.
    pub(crate) fn members(&self) -> &[(Cow<'a, str>, &'a RawValue)] {
        &self.members
    }

    /// The value of the member `name`, if it is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.get_or_null(name).filter(|value| value.get() != "null")
    }

    /// The value of the member `name`, if it is there.
    pub(crate) fn get_or_null(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.members.iter().find(|(member, _)| member == name)?;
        Some(value)
    }
}

/// What a JSON value is, for a message.
pub(crate) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A text from outside, cut for a message if it is long.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().count() > LONGEST {
        text.chars().take(LONGEST).chain(['…']).collect()
    } else {
        text.to_owned()
    }
}

/// Writes an object whose values `write` writes.
///
/// # Errors
/// Those of `write`.
pub(crate) fn write_object<'n, V>(
    out: &mut Vec<u8>,
    members: impl IntoIterator<Item = (&'n str, V)>,
    mut write: impl FnMut(&mut Vec<u8>, V) -> io::Result<()>,
) -> io::Result<()> {
    out.push(b'{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        write(out, value)?;
    }
    out.push(b'}');
    Ok(())
}

/// A name, which is copied only if it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object { members })
            }
        }

        deserializer.deserialize_map(Members)
    }
}
