//! Rows of a source become rows of a feature view, batch transformation included. Training sets and
//! materialization run it, the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{nullif, take};
use arrow::datatypes::TimestampMicrosecondType;
use unskew_core::component::Kind;
use unskew_core::digest::Digest;
use unskew_core::time;
use unskew_core::types::{DataType, ScalarType, UTC};
use unskew_core::values::{ValueError, coerce};
use unskew_core::view::{BatchTransformation, SourceBinding, View};

use crate::component::Component;
use crate::error::{ViewRowsError, ViewRunnerError};
use crate::inputs::{BoundInput, InputError};
use crate::transform::{BatchRows, transform_batch};

const TIMESTAMP: DataType = DataType::Scalar(ScalarType::Timestamp);

/// Makes the rows of a feature view; shared by threads.
#[derive(Debug)]
pub struct ViewRunner {
    view: Arc<View>,
    batch: Option<BoundBatch>,
}

#[derive(Debug)]
struct BoundBatch {
    component: Arc<Component>,
    inputs: Vec<BoundInput>,
}

/// Rows of a feature view, of the view's types; all columns have the same length.
#[derive(Clone, Debug)]
pub struct ViewRows {
    /// The join keys, in the view's order.
    pub keys: Vec<ArrayRef>,
    /// The event timestamps; a row without one never counts.
    pub event: TimestampMicrosecondArray,
    /// The created timestamps; all null for a source without a created timestamp column.
    pub created: TimestampMicrosecondArray,
    /// The features, in the view's order.
    pub features: Vec<ArrayRef>,
}

impl ViewRunner {
    /// Binds a view to its component, if it has a batch transformation; `components` may hold more.
    ///
    /// # Errors
    /// The component is missing, is not what the view says, or does not give what the view needs.
    pub fn new(
        view: Arc<View>,
        components: &BTreeMap<Digest, Arc<Component>>,
    ) -> Result<Self, ViewRunnerError> {
        let batch = view
            .batch
            .as_ref()
            .map(|batch| BoundBatch::new(&view, batch, components))
            .transpose()?;
        Ok(Self { view, batch })
    }

    /// The view.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The view's rows that come from `source`, whose columns are the view's `source_columns()` by
    /// their names in definitions, in any order, of the file's types; it may have others.
    ///
    /// Without a batch transformation they are the source's, row by row. With one, they are the
    /// rows that the component gives, with those join keys and timestamps that it does not give
    /// itself of the source row that each names. A source row without an event timestamp gives
    /// rows without one, whatever the component says, and so does one without a created timestamp.
    /// A row that stands for one that the component did not see, or for which it failed, has the
    /// source row's created timestamp in any case.
    ///
    /// # Errors
    /// A column is missing, a value is none of its type, the component failed under `on_error:
    /// fail`, or it gave an event or a created timestamp before the source row's, or no created
    /// timestamp where the source row has one. Rows are those of `source`.
    pub fn run(&self, source: &RecordBatch) -> Result<ViewRows, ViewRowsError> {
        let event = self.source_column(source, &self.view.source.timestamp_field, TIMESTAMP)?;
        let created = match &self.view.source.created_timestamp_column {
            Some(name) => self.source_column(source, name, TIMESTAMP)?,
            None => new_null_array(&TIMESTAMP.arrow(), source.num_rows()),
        };
        if let (Some(batch), Some(bound)) = (&self.view.batch, &self.batch) {
            return self.transformed(batch, bound, source, &event, &created);
        }
        let keys = self
            .view
            .keys
            .iter()
            .map(|key| self.source_column(source, &key.name, DataType::Scalar(key.data_type)))
            .collect::<Result<_, _>>()?;
        let features = self
            .view
            .features
            .iter()
            .map(|feature| self.source_column(source, &feature.name, feature.data_type))
            .collect::<Result<_, _>>()?;
        Ok(ViewRows {
            keys,
            event: timestamps(&event),
            created: timestamps(&created),
            features,
        })
    }

