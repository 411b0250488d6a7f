//! `evaluate`: the one function behind training sets and responses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt8Type};
use arrow::error::ArrowError;
use unskew_core::component::Kind;
use unskew_core::digest::Digest;
use unskew_core::plan::{Binding, FeaturePlan, Layout, SEMANTICS, Step};
use unskew_core::types::{DataType, ScalarType};

use crate::canonical;
use crate::component::{Component, Patience};
use crate::error::{CallErrorKind, EvaluateError, EvaluatorError};
use crate::inputs::{BoundInput, InputError};
use crate::mask::Mask;
use crate::observer::Observer;
use crate::status::Status;
use crate::transform::{check_size, on_demand_within};

/// A feature plan with its components; shared by threads.
#[derive(Debug)]
pub struct Evaluator {
    plan: Arc<FeaturePlan>,
    digest: Digest,
    layout: Layout,
    schema: SchemaRef,
    steps: Vec<BoundStep>,
}

#[derive(Debug)]
struct BoundStep {
    component: Arc<Component>,
    inputs: Vec<BoundInput>,
}

/// What a plan makes of a joined batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The plan's outputs, of its `output_schema()`; row i is row i of the joined batch.
    pub batch: RecordBatch,
    /// For each output column what each of its values is.
    pub statuses: Vec<Arc<[Status]>>,
    /// For each lookup the event timestamps of the rows that were found, whether they count or not.
    pub events: Vec<ArrayRef>,
}

