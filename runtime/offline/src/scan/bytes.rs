//! The bytes of a file, wherever it lies, as the Parquet reader asks for them: page by page.
//!
//! A reader holds one page of each column, never a row group, so memory does not depend on how
//! large the row groups of somebody's files are. A local file is read at a position; an object is
//! fetched in windows, each of a column chunk or of [`WINDOW`] bytes of it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use crate::error::OfflineError;
use crate::files::SourceFile;

/// How much of a column chunk of an object is fetched at once: a request costs about as long as
/// these bytes take.
const WINDOW: u64 = 8 << 20;

/// How many windows of an object are fetched at once.
const REQUESTS: usize = 16;

/// A file opened for one reader.
#[derive(Clone)]
pub(crate) struct FileBytes(Arc<Inner>);

struct Inner {
    path: PathBuf,
    length: u64,
    origin: Origin,
    /// How many bytes were read.
    read: Arc<AtomicU64>,
}

enum Origin {
    Local(File),
    Remote(Box<Remote>),
}

struct Remote {
    store: Arc<dyn ObjectStore>,
    file: SourceFile,
    handle: Handle,
    /// Where the column chunks that are read lie.
    chunks: Vec<Range<u64>>,
    /// The windows that were fetched, at most one of each column chunk.
    windows: Mutex<Vec<(u64, Bytes)>>,
}

impl FileBytes {
    /// Opens `file`, whose size and times were taken before; to be called on a thread that may
    /// block. `read` counts bytes.
    ///
    /// # Errors
    /// The file is gone, cannot be read, or is another than before.
    pub(crate) fn open(
        file: &SourceFile,
        handle: &Handle,
        read: Arc<AtomicU64>,
    ) -> Result<Self, OfflineError> {
        let origin = match &file.store {
            None => Origin::Local(open_unchanged(file)?),
            Some(store) => Origin::Remote(Box::new(Remote {
                store: Arc::clone(store),
                file: file.clone(),
                handle: handle.clone(),
                chunks: Vec::new(),
                windows: Mutex::default(),
            })),
        };
        Ok(Self(Arc::new(Inner {
            path: file.path.clone(),
            length: file.meta.size,
            origin,
            read,
        })))
    }

    /// The same file for the columns `leaves` of `row_group`; of an object the beginnings of their
    /// chunks are fetched now, all at once.
    ///
    /// # Errors
    /// The object cannot be read, or is another than before.
    pub(crate) fn of_row_group(
        self,
        row_group: &RowGroupMetaData,
        leaves: impl Iterator<Item = usize>,
    ) -> Result<Self, OfflineError> {
        let Origin::Remote(remote) = &self.0.origin else {
            return Ok(self);
        };
        let chunks: Vec<Range<u64>> = leaves
            .map(|leaf| {
                let (start, length) = row_group.column(leaf).byte_range();
                start..start.saturating_add(length)
            })
            .collect();
        let first = chunks
            .iter()
            .map(|chunk| chunk.start..chunk.end.min(chunk.start.saturating_add(WINDOW)))
            .collect();
        let windows = remote
            .handle
            .block_on(fetch_all(&remote.store, &remote.file, first))?;
        let bytes: usize = windows.iter().map(|(_, window)| window.len()).sum();
        self.0.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(Self(Arc::new(Inner {
            path: self.0.path.clone(),
            length: self.0.length,
            read: Arc::clone(&self.0.read),
            origin: Origin::Remote(Box::new(Remote {
                store: Arc::clone(&remote.store),
                file: remote.file.clone(),
                handle: remote.handle.clone(),
                chunks,
                windows: Mutex::new(windows),
            })),
        })))
    }

    /// The file, as messages name it.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// `length` bytes from `start` on; fewer at the end of the file and, of an object, where a
    /// `partial` answer saves a request.
    fn bytes(&self, start: u64, length: u64, partial: bool) -> io::Result<Bytes> {
        match &self.0.origin {
            Origin::Local(file) => {
                let end = start.saturating_add(length).min(self.0.length);
                let mut buffer = vec![0; end.saturating_sub(start) as usize];
                read_exact_at(file, &mut buffer, start)?;
                self.0
                    .read
                    .fetch_add(buffer.len() as u64, Ordering::Relaxed);
                Ok(buffer.into())
            }
            Origin::Remote(remote) => remote.bytes(start, length, partial, &self.0.read),
        }
    }
}

