//! Rows out of Redis into a file, and back by the conditional script: what bulk writes can reach.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Script};

use crate::entries::{self, Entry, Writer};

const SCAN: usize = 1_000;

/// Where rows are read.
#[derive(Args)]
pub struct Dump {
    /// The server
    #[arg(long)]
    redis: String,
    /// Which keys
    #[arg(long)]
    pattern: String,
    /// The file to write
    out: PathBuf,
}

/// Where rows are written.
#[derive(Args)]
pub struct Put {
    /// The server
    #[arg(long)]
    redis: String,
    /// The script: KEYS are the rows' keys, ARGV their values, each followed by when it expires
    #[arg(long)]
    script: PathBuf,
    /// Rows in a call of the script
    #[arg(long, default_value_t = 128)]
    rows: usize,
    /// Calls on their way at once
    #[arg(long, default_value_t = 8)]
    calls: usize,
    /// The file with the rows
    file: PathBuf,
}

/// Writes all rows that match into a file, in the order of their keys.
///
/// Redis tells them in the order of its own table, and takes them back in that order a quarter
/// faster than in any that a client could have known.
///
/// # Errors
/// Redis or the file fails.
pub fn dump(arguments: &Dump) -> anyhow::Result<()> {
    let mut rows = runtime()?.block_on(async {
        let mut connection = connect(&arguments.redis).await?;
        let mut rows = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&arguments.pattern)
                .arg("COUNT")
                .arg(SCAN)
                .query_async(&mut connection)
                .await?;
            let mut pipeline = Pipeline::new();
            for key in &keys {
                pipeline.cmd("GET").arg(key).cmd("PEXPIRETIME").arg(key);
            }
            let values: Vec<(Vec<u8>, i64)> = match keys.len() {
                0 => Vec::new(),
                _ => pairs(pipeline.query_async(&mut connection).await?)?,
            };
            rows.extend(keys.into_iter().zip(values));
            if next == 0 {
                return anyhow::Ok(rows);
            }
            cursor = next;
        }
    })?;
    // It may tell some twice.
    rows.sort_unstable();
    rows.dedup();
    let mut writer = Writer::create(&arguments.out)?;
    for (key, (value, expires)) in &rows {
        writer.push(Entry {
            key,
            value,
            expires: (*expires >= 0).then_some(*expires),
        })?;
    }
    writer.finish()?;
    let count = rows.len();
    println!(r#"{{"rows":{count}}}"#);
    Ok(())
}

/// Values and times, which come turn by turn.
fn pairs(answers: Vec<redis::Value>) -> anyhow::Result<Vec<(Vec<u8>, i64)>> {
    let mut answers = answers.into_iter();
    let mut pairs = Vec::new();
    while let (Some(value), Some(time)) = (answers.next(), answers.next()) {
        pairs.push((
            redis::from_redis_value(value)?,
            redis::from_redis_value(time)?,
        ));
    }
    Ok(pairs)
}

/// Writes all rows of a file, as fast as one connection lets it.
///
/// # Errors
/// Redis or the file fails.
pub fn put(arguments: &Put) -> anyhow::Result<()> {
    let bytes = std::fs::read(&arguments.file)?;
    let entries = entries::read(&bytes)?;
    let script = Script::new(&std::fs::read_to_string(&arguments.script)?);
    runtime()?.block_on(async {
        let connection = connect(&arguments.redis).await?;
        let began = Instant::now();
        let calls = entries.chunks(arguments.rows.max(1)).map(|rows| {
            let (script, mut connection) = (&script, connection.clone());
            async move {
                let mut call = script.prepare_invoke();
                for row in rows {
                    call.key(row.key).arg(row.value);
                    match row.expires {
                        Some(milliseconds) => call.arg(milliseconds),
                        None => call.arg(""),
                    };
                }
                call.invoke_async::<u64>(&mut connection).await
            }
        });
        let written: u64 = stream::iter(calls)
            .buffer_unordered(arguments.calls.max(1))
            .try_fold(0, |sum, written| async move { Ok(sum + written) })
            .await?;
        let seconds = began.elapsed().as_secs_f64();
        let rows = entries.len();
        println!(r#"{{"rows":{rows},"written":{written},"seconds":{seconds}}}"#);
        Ok(())
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    Ok(client.get_multiplexed_async_connection().await?)
}
