//! usage: unskew-load COMMAND …
//!
//! A load generator that measures from when a request was due, and the least that a server or a
//! bulk load can do, to measure others beside it. Each command prints one line of JSON.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod bare;
mod connection;
mod drive;
mod embedded;
mod entries;
mod outcome;
mod redis_rows;
mod table;
mod timeline;
mod workload;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Drives servers, and is the least that one can be")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends requests, and says how long each took from when it was due
    Drive(drive::Drive),
    /// Serves a fixed answer after one MGET
    Bare(bare::Bare),
    /// Writes the rows of a Redis server into a file
    DumpRedis(redis_rows::Dump),
    /// Writes the rows of a file into a Redis server, by a script
    PutRedis(redis_rows::Put),
    /// Writes the pairs of an LMDB environment into a file
    DumpLmdb(embedded::Dump),
    /// Writes the pairs of a file into a new LMDB environment
    PutLmdb(embedded::Put),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Drive(arguments) => drive::run(&arguments),
        Command::Bare(arguments) => bare::run(arguments),
        Command::DumpRedis(arguments) => redis_rows::dump(&arguments),
        Command::PutRedis(arguments) => redis_rows::put(&arguments),
        Command::DumpLmdb(arguments) => embedded::dump(&arguments),
        Command::PutLmdb(arguments) => embedded::put(&arguments),
    }
}
