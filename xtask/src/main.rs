//! Set-up, tests, checks and the demo: what README's commands call.
//!
//! `cargo xtask` compiles this crate before anything else, so it depends on next to nothing.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to its user"
)]

mod bench;
mod check;
mod demo;
mod fuzz;
mod guests;
mod http;
mod json;
mod process;
mod server;
mod setup;
mod steps;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup   installs what is missing: the wasm target, redis-server, an S3 server, cargo-nextest
  test    set-up, then all tests
  check   formatting, clippy, all tests, documentation, licences and advisories
  demo    a feature repository from nothing: apply, train, materialize, serve, check parity
  fuzz [stored|http] [--seconds N]
          looks for bytes and bodies that break something, 600 s each; keeps inputs in fuzz/corpus
  bench pit [--no-build] [--size small|medium|large] [--only CASE] [--runs N] [--engines A,B]
          the point-in-time join against DuckDB, Polars, pandas and Feast; writes bench/RESULTS.md
  bench transform [--no-build] [--size small|medium|large] [--runs N]
          what a component costs in the build of a training set; writes bench/RESULTS.md
  bench serve [--no-build] [--size full|small] [--only CASE] [--runs N]
          requests beside a bare handler and beside Feast; writes bench/RESULTS.md
  bench materialize [--no-build] [--size full|small] [--runs N]
          bulk writes beside bare ones and beside Feast's; writes bench/RESULTS.md
  bench faults [--no-build] [--size full|small] [--only FAULT] [--runs N]
          how long service takes to be back after faults of Redis; writes bench/RESULTS.md
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["setup"] => setup::setup(),
        ["test"] => test::test(),
        ["check"] => check::check(),
        ["demo"] => demo::demo(),
        ["fuzz", arguments @ ..] => fuzz::fuzz(arguments),
        ["bench", "pit", arguments @ ..] => bench::pit(arguments),
        ["bench", "transform", arguments @ ..] => bench::transform(arguments),
        ["bench", "serve", arguments @ ..] => bench::serve(arguments),
        ["bench", "materialize", arguments @ ..] => bench::materialize(arguments),
        ["bench", "faults", arguments @ ..] => bench::faults(arguments),
        ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout.
fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.join("..").canonicalize().unwrap_or(xtask)
}
