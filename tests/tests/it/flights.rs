//! The real flights: distances against figures that nobody here made, statistics against an
//! independent oracle, parity on both stores and over HTTP.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, TimestampMicrosecondType};
use unskew_server::client::HttpPath;
use unskew_store::{FeatureStore, Parity};
use unskew_tests::{
    Online, Repository, Server, component, flights, materialize, read_parquet, training_set,
    with_both_stores, write_parquet,
};

const DAY: i64 = 86_400_000_000;

const DEFINITIONS: &str = r"
entities:
  - name: airport
    join_keys: [{name: iata, type: string}]
sources:
  - {name: airports, path: data/airports.parquet, timestamp_field: event_timestamp}
  - name: airport_daily_stats
    path: data/airport_daily_stats.parquet
    timestamp_field: event_timestamp
    created_timestamp_column: created_timestamp
    point_in_time: MODE
feature_views:
  - name: airport
    entities: [airport]
    source: airports
    features:
      - {name: latitude, type: float64}
      - {name: longitude, type: float64}
  - name: airport_daily
    entities: [airport]
    source: airport_daily_stats
    ttl: 7d
    features:
      - {name: mean_delay, type: float64}
      - {name: late_share, type: float32}
  - {name: origin, alias_of: airport, join_keys: {iata: origin}}
  - {name: destination, alias_of: airport, join_keys: {iata: destination}}
  - {name: origin_daily, alias_of: airport_daily, join_keys: {iata: origin}}
transformations:
  - name: route
    kind: on_demand
    component: transforms/route.wasm
    inputs:
      from_latitude: origin:latitude
      from_longitude: origin:longitude
      to_latitude: destination:latitude
      to_longitude: destination:longitude
      mean_delay: {from: 'origin_daily:mean_delay', default: 0.0}
      minutes_ahead: request:minutes_ahead
      late_after: {value: 15.0}
      at: event_timestamp
feature_services:
  - name: delay_model
    features: [origin_daily, 'destination:latitude', 'route:miles', 'route:hour_of_day']
";

/// The repository, applied, and its entity rows.
async fn repository(online: Online<'_>, mode: &str, data: &Path) -> (Repository, FeatureStore) {
    let repository = Repository::new(online, &DEFINITIONS.replace("MODE", mode));
    for folder in ["data", "transforms"] {
        std::fs::create_dir(repository.path(folder)).unwrap();
    }
    for file in ["airports.parquet", "airport_daily_stats.parquet"] {
        std::fs::copy(data.join(file), repository.path("data").join(file)).unwrap();
    }
    std::fs::copy(component("route"), repository.path("transforms/route.wasm")).unwrap();
    write_parquet(&repository.path("flights.parquet"), &entity_rows(data));
    let store = repository.store();
    store.apply(&()).await.unwrap();
    (repository, store)
}

/// The flights, with a request field.
fn entity_rows(data: &Path) -> RecordBatch {
    let flights = read_parquet(&data.join("flights.parquet"));
    let minutes: arrow::array::Int64Array =
        (0..flights.num_rows() as i64).map(|i| i % 180).collect();
    let mut fields: Vec<_> = flights
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.push(arrow::datatypes::Field::new(
        "minutes_ahead",
        arrow::datatypes::DataType::Int64,
        false,
    ));
    let mut columns = flights.columns().to_vec();
    columns.push(std::sync::Arc::new(minutes));
    RecordBatch::try_new(
        std::sync::Arc::new(arrow::datatypes::Schema::new(fields)),
        columns,
    )
    .unwrap()
}

fn micros(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let column = batch.column_by_name(column).unwrap();
    let micros =
        arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let column = arrow::compute::cast(column, &micros).unwrap();
    column
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .to_vec()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap();
    let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap();
    column
        .as_string::<i32>()
        .iter()
        .map(|text| text.unwrap().to_owned())
        .collect()
}

