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
            let mut is_over = self.ending.load(Relaxed);
            is_over |= self.drain(records);
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
            thread::park_timeout(TICK);
        }
    }

    /// Writes what is in the queue; whether nothing can come any more.
    fn drain(&mut self, records: &Receiver<Record>) -> bool {
        let mut groups: BTreeMap<PathBuf, Vec<Record>> = BTreeMap::new();
        let mut rows = 0;
        let is_over = loop {
            match records.try_recv() {
                Ok(record) => {
                    rows += record.rows();
                    let folder = record.logged.folder.clone();
                    groups.entry(folder).or_default().push(record);
                    // What waits is let go of bit by bit, also where it never ends.
                    if rows >= CHUNK {
                        self.write_all(std::mem::take(&mut groups));
                        rows = 0;
                    }
                }
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        self.write_all(groups);
        is_over
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
            None => self.open(&first.logged),
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
