//! Files that another file replaces: how small files become large ones without a moment in which a
//! row is seen twice, or not at all.
//!
//! No file system and no object store replaces several files at once. So the new file says in its
//! own metadata which files it replaces, and whoever lists the folder leaves these out:
//!
//! ```text
//! a b c            the new file is written under a hidden name: nobody sees it
//! a b c N(a b c)   it gets its name at once: from now on N counts, and a, b, c do not
//!   b   N(a b c)   they are deleted, in any order, whenever
//!       N(a b c)
//! ```
//!
//! A file is known by its name and by what tells it from another of that name: an object by its
//! e_tag, a file by size and time of modification. So a file that takes an old name later counts,
//! and rows are never lost to a list. A replaced file that was copied elsewhere counts there, too:
//! its rows are then there twice, which decides no result, since equal rows are one winner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::OfflineError;
use crate::files::SourceFile;
use crate::schema::FileSchema;

/// The key in a Parquet file's metadata under which it names the files that it replaces, as JSON.
pub(crate) const REPLACES: &str = "unskew.replaces";

/// A file that is replaced by one in the same folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// Its name in the folder.
    pub(crate) file: String,
    size: u64,
    /// In microseconds since 1970.
    modified: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e_tag: Option<String>,
}

impl Replaced {
    pub(crate) fn of(file: &SourceFile) -> Self {
        Self {
            file: name(&file.path),
            size: file.meta.size,
            modified: file.meta.last_modified.timestamp_micros(),
            e_tag: file.meta.e_tag.clone(),
        }
    }

