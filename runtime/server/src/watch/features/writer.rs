//! The thread that writes the log, and its files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tempfile::TempPath;
use unskew_core::time;

use super::FeatureLogSettings;
use super::record::{Logged, Record};
use crate::clock;
use crate::watch::metrics::LogCounters;

/// How often the queue is looked into. Nobody wakes the thread, so a request never does so.
const TICK: Duration = Duration::from_millis(50);

/// After a failure nothing is tried for so long; what comes meanwhile is lost.
const PAUSE: Duration = Duration::from_secs(1);

/// Rows that are written together at most.
const CHUNK: usize = 8_192;

/// A row group is written out when it takes so many bytes of memory.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Files that are open at once. There is a folder for each plan, and each list of features is one: a
/// client may ask for as many as it likes.
const OPEN: usize = 64;

pub(super) struct Writer {
    settings: FeatureLogSettings,
    counters: LogCounters,
    waiting: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    files: BTreeMap<PathBuf, Open>,
    /// When writing failed last, until it succeeds again.
    failed: Option<Instant>,
}

/// A file that is being written. Dropped, it is gone.
struct Open {
    writer: ArrowWriter<File>,
    temporary: TempPath,
    target: PathBuf,
    rows: usize,
    since: Instant,
}

/// What is left in the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Perhaps more.
    More,
    Nothing,
    /// Nothing, and nothing can come any more.
    Over,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Parquet(#[from] ParquetError),
    #[error("{0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl Writer {
    pub(super) fn new(
        settings: FeatureLogSettings,
        counters: LogCounters,
        waiting: Arc<AtomicUsize>,
        ending: Arc<AtomicBool>,
    ) -> Self {
        Self {
            settings,
            counters,
            waiting,
            ending,
            files: BTreeMap::new(),
            failed: None,
        }
    }

    /// Writes what comes until the log is closed.
    pub(super) fn run(mut self, records: &Receiver<Record>) {
        loop {
            // Asked before the queue: what was offered before the end is in it.
            let is_ending = self.ending.load(Relaxed);
            let left = self.drain(records);
            let is_over = match left {
                Left::More => false,
                Left::Nothing => is_ending,
                Left::Over => true,
            };
            let due: Vec<PathBuf> = self
                .files
                .iter()
                .filter(|(_, file)| is_over || self.is_due(file))
                .map(|(folder, _)| folder.clone())
                .collect();
            for folder in due {
                if let Some(file) = self.files.remove(&folder) {
                    self.complete(file);
                }
            }
            if is_over {
                return;
            }
            if left == Left::Nothing {
                thread::park_timeout(TICK);
            }
        }
    }

    /// Writes what is in the queue, so much of it at most that other files are looked at meanwhile.
    fn drain(&mut self, records: &Receiver<Record>) -> Left {
        let mut groups: BTreeMap<PathBuf, Vec<Record>> = BTreeMap::new();
        let mut rows = 0;
        let left = loop {
            match records.try_recv() {
                Ok(record) => {
                    rows += record.rows();
                    let folder = record.logged.folder.clone();
                    groups.entry(folder).or_default().push(record);
                    if rows >= CHUNK {
                        break Left::More;
                    }
                }
                Err(TryRecvError::Empty) => break Left::Nothing,
                Err(TryRecvError::Disconnected) => break Left::Over,
            }
        };
        self.write_all(groups);
        left
    }

    fn write_all(&mut self, groups: BTreeMap<PathBuf, Vec<Record>>) {
        for (folder, records) in groups {
            self.write(folder, &records);
            let bytes = records.iter().map(|record| record.bytes).sum();
            self.waiting.fetch_sub(bytes, Relaxed);
        }
    }

    /// Writes rows of one folder.
    fn write(&mut self, folder: PathBuf, records: &[Record]) {
        let Some(first) = records.first() else {
            return;
        };
        let rows: usize = records.iter().map(Record::rows).sum();
        if self.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            self.counters.failed.inc_by(rows as u64);
            return;
        }
        let file = match self.files.remove(&folder) {
            Some(file) => Ok(file),
            None => {
                self.make_room();
                self.open(&first.logged)
            }
        };
        let mut file = match file {
            Ok(file) => file,
            Err(error) => return self.fail(rows, &error),
        };
        match file.write(&first.logged, records) {
            Ok(()) => {
                file.rows += rows;
                if self.is_due(&file) {
                    self.complete(file);
                } else {
                    self.files.insert(folder, file);
                }
            }
            Err(error) => self.fail(file.rows + rows, &error),
        }
    }

    /// Completes the oldest file with what it has, if as many are open as may be.
    fn make_room(&mut self) {
        if self.files.len() < OPEN {
            return;
        }
        let oldest = self.files.iter().min_by_key(|(_, file)| file.since);
        let oldest = oldest.map(|(folder, _)| folder.clone());
        if let Some(file) = oldest.and_then(|oldest| self.files.remove(&oldest)) {
            self.complete(file);
        }
    }

    fn open(&self, logged: &Logged) -> Result<Open, WriteError> {
        let folder = self.settings.dir.join(&logged.folder);
        fs::create_dir_all(&folder)?;
        // The order of names is that of times.
        let begun: String = time::format(clock::now())
            .chars()
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        let name = format!("{begun}-{:016x}.parquet", fastrand::u64(..));
        let mut builder = tempfile::Builder::new();
        let hidden = format!(".{name}.");
        builder.prefix(&hidden).suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any other file of the user's, less what the umask takes away.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let (file, temporary) = builder.tempfile_in(&folder)?.into_parts();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(logged.metadata.clone()))
            .build();
        let schema = Arc::clone(&logged.schema);
        Ok(Open {
            writer: ArrowWriter::try_new(file, schema, Some(properties))?,
            temporary,
            target: folder.join(name),
            rows: 0,
            since: Instant::now(),
        })
    }

    fn is_due(&self, file: &Open) -> bool {
        let bytes = file.writer.bytes_written() + file.writer.in_progress_size();
        file.rows >= self.settings.rows_per_file
            || bytes >= self.settings.bytes_per_file
            || file.since.elapsed() >= self.settings.time_per_file
    }

    fn complete(&mut self, file: Open) {
        let rows = file.rows;
        match file.complete() {
            Ok(()) => {
                self.counters.written.inc_by(rows as u64);
                self.counters.files.inc();
                if self.failed.take().is_some() {
                    tracing::info!("the log of features can be written again");
                }
            }
            Err(error) => self.fail(rows, &error),
        }
    }

    /// Counts rows that are lost, and says so once until writing succeeds again.
    fn fail(&mut self, rows: usize, error: &WriteError) {
        self.counters.failed.inc_by(rows as u64);
        if self.failed.replace(Instant::now()).is_none() {
            tracing::warn!(
                folder = %self.settings.dir.display(),
                %error,
                "the log of features cannot be written, and its rows are lost until it can"
            );
        }
    }
}

impl Open {
    fn write(&mut self, logged: &Logged, records: &[Record]) -> Result<(), WriteError> {
        self.writer.write(&logged.batch(records)?)?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// Gives the complete file its name.
    fn complete(self) -> Result<(), WriteError> {
        let file = self.writer.into_inner()?;
        file.sync_all()?;
        let persisted = self.temporary.persist_noclobber(&self.target);
        persisted.map_err(|error| error.error)?;
        Ok(())
    }
}
