//! One new file of the rows of several.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tokio::runtime::Handle;
use unskew_core::view::Source;

use super::remove::is_unchanged;
use super::{CompactProblem, MergedFile, parent};
use crate::append::{Folder, create, unique};
use crate::error::OfflineError;
use crate::files::SourceFile;
use crate::offline::CHUNK_ROWS;
use crate::output::staged::StagedFile;
use crate::progress::Progress;
use crate::replaced::{Place, REPLACES, Replaced, replaces};
use crate::scan::{Scan, Wanted};
use crate::schema::FileSchema;
use crate::stores::failed;

/// How many bytes of a row group are held in memory at most, about.
const GROUP_BYTES: usize = 64 << 20;

/// Up to which size an object is put at once.
const WHOLE_BYTES: u64 = 16 << 20;

/// Makes one file of `group`, files of one folder and the same columns, that replaces them; `young` are files
/// of the source that others replace and that are still there.
///
/// # Errors
/// A file cannot be read, or was written meanwhile, or the new one cannot be written. Nothing is
/// replaced then.
pub(super) async fn merge(
    source: &Source,
    folder: &Folder,
    group: Vec<FileSchema>,
    young: &BTreeMap<Place, &SourceFile>,
    now: i64,
    progress: &Arc<dyn Progress>,
) -> Result<MergedFile, OfflineError> {
    let Some(first) = group.first() else {
        return Err(OfflineError::Cancelled);
    };
    let name = format!("{}.parquet", unique("compacted", now));
    let (into, path) = (parent(first), parent(first).join(&name));
    let work = Work {
        source: source.name.clone(),
        folder: into,
        properties: properties(&group, young)?,
        inputs: group.iter().map(|file| file.file.clone()).collect(),
        rows: group.iter().map(|file| file.rows).sum(),
        group,
        path: path.clone(),
        progress: Arc::clone(progress),
    };
    let (inputs, rows) = (work.inputs.clone(), work.rows);
    let bytes = match folder {
        Folder::Local(_) => work.local().await?,
        Folder::Remote { store, .. } => {
            // The folder of an object, as its own key has it.
            let location = inputs.first().map(|file| file.meta.location.as_ref());
            let above = location.and_then(|key| key.rsplit_once('/'));
            let key = match above {
                Some((above, _)) => format!("{above}/{name}"),
                None => name,
            };
            work.remote(Arc::clone(store), &key).await?
        }
    };
    Ok(MergedFile {
        file: path.display().to_string(),
        files: inputs.len() as u64,
        rows,
        bytes,
    })
}

struct Work {
    source: String,
    folder: PathBuf,
    group: Vec<FileSchema>,
    inputs: Vec<SourceFile>,
    rows: u64,
    properties: WriterProperties,
    path: PathBuf,
    progress: Arc<dyn Progress>,
}

impl Work {
    async fn local(self) -> Result<u64, OfflineError> {
        let inputs = self.inputs.clone();
        let staged = StagedFile::beside(&self.path, false)?;
        let file = staged.file()?;
        let handle = Handle::current();
        let bytes = tokio::task::spawn_blocking(move || {
            let file = self.write(file, &handle)?;
            let bytes = file.sync_all().and_then(|()| file.metadata());
            bytes
                .map(|metadata| metadata.len())
                .map_err(|error| self.unwritten(error.to_string()))
        })
        .await??;
        check_inputs(&inputs).await?;
        tokio::task::spawn_blocking(move || staged.persist()).await??;
        Ok(bytes)
    }

