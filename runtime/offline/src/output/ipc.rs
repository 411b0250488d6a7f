//! Training sets as a stream of Arrow IPC.

use std::collections::HashMap;
use std::io::{BufWriter, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use crate::error::OfflineError;

/// Writes batches to `out`, which errors call standard output; `entries` are the schema's metadata.
pub(super) fn write(
    out: impl Write,
    schema: &SchemaRef,
    entries: [(&'static str, String); 3],
    batches: impl Iterator<Item = RecordBatch>,
) -> Result<(), OfflineError> {
    let metadata: HashMap<String, String> = entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let schema = Schema::new(schema.fields().clone()).with_metadata(metadata);
    let write = || -> Result<(), ArrowError> {
        let out = BufWriter::with_capacity(1 << 20, out);
        let mut writer = StreamWriter::try_new(out, &schema)?;
        for batch in batches {
            writer.write(&batch)?;
        }
        writer.finish()?;
        writer.into_inner()?.flush()?;
        Ok(())
    };
    write().map_err(|error| match error {
        ArrowError::IoError(_, error) => OfflineError::StandardOutput(error),
        other => OfflineError::StandardOutput(std::io::Error::other(other)),
    })
}
