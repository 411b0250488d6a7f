//! What arrives late: corrections, and rows of a source that does not say when they were created.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use unskew_core::types::{ScalarType, UTC};
use unskew_offline::Progress;
use unskew_store::{
    FeatureStore, Features, Materialize, MaterializeSpan, Parity, RequestRows, StoreError,
};
use unskew_tests::{Repository, materialize, now, with_both_stores};

const DEFINITIONS: &str = "
entities:
  - {name: thing, join_keys: [{name: id, type: int64}]}
sources:
  - {name: history, path: data, timestamp_field: event_timestamp EXTRA}
feature_views:
  - {name: things, entities: [thing], source: history, features: [{name: value, type: float64}]}
feature_services:
  - {name: model, features: [things]}
";

/// (event, created, value) of thing 1.
fn rows(rows: &[(i64, i64, f64)]) -> RecordBatch {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("event_timestamp", ScalarType::Timestamp.arrow(), false),
        Field::new("created", ScalarType::Timestamp.arrow(), false),
        Field::new("value", DataType::Float64, false),
    ];
    let instants = |values: Vec<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1; rows.len()])),
        instants(rows.iter().map(|row| row.0).collect()),
        instants(rows.iter().map(|row| row.1).collect()),
        Arc::new(Float64Array::from(
            rows.iter().map(|row| row.2).collect::<Vec<_>>(),
        )),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

async fn served(store: &FeatureStore, as_of: i64) -> Option<f64> {
    let responder = store
        .responder(&Features::Service("model".to_owned()))
        .await
        .unwrap();
    let request = RequestRows {
        as_of: TimestampMicrosecondArray::from(vec![as_of]).with_timezone(UTC),
        keys: vec![Arc::new(Int64Array::from(vec![1]))],
        request: Vec::new(),
    };
    let batch = responder.answer(&request).await.unwrap().batch;
    let values = batch.column(0).as_primitive::<Float64Type>();
    values.is_valid(0).then(|| values.value(0))
}

async fn differences(store: &FeatureStore) -> u64 {
    let request = Parity {
        service: "model".to_owned(),
        as_of: None,
        rows: 30,
        entities: None,
    };
    store.parity(request, None).await.unwrap().differences
}

