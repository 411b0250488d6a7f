//! Which files hold rows of an entity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, RecordBatch};
use serde::Serialize;
use tokio::runtime::Handle;
use unskew_core::row::encode_key;
use unskew_core::types::DataType;
use unskew_core::values::coerce;
use unskew_core::view::View;
use unskew_engine::{ViewRowsError, ViewRunner};

use crate::error::OfflineError;
use crate::join::KeyValuesBuilder;
use crate::offline::{CHUNK_ROWS, Components, Offline};
use crate::progress::Progress;
use crate::scan::{Scan, Wanted, column_as_stored};

/// A file with rows of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileRows {
    /// The file: a path, or a URL.
    pub file: String,
    /// How many of its rows are the entity's.
    pub rows: u64,
}

/// Where the history of entities lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyHistory {
    /// The files that have rows of them, in order.
    pub files: Vec<FileRows>,
    /// How many files were looked at; of the others their footers told enough.
    pub files_read: u64,
    /// How many files the source has.
    pub files_in_all: u64,
}

impl Offline {
    /// The files of a view's source that hold rows of the entities whose join keys are `keys`: a
    /// column for each of the view's, in its types.
    ///
    /// Files are left out by statistics and bloom filters, as for a training set. Where a batch
    /// transformation makes a join key, the files say nothing of it: all of them are read, and the
    /// component is run. If the future is dropped, that ends.
    ///
    /// # Errors
    /// The history cannot be read, or its rows cannot be made.
    pub async fn key_history(
        &self,
        view: &Arc<View>,
        components: &Components,
        keys: &[ArrayRef],
        progress: Arc<dyn Progress>,
    ) -> Result<KeyHistory, OfflineError> {
        let scan = self.view_scan(view).await?;
        let mut wanted = Wanted::default();
        for (key, column) in view.keys.iter().zip(keys) {
            if let Some(stored) = column_as_stored(view, scan.schema(), &key.name) {
                let mut values = KeyValuesBuilder::default();
                values.add(column);
                wanted.keys.push((stored, key.data_type, values.finish()));
            }
        }
        let rows = keys.first().map_or(1, |column| column.len());
        let mut entities = BTreeSet::new();
        for row in 0..rows {
            let mut entity = Vec::new();
            if encode_key(keys, row, &mut entity) {
                entities.insert(entity);
            }
        }
        let search = Search {
            // All keys are as they are stored: then the keys are all that is read.
            stored: (wanted.keys.len() == view.keys.len())
                .then(|| wanted.keys.iter().map(|(column, ..)| *column).collect()),
            runner: ViewRunner::new(Arc::clone(view), components)?,
            view: Arc::clone(view),
            scan,
            wanted,
            entities,
            progress,
        };
        let handle = Handle::current();
        // Gone when nobody waits for the answer any more: a search may take hours.
        let waiting = Arc::new(());
        let waits = Arc::downgrade(&waiting);
        let found = tokio::task::spawn_blocking(move || search.run(&handle, &waits)).await?;
        drop(waiting);
        found
    }
}

struct Search {
    view: Arc<View>,
    runner: ViewRunner,
    scan: Scan,
    wanted: Wanted,
    /// The columns of the join keys, if files hold them all.
    stored: Option<Vec<usize>>,
    /// The entities that are sought, encoded.
    entities: BTreeSet<Vec<u8>>,
    progress: Arc<dyn Progress>,
}

impl Search {
    fn run(&self, handle: &Handle, waits: &Weak<()>) -> Result<KeyHistory, OfflineError> {
        let (pieces, _) = self.scan.pieces(&self.wanted, 1, handle)?;
        let stage = format!("looking for rows in the history of `{}`", self.view.name);
        let rows = pieces.iter().map(|piece| piece.rows()).sum();
        self.progress.begin(&stage, rows);
        let columns: Vec<usize> = match &self.stored {
            Some(keys) => keys.clone(),
            None => (0..self.scan.schema().fields().len()).collect(),
        };
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for piece in &pieces {
            let file = self.scan.row_place(piece.row_group, 0).file;
            let rows = found.entry(file.display().to_string()).or_default();
            let mut reader = self.scan.read(piece, &columns, CHUNK_ROWS, handle)?;
            while let Some((_, batch)) = reader.next()? {
                if waits.strong_count() == 0 {
                    return Err(OfflineError::Cancelled);
                }
                let (keys, length) = self.keys(&batch).map_err(|error| {
                    let file = Some(file.clone());
                    OfflineError::view_rows(file, error)
                })?;
                *rows += self.count(&keys, length);
                self.progress.advance(batch.num_rows() as u64);
            }
        }
        Ok(KeyHistory {
            files_read: found.len() as u64,
            files_in_all: self.scan.file_count() as u64,
            files: found
                .into_iter()
                .filter(|(_, rows)| *rows > 0)
                .map(|(file, rows)| FileRows { file, rows })
                .collect(),
        })
    }

    /// The join keys of rows of the source, or of the view's rows that are made of them; and how
    /// many rows these are.
    fn keys(&self, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, usize), ViewRowsError> {
        if self.stored.is_none() {
            let rows = self.runner.run(batch)?;
            return Ok((rows.keys, rows.event.len()));
        }
        let keys = self.view.keys.iter().zip(batch.columns());
        let keys = keys.map(|(key, column)| {
            coerce(column, DataType::Scalar(key.data_type)).map_err(|error| ViewRowsError::Value {
                view: self.view.name.clone(),
                column: key.name.clone(),
                error: Box::new(error),
            })
        });
        Ok((keys.collect::<Result<_, _>>()?, batch.num_rows()))
    }

    /// How many of the rows are those of an entity that is sought.
    fn count(&self, keys: &[ArrayRef], rows: usize) -> u64 {
        let mut entity = Vec::new();
        let mut count = 0;
        for row in 0..rows {
            entity.clear();
            let is_sought = encode_key(keys, row, &mut entity) && self.entities.contains(&entity);
            count += u64::from(is_sought);
        }
        count
    }
}
