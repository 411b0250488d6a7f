//! All tests.

use anyhow::Result;

use crate::process::{command, run};
use crate::{guests, setup};

/// Real data on which some tests run where it is there; nobody who clones the project has it.
const FLIGHTS: &str = "../shared/data/flights";

/// Sets up what tests need, and runs all of them.
///
/// # Errors
/// Something is missing and cannot be installed, or a test fails.
pub(crate) fn test() -> Result<()> {
    setup::setup()?;
    if setup::nextest() {
        run(&mut command("cargo", &["nextest", "run", "--workspace"]))?;
        // nextest runs no examples of the documentation.
        run(&mut command("cargo", &["test", "--workspace", "--doc"]))?;
    } else {
        run(&mut command("cargo", &["test", "--workspace"]))?;
    }
    guests::test()?;
    if crate::root().join(FLIGHTS).is_dir() {
        println!("all tests passed, those on real flights ({FLIGHTS}) included");
    } else {
        println!(
            "all tests passed; those on real flights were skipped, since there is no {FLIGHTS}"
        );
    }
    Ok(())
}
