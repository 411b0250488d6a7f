//! Training sets: entity rows with the features of a plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, UInt8Type};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use futures::TryStreamExt;
use unskew_core::digest::Digest;
use unskew_engine::{Evaluator, Status};

use crate::entity_source::EntitySource;
use crate::error::OfflineError;
use crate::evaluate::EvaluateExec;
use crate::joined::Bounds;
use crate::offline::{Components, Offline};
use crate::output::{Output, Provenance, Staged};
use crate::progress::Progress;

/// What a training set is built of.
#[derive(Clone)]
pub struct TrainingSetRequest {
    /// The plan with its components.
    pub evaluator: Arc<Evaluator>,
    /// The loaded components; those of the views' batch transformations are needed.
    pub components: Components,
    /// Where the entity rows come from.
    pub entities: EntitySource,
    /// Where the training set goes.
    pub out: Output,
    /// Is told how far the work has come.
    pub progress: Arc<dyn Progress>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many rows the training set has: as many as there are entity rows.
    pub rows: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The digest of the plan.
    pub plan: Digest,
    /// Each output with how many of its rows have which status.
    pub outputs: Vec<OutputSummary>,
    /// The plan that was executed, with its metrics, for a person.
    pub explain: String,
}

/// How one output came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSummary {
    /// Its name.
    pub name: String,
    /// How many rows have each status that occurs.
    pub statuses: BTreeMap<Status, u64>,
}

impl Offline {
    /// Builds a training set: row i is entity row i, with all its own columns and then the plan's
    /// outputs.
    ///
    /// A file or folder appears when it is complete. On an error, or when the future is dropped,
    /// nothing of it is left, and what was there before is as it was.
    ///
    /// # Errors
    /// Entity rows are not as the plan needs them, a history cannot be read, a transformation
    /// fails, or the target exists or cannot be written. An error of a row names the entity row.
    pub async fn training_set(&self, request: TrainingSetRequest) -> Result<Summary, OfflineError> {
        let began = Instant::now();
        let TrainingSetRequest {
            evaluator,
            components,
            entities,
            out,
            progress,
        } = request;
        let plan = evaluator.plan();
        // Before hours of work, not after them.
        let staged = Staged::new(out)?;

        let entities = self
            .entity_rows(plan, &components, &entities, Arc::clone(&progress))
            .await?;
        let outputs = plan.output_schema();
        let own = entities.schema().fields().iter();
        let fields: Vec<FieldRef> = own.chain(outputs.fields()).map(Arc::clone).collect();
        let schema = Arc::new(Schema::new(fields));
        let threads = self.settings().partitions.get();
        let mut writer = staged.start(&schema, &Provenance::of(plan)?, threads)?;

        let (joined, _) = self
            .join(
                plan,
                &components,
                &entities,
                Bounds::Needed,
                Arc::clone(&progress),
            )
            .await?;
        let evaluate: Arc<dyn ExecutionPlan> =
            Arc::new(EvaluateExec::new(joined, Arc::clone(&evaluator)));
        let mut counts = vec![[0; Status::ALL.len()]; plan.outputs.len()];
        let mut chunk = 0;
        let chunks = self.ordered(Arc::clone(&evaluate))?;
        futures::pin_mut!(chunks);
        while let Some(evaluated) = chunks.try_next().await? {
            if chunk == 0 {
                let rows = entities.num_rows() as u64;
                progress.begin("computing features", rows);
            }
            let (outputs, statuses) = EvaluateExec::split(plan, &evaluated)?;
            for (counts, codes) in counts.iter_mut().zip(&statuses) {
                let codes = codes.as_primitive::<UInt8Type>().values();
                // Status after status: so many codes are compared at once.
                for (count, wanted) in counts.iter_mut().zip(0_u8..) {
                    *count += codes.iter().filter(|&&code| code == wanted).count() as u64;
                }
            }
            let own = entities.chunk(chunk)?.own;
            chunk += 1;
            let columns = own.columns().iter().chain(outputs.columns());
            let columns = columns.map(Arc::clone).collect();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
            let rows = batch.num_rows() as u64;
            writer.write(batch).await?;
            progress.advance(rows);
        }
        writer.finish().await?;

        let names = plan.outputs.iter().map(|output| output.name.clone());
        Ok(Summary {
            rows: entities.num_rows() as u64,
            elapsed: began.elapsed(),
            plan: plan.digest(),
            outputs: names
                .zip(counts)
                .map(|(name, counts)| OutputSummary {
                    name,
                    statuses: occurring(counts),
                })
                .collect(),
            explain: DisplayableExecutionPlan::with_metrics(evaluate.as_ref())
                .indent(true)
                .to_string(),
        })
    }
}

/// The statuses that occur, of the counts of all.
fn occurring(counts: [u64; Status::ALL.len()]) -> BTreeMap<Status, u64> {
    let counts = Status::ALL.into_iter().zip(counts);
    counts.filter(|&(_, count)| count > 0).collect()
}
