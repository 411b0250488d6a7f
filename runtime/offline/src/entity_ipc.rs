//! Entity rows as Arrow IPC, a stream or a file, such as standard input brings.

use std::io::{BufReader, Read, Seek};

use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use crate::entity_source::{Batches, ReadError};
use crate::error::EntityRowsProblem;

/// How a file of Arrow IPC begins; a stream has no such mark.
const FILE: &[u8] = b"ARROW1";

/// No schema takes so many bytes.
const LONGEST_SCHEMA: i32 = 64 << 20;

/// What an ending stream ends with: the mark of a message, and its length, which is none.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Reads all rows.
///
/// # Errors
/// It is no Arrow IPC, it is broken off, or it cannot be read.
pub(crate) fn read(input: impl Read, rows: &Batches) -> Result<(), ReadError> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    let mut start = Vec::new();
    input
        .by_ref()
        .take(FILE.len() as u64)
        .read_to_end(&mut start)?;
    if start == FILE {
        // The table of contents of a file is at its end.
        let mut file = tempfile::tempfile()?;
        std::io::copy(&mut start.as_slice().chain(input), &mut file)?;
        file.rewind()?;
        let reader = FileReader::try_new_buffered(file, None).map_err(wrong)?;
        rows.schema(reader.schema())?;
        for batch in reader {
            rows.rows(batch.map_err(wrong)?)?;
        }
        return Ok(());
    }
    if start.is_empty() {
        return Err(unreadable("there is nothing in it; Arrow IPC is expected"));
    }
    if start.starts_with(b"PAR1") {
        return Err(unreadable(
            "this is Parquet, which has to be read from a file; give its name, or write Arrow IPC",
        ));
    }
    // The reader takes the first bytes for a length, and makes room for it.
    if let Some(length) = start.first_chunk().map(|bytes| i32::from_le_bytes(*bytes))
        && !(-1..LONGEST_SCHEMA).contains(&length)
    {
        return Err(unreadable("it is no Arrow IPC"));
    }
    let mut input = Ending {
        input: start.as_slice().chain(input),
        last: [0; 8],
    };
    let mut reader = StreamReader::try_new(&mut input, None).map_err(wrong)?;
    rows.schema(reader.schema())?;
    for batch in reader.by_ref() {
        rows.rows(batch.map_err(wrong)?)?;
    }
    drop(reader);
    // Where a writer died between two batches, what is there would look whole.
    if input.last == END {
        Ok(())
    } else {
        Err(unreadable(
            "it breaks off without the end mark of a stream of Arrow IPC, so rows may be missing",
        ))
    }
}

/// Remembers the last bytes that were read.
struct Ending<R> {
    input: R,
    last: [u8; 8],
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.input.read(buffer)?;
        let read = &buffer[..length];
        let new = length.min(8);
        self.last.copy_within(new.., 0);
        self.last[8 - new..].copy_from_slice(&read[length - new..]);
        Ok(length)
    }
}

fn unreadable(what: &str) -> ReadError {
    ReadError::Problem(EntityRowsProblem::Unreadable(what.to_owned()))
}

fn wrong(error: ArrowError) -> ReadError {
    unreadable(&format!("it is no Arrow IPC, or broken: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_known_however_they_were_read() {
        let all: Vec<u8> = (0..50).collect();
        for size in [1, 3, 7, 8, 9, 50] {
            let mut ending = Ending {
                input: all.as_slice(),
                last: [0; 8],
            };
            let mut buffer = vec![0; size];
            while ending.read(&mut buffer).unwrap() > 0 {}
            assert_eq!(ending.last, all[42..], "{size}");
        }
    }
}
