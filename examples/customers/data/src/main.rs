//! The command that writes the data of the example `customers`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to its user"
)]

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: customers-data FOLDER\n\nwrites the data of the example `customers`");
        return ExitCode::from(2);
    };
    match customers_data::write(folder) {
        Ok(files) => {
            for (file, rows) in files {
                println!("{rows:>7} rows in {}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
