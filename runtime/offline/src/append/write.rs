//! New files in the folder of a source.

use std::path::PathBuf;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use unskew_core::time;

use super::{Appender, Folder, SourceRows};
use crate::error::OfflineError;
use crate::output::staged::{StagedFile, made_folder};
use crate::stores::failed;

/// How many objects are put at once.
const PUTS: usize = 16;

/// How often another name is tried. Names are random, so the first is free.
const ATTEMPTS: usize = 3;

impl Appender {
    /// Writes the rows as new files of the source, one for each folder into which some go, and says
    /// where they lie. `now`, in microseconds since 1970, is a part of their names.
    ///
    /// A file has its name when it is complete, and safe from a machine that stops. What fails
    /// leaves nothing; what is killed leaves at most a file whose name begins with a dot, which no
    /// reader takes for data, and files that are complete.
    ///
    /// # Errors
    /// The source is no folder, or the files cannot be written.
    pub async fn append(&self, rows: &SourceRows, now: i64) -> Result<Vec<String>, OfflineError> {
        self.check_folder()?;
        let Ok(folder) = &self.folder else {
            return Ok(Vec::new());
        };
        let mut files = Vec::with_capacity(rows.folders.len());
        for (below, rows_of) in &rows.folders {
            let batch = match rows_of.len() == rows.num_rows() {
                true => rows.batch.clone(),
                false => take_record_batch(&rows.batch, &UInt32Array::from(rows_of.clone()))?,
            };
            files.push((below.clone(), encoded(&batch)?));
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let name = format!("{}.parquet", unique("pushed", now));
            let written = match folder {
                Folder::Local(path) => local(path.clone(), files.clone(), name).await,
                Folder::Remote { store, path, url } => {
                    remote(store.as_ref(), path, url, &files, &name).await
                }
            };
            match written {
                Err(error @ OfflineError::Exists { .. }) => last = Some(error),
                written => return written,
            }
        }
        Err(last.unwrap_or_else(|| OfflineError::Exists {
            path: PathBuf::from(&self.source.path),
        }))
    }
}

/// A name that no other file has: what it is, when it was made, 64 random bits.
pub(crate) fn unique(what: &str, now: i64) -> String {
    // No file system minds these characters.
    let at = time::format(now).replace([':', '-'], "");
    format!("{what}-{at}-{:016x}", fastrand::u64(..))
}

fn encoded(batch: &RecordBatch) -> Result<Bytes, OfflineError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let unwritable = |error: parquet::errors::ParquetError| OfflineError::Write {
        path: PathBuf::from("rows that are pushed"),
        reason: error.to_string(),
    };
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(unwritable)?;
    writer.write(batch).map_err(unwritable)?;
    writer.close().map_err(unwritable)?;
    Ok(bytes.into())
}

/// Writes all files, and then gives all of them their names.
async fn local(
    folder: PathBuf,
    files: Vec<(String, Bytes)>,
    name: String,
) -> Result<Vec<String>, OfflineError> {
    let write = move || {
        let mut staged = Vec::with_capacity(files.len());
        for (below, bytes) in &files {
            let folder = folder.join(below);
            made_folder(&folder)?;
            let out = folder.join(&name);
            staged.push(StagedFile::beside(&out, false)?.complete(bytes)?);
        }
        let mut named: Vec<PathBuf> = Vec::with_capacity(staged.len());
        for file in staged {
            match file.persist() {
                Ok(path) => named.push(path),
                Err(error) => {
                    for path in &named {
                        let _ = std::fs::remove_file(path);
                    }
                    return Err(error);
                }
            }
        }
        Ok(named
            .iter()
            .map(|path| path.display().to_string())
            .collect())
    };
    tokio::task::spawn_blocking(write).await?
}

async fn remote(
    store: &dyn ObjectStore,
    folder: &ObjectPath,
    url: &str,
    files: &[(String, Bytes)],
    name: &str,
) -> Result<Vec<String>, OfflineError> {
    let put = async |(below, bytes): &(String, Bytes)| {
        let parts = [folder.as_ref(), below, name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let key = parts.join("/");
        let file = match below.is_empty() {
            true => format!("{url}/{name}"),
            false => format!("{url}/{below}/{name}"),
        };
        let created = match ObjectPath::parse(&key) {
            Ok(key) => create(store, &key, bytes.clone()).await.map(|()| key),
            Err(error) => Err(error.into()),
        };
        match created {
            Ok(key) => Ok((key, file)),
            Err(Error::AlreadyExists { .. }) => Err(OfflineError::Exists { path: file.into() }),
            Err(error) => Err(failed(&file, &error)),
        }
    };
    let mut there: Vec<(ObjectPath, String)> = Vec::with_capacity(files.len());
    for some in files.chunks(PUTS) {
        let mut failure = None;
        for done in join_all(some.iter().map(&put)).await {
            match done {
                Ok(done) => there.push(done),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            for (key, _) in &there {
                let _ = store.delete(key).await;
            }
            return Err(error);
        }
    }
    Ok(there.into_iter().map(|(_, url)| url).collect())
}

/// Puts an object that is not there yet.
///
/// # Errors
/// There is another of that name; or the store refuses.
pub(crate) async fn create(
    store: &dyn ObjectStore,
    key: &ObjectPath,
    bytes: Bytes,
) -> Result<(), Error> {
    let length = bytes.len() as u64;
    let payload = PutPayload::from(bytes);
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(key, payload.clone(), options).await {
        Ok(_) => Ok(()),
        // The name is random; a store without conditional puts does as well.
        Err(Error::NotImplemented { .. }) => store.put(key, payload).await.map(drop),
        // An answer was lost and the put repeated: what is there is what was put.
        Err(error @ Error::AlreadyExists { .. }) => match store.head(key).await {
            Ok(there) if there.size == length && is_equal(store, key, &payload).await => Ok(()),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn is_equal(store: &dyn ObjectStore, key: &ObjectPath, payload: &PutPayload) -> bool {
    let there = match store.get(key).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    there.is_ok_and(|there| there == Bytes::from(payload.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_the_same() {
        let names: std::collections::BTreeSet<String> =
            (0..10_000).map(|_| unique("pushed", 0)).collect();
        assert_eq!(names.len(), 10_000);
        assert!(
            names
                .iter()
                .all(|name| name.starts_with("pushed-19700101T000000Z-"))
        );
    }
}
