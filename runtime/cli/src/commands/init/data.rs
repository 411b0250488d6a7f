//! The data of a new repository: made up, and the same each time.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use unskew_core::time::{DAY, SECOND};
use unskew_core::types::UTC;

/// 2025-01-01T00:00:00Z.
const START: i64 = 1_735_689_600 * SECOND;
const HOUR: i64 = 3_600 * SECOND;
const DAYS: i64 = 7;
const FIRST_DRIVER: i64 = 1_001;
const DRIVERS: i64 = 50;
const RIDES: i64 = 1_000;

/// Each file's name and content.
pub(super) fn files() -> anyhow::Result<[(&'static str, Vec<u8>); 2]> {
    let mut random = Random(20_250_101);
    Ok([
        (
            "data/driver_hours.parquet",
            parquet(&driver_hours(&mut random)?)?,
        ),
        ("data/rides.parquet", parquet(&rides(&mut random)?)?),
    ])
}

/// The history: each driver's figures at the end of each hour, known some minutes later.
fn driver_hours(random: &mut Random) -> anyhow::Result<RecordBatch> {
    let mut drivers = Vec::new();
    let mut events = Vec::new();
    let mut created = Vec::new();
    let mut acceptance_rates = Vec::new();
    let mut mean_speeds = Vec::new();
    let mut rides_today = Vec::new();
    let mut rides = vec![0; DRIVERS as usize];
    for hour in 0..DAYS * 24 {
        for (driver, rides) in (FIRST_DRIVER..).zip(&mut rides) {
            let of_day = hour % 24;
            if of_day == 0 {
                *rides = 0;
            }
            // At night there is little to do.
            let new = if of_day < 6 {
                random.below(2)
            } else {
                random.below(5)
            };
            *rides += new;
            let event = START + hour * HOUR;
            drivers.push(driver);
            events.push(event);
            created.push(event + (1 + random.below(15)) * 60 * SECOND);
            let offers = new + random.below(3);
            acceptance_rates.push((offers > 0).then(|| new as f64 / offers as f64));
            mean_speeds.push((new > 0).then(|| 15.0 + random.unit() * 35.0));
            rides_today.push(*rides);
        }
    }
    batch([
        ("driver_id", Arc::new(Int64Array::from(drivers))),
        ("event_timestamp", timestamps(events)),
        ("created_timestamp", timestamps(created)),
        (
            "acceptance_rate",
            Arc::new(Float64Array::from(acceptance_rates)),
        ),
        ("mean_speed", Arc::new(Float64Array::from(mean_speeds))),
        ("rides_today", Arc::new(Int64Array::from(rides_today))),
    ])
}

/// Entity rows: rides that were offered, some of them to drivers of whom nothing is known.
fn rides(random: &mut Random) -> anyhow::Result<RecordBatch> {
    let rides = || 0..RIDES;
    let drivers: Vec<i64> = rides()
        .map(|_| FIRST_DRIVER + random.below(DRIVERS + 2))
        .collect();
    let events: Vec<i64> = rides()
        .map(|_| START + random.below(DAYS * DAY / SECOND) * SECOND)
        .collect();
    // In steps of 10 m.
    let distances: Vec<f64> = rides()
        .map(|_| (1 + random.below(1_200)) as f64 / 100.0)
        .collect();
    let accepted: Vec<bool> = distances
        .iter()
        .map(|distance| random.unit() < 0.9 - distance / 20.0)
        .collect();
    batch([
        (
            "ride_id",
            Arc::new(Int64Array::from_iter_values(rides())) as ArrayRef,
        ),
        ("driver_id", Arc::new(Int64Array::from(drivers))),
        ("event_timestamp", timestamps(events)),
        ("distance", Arc::new(Float64Array::from(distances))),
        ("accepted", Arc::new(BooleanArray::from(accepted))),
    ])
}

fn timestamps(micros: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone(UTC))
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> anyhow::Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn parquet(batch: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to below `bound`.
    fn below(&mut self, bound: i64) -> i64 {
        (self.unit() * bound as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_are_the_same_each_time() {
        let (first, second) = (files().unwrap(), files().unwrap());
        assert_eq!(first, second);
    }

    #[test]
    fn a_driver_has_a_row_for_each_hour_and_some_values_are_null() {
        let hours = driver_hours(&mut Random(1)).unwrap();
        assert_eq!(hours.num_rows() as i64, DRIVERS * DAYS * 24);
        for name in ["acceptance_rate", "mean_speed"] {
            let column = hours.column_by_name(name).unwrap();
            assert!(
                column.null_count() > 0 && column.null_count() < column.len() / 2,
                "{name}"
            );
        }
    }
}
