//! The messages and services of Feast's gRPC interface, generated from `proto/`.
//!
//! Field names and numbers are those of Feast, so that its clients and stubs work unchanged. The
//! code is apart from the server's because it takes longer to compile than it changes.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// What has no package: the service of `feast listen`.
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub use proto::feast::{serving, types};

/// The file descriptors of all of it, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("feast");
