//! Random histories and entity rows: the join equals the oracle, however files are split and read.

use std::num::NonZero;
use std::sync::Arc;

use arrow::array::RecordBatch;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use unskew_core::time::Mode;
use unskew_core::types::Field;
use unskew_core::view::View;
use unskew_offline::Settings;

use crate::oracle::{needed, oracle};
use crate::repository::{INT64, Repository, batch, ints, plan_of, strings, times, view};

/// Key, event, created, two features.
type HistoryRow = (
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

/// So few values that ties in everything are common.
fn history_row() -> impl Strategy<Value = HistoryRow> {
    (
        weighted(0.9, "[ab]{0,2}"),
        weighted(0.9, 0..12_i64),
        weighted(0.8, 0..12_i64),
        weighted(0.8, prop_oneof![0..3_i64, Just(256), any::<i64>()]),
        weighted(0.8, 0..2_i64),
    )
}

fn history(rows: &[HistoryRow]) -> RecordBatch {
    batch(vec![
        ("id", strings(rows.iter().map(|row| row.0.as_deref()))),
        ("at", times(rows.iter().map(|row| row.1))),
        ("made", times(rows.iter().map(|row| row.2))),
        ("v", ints(rows.iter().map(|row| row.3))),
        ("w", ints(rows.iter().map(|row| row.4))),
    ])
}

fn two_features(path: &str, mode: Mode, ttl: Option<i64>) -> View {
    let mut view = view(path);
    view.features.push(Field::new("w", INT64));
    view.source.point_in_time = mode;
    view.ttl = ttl;
    view
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_join_equals_the_oracle_however_the_history_is_split(
        rows in vec(history_row(), 0..60),
        shuffled in any::<prop::sample::Index>(),
        cuts in vec(any::<prop::sample::Index>(), 0..4),
        group in 1..20_usize,
        partitions in prop_oneof![Just(1_usize), Just(2), Just(8)],
        memory_limit in prop_oneof![Just(None), Just(Some(1_usize)), Just(Some(1 << 12))],
        until in prop_oneof![Just(&[][..]), Just(&[None][..])],
        asked in vec((weighted(0.9, "[ab]{0,2}"), -2..15_i64), 0..40),
        mode in prop_oneof![Just(Mode::Event), Just(Mode::Known)],
        ttl in weighted(0.5, 1..6_i64),
    ) {
        let entities = batch(vec![
            ("id", strings(asked.iter().map(|(id, _)| id.as_deref()))),
            ("event_timestamp", times(asked.iter().map(|(_, at)| Some(*at)))),
        ]);
        let at: Vec<_> = asked.iter().map(|(_, at)| *at).collect();
        let whole = two_features("whole.parquet", mode, ttl);
        let keys = [Arc::clone(entities.column(0))];
        let regarded = match until {
            [] => needed(&whole, &history(&rows), &at),
            _ => history(&rows),
        };
        let (features, statuses) = oracle(&whole, &regarded, &keys, &at);

        let repository = Repository::with_settings(Settings {
            partitions: NonZero::new(partitions).unwrap(),
            memory_limit,
            ..Settings::default()
        });
        repository.write_grouped("whole.parquet", &history(&rows), group);

        // The same rows in another order, in several files.
        let mut other = rows.clone();
        if !other.is_empty() {
            let middle = shuffled.index(other.len());
            other.rotate_left(middle);
            other[..].reverse();
        }
        let mut bounds: Vec<_> = cuts.iter().map(|cut| cut.index(rows.len() + 1)).collect();
        bounds.extend([0, rows.len()]);
        bounds.sort_unstable();
        for (file, pair) in bounds.windows(2).enumerate() {
            let part = history(&other[pair[0]..pair[1]]);
            repository.write_grouped(&format!("split/{file}.parquet"), &part, group);
        }
        let split = two_features("split", mode, ttl);

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        for view in [whole, split] {
            let plan = plan_of(&view);
            let found = repository.evaluated_until(&plan, &entities, until);
            let found = runtime.block_on(found).unwrap();
            prop_assert_eq!(found.batch.columns(), &features[..]);
            prop_assert_eq!(&found.statuses, &statuses);
        }
    }
}

/// More rows than a batch and a chunk hold, in several partitions.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_in_many_batches_equal_the_oracle_of_each_key() {
    let repository = Repository::new();
    let rows: Vec<HistoryRow> = (0..40_000_i64)
        .map(|row| {
            let id = row * 7_919 % 20_011;
            (
                Some(id.to_string()),
                Some(row % 1_000),
                None,
                Some(row),
                Some(id),
            )
        })
        .collect();
    repository.write_grouped("h.parquet", &history(&rows), 5_000);
    let asked: Vec<_> = (0..20_000_i64)
        .map(|row| (row * 31 % 20_011, row % 1_200))
        .collect();
    let names: Vec<_> = asked.iter().map(|(id, _)| id.to_string()).collect();
    let entities = batch(vec![
        ("id", strings(names.iter().map(|name| Some(name.as_str())))),
        (
            "event_timestamp",
            times(asked.iter().map(|(_, at)| Some(*at))),
        ),
    ]);
    let view = two_features("h.parquet", Mode::Event, None);
    let found = repository
        .evaluated(&plan_of(&view), &entities)
        .await
        .unwrap();

    let mut by_id: std::collections::BTreeMap<i64, Vec<&HistoryRow>> = Default::default();
    for row in &rows {
        by_id.entry(row.4.unwrap()).or_default().push(row);
    }
    let expected: Vec<_> = asked
        .iter()
        .map(|(id, at)| {
            let rows = by_id.get(id)?.iter().filter(|row| row.1 <= Some(*at));
            let best = rows.max_by_key(|row| (row.1, row.3.unwrap().to_le_bytes()))?;
            best.3
        })
        .collect();
    assert_eq!(crate::repository::values(&found.batch, "v__v"), expected);
}