impl Remote {
    fn bytes(&self, start: u64, length: u64, partial: bool, read: &AtomicU64) -> io::Result<Bytes> {
        let within = |(first, window): &(u64, Bytes)| {
            let from = usize::try_from(start.checked_sub(*first)?).ok()?;
            let there = window.len().checked_sub(from).filter(|&there| there > 0)?;
            let length = length as usize;
            (partial || there >= length).then(|| window.slice(from..from + length.min(there)))
        };
        {
            let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bytes) = windows.iter().find_map(within) {
                return Ok(bytes);
            }
        }
        let chunk = self.chunks.iter().find(|chunk| chunk.contains(&start));
        let end = start.saturating_add(length).min(self.file.meta.size);
        let window = match chunk {
            Some(chunk) => start..chunk.end.min(start.saturating_add(WINDOW)).max(end),
            None => start..end,
        };
        let bytes = self
            .handle
            .block_on(fetch(&self.store, &self.file, window.clone()))
            .map_err(io::Error::other)?;
        read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let wanted = bytes.slice(..bytes.len().min(end.saturating_sub(start) as usize));
        if let Some(chunk) = chunk {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            windows.retain(|(start, _)| !chunk.contains(start));
            windows.push((start, bytes));
        }
        Ok(wanted)
    }
}

/// Opens a local file, if it is the one that was listed.
fn open_unchanged(file: &SourceFile) -> Result<File, OfflineError> {
    let io = |error| OfflineError::Io {
        action: "cannot read",
        path: file.path.clone(),
        error,
    };
    let opened = File::open(&file.path).map_err(io)?;
    let metadata = opened.metadata().map_err(io)?;
    let modified = metadata.modified().map_err(io)?;
    if metadata.len() != file.meta.size || SystemTime::from(file.meta.last_modified) != modified {
        return Err(OfflineError::ChangedFile {
            file: file.path.clone(),
        });
    }
    Ok(opened)
}

/// Says whether files are still those that were listed; blocks.
///
/// # Errors
/// A file is gone, cannot be read, or is another; the error is that of the first.
pub(crate) fn check_unchanged<'a>(
    files: impl Iterator<Item = &'a SourceFile>,
    handle: &Handle,
) -> Result<(), OfflineError> {
    let mut objects = Vec::new();
    for file in files {
        match &file.store {
            None => drop(open_unchanged(file)?),
            // Each of its bytes was fetched on the condition that the object has this tag.
            Some(_) if file.meta.e_tag.is_some() => {}
            Some(store) => objects.push((store, file)),
        }
    }
    handle.block_on(
        futures::stream::iter(objects)
            .map(|(store, file)| async move {
                let head = store.head(&file.meta.location).await;
                let head = head.map_err(|error| of_store(file, error))?;
                // A listing may tell the time more exactly than what comes with the object.
                let seconds = |meta: &ObjectMeta| meta.last_modified.timestamp();
                if head.size == file.meta.size && seconds(&head) == seconds(&file.meta) {
                    Ok(())
                } else {
                    Err(OfflineError::ChangedFile {
                        file: file.path.clone(),
                    })
                }
            })
            .buffered(REQUESTS)
            .try_collect(),
    )
}

async fn fetch_all(
    store: &Arc<dyn ObjectStore>,
    file: &SourceFile,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<(u64, Bytes)>, OfflineError> {
    futures::stream::iter(ranges)
        .map(|range| async move {
            let start = range.start;
            fetch(store, file, range).await.map(|bytes| (start, bytes))
        })
        .buffered(REQUESTS)
        .try_collect()
        .await
}

/// Fetches bytes of an object, if it is the one that was listed.
async fn fetch(
    store: &Arc<dyn ObjectStore>,
    file: &SourceFile,
    range: Range<u64>,
) -> Result<Bytes, OfflineError> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let options = GetOptions {
        range: Some(GetRange::Bounded(range)),
        if_match: file.meta.e_tag.as_deref().map(quoted),
        ..GetOptions::default()
    };
    let bytes = async {
        let result = store.get_opts(&file.meta.location, options).await?;
        result.bytes().await
    };
    bytes.await.map_err(|error| of_store(file, error))
}

/// The tag as a header has it: a listing of Azure gives it without quotes.
fn quoted(tag: &str) -> String {
    if tag.ends_with('"') {
        tag.to_owned()
    } else {
        format!("\"{tag}\"")
    }
}

fn of_store(file: &SourceFile, error: object_store::Error) -> OfflineError {
    match error {
        object_store::Error::Precondition { .. } => OfflineError::ChangedFile {
            file: file.path.clone(),
        },
        error => OfflineError::UnreadableFile {
            file: file.path.clone(),
            reason: error.to_string(),
        },
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

#[cfg(not(unix))]
fn read_exact_at(file: &File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(buffer)
}

impl Length for FileBytes {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for FileBytes {
    type T = BufReader<Position>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        // The reader takes a page's header, of some tens of bytes, from it, and no more.
        Ok(BufReader::with_capacity(
            512,
            Position {
                file: self.clone(),
                at: start,
            },
        ))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.bytes(start, length as u64, false).map_err(external)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!(
                "the file ends at byte {}, and {length} bytes from {start} on are wanted",
                self.0.length
            )));
        }
        Ok(bytes)
    }
}

fn external(error: io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// Reads on from a position in a file.
pub(crate) struct Position {
    file: FileBytes,
    at: u64,
}

impl Read for Position {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.0.length.saturating_sub(self.at);
        let length = left.min(buffer.len() as u64);
        let bytes = self.file.bytes(self.at, length, true)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}