    /// Whether it is `file`, which lies in the same folder.
    pub(crate) fn is(&self, file: &SourceFile) -> bool {
        let is_same = || match (&self.e_tag, &file.meta.e_tag) {
            (Some(one), Some(other)) => one.trim_matches('"') == other.trim_matches('"'),
            _ => self.modified == file.meta.last_modified.timestamp_micros(),
        };
        self.size == file.meta.size && is_same() && self.file == name(&file.path)
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The files that `file` says it replaces, in its own folder.
///
/// # Errors
/// What it says cannot be read.
pub(crate) fn replaces(file: &FileSchema) -> Result<Vec<Replaced>, OfflineError> {
    let metadata = file.metadata.metadata().file_metadata();
    let entries = metadata.key_value_metadata().into_iter().flatten();
    let mut named = entries.filter(|entry| entry.key == REPLACES);
    let Some(json) = named.next().and_then(|entry| entry.value.as_deref()) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(json).map_err(|error| OfflineError::UnreadableFile {
        file: file.file.path.clone(),
        reason: format!("its list of the files that it replaces is damaged: {error}"),
    })
}

/// The files that count, and those that others replace.
pub(crate) struct Told {
    pub(crate) counting: Vec<FileSchema>,
    /// Each with the files that say so: at least one, and more where that was replaced itself.
    pub(crate) replaced: Vec<(FileSchema, Vec<SourceFile>)>,
}

/// Tells files that count from those that another one of the folder replaces.
///
/// # Errors
/// A list cannot be read.
pub(crate) fn told(files: Vec<FileSchema>) -> Result<Told, OfflineError> {
    // By folder and name: there may be thousands of files, and thousands in a list.
    let mut lists: BTreeMap<Place, Vec<(Replaced, usize)>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        for replaced in replaces(file)? {
            let place = (folder(&file.file), replaced.file.clone());
            lists.entry(place).or_default().push((replaced, index));
        }
    }
    let by: Vec<Vec<SourceFile>> = files
        .iter()
        .map(|FileSchema { file, .. }| {
            let lists = lists.get(&place(file)).into_iter().flatten();
            let lists = lists.filter(|(replaced, _)| replaced.is(file));
            lists.map(|(_, index)| files[*index].file.clone()).collect()
        })
        .collect();
    let mut told = Told {
        counting: Vec::with_capacity(files.len()),
        replaced: Vec::new(),
    };
    for (file, by) in files.into_iter().zip(by) {
        match by.is_empty() {
            true => told.counting.push(file),
            false => told.replaced.push((file, by)),
        }
    }
    Ok(told)
}

/// A folder, and a name in it.
pub(crate) type Place = (PathBuf, String);

/// Where a file lies.
pub(crate) fn place(file: &SourceFile) -> Place {
    (folder(file), name(&file.path))
}

fn folder(file: &SourceFile) -> PathBuf {
    file.path.parent().unwrap_or(Path::new("")).to_owned()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::Schema;
    use bytes::Bytes;
    use object_store::ObjectMeta;
    use object_store::path::Path as ObjectPath;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ArrowReaderMetadata;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;

    fn file(path: &str, modified: i64) -> SourceFile {
        SourceFile {
            path: PathBuf::from(path),
            store: None,
            meta: ObjectMeta {
                location: ObjectPath::from(path),
                last_modified: std::time::UNIX_EPOCH.into(),
                size: modified.cast_unsigned(),
                e_tag: None,
                version: None,
            },
            events: None,
            partition: Vec::new(),
        }
    }

    /// The footer of a file with this list.
    fn footer(list: &[Replaced]) -> ArrowReaderMetadata {
        let json = serde_json::to_string(list).unwrap();
        let entry = KeyValue::new(REPLACES.to_owned(), json);
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![entry]));
        let column = std::sync::Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("v", column as _)]).unwrap();
        let mut bytes = Vec::new();
        let properties = Some(properties.build());
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), properties).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        ArrowReaderMetadata::load(&Bytes::from(bytes), Default::default()).unwrap()
    }

    fn with(file: SourceFile, metadata: &ArrowReaderMetadata) -> FileSchema {
        FileSchema {
            file,
            schema: std::sync::Arc::new(Schema::empty()),
            rows: 1,
            metadata: metadata.clone(),
        }
    }

    /// Files of a few names in two folders, and lists of a few of them: as they are, of another
    /// size, and of the other folder.
    #[test]
    fn a_file_counts_unless_one_of_its_folder_lists_it_as_it_is() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let path = |random: &mut fastrand::Rng| {
                format!("d/{}/{}.parquet", random.u8(0..2), random.u8(0..6))
            };
            let mut files: BTreeMap<String, FileSchema> = BTreeMap::new();
            for _ in 0..random.usize(0..10) {
                let list: Vec<Replaced> = (0..random.usize(0..4))
                    .map(|_| Replaced::of(&file(&path(&mut random), random.i64(0..2))))
                    .collect();
                let at = path(&mut random);
                let of = file(&at, random.i64(0..2));
                files.insert(at, with(of, &footer(&list)));
            }
            let files: Vec<FileSchema> = files.into_values().collect();
            let by = |file: &SourceFile| -> Vec<PathBuf> {
                let others = files.iter().filter(|other| {
                    let lists = replaces(other).unwrap();
                    let lists = lists.iter().filter(|replaced| replaced.is(file));
                    lists.count() > 0 && other.file.path.parent() == file.path.parent()
                });
                others.map(|other| other.file.path.clone()).collect()
            };
            let told = told(files.clone()).unwrap();
            assert_eq!(told.counting.len() + told.replaced.len(), files.len());
            for file in &told.counting {
                assert!(by(&file.file).is_empty(), "{:?}", file.file.path);
            }
            for (file, replaced_by) in &told.replaced {
                let mut told: Vec<PathBuf> =
                    replaced_by.iter().map(|file| file.path.clone()).collect();
                told.dedup();
                assert_eq!(told, by(&file.file), "{:?}", file.file.path);
            }
        }
    }

    /// To compare each of them with each would take minutes.
    #[test]
    fn many_files_and_a_long_list_are_told_at_once() {
        const MANY: i64 = 20_000;
        let path = |what: &str, number: i64| format!("d/{what}-{number}.parquet");
        let list: Vec<Replaced> = (0..MANY)
            .map(|number| Replaced::of(&file(&path("old", number), 1)))
            .collect();
        let none = footer(&[]);
        let mut files = vec![with(file("d/merged.parquet", 1), &footer(&list))];
        for number in 0..MANY {
            files.push(with(file(&path("new", number), 1), &none));
        }
        files.push(with(file(&path("old", 7), 1), &none));
        let told = told(files).unwrap();
        assert_eq!((told.counting.len(), told.replaced.len()), (20_001, 1));
    }
}
