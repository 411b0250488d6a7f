//! How far work has come.

/// Is told how far work has come; every method does nothing by default.
///
/// Calls come from several threads, a few for each 8,192 rows.
pub trait Progress: Send + Sync {
    /// A stage begins, such as ``reading the history of `airport_daily` ``, of as many rows as are
    /// known. It ends where the next begins, or with the work.
    fn begin(&self, stage: &str, rows: u64) {
        let _ = (stage, rows);
    }

    /// So many more rows of the stage are done.
    fn advance(&self, rows: u64) {
        let _ = rows;
    }
}

/// Nobody is told.
impl Progress for () {}
