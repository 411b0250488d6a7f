//! Merging the small files of a source.

use std::sync::Arc;
use std::time::Duration;

use unskew_core::text;
use unskew_offline::{Compact, CompactProblem, Compacted, OfflineError, Progress};

use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// A source whose files are to be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The source.
    pub source: String,
    /// About how large, in bytes, files become.
    pub target_bytes: u64,
    /// How long files that were replaced are kept for those who read them. Readers of this project
    /// that list the source meanwhile see each row once; others see the rows of these files twice.
    pub grace: Duration,
    /// The clock, in microseconds since 1970.
    pub now: i64,
}

impl FeatureStore {
    /// Merges the small files of a source, waits for those who read what was replaced, and deletes
    /// that. Killed at any time, it leaves a source with the same rows, and the next run goes on.
    ///
    /// # Errors
    /// There is no such source; or as those of [`unskew_offline::Offline::compact`].
    pub async fn compact(
        &self,
        compaction: &Compaction,
        progress: Arc<dyn Progress>,
    ) -> Result<Compacted, StoreError> {
        let state = self.state().await?;
        let sources = &state.project.sources;
        let Some(source) = sources.get(&compaction.source) else {
            return Err(StoreError::UnknownSource {
                name: compaction.source.clone(),
                valid: text::list(sources.keys()),
            });
        };
        let (source, offline) = (&source.value, self.offline());
        let grace = i64::try_from(compaction.grace.as_micros()).unwrap_or(i64::MAX);
        let request = Compact {
            target_bytes: compaction.target_bytes,
            now: compaction.now,
            grace,
        };
        let done = offline.compact(source, &request, Arc::clone(&progress));
        let mut done = done.await?;
        if done.kept > 0 {
            progress.begin("waiting for those who read what was replaced", 0);
            tokio::time::sleep(compaction.grace).await;
            let removed = offline.remove_replaced(source, compaction.now, &done.merged);
            let removed = match removed.await {
                // Another run is at it; a later one finds these old enough.
                Err(OfflineError::Compact { problem, .. })
                    if matches!(*problem, CompactProblem::Locked { .. }) =>
                {
                    return Ok(done);
                }
                removed => removed?,
            };
            done.kept = done.kept.saturating_sub(removed.len() as u64);
            done.removed.extend(removed);
        }
        Ok(done)
    }
}
