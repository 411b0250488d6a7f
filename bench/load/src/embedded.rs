//! Pairs out of an LMDB environment into a file, and back into a new one: what bulk writes can
//! reach.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions};

use crate::entries::{self, Entry, Writer};

/// As the embedded store has it.
const MAP_SIZE: usize = 1 << 40;

/// Where pairs are read.
#[derive(Args)]
pub struct Dump {
    /// The folder of the environment
    environment: PathBuf,
    /// The file to write
    out: PathBuf,
}

/// Where pairs are written.
#[derive(Args)]
pub struct Put {
    /// Pairs in a transaction
    #[arg(long, default_value_t = 20_000)]
    rows: usize,
    /// The file with the pairs
    file: PathBuf,
    /// The folder of the environment, which is new
    environment: PathBuf,
}

/// Writes all pairs into a file, in the order of their keys.
///
/// # Errors
/// LMDB or the file fails.
pub fn dump(arguments: &Dump) -> anyhow::Result<()> {
    let env = open(&arguments.environment)?;
    let database = database(&env)?;
    let txn = env.read_txn()?;
    let mut writer = Writer::create(&arguments.out)?;
    let mut count = 0_u64;
    for pair in database.iter(&txn)? {
        let (key, value) = pair?;
        writer.push(Entry {
            key,
            value,
            expires: None,
        })?;
        count += 1;
    }
    writer.finish()?;
    println!(r#"{{"rows":{count}}}"#);
    Ok(())
}

/// Inserts all pairs of a file, in their order.
///
/// # Errors
/// LMDB or the file fails.
pub fn put(arguments: &Put) -> anyhow::Result<()> {
    let bytes = std::fs::read(&arguments.file)?;
    let entries = entries::read(&bytes)?;
    std::fs::create_dir_all(&arguments.environment)?;
    let began = Instant::now();
    let env = open(&arguments.environment)?;
    let database = database(&env)?;
    for entries in entries.chunks(arguments.rows.max(1)) {
        let mut txn = env.write_txn()?;
        for entry in entries {
            database.put(&mut txn, entry.key, entry.value)?;
        }
        txn.commit()?;
    }
    let (seconds, rows) = (began.elapsed().as_secs_f64(), entries.len());
    println!(r#"{{"rows":{rows},"seconds":{seconds}}}"#);
    Ok(())
}

fn open(folder: &Path) -> anyhow::Result<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_SIZE);
    // SAFETY: the map is only unsound when its file is changed by others than LMDB. The folder is
    // this benchmark's own, and this process opens one environment, once.
    #[expect(
        unsafe_code,
        reason = "heed offers no other way to open an environment"
    )]
    let env = unsafe { options.open(folder) };
    env.with_context(|| folder.display().to_string())
}

/// The one database of the environment.
fn database(env: &Env) -> anyhow::Result<Database<'_, Bytes, Bytes>> {
    let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        let database = opener.create_database::<Bytes, Bytes>(txn, None)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
    })?;
    match made {
        CommitOrAbort::Commit(database) => Ok(database),
        CommitOrAbort::Abort(()) => bail!("the environment has no database"),
    }
}
