//! The command: arguments → a call of the feature store → a table or JSON.
//!
//! ```text
//! main ── run ──▶ match on the subcommand ──▶ commands::*::run ──▶ Outcome or error
//!   │                                              │
//!   │                                              ▼
//!   └── exit_code ◀── reported on stderr      Output: text or `--json` on stdout
//! ```
//!
//! With `--json`, stdout holds one line of JSON, the result, or nothing; warnings are a list
//! `warnings` of the result. An error is one line of
//! JSON on stderr: `{"error": {"message", "problems": [{"file", "line", "message"}]}}`.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod arguments;
mod clock;
mod commands;
mod document;
mod error;
mod guarding;
mod interrupt;
mod logging;
mod memory;
mod output;
mod progress;
mod repository;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, Command};
use crate::error::Usage;
use crate::interrupt::Interrupted;
use crate::output::{Output, StdoutError};

/// How a command ended that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// What was asked for is done.
    Done,
    /// The result, which was shown, is a bad one.
    Bad,
}

/// What one thread of a server allocates, another frees, and the system's allocator has them wait for
/// each other then.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit_code(&explain(&error)),
    };
    let output = Output::new(arguments.json);
    let outcome = run(arguments, &output);
    if let Err(error) = &outcome {
        error::report(error, output.is_json());
    }
    exit_code(&outcome)
}

/// Prints what clap has to say: help and the version, or what is wrong with the arguments.
fn explain(error: &clap::Error) -> anyhow::Result<Outcome> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print().map_err(StdoutError)?;
            return Ok(Outcome::Done);
        }
        _ => {}
    }
    // The arguments could not be read, so whether JSON is wanted is to be seen in them.
    let usage = anyhow::Error::new(Usage(error::of_clap(error)));
    if std::env::args_os().any(|argument| argument == "--json") {
        error::report(&usage, true);
    } else {
        error.print()?;
    }
    Err(usage)
}

fn run(arguments: Arguments, output: &Output) -> anyhow::Result<Outcome> {
    if let Some(folder) = &arguments.chdir {
        std::env::set_current_dir(folder).map_err(|error| {
            Usage(format!(
                "cannot change to the folder `{0}`: {error}",
                folder.display()
            ))
        })?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads could not be started")?;
    let is_long = arguments.command.is_long();
    let work = dispatch(arguments.command, *output);
    let outcome = if is_long {
        runtime.block_on(interrupt::until_interrupted(work))
    } else {
        runtime.block_on(work)
    };
    // Threads that cannot be stopped, such as one that reads standard input or a component of a
    // server that takes long, end with the process.
    runtime.shutdown_timeout(Duration::from_millis(700));
    outcome
}

async fn dispatch(command: Command, output: Output) -> anyhow::Result<Outcome> {
    let output = &output;
    match command {
        Command::Init(arguments) => commands::init::run(&arguments, output),
        Command::Plan => commands::apply::plan(output).await,
        Command::Apply => commands::apply::apply(output).await,
        Command::TrainingSet(arguments) => commands::training_set::run(arguments, output).await,
        Command::Materialize(arguments) => commands::materialize::range(arguments, output).await,
        Command::MaterializeIncremental(arguments) => {
            commands::materialize::incremental(arguments, output).await
        }
        Command::Push(arguments) => commands::push::run(arguments, output).await,
        Command::Delete(arguments) => commands::delete::run(arguments, output).await,
        Command::Compact(arguments) => commands::compact::run(arguments, output).await,
        Command::GetOnline(arguments) => commands::get_online::run(arguments, output).await,
        Command::Parity(arguments) => commands::parity::run(arguments, output).await,
        Command::Serve(arguments) => commands::serve::run(&arguments, output).await,
        Command::Token(arguments) => commands::token::run(arguments, output),
        Command::List(arguments) => commands::list::run(&arguments, output).await,
        Command::Describe(arguments) => commands::describe::run(&arguments, output).await,
        Command::Transform(arguments) => commands::transform::run(&arguments, output).await,
        Command::Teardown(arguments) => commands::teardown::run(&arguments, output).await,
        Command::Schema => commands::schema::run(output),
        Command::Version => commands::version::run(output),
    }
}

/// Gives out the exit codes: 0 done, 1 failed, 2 wrong usage, 128 + N ended by signal N.
fn exit_code(outcome: &anyhow::Result<Outcome>) -> ExitCode {
    ExitCode::from(match outcome {
        Ok(Outcome::Done) => 0,
        // Whoever reads the result has closed it (`unskew list | head`): nothing has failed.
        Err(error) if output::is_broken_pipe(error) => 0,
        Err(error) if error.is::<Usage>() => 2,
        Err(error) if let Some(interrupted) = error.downcast_ref::<Interrupted>() => {
            interrupted.exit_code()
        }
        Ok(Outcome::Bad) | Err(_) => 1,
    })
}
