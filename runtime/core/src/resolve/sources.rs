//! Sources: where history lies.

use arrow::datatypes::Schema;

use super::{Resolver, about, no_column};
use crate::definitions::shape::PartitionShape;
use crate::definitions::{Located, Place, check_source_path};
use crate::project::Defined;
use crate::text;
use crate::time::{Mode, Span};
use crate::view::{Partition, Source};

impl Resolver<'_> {
    pub(super) fn sources(&mut self) {
        for Located {
            value: shape,
            place,
        } in &self.definitions.sources
        {
            if shape.point_in_time == Mode::Known && shape.created_timestamp_column.is_none() {
                let message = "point_in_time `known` needs a `created_timestamp_column`: it says when \
                               a row became known";
                self.problems.at(&place.at("point_in_time"), message);
            }
            let late_by = Span::parse(&shape.late_by.0).unwrap_or_else(|message| {
                self.problems.at(&place.at("late_by"), message);
                Span::default()
            });
            let partition = shape.partition.as_ref().map(|partition| {
                self.partition(partition, &shape.timestamp_field, &place.at("partition"))
            });
            let source = Source {
                name: shape.name.clone(),
                path: shape.path.clone(),
                timestamp_field: shape.timestamp_field.clone(),
                created_timestamp_column: shape.created_timestamp_column.clone(),
                point_in_time: shape.point_in_time,
                late_by: late_by.0,
                columns: shape
                    .columns
                    .iter()
                    .filter(|(here, file)| here != file)
                    .map(|(here, file)| (here.clone(), file.clone()))
                    .collect(),
                partition,
            };
            let known = self.problems.0.len();
            check_source_path(&shape.path, &place.at("path"), &mut self.problems);
            match self.surroundings.sources.get(&shape.name) {
                Some(Ok(_)) => {}
                // There are no files, then.
                _ if self.problems.0.len() > known => {}
                Some(Err(message)) => self.problems.at(&place.at("path"), message),
                None => self
                    .problems
                    .at(&place.at("path"), "the source was not read"),
            }
            self.source_columns(&source, place);
            let defined = Defined {
                value: source,
                about: about!(shape),
            };
            self.project.sources.insert(shape.name.clone(), defined);
        }
    }

    /// What the folders of a source say about its event timestamps.
    fn partition(
        &mut self,
        shape: &PartitionShape,
        timestamp_field: &str,
        place: &Place,
    ) -> Partition {
        let column = &shape.column;
        if column.is_empty() || column.contains(['/', '=']) {
            let message = format!(
                "`{column}` names no folder; of folders such as `dt=2024-01-01` it is `dt`"
            );
            self.problems.at(&place.at("column"), message);
        }
        if shape.of != timestamp_field {
            let message = format!(
                "`{}` is not the source's timestamp_field; the folders of a partition go by that \
                 alone: `{timestamp_field}`. Leave out the partition if they go by another time, \
                 such as that of arrival",
                shape.of
            );
            self.problems.at(&place.at("of"), message);
        }
        let slack = Span::parse(&shape.slack.0).unwrap_or_else(|message| {
            self.problems.at(&place.at("slack"), message);
            Span::default()
        });
        Partition {
            column: column.clone(),
            slack: slack.0,
        }
    }

    /// The columns that a source names are in its files.
    fn source_columns(&mut self, source: &Source, place: &Place) {
        let Some(schema) = self.schema(&source.name) else {
            return;
        };
        for (here, file) in &source.columns {
            if schema.index_of(file).is_err() {
                let message = no_column(file, &source.name, schema);
                self.problems.at(&place.at("columns").at(here), message);
            }
        }
        if let Some(partition) = &source.partition
            && schema.index_of(&partition.column).is_err()
        {
            let message = format!(
                "no file of source `{}` lies in a folder `{}=…`; its columns, those of folders \
                 included, are {}",
                source.name,
                partition.column,
                text::list(schema.fields().iter().map(|field| field.name()))
            );
            let place = place.at("partition").at("column");
            self.problems.at(&place, message);
        }
        let event = Some(&source.timestamp_field);
        let created = source.created_timestamp_column.as_ref();
        for (key, column) in [
            ("timestamp_field", event),
            ("created_timestamp_column", created),
        ] {
            if let Some(column) = column {
                self.timestamp_column(schema, source, column, &place.at(key));
            }
        }
    }

    fn timestamp_column(&mut self, schema: &Schema, source: &Source, column: &str, place: &Place) {
        use arrow::datatypes::DataType as A;
        match schema.field_with_name(source.file_column(column)) {
            Err(_) => {
                let message = no_column(source.file_column(column), &source.name, schema);
                self.problems.at(place, message);
            }
            Ok(field) if matches!(field.data_type(), A::Timestamp(..) | A::Date32 | A::Date64) => {}
            Ok(field) => {
                let message = format!(
                    "column `{column}` of source `{}` is {}; a timestamp or a date is wanted",
                    source.name,
                    field.data_type()
                );
                self.problems.at(place, message);
            }
        }
    }
}
