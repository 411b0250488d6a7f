//! The offline side: scans of Parquet, batch transformations, the point-in-time join, training
//! sets, and the rows that a materialization writes.
//!
//! Everything begins at [`Offline`]. What it builds are DataFusion plans:
//!
//! ```text
//! entity rows (Parquet, CSV) ── EntityRows ── slots: instants grouped by key
//!                                               │
//! files ── ScanExec ── ViewRowsExec ── PointInTimeJoinExec ── joined chunks ── evaluate ── file
//!          columns,    the view's      the row that counts       8,192 rows,   of the
//!          renamed     rows, batch     for each entity row       in order      engine
//!                      components         │
//!                         │               └ per view, for all names under which a plan uses it
//!                         ├── latest_rows: for each key the row that counts at the end of a range
//!                         └── sample_keys
//! ```
//!
//! Histories are streamed from the first row and in any order; only entity rows, slots and winners
//! are held. Masking by time to live, null rules and transformations are `evaluate`'s, not ours.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod entity_chunks;
mod entity_csv;
mod entity_ipc;
mod entity_parquet;
mod entity_range;
mod entity_rows;
mod entity_source;
mod error;
mod evaluate;
mod files;
mod footers;
mod hive;
mod join;
mod joined;
mod latest;
mod objects;
mod offline;
mod output;
mod plan;
mod progress;
mod sample;
mod scan;
mod schema;
mod selection;
mod stores;
mod training_set;
mod view_rows;

pub use entity_rows::EntityRows;
pub use entity_source::{EntityRange, EntitySource};
pub use error::{EntityRowsProblem, OfflineError, SourceProblem, StoreProblem};
pub use evaluate::{EvaluateExec, JoinedExec};
pub use join::PointInTimeJoinExec;
pub use joined::{EvaluatedRows, JoinedRows};
pub use latest::{LatestRows, LatestRowsRequest, RowSink};
pub use offline::{Components, Offline, Settings};
pub use output::{COMPONENTS, Compression, Output, PLAN, PLAN_DIGEST, Target, plan_file};
pub use progress::Progress;
pub use scan::ScanExec;
pub use selection::{Covered, Selection};
pub use training_set::{OutputSummary, Summary, TrainingSetRequest};
pub use view_rows::ViewRowsExec;
