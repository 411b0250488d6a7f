//! The history as Parquet files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::history::{Activity, Cart, DAY, History, Order, START};

/// The files of orders, and on which day of the history the month begins.
const MONTHS: [(&str, i64); 3] = [("2025-01", 0), ("2025-02", 31), ("2025-03", 59)];

/// Writes all files; gives each with the number of its rows.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(history: &History, folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    fs::create_dir_all(folder.join("orders"))
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut tables = vec![(
        "customer_activity.parquet".to_owned(),
        activities(&history.activities)?,
    )];
    for (index, (month, first)) in MONTHS.iter().enumerate() {
        let end = MONTHS
            .get(index + 1)
            .map_or(i64::MAX, |(_, next)| START + next * DAY);
        let rows = history.orders.iter();
        let rows: Vec<&Order> = rows
            .filter(|order| (START + first * DAY..end).contains(&order.at))
            .collect();
        tables.push((format!("orders/{month}.parquet"), orders(&rows)?));
    }
    tables.push(("carts.parquet".to_owned(), carts(&history.carts)?));
    let written = tables.into_iter().map(|(name, table)| {
        let file = folder.join(name);
        write_file(&table, &file).with_context(|| format!("{}", file.display()))?;
        Ok((file, table.num_rows()))
    });
    written.collect()
}

fn activities(rows: &[Activity]) -> Result<RecordBatch> {
    table(vec![
        ("customer_id", integers(rows, |row| Some(row.customer))),
        ("event_timestamp", instants(rows, |row| row.at)),
        ("created_timestamp", instants(rows, |row| row.created)),
        (
            "days_since_last_purchase",
            integers(rows, |row| row.days_since_last_purchase),
        ),
        (
            "purchases_last_7d",
            integers(rows, |row| Some(row.purchases_last_7d)),
        ),
        (
            "page_views_last_7d",
            integers(rows, |row| Some(row.page_views_last_7d)),
        ),
        (
            "cart_abandonment_rate_30d",
            floats(rows, |row| row.cart_abandonment_rate_30d),
        ),
        ("mean_amount_30d", floats(rows, |row| row.mean_amount_30d)),
    ])
}

fn orders(rows: &[&Order]) -> Result<RecordBatch> {
    table(vec![
        ("order_id", integers(rows, |order| Some(order.id))),
        ("customer_id", integers(rows, |order| Some(order.customer))),
        ("ordered_at", instants(rows, |order| order.at)),
        ("amount", floats(rows, |order| Some(dollars(order.cents)))),
        ("refunded", booleans(rows, |order| order.refunded)),
    ])
}

fn carts(rows: &[Cart]) -> Result<RecordBatch> {
    table(vec![
        ("customer_id", integers(rows, |cart| Some(cart.customer))),
        ("event_timestamp", instants(rows, |cart| cart.at)),
        ("amount", floats(rows, |cart| Some(dollars(cart.cents)))),
        ("label", booleans(rows, |cart| cart.bought)),
    ])
}

fn dollars(cents: i64) -> f64 {
    cents as f64 / 100.0
}

fn integers<T>(rows: &[T], value: impl Fn(&T) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Int64Array>())
}

fn floats<T>(rows: &[T], value: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

fn booleans<T>(rows: &[T], value: impl Fn(&T) -> bool) -> ArrayRef {
    let values: Vec<bool> = rows.iter().map(value).collect();
    Arc::new(BooleanArray::from(values))
}

fn instants<T>(rows: &[T], value: impl Fn(&T) -> i64) -> ArrayRef {
    let micros = TimestampMicrosecondArray::from_iter_values(rows.iter().map(value));
    Arc::new(micros.with_timezone("UTC"))
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    // Nullable whether or not a null occurs, so that all files of a source agree.
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn write_file(table: &RecordBatch, file: &Path) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(file)?, table.schema(), Some(properties))?;
    writer.write(table)?;
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_write_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = write(&History::generate(), one.path()).unwrap();
        write(&History::generate(), two.path()).unwrap();
        assert_eq!(files.len(), 5);
        for (file, rows) in files {
            let name = file.strip_prefix(one.path()).unwrap();
            assert!(rows > 1_000, "{}", name.display());
            assert!(
                fs::read(&file).unwrap() == fs::read(two.path().join(name)).unwrap(),
                "{}",
                name.display()
            );
        }
    }
}
