//! What needs all of the parts together. One program: each would hold a whole runtime, a third of a
//! gigabyte with what the linker does for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod applying;
mod customers;
mod failover;
mod faults;
mod feast;
mod flights;
mod fuzzed;
mod hostile;
mod late;
mod meaning;
mod memory;
mod push;
mod reload;
mod reload_push;
mod serving;
mod skipping;
mod values;
mod watching;
