//! What an answer of Feast holds: its columns, their names and their order.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use unskew_core::plan::{Binding, FeaturePlan, Output};
use unskew_engine::{Evaluated, Status};

use crate::error::Problem;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Where it comes from.
    pub(crate) origin: Origin,
}

/// Where a column of an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The join key of this index.
    Key(usize),
    /// An output of the plan.
    Output {
        /// Its index.
        output: usize,
        /// The index of its lookup; `None` for a transformation's.
        lookup: Option<usize>,
    },
}

/// The columns of an answer: the join keys in the order `keys`, then the features grouped by view,
/// then the outputs of transformations.
///
/// # Errors
/// Two columns have the same name.
pub(crate) fn columns(
    plan: &FeaturePlan,
    keys: impl IntoIterator<Item = usize>,
    full_feature_names: bool,
) -> Result<Vec<Column>, Problem> {
    let mut columns: Vec<Column> = keys
        .into_iter()
        .filter_map(|key| {
            Some(Column {
                name: plan.join_keys.get(key)?.name.clone(),
                origin: Origin::Key(key),
            })
        })
        .collect();
    // Groups in the order in which they are first named.
    let mut groups: Vec<((bool, usize), Vec<Column>)> = Vec::new();
    for (output, of) in plan.outputs.iter().enumerate() {
        let Some((group, owner, member)) = member(plan, of) else {
            continue;
        };
        let lookup = match group {
            (false, lookup) => Some(lookup),
            (true, _) => None,
        };
        let column = Column {
            name: if full_feature_names {
                format!("{owner}__{member}")
            } else {
                member.to_owned()
            },
            origin: Origin::Output { output, lookup },
        };
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, columns)) => columns.push(column),
            None => groups.push((group, vec![column])),
        }
    }
    groups.sort_by_key(|((is_transformation, _), _)| *is_transformation);
    columns.extend(groups.into_iter().flat_map(|(_, columns)| columns));
    let mut seen = HashSet::new();
    match columns.iter().find(|column| !seen.insert(&*column.name)) {
        None => Ok(columns),
        Some(column) => Err(Problem::SameName(column.name.clone())),
    }
}

/// What an output is of: whether of a transformation and which one, its name, and the output's own.
fn member<'a>(plan: &'a FeaturePlan, output: &Output) -> Option<((bool, usize), &'a str, &'a str)> {
    match output.binding {
        Binding::Feature { lookup, feature } => {
            let of = plan.lookups.get(lookup)?;
            let feature = of.view.features.get(*of.features.get(feature)?)?;
            Some(((false, lookup), &of.name, &feature.name))
        }
        Binding::Output { step, output } => {
            let of = plan.steps.get(step)?;
            let output = of.description.outputs.get(output)?;
            Some(((true, step), &of.name, &output.name))
        }
        _ => None,
    }
}

/// The name of a status in Feast's words.
pub(crate) const fn status(status: Status) -> Status {
    match status {
        // To Feast, what is not there yet is not there.
        Status::InFuture | Status::NotMaterialized => Status::NotFound,
        known => known,
    }
}

/// For each lookup that `columns` take features of, the event timestamps of its rows in
/// microseconds: `None` where none counts or is too old.
pub(crate) fn events(columns: &[Column], evaluated: &Evaluated) -> BTreeMap<usize, Events> {
    let mut events = BTreeMap::new();
    for column in columns {
        if let Origin::Output {
            output,
            lookup: Some(lookup),
        } = column.origin
            && let Some(timestamps) = evaluated.events.get(lookup)
        {
            // All features of a view were found in the same rows.
            events
                .entry(lookup)
                .or_insert_with(|| shown(timestamps, &evaluated.statuses[output]));
        }
    }
    events
}

/// The event timestamps of a view's rows.
pub(crate) type Events = Vec<Option<i64>>;

fn shown(timestamps: &ArrayRef, statuses: &[Status]) -> Events {
    let timestamps = timestamps.as_primitive::<TimestampMicrosecondType>();
    let rows = statuses.iter().enumerate();
    rows.map(|(row, status)| match status {
        Status::Present | Status::NullValue | Status::OutsideMaxAge => {
            timestamps.is_valid(row).then(|| timestamps.value(row))
        }
        Status::NotFound | Status::InFuture | Status::NotMaterialized => None,
    })
    .collect()
}
