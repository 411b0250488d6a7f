//! What a materialization writes, and samples of keys.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use async_trait::async_trait;
use unskew_core::row::{Decoder, encode_key, timestamps};
use unskew_core::time::{Mode, availability};
use unskew_core::types::ScalarType;
use unskew_core::view::View;
use unskew_offline::{
    Components, Covered, LatestRows, LatestRowsRequest, OfflineError, RowSink, Selection, Settings,
};

use crate::repository::{Repository, Row, batch, history, ints, key, strings, times, view};

const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");

/// A store in which newer wins, as the real ones.
#[derive(Default)]
struct Store {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    largest: Mutex<usize>,
    fails: bool,
}

#[async_trait]
impl RowSink for Store {
    async fn write(
        &self,
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.fails {
            return Err("the store is down".into());
        }
        assert!(rows.is_sorted_by(|one, other| one.0 < other.0));
        let mut largest = self.largest.lock().unwrap();
        *largest = rows.len().max(*largest);
        let mut stored = self.rows.lock().unwrap();
        for (key, row) in rows {
            let known = stored.entry(key).or_default();
            if row > *known {
                *known = row;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Event and value of each string key.
    fn contents(&self) -> Vec<(String, i64, Option<i64>)> {
        let stored = self.rows.lock().unwrap();
        let rows = stored.iter().map(|(key, row)| {
            let mut decoder = Decoder::new(&[crate::repository::INT64], &[0], 1);
            decoder.push(Some(row)).unwrap();
            let column = decoder.finish().features.remove(0);
            let value = column
                .as_primitive::<arrow::datatypes::Int64Type>()
                .iter()
                .next();
            // A string key is its length and its bytes.
            let key = String::from_utf8(key[4..].to_vec()).unwrap();
            (key, timestamps(row).unwrap().0, value.unwrap())
        });
        rows.collect()
    }
}

async fn latest(
    repository: &Repository,
    view: &View,
    selection: Selection,
    covered: Covered,
    store: &Arc<Store>,
) -> Result<LatestRows, OfflineError> {
    let view = Arc::new(view.clone());
    let components = Components::new();
    let request = LatestRowsRequest {
        view: &view,
        components: &components,
        selection,
        covered,
    };
    let sink: Arc<dyn RowSink> = Arc::clone(store) as Arc<dyn RowSink>;
    repository
        .offline
        .latest_rows(request, sink, Arc::new(()))
        .await
}

const ROWS: [Row<'static>; 8] = [
    (A, Some(10), Some(10), Some(1)),
    (A, Some(20), Some(20), Some(2)),
    (A, Some(20), Some(35), Some(3)),
    (A, Some(40), Some(40), Some(4)),
    (B, Some(15), Some(15), None),
    (None, Some(12), Some(12), Some(5)),
    (B, None, Some(12), Some(6)),
    (B, Some(5), Some(5), Some(7)),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_key_gets_the_row_that_counts_at_the_end_of_the_range() {
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &history(&ROWS), 2);
    let mut view = view("h.parquet");
    let all = Selection::Range {
        start: None,
        end: 30,
    };
    let a = |event, value| ("a".to_owned(), event, value);
    let b = |event, value| ("b".to_owned(), event, value);

    let store = Arc::new(Store::default());
    let counts = latest(&repository, &view, all, Covered::default(), &store)
        .await
        .unwrap();
    assert_eq!(store.contents(), [a(20, Some(3)), b(15, None)]);
    assert_eq!((counts.read, counts.taken, counts.uncovered), (8, 5, 0));
    assert!(counts.written >= 2);

    view.source.point_in_time = Mode::Known;
    let store = Arc::new(Store::default());
    latest(&repository, &view, all, Covered::default(), &store)
        .await
        .unwrap();
    assert_eq!(store.contents(), [a(20, Some(2)), b(15, None)]);

    // What became known since: a correction.
    let since = Selection::Since {
        watermark: 30,
        end: 39,
    };
    let store = Arc::new(Store::default());
    let counts = latest(&repository, &view, since, Covered::default(), &store)
        .await
        .unwrap();
    assert_eq!(store.contents(), [a(20, Some(3))]);
    assert_eq!((counts.taken, counts.written), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_before_the_start_that_nothing_covers_are_counted() {
    let repository = Repository::new();
    repository.write("h.parquet", &history(&ROWS));
    let view = view("h.parquet");
    let range = Selection::Range {
        start: Some(20),
        end: 30,
    };
    for (covered, uncovered) in [
        (Covered::default(), 3),
        (
            Covered {
                watermark: Some(10),
                ranges: vec![],
            },
            1,
        ),
        (
            Covered {
                watermark: None,
                ranges: vec![(5, 9), (11, 19)],
            },
            1,
        ),
        (
            Covered {
                watermark: Some(19),
                ranges: vec![],
            },
            0,
        ),
    ] {
        let store = Arc::new(Store::default());
        let counts = latest(&repository, &view, range, covered.clone(), &store)
            .await
            .unwrap();
        assert_eq!(counts.uncovered, uncovered, "{covered:?}");
        assert_eq!(store.contents(), [("a".to_owned(), 20, Some(3))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_the_outcome_the_same() {
    let rows: Vec<_> = (0..30_000_i64)
        .map(|row| {
            let id = row * 7_919 % 10_007;
            (format!("{id:05}"), (row * 31) % 997)
        })
        .collect();
    let table = batch(vec![
        ("id", strings(rows.iter().map(|row| Some(row.0.as_str())))),
        ("at", times(rows.iter().map(|row| Some(row.1)))),
        ("made", times(rows.iter().map(|_| None))),
        ("v", ints((0..30_000).map(Some))),
    ]);
    let mut outcomes = Vec::new();
    for (bytes, partitions) in [(usize::MAX, 1), (100_000, 3), (0, 2)] {
        let repository = Repository::with_settings(Settings {
            partitions: NonZero::new(partitions).unwrap(),
            latest_rows_bytes: bytes,
            ..Settings::default()
        });
        repository.write_grouped("h.parquet", &table, 4_000);
        let store = Arc::new(Store::default());
        let all = Selection::Range {
            start: None,
            end: 2_000,
        };
        let counts = latest(
            &repository,
            &view("h.parquet"),
            all,
            Covered::default(),
            &store,
        )
        .await
        .unwrap();
        assert_eq!((counts.read, counts.taken), (30_000, 30_000));
        if bytes == 0 {
            assert!(*store.largest.lock().unwrap() <= 8_192);
            assert!(counts.written > 10_007);
        }
        outcomes.push(store.contents());
    }
    assert_eq!(outcomes[0].len(), 10_007);
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_ends_the_work_with_its_error() {
    let repository = Repository::new();
    repository.write("h.parquet", &history(&ROWS));
    let store = Arc::new(Store {
        fails: true,
        ..Store::default()
    });
    let all = Selection::Range {
        start: None,
        end: 30,
    };
    let error = latest(
        &repository,
        &view("h.parquet"),
        all,
        Covered::default(),
        &store,
    )
    .await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`v`") && error.contains("the store is down"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn materialized_rows_are_those_of_the_join_at_the_end() {
    let rows: Vec<_> = (0..500_i64)
        .map(|row| {
            let id = if row % 7 == 0 {
                None
            } else {
                Some(["a", "b", "c"][(row % 3) as usize])
            };
            (
                id,
                (row % 5 > 0).then_some(row * 37 % 50),
                (row % 4 > 0).then_some(row * 11 % 50),
                Some(row % 6),
            )
        })
        .collect();
    for mode in [Mode::Event, Mode::Known] {
        for end in [-1, 0, 10, 49, 60] {
            let repository = Repository::new();
            let table = history(&rows);
            repository.write_grouped("h.parquet", &table, 50);
            let mut view = view("h.parquet");
            view.source.point_in_time = mode;
            let store = Arc::new(Store::default());
            let all = Selection::Range { start: None, end };
            latest(&repository, &view, all, Covered::default(), &store)
                .await
                .unwrap();

            let keys: Vec<ArrayRef> = vec![strings([A, B, Some("c")])];
            let (features, _) = crate::oracle::oracle(&view, &table, &keys, &[end; 3]);
            let found = (0..3).map(|row| {
                let mut key = Vec::new();
                assert!(encode_key(&keys, row, &mut key));
                let stored = store.rows.lock().unwrap();
                stored.get(&key).map(|bytes| {
                    let (event, created) = timestamps(bytes).unwrap();
                    assert!(availability(mode, Some(event), created).unwrap() <= end);
                    bytes.clone()
                })
            });
            let mut decoder = Decoder::new(&[crate::repository::INT64], &[0], 1);
            for row in found {
                decoder.push(row.as_deref()).unwrap();
            }
            assert_eq!(decoder.finish().features, features, "{mode:?} {end}");
        }
    }
}

async fn sampled(repository: &Repository, view: &View, limit: usize) -> RecordBatch {
    let view = Arc::new(view.clone());
    let components = Components::new();
    repository
        .offline
        .sample_keys(&view, &components, limit, Arc::new(()))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_has_different_keys_and_does_not_depend_on_how_files_are_split() {
    let table = batch(vec![
        (
            "id",
            ints((0..5_000).map(|row| (row % 10 > 0).then_some(row / 2))),
        ),
        ("at", times((0..5_000).map(Some))),
        ("made", times((0..5_000).map(|_| None))),
        ("v", ints((0..5_000).map(Some))),
    ]);
    let repository = Repository::new();
    repository.write_grouped("one/h.parquet", &table, 100);
    for part in 0..5 {
        let part = 4 - part;
        repository.write(
            &format!("five/{part}.parquet"),
            &table.slice(part * 1_000, 1_000),
        );
    }
    let mut one = view("one");
    one.keys = vec![key("id", ScalarType::Int64)];
    let mut five = view("five");
    five.keys.clone_from(&one.keys);
    let sample = sampled(&repository, &one, 100).await;
    assert_eq!(sample, sampled(&repository, &five, 100).await);
    let ids = crate::repository::values(&sample, "id");
    let distinct: std::collections::BTreeSet<_> = ids.iter().flatten().copied().collect();
    assert_eq!(distinct.len(), 100);
    // Spread over the history: about half from its later half.
    let late = distinct.iter().filter(|id| **id >= 1_250).count();
    assert!((30..70).contains(&late), "{late}");

    assert_eq!(sampled(&repository, &one, 10_000).await.num_rows(), 2_500);
    assert_eq!(sampled(&repository, &one, 0).await.num_rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_without_keys_has_one_key_if_it_has_a_row() {
    let repository = Repository::new();
    repository.write("h.parquet", &history(&ROWS));
    let mut view = view("h.parquet");
    view.keys.clear();
    assert_eq!(sampled(&repository, &view, 10).await.num_rows(), 1);
    repository.write("h.parquet", &history(&[]));
    assert_eq!(sampled(&repository, &view, 10).await.num_rows(), 0);
}