impl Evaluated {
    /// What became of these rows, without the memory of the others.
    fn rows(&self, rows: Range<usize>) -> Result<Self, ArrowError> {
        let indices: UInt32Array = (rows.start as u32..rows.end as u32).collect();
        let statuses = self.statuses.iter();
        let events = self.events.iter();
        Ok(Self {
            batch: take_record_batch(&self.batch, &indices)?,
            statuses: statuses
                .map(|column| Arc::from(&column[rows.clone()]))
                .collect(),
            events: events
                .map(|column| take(column, &indices, None))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Evaluator {
    /// Binds a plan to its components, of which `components` may hold more.
    ///
    /// # Errors
    /// The plan is of other semantics, a component is missing or is not what the plan says, or the
    /// plan is damaged.
    pub fn new(
        plan: Arc<FeaturePlan>,
        components: &BTreeMap<Digest, Arc<Component>>,
    ) -> Result<Self, EvaluatorError> {
        if plan.semantics != SEMANTICS {
            return Err(EvaluatorError::Semantics {
                name: plan.service.clone(),
                found: plan.semantics,
                wanted: SEMANTICS,
            });
        }
        check_lookups(&plan)?;
        let steps = (0..plan.steps.len())
            .map(|index| BoundStep::new(&plan, index, components))
            .collect::<Result<_, _>>()?;
        for output in &plan.outputs {
            let found = bound_type(&plan, &output.binding, plan.steps.len())?;
            if found != Some(output.data_type) {
                return Err(damaged(
                    &plan,
                    format!(
                        "its output `{}` is {} and is bound to {}",
                        output.name,
                        output.data_type,
                        found.map_or_else(|| "a constant".to_owned(), |t| t.to_string())
                    ),
                ));
            }
        }
        Ok(Self {
            digest: plan.digest(),
            layout: plan.layout(),
            schema: plan.output_schema(),
            steps,
            plan,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.plan
    }

    /// The plan's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The columns of the joined batch.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Computes the plan's outputs.
    ///
    /// 1. Time: a row that was found but is not available yet, or is older than the ttl allows,
    ///    counts as null, for outputs and as an input alike.
    /// 2. The transformations in their order: their inputs are widened, nulls take their default;
    ///    then the null rule and the failure rule of [`transform_on_demand`](crate::transform_on_demand).
    /// 3. The outputs, with canonical NaNs: JSON knows only one, and a client is to decode the bits
    ///    that a training set holds.
    ///
    /// # Errors
    /// A component failed under `on_error: fail`; or `joined` is not as [`Evaluator::layout`] says.
    pub fn evaluate(&self, joined: &RecordBatch) -> Result<Evaluated, EvaluateError> {
        self.evaluate_observed(joined, ())
    }

    /// As [`Evaluator::evaluate`], and tells the observer of each step.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn evaluate_observed(
        &self,
        joined: &RecordBatch,
        observer: impl Observer,
    ) -> Result<Evaluated, EvaluateError> {
        self.evaluate_within(joined, Patience::Whole, observer)
    }

    /// As [`Evaluator::evaluate_observed`], if that takes a moment, which is a few milliseconds for
    /// a call of a component, and no more calls for a transformation than it takes to find a row that
    /// fails; `None` if it takes longer.
    ///
    /// Components keep nothing, so what was not finished can be done again, where there is time for
    /// it, and gives the same. A thread on which others wait is thereby held up for a moment, and
    /// a component that is quick, as nearly all are, needs no other thread. It waits for no turn at
    /// the pool of instances: some are kept for this, as many as there are threads that run. A moment
    /// that was not enough is lost, so whoever has many requests should not try each.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn evaluate_briefly(
        &self,
        joined: &RecordBatch,
        observer: impl Observer,
    ) -> Result<Option<Evaluated>, EvaluateError> {
        match self.evaluate_within(joined, Patience::Moment, observer) {
            Err(error) if is_interrupted(&error) => Ok(None),
            done => done.map(Some),
        }
    }

    /// What [`Evaluator::evaluate`] makes of each of these joined batches, evaluated as one: what a
    /// call costs whatever its rows, which is a millisecond for a component in Python, is paid once.
    /// `None` if a call takes longer than 20 ms, a transformation needs more calls than it takes to
    /// find a row that fails, or there is an error: then they are to be evaluated apart, so that none
    /// has to answer for another.
    ///
    /// That is right since the result of a row depends on no other row, which
    /// [`verify`](crate::verify()) checks. It waits for its turn at instances that are kept for this,
    /// one for two threads that run. The observer is told of all rows together.
    pub fn evaluate_together(
        &self,
        joined: &[RecordBatch],
        observer: impl Observer,
    ) -> Option<Vec<Evaluated>> {
        // Whatever is wrong, the one whose fault it is hears it when it is evaluated alone.
        let evaluate = |all: &RecordBatch| self.evaluate_within(all, Patience::Together, observer);
        if let [one] = joined {
            return Some(vec![evaluate(one).ok()?]);
        }
        let all = self.concatenated(joined)?;
        u32::try_from(all.num_rows()).ok()?;
        let evaluated = evaluate(&all).ok()?;
        let mut at = 0;
        let each = joined.iter().map(|one| {
            let rows = at..at + one.num_rows();
            at = rows.end;
            evaluated.rows(rows).ok()
        });
        each.collect()
    }

    /// The rows of all of them, in order; `None` if they are none of this plan, or too large.
    fn concatenated(&self, joined: &[RecordBatch]) -> Option<RecordBatch> {
        let schema = &self.layout.schema;
        for column in 0..schema.fields().len() {
            let parts: Option<Vec<&dyn Array>> = joined
                .iter()
                .map(|one| one.columns().get(column).map(|column| column.as_ref()))
                .collect();
            check_size(&parts?).ok()?;
        }
        concat_batches(schema, joined).ok()
    }

    fn evaluate_within(
        &self,
        joined: &RecordBatch,
        patience: Patience,
        mut observer: impl Observer,
    ) -> Result<Evaluated, EvaluateError> {
        self.check(joined)?;
        let rows = joined.num_rows();
        let masks = self.masks(joined);
        let mut features = Vec::with_capacity(masks.len());
        for (lookup, mask) in masks.iter().enumerate() {
            let used = self.plan.lookups[lookup].features.len();
            let mut columns = Vec::with_capacity(used);
            for feature in 0..used {
                let column = joined.column(self.layout.feature(lookup, feature));
                columns.push(mask.apply(column).map_err(EvaluateError::Joined)?);
            }
            observer.looked_up(lookup, &mask.statuses, &columns);
            features.push(columns);
        }
        let mut outputs: Vec<Vec<ArrayRef>> = Vec::with_capacity(self.steps.len());
        for (index, (step, bound)) in self.plan.steps.iter().zip(&self.steps).enumerate() {
            observer.began(index);
            let columns = bound.run(step, rows, patience, |binding| match *binding {
                Binding::Feature { lookup, feature } => Some(&features[lookup][feature]),
                Binding::Output { step, output } => Some(&outputs[step][output]),
                Binding::Key(key) => Some(joined.column(self.layout.keys + key)),
                Binding::Request(field) => Some(joined.column(self.layout.request + field)),
                Binding::EventTimestamp => Some(joined.column(0)),
                Binding::Constant(_) => None,
            });
            // What was interrupted, or failed together, is done again, and counts then.
            let again = |error| patience == Patience::Together || is_interrupted(error);
            if !columns.as_ref().is_err_and(again) {
                observer.ended(index);
            }
            outputs.push(columns?);
        }
        let mut columns = Vec::with_capacity(self.plan.outputs.len());
        let mut statuses = Vec::with_capacity(self.plan.outputs.len());
        let computed: Arc<[Status]> = std::iter::repeat_n(Status::Present, rows).collect();
        for output in &self.plan.outputs {
            let (column, found) = match output.binding {
                Binding::Feature { lookup, feature } => {
                    (&features[lookup][feature], &masks[lookup].statuses)
                }
                Binding::Output { step, output } => (&outputs[step][output], &computed),
                _ => {
                    return Err(EvaluateError::Joined(format!(
                        "output `{}` is neither a feature nor an output of a transformation",
                        output.name
                    )));
                }
            };
            columns.push(canonical::nans(column));
            statuses.push(column_statuses(column, found));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| EvaluateError::Joined(error.to_string()))?;
        let events = self.layout.lookups.iter();
        let events = events.map(|&first| Arc::clone(joined.column(first + 1)));
        Ok(Evaluated {
            batch,
            statuses,
            events: events.collect(),
        })
    }

    fn masks(&self, joined: &RecordBatch) -> Vec<Mask> {
        let timestamps = |column: usize| {
            joined
                .column(column)
                .as_primitive::<TimestampMicrosecondType>()
        };
        self.plan
            .lookups
            .iter()
            .zip(&self.layout.lookups)
            .map(|(lookup, &first)| {
                Mask::new(
                    &lookup.view,
                    timestamps(0),
                    joined.column(first).as_primitive::<UInt8Type>(),
                    timestamps(first + 1),
                    timestamps(first + 2),
                )
            })
            .collect()
    }

    /// Refuses a batch that is not as the layout says.
    fn check(&self, joined: &RecordBatch) -> Result<(), EvaluateError> {
        let wanted = &self.layout.schema;
        let found = joined.schema_ref();
        if !Arc::ptr_eq(wanted, found) {
            let same = wanted.fields().len() == found.fields().len()
                && wanted
                    .fields()
                    .iter()
                    .zip(found.fields())
                    .all(|(w, f)| w.name() == f.name() && w.data_type() == f.data_type());
            if !same {
                return Err(EvaluateError::Joined(format!(
                    "its columns are {}; they must be {}",
                    columns_of(found),
                    columns_of(wanted)
                )));
            }
        }
        for (field, column) in wanted.fields().iter().zip(joined.columns()) {
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(EvaluateError::Joined(format!(
                    "its column `{}` has nulls",
                    field.name()
                )));
            }
        }
        Ok(())
    }
}

impl BoundStep {
    fn new(
        plan: &FeaturePlan,
        index: usize,
        components: &BTreeMap<Digest, Arc<Component>>,
    ) -> Result<Self, EvaluatorError> {
        let step = &plan.steps[index];
        let transformation = || step.name.clone();
        let component =
            components
                .get(&step.component)
                .ok_or_else(|| EvaluatorError::NoComponent {
                    transformation: transformation(),
                    digest: step.component,
                })?;
        if component.description() != &step.description || component.digest() != step.component {
            return Err(EvaluatorError::Description {
                transformation: transformation(),
                digest: step.component,
            });
        }
        if step.description.kind != Kind::OnDemand {
            return Err(EvaluatorError::Kind {
                transformation: transformation(),
                found: step.description.kind,
                wanted: Kind::OnDemand,
            });
        }
        if step.inputs.len() != step.description.inputs.len() {
            return Err(damaged(
                plan,
                format!(
                    "transformation `{}` has {} inputs and {} bindings",
                    step.name,
                    step.description.inputs.len(),
                    step.inputs.len()
                ),
            ));
        }
        let inputs = step
            .description
            .inputs
            .iter()
            .zip(&step.inputs)
            .map(|(field, input)| {
                if let Some(found) = bound_type(plan, &input.binding, index)?
                    && !found.widens_to(field.data_type)
                {
                    return Err(EvaluatorError::InputType {
                        transformation: transformation(),
                        input: field.name.clone(),
                        found,
                        wanted: field.data_type,
                    });
                }
                let constant = match &input.binding {
                    Binding::Constant(literal) => Some(literal),
                    _ => None,
                };
                BoundInput::new(field, constant, input.default.as_ref()).map_err(|(what, error)| {
                    EvaluatorError::Literal {
                        transformation: transformation(),
                        input: field.name.clone(),
                        what,
                        error,
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            component: Arc::clone(component),
            inputs,
        })
    }

    fn run<'a>(
        &self,
        step: &Step,
        rows: usize,
        patience: Patience,
        bound: impl Fn(&Binding) -> Option<&'a ArrayRef>,
    ) -> Result<Vec<ArrayRef>, EvaluateError> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (input, of) in self.inputs.iter().zip(&step.inputs) {
            let column = input.column(bound(&of.binding), rows);
            inputs.push(column.map_err(|error| match error {
                InputError::Value(error) => EvaluateError::Value {
                    transformation: step.name.clone(),
                    input: input.name.clone(),
                    error,
                },
                InputError::TooLarge(message) => {
                    EvaluateError::TooLarge(format!("transformation `{}`, {message}", step.name))
                }
            })?);
        }
        on_demand_within(&self.component, &inputs, rows, step.on_error, patience)
            .map_err(|failure| failure.of_transformation(&step.name).into())
    }
}

/// Whether a moment was not enough.
fn is_interrupted(error: &EvaluateError) -> bool {
    matches!(error, EvaluateError::Failure(failure) if failure.kind == CallErrorKind::Moment)
}

/// What each value of a column is, whose rows are `found`. Columns without nulls share it.
fn column_statuses(column: &ArrayRef, found: &Arc<[Status]>) -> Arc<[Status]> {
    let Some(nulls) = column.nulls() else {
        return Arc::clone(found);
    };
    let statuses = found.iter().zip(nulls);
    let status = |(&status, is_valid): (&Status, bool)| match status {
        Status::Present if !is_valid => Status::NullValue,
        status => status,
    };
    statuses.map(status).collect()
}

fn columns_of(schema: &SchemaRef) -> String {
    unskew_core::text::list(
        schema
            .fields()
            .iter()
            .map(|field| format!("`{}` {}", field.name(), field.data_type())),
    )
}

fn damaged(plan: &FeaturePlan, what: String) -> EvaluatorError {
    EvaluatorError::Damaged {
        name: plan.service.clone(),
        what,
    }
}

/// Refuses lookups of keys and features that are not there.
fn check_lookups(plan: &FeaturePlan) -> Result<(), EvaluatorError> {
    for lookup in &plan.lookups {
        let features = lookup.features.iter();
        if features
            .max()
            .is_some_and(|&f| f >= lookup.view.features.len())
            || !lookup.features.windows(2).all(|pair| pair[0] < pair[1])
            || lookup.keys.len() != lookup.view.keys.len()
            || lookup.keys.iter().any(|&key| key >= plan.join_keys.len())
        {
            return Err(damaged(
                plan,
                format!("its lookup `{}` does not fit its view", lookup.name),
            ));
        }
    }
    Ok(())
}

/// The type of what `binding` is bound to, in a step that comes after `steps` others; `None` for a
/// constant, which takes any.
fn bound_type(
    plan: &FeaturePlan,
    binding: &Binding,
    steps: usize,
) -> Result<Option<DataType>, EvaluatorError> {
    let found = match *binding {
        Binding::Constant(_) => return Ok(None),
        Binding::EventTimestamp => Some(DataType::Scalar(ScalarType::Timestamp)),
        Binding::Key(key) => plan.join_keys.get(key).map(|field| field.data_type),
        Binding::Request(field) => plan.request_fields.get(field).map(|field| field.data_type),
        Binding::Feature { lookup, feature } => plan
            .lookups
            .get(lookup)
            .and_then(|lookup| lookup.used().nth(feature))
            .map(|field| field.data_type),
        Binding::Output { step, output } => plan
            .steps
            .get(step)
            .filter(|_| step < steps)
            .and_then(|step| step.description.outputs.get(output))
            .map(|field| field.data_type),
    };
    match found {
        Some(found) => Ok(Some(found)),
        None => Err(damaged(plan, format!("{binding:?} leads nowhere"))),
    }
}

#[cfg(test)]
mod tests;
