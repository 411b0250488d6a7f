//! The inputs of `fuzz/corpus`: found by looking for what breaks, or made by hand. Whatever broke
//! something once is among them.
#![allow(
    clippy::print_stdout,
    reason = "if it fails, the last name is that of the input"
)]

use std::path::Path;

use unskew_tests::fuzzed::{http::Http, stored};

/// The inputs kept for a target, with the names of their files.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let files = std::fs::read_dir(folder.join(target)).unwrap();
    let mut inputs: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    inputs
}

#[test]
fn bytes_that_a_store_could_hold_are_rows_or_damaged() {
    for (name, input) in kept("stored") {
        println!("{name}");
        stored::check(&input);
    }
}

#[test]
fn bodies_that_a_client_could_send_are_answered() {
    let mut http = Http::start();
    for (name, input) in kept("http") {
        println!("{name}");
        http.check(&input);
    }
}