    /// The rows that the component gives.
    fn transformed(
        &self,
        batch: &BatchTransformation,
        bound: &BoundBatch,
        source: &RecordBatch,
        event: &ArrayRef,
        created: &ArrayRef,
    ) -> Result<ViewRows, ViewRowsError> {
        let inputs = self.inputs(batch, bound, source, event)?;
        let rows = source.num_rows();
        let rows = transform_batch(&bound.component, &inputs, rows, batch.on_error).map_err(
            |failure| ViewRowsError::Failure {
                view: self.view.name.clone(),
                failure: Box::new(failure.of_transformation(&batch.name)),
            },
        )?;
        let of_source = SourceRows::new(&rows.source_row, source.num_rows());
        let source_event = self.taken(&of_source, event)?;
        let mut keys = Vec::with_capacity(self.view.keys.len());
        for key in &self.view.keys {
            let data_type = DataType::Scalar(key.data_type);
            keys.push(match self.given(batch, &rows, &key.name, data_type)? {
                Some(given) => given,
                None => {
                    let column = self.source_column(source, &key.name, data_type)?;
                    self.taken(&of_source, &column)?
                }
            });
        }
        let event = match self.given(batch, &rows, &self.view.source.timestamp_field, TIMESTAMP)? {
            Some(given) => self.checked_event(batch, &rows, &given, &source_event)?,
            None => source_event,
        };
        let created = match &self.view.source.created_timestamp_column {
            Some(name) => {
                let source_created = self.taken(&of_source, created)?;
                match self.given(batch, &rows, name, TIMESTAMP)? {
                    Some(given) => self.checked_created(batch, &rows, &given, &source_created)?,
                    None => source_created,
                }
            }
            None => new_null_array(&TIMESTAMP.arrow(), rows.source_row.len()),
        };
        let mut features = Vec::with_capacity(self.view.features.len());
        for feature in &self.view.features {
            let given = self.given(batch, &rows, &feature.name, feature.data_type)?;
            features.push(given.ok_or_else(|| ViewRowsError::NoColumn {
                view: self.view.name.clone(),
                column: feature.name.clone(),
                columns: output_names(batch),
            })?);
        }
        Ok(ViewRows {
            keys,
            event: timestamps(&event),
            created: timestamps(&created),
            features,
        })
    }

    fn inputs(
        &self,
        batch: &BatchTransformation,
        bound: &BoundBatch,
        source: &RecordBatch,
        event: &ArrayRef,
    ) -> Result<Vec<ArrayRef>, ViewRowsError> {
        bound
            .inputs
            .iter()
            .zip(&batch.inputs)
            .map(|(input, (binding, _))| {
                let (column, name) = match binding {
                    SourceBinding::Column(name) => (Some(self.find(source, name)?), name),
                    SourceBinding::EventTimestamp => {
                        (Some(event), &self.view.source.timestamp_field)
                    }
                    SourceBinding::Constant(_) => (None, &input.name),
                };
                input
                    .column(column, source.num_rows())
                    .map_err(|error| match error {
                        InputError::Value(error) => self.value_error(name, error),
                        InputError::TooLarge(message) => self.too_large(message),
                    })
            })
            .collect()
    }

    /// The output called `name`, if the component gives it, as `wanted`.
    fn given(
        &self,
        batch: &BatchTransformation,
        rows: &BatchRows,
        name: &str,
        wanted: DataType,
    ) -> Result<Option<ArrayRef>, ViewRowsError> {
        let Some(column) = batch.output(name).and_then(|at| rows.columns.get(at)) else {
            return Ok(None);
        };
        let coerced = coerce(column, wanted).map_err(|mut error| {
            error.row = rows
                .source_row
                .get(error.row)
                .map_or(error.row, |&row| row as usize);
            self.value_error(name, error)
        })?;
        Ok(Some(coerced))
    }

