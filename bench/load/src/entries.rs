//! A file of keys and values, to be written into a store.
//!
//! One after the other: the lengths of key and value and the time of expiry in milliseconds (-1 for
//! none), little-endian, then the key and the value.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;

const NEVER: i64 = -1;

/// What is written under a key.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Milliseconds since 1970.
    pub expires: Option<i64>,
}

/// Writes a file of entries.
pub struct Writer(BufWriter<File>);

impl Writer {
    /// A new file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self(BufWriter::new(file)))
    }

    /// One more.
    pub fn push(&mut self, entry: Entry<'_>) -> anyhow::Result<()> {
        let expires = entry.expires.unwrap_or(NEVER);
        self.0
            .write_all(&u32::try_from(entry.key.len())?.to_le_bytes())?;
        self.0
            .write_all(&u32::try_from(entry.value.len())?.to_le_bytes())?;
        self.0.write_all(&expires.to_le_bytes())?;
        self.0.write_all(entry.key)?;
        Ok(self.0.write_all(entry.value)?)
    }

    /// Writes what is buffered.
    pub fn finish(mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// The entries of a file's bytes.
///
/// # Errors
/// The bytes end within an entry.
pub fn read(mut bytes: &[u8]) -> anyhow::Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (entry, rest) = first(bytes).context("the file ends within an entry")?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(entries)
}

fn first(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (key, rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_first_chunk::<4>()?;
    let (expires, rest) = rest.split_first_chunk::<8>()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value) as usize)?;
    let expires = i64::from_le_bytes(*expires);
    let expires = (expires != NEVER).then_some(expires);
    Some((
        Entry {
            key,
            value,
            expires,
        },
        rest,
    ))
}
