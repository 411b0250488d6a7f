//! The subcommands, a file for each.

pub(crate) mod apply;
pub(crate) mod compact;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod get_online;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod materialize;
pub(crate) mod parity;
pub(crate) mod push;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod teardown;
pub(crate) mod token;
pub(crate) mod training_set;
pub(crate) mod transform;
pub(crate) mod version;