    /// The event timestamps that the component gave: none before the source row's, and none where
    /// the source row has none.
    fn checked_event(
        &self,
        batch: &BatchTransformation,
        rows: &BatchRows,
        given: &ArrayRef,
        source: &ArrayRef,
    ) -> Result<ArrayRef, ViewRowsError> {
        let source_event = source.as_primitive::<TimestampMicrosecondType>();
        let event = given.as_primitive::<TimestampMicrosecondType>();
        let pairs = source_event.iter().zip(event.iter());
        for (index, pair) in pairs.enumerate() {
            if let (Some(before), Some(given)) = pair
                && given < before
            {
                return Err(ViewRowsError::EventBeforeSource {
                    view: self.view.name.clone(),
                    transformation: batch.name.clone(),
                    row: rows.source_row[index] as usize,
                    source_event: time::format(before),
                    given: time::format(given),
                });
            }
        }
        if source.null_count() == 0 {
            return Ok(Arc::clone(given));
        }
        let never = arrow::compute::is_null(source).map_err(|e| self.too_large(e.to_string()))?;
        nullif(given, &never).map_err(|error| self.too_large(error.to_string()))
    }

    /// The created timestamps that the component gave: none before the source row's, and none where
    /// the source row has none. Where it gave no row they are the source's: a null would hide from
    /// `materialize-incremental` that such a row arrived late.
    fn checked_created(
        &self,
        batch: &BatchTransformation,
        rows: &BatchRows,
        given: &ArrayRef,
        source: &ArrayRef,
    ) -> Result<ArrayRef, ViewRowsError> {
        let source_created = source.as_primitive::<TimestampMicrosecondType>();
        let created = given.as_primitive::<TimestampMicrosecondType>();
        let checked = source_created
            .iter()
            .zip(created.iter())
            .enumerate()
            .map(|(index, (before, given))| {
                let of_component = rows.given.as_ref().is_none_or(|rows| rows.is_valid(index));
                let Some(before) = before.filter(|_| of_component) else {
                    return Ok(before);
                };
                match given {
                    Some(given) if given >= before => Ok(Some(given)),
                    _ => Err(ViewRowsError::CreatedBeforeSource {
                        view: self.view.name.clone(),
                        transformation: batch.name.clone(),
                        row: rows.source_row[index] as usize,
                        source_created: time::format(before),
                        given: given.map(time::format),
                    }),
                }
            })
            .collect::<Result<TimestampMicrosecondArray, _>>()?;
        Ok(Arc::new(checked.with_timezone(UTC)))
    }

    fn taken(&self, of_source: &SourceRows, column: &ArrayRef) -> Result<ArrayRef, ViewRowsError> {
        of_source
            .take(column)
            .map_err(|message| self.too_large(message))
    }

    fn source_column(
        &self,
        source: &RecordBatch,
        name: &str,
        wanted: DataType,
    ) -> Result<ArrayRef, ViewRowsError> {
        coerce(self.find(source, name)?, wanted).map_err(|error| self.value_error(name, error))
    }

    fn find<'a>(&self, source: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ViewRowsError> {
        source
            .column_by_name(name)
            .ok_or_else(|| ViewRowsError::NoColumn {
                view: self.view.name.clone(),
                column: name.to_owned(),
                columns: source
                    .schema_ref()
                    .fields()
                    .iter()
                    .map(|field| field.name().clone())
                    .collect(),
            })
    }

    fn value_error(&self, column: &str, error: impl Into<Box<ValueError>>) -> ViewRowsError {
        ViewRowsError::Value {
            view: self.view.name.clone(),
            column: column.to_owned(),
            error: error.into(),
        }
    }

    fn too_large(&self, message: String) -> ViewRowsError {
        ViewRowsError::TooLarge {
            view: self.view.name.clone(),
            message,
        }
    }
}

/// A column that was coerced to timestamps.
fn timestamps(column: &ArrayRef) -> TimestampMicrosecondArray {
    column.as_primitive::<TimestampMicrosecondType>().clone()
}

