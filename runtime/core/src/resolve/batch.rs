//! The batch transformation of a view: bound to columns of its source, with types.

use super::Resolver;
use super::views::Origin;
use crate::definitions::Place;
use crate::project::{Reference, Transformation};
use crate::types::{DataType, Field, ScalarType};
use crate::view::{BatchTransformation, Source, SourceBinding};

impl Resolver<'_> {
    /// The transformation as the view uses it: its columns checked against the source.
    pub(super) fn view_batch(
        &mut self,
        transformation: &Transformation,
        origin: &Origin<'_>,
        place: &Place,
    ) -> BatchTransformation {
        let at = place.at("transformation");
        let source = Origin {
            batch: None,
            ..*origin
        };
        let fields = transformation.description.inputs.iter();
        let inputs = fields
            .zip(&transformation.inputs)
            .filter_map(|(field, input)| {
                let binding = match &input.from {
                    Reference::Column(column) => {
                        self.batch_column(&transformation.name, field, column, &source, &at);
                        SourceBinding::Column(column.clone())
                    }
                    Reference::EventTimestamp => {
                        self.batch_instant(&transformation.name, field, &at);
                        SourceBinding::EventTimestamp
                    }
                    Reference::Constant(value) => SourceBinding::Constant(value.clone()),
                    // Of a batch transformation, these were refused when they were read.
                    Reference::Member(..) | Reference::Key(_) | Reference::Request(_) => {
                        return None;
                    }
                };
                Some((binding, input.default.clone()))
            })
            .collect();
        self.batch_timestamps(transformation, origin.source, &at);
        BatchTransformation {
            name: transformation.name.clone(),
            component: transformation.component,
            description: transformation.description.clone(),
            inputs,
            on_error: transformation.on_error,
        }
    }

    /// The column to which an input of a batch transformation is bound has the input's type.
    fn batch_column(
        &mut self,
        transformation: &str,
        field: &Field,
        column: &str,
        source: &Origin<'_>,
        at: &Place,
    ) {
        let input = format!("input `{}` of `{transformation}`", field.name);
        match source.column(column) {
            Some(Err(message)) => self.problems.at(at, format!("{input}: {message}")),
            Some(Ok(found))
                if !found.widens_to(field.data_type) && !source.is_of_any_type(column) =>
            {
                let message = format!(
                    "{input} is {}, and column `{column}` of {} is {found}",
                    field.data_type,
                    source.name_of(column)
                );
                self.problems.at(at, message);
            }
            _ => {}
        }
    }

    fn batch_instant(&mut self, transformation: &str, field: &Field, at: &Place) {
        let timestamp = DataType::Scalar(ScalarType::Timestamp);
        if field.data_type != timestamp {
            let message = format!(
                "input `{}` of `{transformation}` is {}, and `event_timestamp` is {timestamp}",
                field.name, field.data_type
            );
            self.problems.at(at, message);
        }
    }

    /// The timestamps that a batch transformation gives itself are timestamps.
    fn batch_timestamps(&mut self, transformation: &Transformation, source: &Source, at: &Place) {
        let timestamps = [
            Some(&source.timestamp_field),
            source.created_timestamp_column.as_ref(),
        ];
        for name in timestamps.into_iter().flatten() {
            let Some(output) = transformation.output(name) else {
                continue;
            };
            let found = transformation.description.outputs[output].data_type;
            if found != DataType::Scalar(ScalarType::Timestamp) {
                let message = format!(
                    "output `{name}` of `{}` is {found}, and a timestamp of source `{}`",
                    transformation.name, source.name
                );
                self.problems.at(at, message);
            }
        }
    }
}
