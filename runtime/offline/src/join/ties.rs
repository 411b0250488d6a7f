//! Ties: rows that are equal in all that the first phase of the join has read.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use hashbrown::HashMap;
use unskew_core::row::encode;
use unskew_core::types::{DataType, ScalarType};

use super::chosen::{Address, Chosen};
use super::kept::{Entries, read_rows};
use super::stored::Task;
use crate::error::OfflineError;

/// Gives each slot with ties the greatest of its rows, by created timestamp and then by the whole
/// row; blocks. Only the rows of such slots are read.
///
/// # Errors
/// A file cannot be read, is another than before, or holds a value that is none of its feature's.
pub(crate) fn settle(task: &Task<'_>, chosen: &mut Chosen) -> Result<(), OfflineError> {
    if chosen.ties().is_empty() {
        return Ok(());
    }
    let mut wanted: Vec<(&str, DataType)> = task
        .view
        .features
        .iter()
        .map(|feature| (feature.name.as_str(), feature.data_type))
        .collect();
    let created = task.view.source.created_timestamp_column.as_deref();
    wanted.extend(created.map(|name| (name, DataType::Scalar(ScalarType::Timestamp))));

    let mut greatest: HashMap<u32, (Vec<u8>, Address)> = HashMap::new();
    let mut bytes = Vec::new();
    let entries = {
        let tied = chosen.tied_winners();
        Entries::of(task.scan.scan().row_groups(), tied.iter().copied())
    };
    for (row_group, range) in &entries.buckets {
        let entries = &entries.all[range.clone()];
        let mut columns = read_rows(task, &wanted, *row_group, entries)?;
        let created = created.and_then(|_| columns.pop());
        let created = created
            .as_ref()
            .map(|created| created.as_primitive::<TimestampMicrosecondType>());
        for (index, &(row, slot)) in entries.iter().enumerate() {
            let created = created.filter(|created| created.is_valid(index));
            let created = created.map(|created| created.value(index));
            bytes.clear();
            encode(&columns, index, chosen.event(slot), created, &mut bytes);
            let address = Address::new(*row_group, row);
            let known = greatest
                .entry(slot)
                .or_insert_with(|| (Vec::new(), address));
            if bytes > known.0 {
                known.0.clone_from(&bytes);
                known.1 = address;
            }
        }
    }
    let winners = greatest.into_iter();
    chosen.settle_ties(winners.map(|(slot, (_, address))| (slot, address)));
    Ok(())
}