    async fn remote(self, store: Arc<dyn ObjectStore>, key: &str) -> Result<u64, OfflineError> {
        let inputs = self.inputs.clone();
        let url = self.path.display().to_string();
        let path = self.path.clone();
        let unreadable = move |error: std::io::Error| OfflineError::Write {
            path: path.clone(),
            reason: error.to_string(),
        };
        let handle = Handle::current();
        let file = tokio::task::spawn_blocking(move || {
            let file = tempfile::tempfile().map_err(|error| self.unwritten(error.to_string()))?;
            self.write(file, &handle)
        })
        .await??;
        check_inputs(&inputs).await?;
        let refused = |error: object_store::Error| failed(&url, &error);
        let key = ObjectPath::parse(key).map_err(|error| refused(error.into()))?;
        let mut file = file;
        let bytes = file.metadata().map_err(&unreadable)?.len();
        file.rewind().map_err(&unreadable)?;
        if bytes <= WHOLE_BYTES {
            let mut whole = Vec::new();
            file.read_to_end(&mut whole).map_err(&unreadable)?;
            create(store.as_ref(), &key, whole.into())
                .await
                .map_err(refused)?;
            return Ok(bytes);
        }
        // It appears as a whole when it is complete.
        let upload = store.put_multipart(&key).await.map_err(refused)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, 8 << 20);
        let mut chunk = vec![0; 1 << 20];
        let sent = loop {
            match file.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(length) => match upload.wait_for_capacity(4).await {
                    Ok(()) => upload.write(&chunk[..length]),
                    Err(error) => break Err(refused(error)),
                },
                Err(error) => break Err(unreadable(error)),
            }
        };
        if sent.is_err() {
            // The parts of an upload that nobody ends stay, unseen, and cost.
            let _ = upload.abort().await;
            sent?;
        } else {
            upload.finish().await.map_err(refused)?;
        }
        Ok(bytes)
    }

    /// Copies all rows; blocks.
    fn write(&self, file: File, handle: &Handle) -> Result<File, OfflineError> {
        let unwritten = |error: ParquetError| self.unwritten(error.to_string());
        let Some(first) = self.group.first() else {
            return Ok(file);
        };
        // Without the file's own metadata, which came with it.
        let fields = first.schema.fields().iter().enumerate();
        let fields = fields.map(|(index, field)| {
            let is_nullable = |file: &FileSchema| file.schema.field(index).is_nullable();
            let nullable = self.group.iter().any(is_nullable);
            field.as_ref().clone().with_nullable(nullable)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        // Those that folders give come after those of the files.
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let scan = Scan::all(&self.source, &BTreeMap::new(), self.group.clone())?;
        let (pieces, _) = scan.pieces(&Wanted::default(), 1, handle)?;
        let mut writer =
            ArrowWriter::try_new(file, Arc::clone(&schema), Some(self.properties.clone()))
                .map_err(unwritten)?;
        let mut found = 0;
        for piece in pieces {
            let mut reader = scan.read(&piece, &columns, CHUNK_ROWS, handle)?;
            while let Some((_, batch)) = reader.next()? {
                let rows = batch.num_rows();
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let batch = RecordBatch::try_new_with_options(
                    Arc::clone(&schema),
                    batch.columns().to_vec(),
                    &options,
                )?;
                writer.write(&batch).map_err(unwritten)?;
                if writer.in_progress_size() > GROUP_BYTES {
                    writer.flush().map_err(unwritten)?;
                }
                found += rows as u64;
                self.progress.advance(rows as u64);
            }
        }
        if found != self.rows {
            let problem = CompactProblem::Rows {
                folder: self.folder.display().to_string(),
                expected: self.rows,
                found,
            };
            return Err(OfflineError::compact(&self.source, problem));
        }
        writer.into_inner().map_err(unwritten)
    }

    fn unwritten(&self, reason: String) -> OfflineError {
        OfflineError::Write {
            path: self.path.clone(),
            reason,
        }
    }
}

/// Refuses to replace a file that is not the one that was read.
async fn check_inputs(inputs: &[SourceFile]) -> Result<(), OfflineError> {
    for file in inputs {
        if !is_unchanged(file).await? {
            return Err(OfflineError::ChangedFile {
                file: file.path.clone(),
            });
        }
    }
    Ok(())
}

/// How the new file is written: with bloom filters where the others have any, with the metadata in
/// which they agree, and with the list of what it replaces.
fn properties(
    group: &[FileSchema],
    young: &BTreeMap<Place, &SourceFile>,
) -> Result<WriterProperties, OfflineError> {
    let mut list: Vec<Replaced> = group.iter().map(|file| Replaced::of(&file.file)).collect();
    for file in group {
        // What a file replaces would count again once it is replaced and deleted itself.
        let inherited = replaces(file)?.into_iter().filter(|replaced| {
            let young = young.get(&(parent(file), replaced.file.clone()));
            young.is_some_and(|young| replaced.is(young))
        });
        list.extend(inherited);
    }
    let json = serde_json::to_string(&list).map_err(|error| OfflineError::Write {
        path: group.first().map(parent).unwrap_or_default(),
        reason: error.to_string(),
    })?;
    let mut entries = vec![KeyValue::new(REPLACES.to_owned(), json)];
    let of = |file: &FileSchema| -> Vec<KeyValue> {
        let metadata = file.metadata.metadata().file_metadata();
        metadata.key_value_metadata().cloned().unwrap_or_default()
    };
    if let Some((first, others)) = group.split_first() {
        let others: Vec<Vec<KeyValue>> = others.iter().map(of).collect();
        let own = [REPLACES, "ARROW:schema"];
        entries.extend(of(first).into_iter().filter(|entry| {
            !own.contains(&entry.key.as_str()) && others.iter().all(|other| other.contains(entry))
        }));
    }
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(entries));
    let mut filtered = BTreeSet::new();
    for file in group {
        for group in file.metadata.metadata().row_groups() {
            for chunk in group.columns() {
                let path = chunk.column_path();
                if chunk.bloom_filter_offset().is_some() && filtered.insert(path.string()) {
                    builder = builder.set_column_bloom_filter_enabled(path.clone(), true);
                }
            }
        }
    }
    Ok(builder.build())
}
