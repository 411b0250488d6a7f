//! An LMDB environment, opened once in a process.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::error::OnlineError;

/// The address space of a store, of which only what is used takes memory or disk.
///
/// It is the same in every process, and larger than any disk that holds a store, so that no map
/// ever has to grow: growing one needs every transaction of the process to end, and a process that
/// has not grown its own cannot read what another wrote beyond it.
const MAP_SIZE: usize = if cfg!(target_pointer_width = "64") {
    (1_u64 << 40) as usize
} else {
    1 << 30
};

/// Where address space is limited (`ulimit -v`), the least that is tried.
const LEAST_MAP_SIZE: usize = 1 << 30;

/// How many transactions may read at once, in all processes together. LMDB's own default, 126, is
/// less than the threads that serve requests in one process.
const READERS: u32 = 1024;

/// How long to wait until a store that was just closed in this process is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// EIO, which LMDB also returns for a write that was cut short.
const INPUT_OUTPUT_ERROR: i32 = 5;

/// The environments that are open in this process, by their real paths.
///
/// LMDB forbids to open one twice in a process: closing one of them would drop the file locks of
/// the other.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Environment>>>> = Mutex::new(None);

/// An open LMDB environment and its one database.
pub(crate) struct Environment {
    env: Env<WithoutTls>,
    database: Database<'static, Bytes, Bytes>,
    /// Held while this process writes: LMDB lets one transaction write at a time, and threads that
    /// wait for it inside LMDB would fill the pool of blocking threads.
    writer: Arc<AsyncMutex<()>>,
    address: String,
    #[cfg(unix)]
    file: FileId,
}

/// Which file a path led to.
#[cfg(unix)]
#[derive(PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

#[cfg(unix)]
impl FileId {
    fn of(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(folder.join("data.mdb"))?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Environment {
    /// Opens the environment in folder `path`, which is made if there is none; the same one for
    /// everybody in this process.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, OnlineError> {
        let address = path.display().to_string();
        let failed = |error: io::Error| failure(&address, heed::Error::Io(error));
        std::fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        open.retain(|_, environment| environment.strong_count() > 0);
        if let Some(environment) = open.get(&path).and_then(Weak::upgrade) {
            environment.check()?;
            return Ok(environment);
        }
        let environment = Arc::new(
            Self::open_at(&path, address.clone()).map_err(|error| failure(&address, error))?,
        );
        open.insert(path, Arc::downgrade(&environment));
        Ok(environment)
    }

    fn open_at(path: &Path, address: String) -> heed::Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_readers(READERS);
        let mut size = MAP_SIZE;
        let env = loop {
            options.map_size(size);
            // SAFETY: the map is only unsound when its file is changed by others than LMDB. The
            // folder is the store's own; LMDB's locks are on (no flag of it is set); within this
            // process the environment is opened once (`OPEN`, and heed refuses a second time); a
            // folder that was deleted keeps its file for as long as it is mapped.
            #[expect(
                unsafe_code,
                reason = "heed offers no other way to open an environment"
            )]
            let opened = unsafe { options.open(path) };
            match opened {
                Err(heed::Error::Io(error))
                    if error.kind() == io::ErrorKind::OutOfMemory && size > LEAST_MAP_SIZE =>
                {
                    size /= 4;
                }
                // Its last user let go of it, and another thread is just closing it.
                Err(heed::Error::EnvAlreadyOpened) => match heed::env_closing_event(path) {
                    Some(closing) if !closing.wait_timeout(CLOSING) => {
                        return Err(heed::Error::EnvAlreadyOpened);
                    }
                    _ => {}
                },
                opened => break opened?,
            }
        };
        env.clear_stale_readers()?;
        let txn = env.read_txn()?;
        let database = env.open_databases_and_commit(txn, |opener, txn| {
            let database = opener.open_database::<Bytes, Bytes>(txn, None)?;
            Ok::<_, heed::Error>(match database {
                Some(database) => CommitOrAbort::Commit(database),
                None => CommitOrAbort::Abort(()),
            })
        })?;
        let database = match database {
            CommitOrAbort::Commit(database) => database,
            CommitOrAbort::Abort(()) => return Err(heed::Error::Mdb(MdbError::Invalid)),
        };
        Ok(Self {
            env,
            database,
            writer: Arc::new(AsyncMutex::new(())),
            address,
            #[cfg(unix)]
            file: FileId::of(path)?,
        })
    }

    /// The folder, as it was named.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) const fn database(&self) -> &Database<'static, Bytes, Bytes> {
        &self.database
    }

    /// The turn of this process's next writer.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.writer).lock_owned().await
    }

    /// A transaction that reads the store as it is now. It is to be short: pages that are replaced
    /// meanwhile are not used again before it ends.
    pub(crate) fn read(&self) -> Result<RoTxn<'_, WithoutTls>, OnlineError> {
        self.check()?;
        let txn = match self.env.read_txn() {
            Err(heed::Error::Mdb(MdbError::ReadersFull)) => {
                self.clear_stale_readers()?;
                self.env.read_txn()
            }
            txn => txn,
        };
        txn.map_err(|error| self.failed(error))
    }

    /// A transaction that writes; it waits for those of other processes.
    pub(crate) fn write(&self) -> Result<RwTxn<'_>, OnlineError> {
        self.check()?;
        self.env.write_txn().map_err(|error| self.failed(error))
    }

    /// Gives up for processes that were killed while they read, so that what they held is used
    /// again.
    pub(crate) fn clear_stale_readers(&self) -> Result<(), OnlineError> {
        match self.env.clear_stale_readers() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(crate) fn failed(&self, error: heed::Error) -> OnlineError {
        failure(&self.address, error)
    }

    /// Refuses to go on with a store whose folder was deleted or replaced: what this process still
    /// holds of it is not what others read and write.
    #[cfg(unix)]
    fn check(&self) -> Result<(), OnlineError> {
        match FileId::of(self.env.path()) {
            Ok(file) if file == self.file => Ok(()),
            _ => Err(OnlineError::Unavailable {
                store: self.address.clone(),
                reason: "its folder was deleted or replaced while it was open; start again"
                    .to_owned(),
            }),
        }
    }

    #[cfg(not(unix))]
    fn check(&self) -> Result<(), OnlineError> {
        Ok(())
    }
}

fn failure(address: &str, error: heed::Error) -> OnlineError {
    let store = address.to_owned();
    match error {
        heed::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ) =>
        {
            OnlineError::Full {
                store,
                reason: error.to_string(),
            }
        }
        heed::Error::Io(error) if error.raw_os_error() == Some(INPUT_OUTPUT_ERROR) => {
            OnlineError::Full {
                store,
                reason: "a write was cut short; its disk is full, or fails".to_owned(),
            }
        }
        heed::Error::Mdb(MdbError::MapFull | MdbError::MapResized) => OnlineError::Full {
            store,
            reason: "it is larger than the address space that this process may use; raise the \
                     limit (ulimit -v) and start again"
                .to_owned(),
        },
        heed::Error::Mdb(MdbError::ReadersFull) => OnlineError::Unavailable {
            store,
            reason: format!("more than {READERS} transactions read it at once"),
        },
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch) => OnlineError::Refused {
            store,
            reason: "what lies there is no LMDB store of this version; give another folder, or \
                     remove it and materialize again"
                .to_owned(),
        },
        heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound) => OnlineError::Refused {
            store,
            reason: "its file is damaged; remove the folder and materialize again".to_owned(),
        },
        error => OnlineError::Refused {
            store,
            reason: error.to_string(),
        },
    }
}
