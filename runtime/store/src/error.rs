//! What can go wrong in a feature store, ready for its user.

use std::path::PathBuf;

use unskew_core::definitions::Problems;
use unskew_core::digest::Digest;
use unskew_core::planner::PlanError;
use unskew_core::time;
use unskew_engine::{EngineError, EvaluateError, EvaluatorError, LoadError};
use unskew_offline::OfflineError;
use unskew_online::OnlineError;
use unskew_registry::RegistryError;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder is no feature repository.
    #[error(
        "`{}` has no unskew.yaml, so it is no feature repository; `unskew init NAME` makes one, \
         `unskew -C DIR` works in another folder",
        root.display()
    )]
    NoRepository {
        /// The folder.
        root: PathBuf,
    },
    /// Definitions are wrong.
    #[error("{0}")]
    Definitions(#[from] Problems),
    /// Nothing was applied yet.
    #[error("nothing is applied yet; run `unskew apply`")]
    NothingApplied,
    /// The registry is of another project.
    #[error(
        "the registry holds project `{found}`, and unskew.yaml names `{wanted}`; name another `registry`"
    )]
    OtherProject {
        /// What the registry holds.
        found: String,
        /// What unskew.yaml names.
        wanted: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", file.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A transformation cannot be built.
    #[error("cannot build `{}`: {message}", folder.display())]
    Build {
        /// Its folder.
        folder: PathBuf,
        /// Why, in the toolchain's words or with what to install.
        message: String,
    },
    /// A training set cannot be written there.
    #[error("cannot write a training set to `{}`: {why}", out.display())]
    Out {
        /// Where.
        out: PathBuf,
        /// Why, and what would be valid.
        why: String,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A registered component cannot be loaded.
    #[error("component {digest}: {source}")]
    Component {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: LoadError,
    },
    /// The features cannot be had together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan does not fit its components.
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    /// Features could not be computed.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Reading history, or writing a training set.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The online store.
    #[error(transparent)]
    Online(#[from] OnlineError),
    /// A view that was named is none.
    #[error("no feature view `{name}`; there are: {valid}")]
    UnknownView {
        /// What was named.
        name: String,
        /// What there is.
        valid: String,
    },
    /// A source that was named is none.
    #[error("no source `{name}`; there are: {valid}")]
    UnknownSource {
        /// What was named.
        name: String,
        /// What there is.
        valid: String,
    },
    /// Rows went to their source, and not all of them online.
    #[error(
        "the rows are in `{}`, and not all of them are online: {source}; push them again, which \
         changes nothing of what is there already", files.join("`, `")
    )]
    OfflineAlone {
        /// The files that hold them.
        files: Vec<String>,
        /// Why.
        source: Box<StoreError>,
    },
    /// Values were deleted, and their history was not found.
    #[error(
        "the values are deleted of view `{view}` online; which files hold rows of them could not be \
         told: {source}"
    )]
    DeletedAlone {
        /// The view.
        view: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// The join keys of a deletion are not those of its view.
    #[error("view `{view}` has the join keys {wanted}, and {found} were given; none may be null")]
    Keys {
        /// The view.
        view: String,
        /// Its join keys, with their types.
        wanted: String,
        /// What was given.
        found: String,
    },
    /// An alias was named where a view is meant.
    #[error("`{name}` is an alias; its rows are those of view `{view}`: name that")]
    AliasNamed {
        /// The alias.
        name: String,
        /// Its view.
        view: String,
    },
    /// A view is not served online.
    #[error("view `{view}` has `online: false`, so it is not served online")]
    NotOnline {
        /// The view.
        view: String,
    },
    /// The end of a span lies in the future.
    #[error(
        "END {} lies after now ({}); what is not known yet cannot be materialized",
        time::format(*end), time::format(*now)
    )]
    EndInFuture {
        /// The end, in microseconds since 1970.
        end: i64,
        /// The clock.
        now: i64,
    },
    /// A span ends before it starts.
    #[error("END {} lies before START {}", time::format(*end), time::format(*start))]
    EmptySpan {
        /// The start, in microseconds since 1970.
        start: i64,
        /// The end.
        end: i64,
    },
    /// The parity of views that were not materialized cannot be told.
    #[error("nothing is materialized for view `{view}`; run `unskew materialize-incremental END`")]
    NotMaterialized {
        /// The view.
        view: String,
    },
    /// The parity of views with a gap cannot be told.
    #[error(
        "view `{view}` is materialized with a gap, from {} to {}; run `unskew \
         materialize-incremental {}`", gap.0.map_or_else(|| "the beginning".to_owned(), time::format),
        time::format(gap.1), time::format(gap.1)
    )]
    Gap {
        /// The view.
        view: String,
        /// From (exclusive; `None`: the beginning) and to.
        gap: (Option<i64>, i64),
    },
    /// The parity of a view that is being materialized cannot be told.
    #[error(
        "a materialization of view `{view}` up to {} has begun and not ended, so the online store \
         holds some of its rows; wait for it, or run `unskew materialize-incremental {}`",
        time::format(*end), time::format(*end)
    )]
    Unfinished {
        /// The view.
        view: String,
        /// Up to where it goes, in microseconds since 1970.
        end: i64,
    },
    /// The online store was emptied while rows were written to it.
    #[error(
        "the online store was emptied while view `{view}` was materialized, so it does not hold all \
         rows; run `unskew materialize-incremental END` again"
    )]
    Emptied {
        /// The view.
        view: String,
    },
    /// A server of the online store gave way to another while rows were written.
    #[error(
        "a server of the online store gave way to another, or began anew, while view `{view}` was \
         materialized, so rows may be lost; run `unskew materialize-incremental END` again"
    )]
    FailedOver {
        /// The view.
        view: String,
    },
    /// An instant before what the store holds.
    #[error(
        "as_of {} lies before the watermark {} of view `{view}`; the online store holds only the \
         newest row of a key, so an earlier instant cannot be compared",
        time::format(*as_of), time::format(*watermark)
    )]
    BeforeWatermark {
        /// What was asked for.
        as_of: i64,
        /// The latest watermark.
        watermark: i64,
        /// Whose it is.
        view: String,
    },
    /// Another process went on changing what this one wanted to change.
    #[error("{what} changed again and again while this ran; run it again")]
    Contended {
        /// What.
        what: String,
    },
    /// The request path gave no answer.
    #[error("the request path: {0}")]
    RequestPath(String),
    /// A task ended without a result.
    #[error("a task ended without a result: {0}")]
    Task(#[from] tokio::task::JoinError),
}
