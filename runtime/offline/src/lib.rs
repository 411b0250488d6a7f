//! The offline side: scans of Parquet, batch transformations, the point-in-time join, training
//! sets, and the rows that a materialization writes.
//!
//! Everything begins at [`Offline`]. What it builds are DataFusion plans:
//!
//! ```text
//! EntitySource: Parquet, CSV, folders, object stores, Arrow IPC, the rows of a view
//!   │
//! EntityRows ── slots: instants grouped by key ─┐
//!   │                                           ▼
//!   │     files ─ ScanExec ─ ViewRowsExec ─ PointInTimeJoinExec: the row that counts for each
//!   │     object  columns,   the view's         │                entity row; one for each view,
//!   │     stores  renamed    rows, batch        │                for all names that a plan has
//!   │                        components         ▼                for it
//!   └──────────────────────────│──────────▶ JoinedExec: chunks of 8,192 rows
//!                              │                │
//!                              │            EvaluateExec: `evaluate` of the engine
//!                              │                │
//!                              │            Output: Parquet, a folder of it, CSV, Arrow IPC
//!                              ├── latest_rows: for each key the row that counts at a range's end
//!                              └── sample_keys
//! ```
//!
//! - `scan`: pieces of row groups: which may matter, and their columns.
//! - `join`: the point-in-time join, in memory or by way of temporary files.
//! - `output`: files that appear when they are complete.
//!
//! Histories are streamed in any order; only entity rows, slots and winners are held. Masking by
//! time to live, null rules and transformations are `evaluate`'s, not ours.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod append;
mod compact;
mod entity_chunks;
mod entity_csv;
mod entity_ipc;
mod entity_range;
mod entity_rows;
mod entity_source;
mod error;
mod evaluate;
mod files;
mod footers;
mod held;
mod hive;
mod join;
mod joined;
mod key_history;
mod latest;
mod objects;
mod offline;
mod output;
mod plan;
mod progress;
mod replaced;
mod sample;
mod scan;
mod schema;
mod selection;
mod stores;
mod training_set;
mod view_rows;

pub use append::{AppendProblem, Appender, PushedRows, RowProblem, SourceRows};
pub use compact::{Compact, CompactProblem, Compacted, MergedFile};
pub use entity_rows::EntityRows;
pub use entity_source::{EntityRange, EntitySource};
pub use error::{EntityRowsProblem, OfflineError, SourceProblem};
pub use evaluate::{EvaluateExec, JoinedExec};
pub use join::PointInTimeJoinExec;
pub use joined::{EvaluatedRows, JoinedRows};
pub use key_history::{FileRows, KeyHistory};
pub use latest::{LatestRows, LatestRowsRequest, RowSink};
pub use offline::{Components, Offline, Settings};
pub use output::{COMPONENTS, Compression, Output, PLAN, PLAN_DIGEST, Target, plan_file};
pub use progress::Progress;
pub use scan::ScanExec;
pub use selection::{Covered, Selection};
pub use training_set::{OutputSummary, Summary, TrainingSetRequest};
pub use unskew_objects::StoreProblem;
pub use view_rows::ViewRowsExec;
