//! The registry, in a folder and in an object store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod folder;
mod lab;
mod object_store;
mod proxy;
mod suite;