/// As many rows as it takes to see in which order they come, in and out of time.
#[tokio::test(flavor = "multi_thread")]
async fn long_histories_in_any_order_give_the_same() {
    const ROWS: i64 = 200_000;
    const SPAN: i64 = 1_000_003;
    let row = |index: i64| -> HistoryRow {
        let event = index * 104_729 % SPAN;
        let id = (index * 7_919 % 500).to_string();
        (Some(id), Some(event), Some(event + 5), Some(index), Some(0))
    };
    let shuffled: Vec<_> = (0..ROWS).map(row).collect();
    let mut sorted = shuffled.clone();
    sorted.sort_by_key(|row| row.1);
    let mut reversed = sorted.clone();
    reversed.reverse();

    let asked: Vec<_> = (0..5_000_i64)
        .map(|row| ((row * 31 % 500).to_string(), row * 7_907 % SPAN))
        .collect();
    let entities = batch(vec![
        ("id", strings(asked.iter().map(|(id, _)| Some(id.as_str())))),
        (
            "event_timestamp",
            times(asked.iter().map(|(_, at)| Some(*at))),
        ),
    ]);
    let mut by_id: std::collections::BTreeMap<&str, Vec<(i64, i64)>> = Default::default();
    for row in &sorted {
        let entry = (row.1.unwrap(), row.3.unwrap());
        by_id
            .entry(row.0.as_deref().unwrap())
            .or_default()
            .push(entry);
    }
    let expected: Vec<_> = asked
        .iter()
        .map(|(id, at)| {
            let rows = by_id.get(id.as_str())?;
            let after = rows.partition_point(|&(event, _)| event <= *at);
            Some(rows[after.checked_sub(1)?].1)
        })
        .collect();
    for (partitions, memory_limit) in [(1, None), (2, None), (2, Some(1 << 20))] {
        let repository = Repository::with_settings(Settings {
            partitions: NonZero::new(partitions).unwrap(),
            memory_limit,
            ..Settings::default()
        });
        for (name, rows) in [
            ("shuffled", &shuffled),
            ("sorted", &sorted),
            ("reversed", &reversed),
        ] {
            let path = format!("{name}.parquet");
            repository.write_grouped(&path, &history(rows), 70_000);
            let plan = plan_of(&two_features(&path, Mode::Event, None));
            let found = repository.evaluated(&plan, &entities).await.unwrap();
            let values = crate::repository::values(&found.batch, "v__v");
            assert_eq!(values, expected, "{name} {partitions} {memory_limit:?}");
        }
    }
}