/// Which source row each row comes from.
enum SourceRows {
    /// Row i from row i.
    Same,
    Other(UInt32Array),
}

impl SourceRows {
    fn new(source_row: &[u32], rows: usize) -> Self {
        let same = source_row.len() == rows
            && source_row
                .iter()
                .enumerate()
                .all(|(i, &row)| i == row as usize);
        if same {
            Self::Same
        } else {
            Self::Other(source_row.to_vec().into())
        }
    }

    fn take(&self, column: &ArrayRef) -> Result<ArrayRef, String> {
        match self {
            Self::Same => Ok(Arc::clone(column)),
            Self::Other(rows) => take(column, rows, None).map_err(|error| error.to_string()),
        }
    }
}

impl BoundBatch {
    fn new(
        view: &View,
        batch: &BatchTransformation,
        components: &BTreeMap<Digest, Arc<Component>>,
    ) -> Result<Self, ViewRunnerError> {
        let component =
            components
                .get(&batch.component)
                .ok_or_else(|| ViewRunnerError::NoComponent {
                    view: view.name.clone(),
                    digest: batch.component,
                })?;
        let wrong = |message: String| ViewRunnerError::Component {
            view: view.name.clone(),
            message: format!("its batch transformation `{}` {message}", batch.name),
        };
        let description = component.description();
        if description != &batch.description || component.digest() != batch.component {
            return Err(wrong(format!(
                "has a component {} that describes itself otherwise than the view does; apply the \
                 feature repository again",
                batch.component
            )));
        }
        if description.kind != Kind::Batch {
            return Err(wrong(format!(
                "has a component of kind {}; it must be {}",
                description.kind,
                Kind::Batch
            )));
        }
        if description.inputs.len() != batch.inputs.len() {
            return Err(wrong(format!(
                "has {} inputs and {} bindings",
                description.inputs.len(),
                batch.inputs.len()
            )));
        }
        check_outputs(view, batch).map_err(&wrong)?;
        let inputs = description
            .inputs
            .iter()
            .zip(&batch.inputs)
            .map(|(field, (binding, default))| {
                let constant = match binding {
                    SourceBinding::Constant(literal) => Some(literal),
                    SourceBinding::Column(_) | SourceBinding::EventTimestamp => None,
                };
                BoundInput::new(field, constant, default.as_ref()).map_err(|(what, error)| {
                    wrong(format!(
                        "has an input `{}` whose {what} does not fit: {error}",
                        field.name
                    ))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            component: Arc::clone(component),
            inputs,
        })
    }
}

/// Refuses a component that does not give the features, or gives something as another type.
fn check_outputs(view: &View, batch: &BatchTransformation) -> Result<(), String> {
    let given = |name: &str| {
        batch
            .output(name)
            .and_then(|at| batch.description.outputs.get(at))
    };
    for feature in &view.features {
        if given(&feature.name).is_none() {
            return Err(format!(
                "does not give the feature `{}`; it gives {}",
                feature.name,
                unskew_core::text::list(output_names(batch))
            ));
        }
    }
    let keys = view
        .keys
        .iter()
        .map(|key| (key.name.as_str(), DataType::Scalar(key.data_type)));
    let source = &view.source;
    let times = [
        Some(&source.timestamp_field),
        source.created_timestamp_column.as_ref(),
    ];
    let times = times
        .into_iter()
        .flatten()
        .map(|name| (name.as_str(), TIMESTAMP));
    let features = view.features.iter().map(|f| (f.name.as_str(), f.data_type));
    for (name, wanted) in keys.chain(times).chain(features) {
        if let Some(output) = given(name)
            && !output.data_type.widens_to(wanted)
        {
            return Err(format!(
                "gives `{name}` as {}; it must be {wanted}",
                output.data_type
            ));
        }
    }
    Ok(())
}

fn output_names(batch: &BatchTransformation) -> Vec<String> {
    let outputs = batch.description.outputs.iter();
    outputs.map(|field| field.name.clone()).collect()
}

#[cfg(test)]
mod tests;
