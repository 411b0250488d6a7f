//! What `describe` and `run` of a component do: the loop over the rows of a batch.

use std::fmt::Display;

use crate::bindings::exports::unskew::transform::transformation::{
    Batch, Description, Failure, Field, Kind, Output,
};
use crate::error::FieldError;
use crate::field::Columns;
use crate::panic_slot;
use crate::row::{Row, Rows};

/// What a transformation is, beside its types.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The author's package.
    pub component: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The author's function.
    pub function: &'static str,
    /// Its doc comment.
    pub documentation: &'static str,
}

impl About {
    fn description(self, kind: Kind, inputs: Vec<Field>, outputs: Vec<Field>) -> Description {
        panic_slot::install();
        Description {
            component: self.component.to_owned(),
            version: self.version.to_owned(),
            function: self.function.to_owned(),
            documentation: self.documentation.to_owned(),
            kind,
            inputs,
            outputs,
        }
    }
}

/// The two functions of a component.
#[derive(Clone, Copy, Debug)]
pub struct Transformation {
    /// What it is.
    pub describe: fn() -> Description,
    /// What it does.
    pub run: fn(Batch) -> Result<Output, Failure>,
}

/// What an on-demand transformation is.
pub fn describe_on_demand<In: Row, Out: Row, E>(
    about: About,
    _transform: impl Fn(In) -> Result<Out, E>,
) -> Description {
    about.description(Kind::OnDemand, In::fields(), Out::fields())
}

/// What a batch transformation is.
pub fn describe_batch<In: Row, Out: Rows, E>(
    about: About,
    _transform: impl Fn(In) -> Result<Out, E>,
) -> Description {
    about.description(Kind::Batch, In::fields(), Out::Row::fields())
}

/// Gives one output row for each input row.
pub fn run_on_demand<In: Row, Out: Row, E: Display>(
    input: Batch,
    transform: impl Fn(In) -> Result<Out, E>,
) -> Result<Output, Failure> {
    let rows = input.rows;
    let mut outputs = Out::writers(rows as usize);
    for_each_row(input, |_, row| -> Result<(), E> {
        transform(row)?.write(&mut outputs);
        Ok(())
    })?;
    Ok(Output {
        rows,
        columns: Out::finish(outputs).map_err(failure)?,
        source_row: Vec::new(),
    })
}

/// Gives any number of output rows for each input row.
pub fn run_batch<In: Row, Out: Rows, E: Display>(
    input: Batch,
    transform: impl Fn(In) -> Result<Out, E>,
) -> Result<Output, Failure> {
    let capacity = input.rows as usize;
    let mut outputs = Out::Row::writers(capacity);
    let mut source_row = Vec::with_capacity(capacity);
    for_each_row(input, |index, row| -> Result<(), E> {
        for row in transform(row)? {
            row.write(&mut outputs);
            source_row.push(index);
        }
        Ok(())
    })?;
    let rows = u32::try_from(source_row.len()).map_err(|_| Failure {
        row: None,
        message: format!("{} output rows; at most {}", source_row.len(), u32::MAX),
    })?;
    Ok(Output {
        rows,
        columns: Out::Row::finish(outputs).map_err(failure)?,
        source_row,
    })
}

/// Calls `visit` with each row of a batch and its index. The first error ends it.
fn for_each_row<In: Row, E: Display>(
    input: Batch,
    mut visit: impl FnMut(u32, In) -> Result<(), E>,
) -> Result<(), Failure> {
    panic_slot::install();
    let columns = Columns::new(input.columns, input.rows as usize);
    let inputs = In::readers(columns).map_err(failure)?;
    for index in 0..input.rows {
        panic_slot::enter(index);
        let row = In::read(&inputs, index as usize);
        visit(index, row).map_err(|error| Failure {
            row: Some(index),
            message: error.to_string(),
        })?;
    }
    panic_slot::leave();
    Ok(())
}

fn failure(error: FieldError) -> Failure {
    Failure {
        row: error.row(),
        message: error.to_string(),
    }
}