/// The daily statistics of each flight, by looking at every row of its airport: slow and obvious.
fn oracle(data: &Path, known: bool) -> Vec<Option<(f64, f32)>> {
    let stats = read_parquet(&data.join("airport_daily_stats.parquet"));
    let (event, created) = (
        micros(&stats, "event_timestamp"),
        micros(&stats, "created_timestamp"),
    );
    let mean = stats
        .column_by_name("mean_delay")
        .unwrap()
        .as_primitive::<Float64Type>()
        .clone();
    let late = stats
        .column_by_name("late_share")
        .unwrap()
        .as_primitive::<Float32Type>()
        .clone();
    let mut of_airport: HashMap<String, Vec<usize>> = HashMap::new();
    for (row, airport) in texts(&stats, "iata").into_iter().enumerate() {
        of_airport.entry(airport).or_default().push(row);
    }
    let flights = read_parquet(&data.join("flights.parquet"));
    let (at, origin) = (
        micros(&flights, "event_timestamp"),
        texts(&flights, "origin"),
    );
    (0..flights.num_rows())
        .map(|flight| {
            let rows = of_airport
                .get(&origin[flight])
                .into_iter()
                .flatten()
                .copied();
            let counts =
                |row: &usize| event[*row] <= at[flight] && (!known || created[*row] <= at[flight]);
            let best = rows
                .filter(counts)
                .max_by_key(|&row| (event[row], created[row]))?;
            (at[flight] - event[best] <= 7 * DAY).then(|| (mean.value(best), late.value(best)))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_set_of_all_flights_is_right_under_both_modes() {
    let Some(data) = flights() else { return };
    for mode in ["event", "known"] {
        let (repository, store) = repository(Online::Embedded, mode, &data).await;
        let training =
            training_set(&store, "delay_model", &repository.path("flights.parquet")).await;
        assert_eq!(training.num_rows(), 20_000);

        // Every entity row and column is there, in its place.
        let entities = read_parquet(&repository.path("flights.parquet"));
        for (index, column) in entities.columns().iter().enumerate() {
            assert_eq!(
                column,
                training.column(index),
                "{}",
                entities.schema().field(index).name()
            );
        }

        let miles = training
            .column_by_name("miles")
            .unwrap()
            .as_primitive::<Float64Type>();
        let published = training.column_by_name("distance_miles").unwrap();
        let published =
            arrow::compute::cast(published, &arrow::datatypes::DataType::Float64).unwrap();
        let published = published.as_primitive::<Float64Type>();
        assert_eq!(miles.null_count(), 0);
        for row in 0..miles.len() {
            let difference = (miles.value(row) - published.value(row)).abs();
            assert!(
                difference <= 8.0,
                "row {row}: {} and {}",
                miles.value(row),
                published.value(row)
            );
        }

        let hours = training
            .column_by_name("hour_of_day")
            .unwrap()
            .as_primitive::<Int32Type>();
        for (row, at) in micros(&training, "event_timestamp").into_iter().enumerate() {
            let ahead = at + (row as i64 % 180) * 60_000_000;
            assert_eq!(
                i64::from(hours.value(row)),
                ahead.rem_euclid(DAY) / 3_600_000_000,
                "row {row}"
            );
        }

        let mean = training
            .column_by_name("mean_delay")
            .unwrap()
            .as_primitive::<Float64Type>();
        let late = training
            .column_by_name("late_share")
            .unwrap()
            .as_primitive::<Float32Type>();
        let expected = oracle(&data, mode == "known");
        assert!(expected.iter().filter(|row| row.is_some()).count() > 15_000);
        assert!(expected.iter().any(Option::is_none));
        for (row, expected) in expected.into_iter().enumerate() {
            let found = mean
                .is_valid(row)
                .then(|| (mean.value(row), late.value(row)));
            assert_eq!(
                found.map(|(mean, late)| (mean.to_bits(), late.to_bits())),
                expected.map(|(mean, late)| (mean.to_bits(), late.to_bits())),
                "row {row} under {mode}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_finds_no_difference_on_both_stores_and_over_http() {
    let Some(data) = flights() else { return };
    with_both_stores(async |online| {
        for mode in ["event", "known"] {
            let (repository, store) = repository(online, mode, &data).await;
            // The last statistics are of the end of March 2001, and corrected two days later.
            materialize(&store, 986_500_000_000_000).await;
            let server = Server::start(&store).await;
            let http = HttpPath::new(server.url.clone(), "delay_model".to_owned());
            for entities in [None, Some(repository.path("flights.parquet"))] {
                let request = Parity {
                    service: "delay_model".to_owned(),
                    as_of: None,
                    rows: 1_000,
                    entities: entities.clone(),
                };
                let report = store.parity(request.clone(), None).await.unwrap();
                assert_eq!(
                    report.differences, 0,
                    "{online:?} {mode}: {:#?}",
                    report.first
                );
                assert_eq!(report.rows, if entities.is_some() { 20_000 } else { 1_000 });
                assert_eq!(report.features, 5);
                let report = store.parity(request, Some(&http)).await.unwrap();
                assert_eq!(
                    report.differences, 0,
                    "{online:?} {mode} HTTP: {:#?}",
                    report.first
                );
            }
            server.stop().await;
            store.teardown().await.unwrap();
        }
    })
    .await;
}