/// Writes rows up to `end`, from `start` or from the watermark.
async fn range(store: &FeatureStore, start: i64, end: i64) {
    let request = Materialize {
        views: Vec::new(),
        span: MaterializeSpan::Range { start, end },
        now: now(),
    };
    store.materialize(request, Arc::new(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_correction_arrives_with_the_next_increment() {
    with_both_stores(async |online| {
        for mode in ["event", "known"] {
            let extra = format!(", created_timestamp_column: created, point_in_time: {mode}");
            let repository = Repository::new(online, &DEFINITIONS.replace(" EXTRA", &extra));
            repository.write("data/1.parquet", &rows(&[(10, 11, 1.0)]));
            let store = repository.store();
            store.apply(&()).await.unwrap();
            materialize(&store, 100).await;
            assert_eq!(served(&store, 100).await, Some(1.0));
            repository.write("data/2.parquet", &rows(&[(10, 150, 2.0)]));
            materialize(&store, 200).await;
            assert_eq!(served(&store, 200).await, Some(2.0), "{mode}");
            assert_eq!(differences(&store).await, 0);
            // A range that follows on from the watermark does not leave a correction behind.
            repository.write("data/3.parquet", &rows(&[(10, 250, 3.0)]));
            range(&store, 200, 300).await;
            assert_eq!(served(&store, 300).await, Some(3.0), "{mode}");
            assert_eq!(differences(&store).await, 0);
            store.teardown().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_created_timestamp_late_by_is_read_again() {
    with_both_stores(async |online| {
        let extra = ", late_by: 1s";
        let repository = Repository::new(online, &DEFINITIONS.replace(" EXTRA", extra));
        const SECOND: i64 = 1_000_000;
        repository.write("data/1.parquet", &rows(&[(SECOND, 0, 1.0)]));
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, 10 * SECOND).await;
        repository.write("data/2.parquet", &rows(&[(9 * SECOND + 1, 0, 2.0)]));
        materialize(&store, 20 * SECOND).await;
        assert_eq!(served(&store, 20 * SECOND).await, Some(2.0));
        assert_eq!(differences(&store).await, 0);
        // Later than `late_by` is too late, which parity shows.
        repository.write("data/3.parquet", &rows(&[(18 * SECOND, 0, 3.0)]));
        materialize(&store, 30 * SECOND).await;
        assert_eq!(served(&store, 30 * SECOND).await, Some(2.0));
        assert!(differences(&store).await > 0);
        store.teardown().await.unwrap();
    })
    .await;
}

/// Empties the store when the reading of history begins: after the run has begun, before its rows
/// are written.
struct Emptying {
    store: FeatureStore,
    runtime: tokio::runtime::Handle,
}

impl Progress for Emptying {
    fn begin(&self, _stage: &str, _rows: u64) {
        let store = self.store.clone();
        let runtime = self.runtime.clone();
        // Not on a thread that drives tasks: it waits for the store.
        let emptied = std::thread::spawn(move || runtime.block_on(store.teardown()).unwrap());
        emptied.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_emptied_meanwhile_is_not_taken_for_a_filled_one() {
    with_both_stores(async |online| {
        let repository = Repository::new(online, &DEFINITIONS.replace(" EXTRA", ""));
        repository.write("data/1.parquet", &rows(&[(10, 10, 1.0)]));
        let store = repository.store();
        store.apply(&()).await.unwrap();
        for first in [true, false] {
            if !first {
                materialize(&store, 100).await;
            }
            let request = Materialize {
                views: Vec::new(),
                span: MaterializeSpan::Incremental { end: 200 },
                now: now(),
            };
            let emptying = Emptying {
                store: store.clone(),
                runtime: tokio::runtime::Handle::current(),
            };
            let error = store
                .materialize(request, Arc::new(emptying))
                .await
                .unwrap_err();
            assert!(matches!(error, StoreError::Emptied { .. }), "{error}");
            assert_eq!(store.status().await.unwrap()[0].watermark, None);
        }
        materialize(&store, 200).await;
        assert_eq!(served(&store, 200).await, Some(1.0));
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_says_that_a_materialization_was_cut_off_and_another_makes_it_good() {
    /// Ends the run where it begins to read.
    struct Cut;
    impl Progress for Cut {
        fn begin(&self, _stage: &str, _rows: u64) {
            panic!("cut off");
        }
    }
    with_both_stores(async |online| {
        let repository = Repository::new(online, &DEFINITIONS.replace(" EXTRA", ""));
        repository.write("data/1.parquet", &rows(&[(10, 10, 1.0), (150, 150, 2.0)]));
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, 100).await;
        let cut = store.clone();
        let run = tokio::spawn(async move {
            let span = MaterializeSpan::Incremental { end: 200 };
            let request = Materialize {
                views: Vec::new(),
                span,
                now: now(),
            };
            cut.materialize(request, Arc::new(Cut)).await.map(|_| ())
        });
        assert!(run.await.is_err());
        let request = Parity {
            service: "model".to_owned(),
            as_of: None,
            rows: 30,
            entities: None,
        };
        let error = store.parity(request, None).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Unfinished { end: 200, .. }),
            "{error}"
        );
        assert_eq!(store.status().await.unwrap()[0].unfinished, Some(200));
        // What is served meanwhile is what was materialized.
        assert_eq!(served(&store, 100).await, Some(1.0));
        materialize(&store, 200).await;
        assert_eq!(store.status().await.unwrap()[0].unfinished, None);
        assert_eq!(differences(&store).await, 0);
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_read_leaves_no_mark() {
    with_both_stores(async |online| {
        let repository = Repository::new(online, &DEFINITIONS.replace(" EXTRA", ""));
        let good = repository.write("data/1.parquet", &rows(&[(10, 10, 1.0)]));
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, 100).await;
        let bytes = std::fs::read(&good).unwrap();
        std::fs::write(&good, &bytes[..bytes.len() / 2]).unwrap();
        let request = Materialize {
            views: Vec::new(),
            span: MaterializeSpan::Incremental { end: 200 },
            now: now(),
        };
        let error = store.materialize(request, Arc::new(())).await.unwrap_err();
        assert!(error.to_string().contains("1.parquet"), "{error}");
        let status = store.status().await.unwrap();
        assert_eq!(
            (status[0].watermark, status[0].unfinished),
            (Some(100), None)
        );
        std::fs::write(&good, &bytes).unwrap();
        assert_eq!(differences(&store).await, 0);
        store.teardown().await.unwrap();
    })
    .await;
}
