//! Keys in, joined batch out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow::datatypes::Int32Type;
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use common::row;
use unskew_core::plan::{FeaturePlan, Lookup, SEMANTICS};
use unskew_core::row::{encode, encode_key};
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_core::view::{JoinKey, Source, View};
use unskew_online::lookup::Joiner;
use unskew_online::{
    Held, OnlineError, OnlineStore, PutSummary, StoreHealth, StoredRow, ViewKey, ViewState, Wanted,
};

type Store = Arc<dyn OnlineStore>;

on_both_stores!(
    a_joined_batch_holds_what_was_found,
    every_type_comes_back_by_bits,
    each_row_is_fetched_once_and_all_at_once,
    a_view_without_state_is_not_materialized_whatever_it_holds,
    a_view_of_one_row_for_everybody,
    no_rows_make_an_empty_batch,
    a_plan_without_lookups,
    a_damaged_row_is_named,
    a_damaged_row_is_named_by_a_key_of_any_type,
    columns_that_do_not_fit_are_refused,
    a_changed_view_does_not_see_rows_of_its_former_meaning,
);

const PROJECT: &str = "flights";

fn field(name: &str, scalar: ScalarType) -> Field {
    Field::new(name, DataType::Scalar(scalar))
}

fn view(name: &str, keys: &[(&str, ScalarType)], features: &[(&str, DataType)]) -> Arc<View> {
    Arc::new(View {
        name: name.to_owned(),
        source: Source {
            name: name.to_owned(),
            path: format!("{name}.parquet"),
            timestamp_field: "event_timestamp".to_owned(),
            created_timestamp_column: None,
            point_in_time: Default::default(),
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        },
        keys: keys
            .iter()
            .map(|&(name, data_type)| JoinKey {
                name: name.to_owned(),
                data_type,
            })
            .collect(),
        features: features
            .iter()
            .map(|&(name, data_type)| Field::new(name, data_type))
            .collect(),
        ttl: None,
        online: true,
        batch: None,
    })
}

fn airport() -> Arc<View> {
    let number = DataType::Scalar(ScalarType::Float64);
    view(
        "airport",
        &[("iata", ScalarType::String)],
        &[
            ("latitude", number),
            ("longitude", number),
            ("name", DataType::Scalar(ScalarType::String)),
        ],
    )
}

fn lookup(name: &str, view: &Arc<View>, keys: &[usize], features: &[usize]) -> Lookup {
    Lookup {
        name: name.to_owned(),
        view: Arc::clone(view),
        keys: keys.to_vec(),
        features: features.to_vec(),
    }
}

fn plan(join_keys: Vec<Field>, request_fields: Vec<Field>, lookups: Vec<Lookup>) -> FeaturePlan {
    FeaturePlan {
        semantics: SEMANTICS,
        service: None,
        join_keys,
        request_fields,
        lookups,
        steps: vec![],
        outputs: vec![],
    }
}

/// Origin and destination are the same view under other keys.
fn flights() -> FeaturePlan {
    let string = |name| field(name, ScalarType::String);
    let airport = airport();
    plan(
        vec![string("origin"), string("destination")],
        vec![field("minutes_ahead", ScalarType::Int32)],
        vec![
            lookup("origin", &airport, &[0], &[0, 2]),
            lookup("destination", &airport, &[1], &[1]),
        ],
    )
}

fn instants(micros: impl IntoIterator<Item = i64>) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from_iter_values(micros).with_timezone(UTC)
}

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn minutes(rows: usize) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(0..rows as i32))
}

async fn materialized(store: &Store, key: &ViewKey) {
    let state = ViewState {
        watermark: Some(0),
        pending: vec![],
        ..ViewState::default()
    };
    assert!(store.update_state(key, None, &state).await.unwrap());
}

/// Stores a row of `view` for each row of `keys` and `features`, with event timestamps 1, 2, ….
async fn store_rows(store: &Store, view: &View, keys: &[ArrayRef], features: &[ArrayRef]) {
    let rows = keys.iter().chain(features).map(|c| c.len()).max().unwrap();
    let rows = (0..rows).map(|row| {
        let (mut entity_key, mut value) = (Vec::new(), Vec::new());
        assert!(encode_key(keys, row, &mut entity_key));
        let event = row as i64 + 1;
        let created = (row % 2 == 0).then_some(event + 10);
        encode(features, row, event, created, &mut value);
        StoredRow {
            entity_key,
            value,
            expires_at: None,
        }
    });
    store
        .put(&ViewKey::of(PROJECT, view), rows.collect())
        .await
        .unwrap();
}

async fn store_airports(store: &Store) {
    store_rows(
        store,
        &airport(),
        &[strings(&[Some("JFK"), Some("LAX"), Some("")])],
        &[
            Arc::new(Float64Array::from(vec![Some(40.6), Some(33.9), None])),
            Arc::new(Float64Array::from(vec![Some(-73.8), None, Some(-0.0)])),
            strings(&[Some("Kennedy"), Some(""), None]),
        ],
    )
    .await;
}

/// The batch as a table, the names first; null is empty.
fn assert_table(batch: &RecordBatch, expected: &str) {
    let schema = batch.schema();
    let mut cells: Vec<Vec<String>> =
        vec![schema.fields().iter().map(|f| f.name().clone()).collect()];
    for row in 0..batch.num_rows() {
        let columns = batch.columns().iter();
        cells.push(
            columns
                .map(|c| array_value_to_string(c, row).unwrap())
                .collect(),
        );
    }
    let split = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    assert_eq!(cells, expected.lines().map(split).collect::<Vec<_>>());
}

async fn a_joined_batch_holds_what_was_found(store: Store) {
    store_airports(&store).await;
    materialized(&store, &ViewKey::of(PROJECT, &airport())).await;
    let keys = [
        strings(&[Some("JFK"), Some("LAX"), Some("XXX"), None]),
        strings(&[Some("LAX"), Some(""), None, Some("JFK")]),
    ];
    let plan = flights();
    let batch = Joiner::new(&plan, PROJECT)
        .join(&*store, &instants(0..4), &keys, &[minutes(4)])
        .await
        .unwrap();
    assert_eq!(batch.schema(), plan.layout().schema);
    let names = ["origin:@found", "origin:latitude", "origin:name"];
    let names = names
        .iter()
        .chain(&["destination:@found", "destination:longitude"]);
    let schema = batch.schema();
    let shown: Vec<usize> = names.map(|name| schema.index_of(name).unwrap()).collect();
    assert_table(
        &batch.project(&shown).unwrap(),
        "| origin:@found | origin:latitude | origin:name | destination:@found | destination:longitude |
         | 0             | 40.6            | Kennedy     | 0                  |                       |
         | 0             | 33.9            |             | 0                  | -0.0                  |
         | 1             |                 |             | 1                  |                       |
         | 1             |                 |             | 0                  | -73.8                 |",
    );
    let times = |name: &str| -> Vec<Option<i64>> {
        let column = batch.column_by_name(name).unwrap();
        let column = column.as_any().downcast_ref::<TimestampMicrosecondArray>();
        column.unwrap().iter().collect()
    };
    assert_eq!(
        times("event_timestamp"),
        [Some(0), Some(1), Some(2), Some(3)]
    );
    assert_eq!(times("origin:@event"), [Some(1), Some(2), None, None]);
    assert_eq!(times("origin:@created"), [Some(11), None, None, None]);
    for (name, column) in [("key:origin", &keys[0]), ("key:destination", &keys[1])] {
        assert_eq!(batch.column_by_name(name).unwrap(), column);
    }
    assert_eq!(
        batch.column_by_name("request:minutes_ahead").unwrap(),
        &minutes(4)
    );
}

async fn every_type_comes_back_by_bits(store: Store) {
    let nan = f64::from_bits(0x7ff8_0000_0000_0001);
    let floats = [
        Some(nan),
        Some(-0.0),
        Some(f64::MIN_POSITIVE / 2.0),
        None,
        Some(f64::INFINITY),
    ];
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        Some(vec![]),
        None,
        Some(vec![None]),
        Some(vec![Some(i32::MIN)]),
    ]);
    let features: [ArrayRef; 4] = [
        Arc::new(Float64Array::from_iter(floats)),
        Arc::new(lists),
        strings(&[Some("\u{1f600}"), Some(""), None, Some("\0"), Some("é")]),
        Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0, -1, 1])),
    ];
    let types = [
        DataType::Scalar(ScalarType::Float64),
        DataType::List(ScalarType::Int32),
        DataType::Scalar(ScalarType::String),
        DataType::Scalar(ScalarType::Int64),
    ];
    let names = ["a", "b", "c", "d"];
    let keys = [("k", ScalarType::Int64), ("l", ScalarType::String)];
    let schema: Vec<_> = names.into_iter().zip(types).collect();
    let view = view("mixed", &keys, &schema);
    let keys: [ArrayRef; 2] = [
        Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, 1, i64::MAX])),
        strings(&[Some(""), Some("a"), Some("b"), Some("c"), Some("d")]),
    ];
    store_rows(&store, &view, &keys, &features).await;
    materialized(&store, &ViewKey::of(PROJECT, &view)).await;
    // The plan's keys are in another order than the view's.
    let plan = plan(
        vec![
            field("l", ScalarType::String),
            field("k", ScalarType::Int64),
        ],
        vec![],
        vec![lookup("mixed", &view, &[1, 0], &[0, 1, 2, 3])],
    );
    let [k, l] = keys;
    let batch = Joiner::new(&plan, PROJECT)
        .join(&*store, &instants(0..5), &[l, k], &[])
        .await
        .unwrap();
    for (name, expected) in names.iter().zip(&features) {
        let column = batch.column_by_name(&format!("mixed:{name}")).unwrap();
        assert_eq!(column.to_data(), expected.to_data(), "{name}");
    }
    let column = batch.column_by_name("mixed:a").unwrap();
    let column = column.as_any().downcast_ref::<Float64Array>().unwrap();
    assert_eq!(column.value(0).to_bits(), nan.to_bits());
    assert_eq!(column.value(1).to_bits(), (-0.0_f64).to_bits());
}

/// A store that counts what it is asked for.
#[derive(Debug)]
struct Counting {
    store: Store,
    calls: AtomicUsize,
    entities: AtomicUsize,
}

#[async_trait]
impl OnlineStore for Counting {
    fn address(&self) -> &str {
        self.store.address()
    }
    async fn get(&self, wanted: Vec<Wanted>) -> Result<Vec<Held>, OnlineError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let entities = wanted.iter().map(|wanted| wanted.entities.len()).sum();
        self.entities.fetch_add(entities, Ordering::SeqCst);
        self.store.get(wanted).await
    }
    async fn put(&self, view: &ViewKey, rows: Vec<StoredRow>) -> Result<PutSummary, OnlineError> {
        self.store.put(view, rows).await
    }
    async fn state(&self, view: &ViewKey) -> Result<Option<ViewState>, OnlineError> {
        self.store.state(view).await
    }
    async fn update_state(
        &self,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError> {
        self.store.update_state(view, expected, new).await
    }
    async fn sample_keys(
        &self,
        view: &ViewKey,
        limit: usize,
        seed: u64,
    ) -> Result<Vec<Vec<u8>>, OnlineError> {
        self.store.sample_keys(view, limit, seed).await
    }
    async fn remove_project(&self, project: &str) -> Result<u64, OnlineError> {
        self.store.remove_project(project).await
    }
    async fn remove_view(&self, view: &ViewKey) -> Result<u64, OnlineError> {
        self.store.remove_view(view).await
    }
    async fn ping(&self) -> Result<(), OnlineError> {
        self.store.ping().await
    }
    fn health(&self) -> StoreHealth {
        self.store.health()
    }
}

async fn each_row_is_fetched_once_and_all_at_once(store: Store) {
    store_airports(&store).await;
    materialized(&store, &ViewKey::of(PROJECT, &airport())).await;
    let counting = Counting {
        store,
        calls: AtomicUsize::new(0),
        entities: AtomicUsize::new(0),
    };
    let keys = [
        strings(&[Some("JFK"), Some("JFK"), Some("LAX"), None]),
        strings(&[Some("LAX"), Some("JFK"), Some("JFK"), Some("XXX")]),
    ];
    let plan = flights();
    let joiner = Joiner::new(&plan, PROJECT);
    assert_eq!(joiner.views().len(), 1);
    let batch = joiner
        .join(&counting, &instants(0..4), &keys, &[minutes(4)])
        .await
        .unwrap();
    let found = batch.column_by_name("destination:@found").unwrap();
    let expected: ArrayRef = Arc::new(UInt8Array::from(vec![0, 0, 0, 1]));
    assert_eq!(found, &expected);
    assert_eq!(counting.calls.into_inner(), 1);
    // JFK, LAX and XXX, for both lookups together.
    assert_eq!(counting.entities.into_inner(), 3);
}

async fn found(store: &Store, plan: &FeaturePlan, name: &str, keys: &[ArrayRef]) -> Vec<u8> {
    let rows = keys[0].len();
    let batch = Joiner::new(plan, PROJECT)
        .join(&**store, &instants(0..rows as i64), keys, &[minutes(rows)])
        .await
        .unwrap();
    let found = batch.column_by_name(name).unwrap();
    let found = found.as_any().downcast_ref::<UInt8Array>().unwrap();
    let nulls = batch
        .column_by_name(&name.replace("found", "event"))
        .unwrap();
    let absent = found.values().iter().filter(|&&found| found != 0).count();
    assert_eq!(nulls.null_count(), absent);
    found.values().to_vec()
}

async fn a_view_without_state_is_not_materialized_whatever_it_holds(store: Store) {
    store_airports(&store).await;
    let keys = || strings(&[Some("JFK"), Some("XXX"), None]);
    let plan = flights();
    let ask = async || found(&store, &plan, "origin:@found", &[keys(), keys()]).await;
    assert_eq!(ask().await, [2, 2, 2]);
    let key = ViewKey::of(PROJECT, &airport());
    // A state of nothing.
    assert!(
        store
            .update_state(&key, None, &ViewState::default())
            .await
            .unwrap()
    );
    assert_eq!(ask().await, [2, 2, 2]);
    // A range beyond a gap.
    let state = ViewState {
        watermark: None,
        pending: vec![(5, 6)],
        ..ViewState::default()
    };
    let none = ViewState::default();
    assert!(store.update_state(&key, Some(&none), &state).await.unwrap());
    assert_eq!(ask().await, [0, 1, 1]);
    store.remove_project(PROJECT).await.unwrap();
    assert_eq!(ask().await, [2, 2, 2]);
}

async fn a_view_of_one_row_for_everybody(store: Store) {
    let view = view(
        "rates",
        &[],
        &[("rate", DataType::Scalar(ScalarType::Float64))],
    );
    let plan = plan(
        vec![field("origin", ScalarType::String)],
        vec![field("minutes_ahead", ScalarType::Int32)],
        vec![lookup("rates", &view, &[], &[0])],
    );
    let keys = [strings(&[Some("JFK"), None])];
    materialized(&store, &ViewKey::of(PROJECT, &view)).await;
    assert_eq!(found(&store, &plan, "rates:@found", &keys).await, [1, 1]);
    store_rows(
        &store,
        &view,
        &[],
        &[Arc::new(Float64Array::from(vec![1.5]))],
    )
    .await;
    assert_eq!(found(&store, &plan, "rates:@found", &keys).await, [0, 0]);
}

async fn no_rows_make_an_empty_batch(store: Store) {
    let keys = [strings(&[]), strings(&[])];
    let plan = flights();
    let batch = Joiner::new(&plan, PROJECT)
        .join(&*store, &instants(0..0), &keys, &[minutes(0)])
        .await
        .unwrap();
    assert_eq!(batch.schema(), plan.layout().schema);
    assert_eq!(batch.num_rows(), 0);
}

async fn a_plan_without_lookups(store: Store) {
    // A server handles each request in a task.
    fn in_a_task<F: Future + Send>(future: F) -> F {
        future
    }
    let plan = plan(
        vec![],
        vec![field("minutes_ahead", ScalarType::Int32)],
        vec![],
    );
    let (instants, request) = (instants(0..2), [minutes(2)]);
    let batch = in_a_task(Joiner::new(&plan, PROJECT).join(&*store, &instants, &[], &request))
        .await
        .unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (2, 2));
}

async fn a_damaged_row_is_named(store: Store) {
    store_airports(&store).await;
    let key = ViewKey::of(PROJECT, &airport());
    materialized(&store, &key).await;
    let mut entity = Vec::new();
    encode_key(&[strings(&[Some("LAX")])], 0, &mut entity);
    store
        .put(&key, vec![row(&entity, &[0xff; 40])])
        .await
        .unwrap();
    let keys = [strings(&[Some("JFK"), Some("LAX")]), strings(&[None, None])];
    let error = Joiner::new(&flights(), PROJECT)
        .join(&*store, &instants(0..2), &keys, &[minutes(2)])
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, OnlineError::DamagedRow { .. }), "{message}");
    assert!(
        message.contains("`airport`") && message.contains("`LAX`"),
        "{message}"
    );
}

async fn a_damaged_row_is_named_by_a_key_of_any_type(store: Store) {
    let keys = [
        ("at", ScalarType::Timestamp),
        ("id", ScalarType::Bytes),
        ("ok", ScalarType::Bool),
    ];
    let view = view("events", &keys, &[]);
    let columns: [ArrayRef; 3] = [
        Arc::new(instants([983_448_000_000_001])),
        Arc::new(BinaryArray::from(vec![&b"\xff"[..]])),
        Arc::new(BooleanArray::from(vec![true])),
    ];
    let key = ViewKey::of(PROJECT, &view);
    materialized(&store, &key).await;
    let mut entity = Vec::new();
    encode_key(&columns, 0, &mut entity);
    store.put(&key, vec![row(&entity, b"short")]).await.unwrap();
    let fields = keys.iter().map(|(name, scalar)| field(name, *scalar));
    let lookups = vec![lookup("events", &view, &[0, 1, 2], &[])];
    let plan = plan(fields.collect(), vec![], lookups);
    let error = Joiner::new(&plan, PROJECT)
        .join(&*store, &instants([0]), &columns, &[])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`2001-03-01T12:00:00.000001Z`, `ff`, `true`"),
        "{error}"
    );
}

async fn columns_that_do_not_fit_are_refused(store: Store) {
    let plan = flights();
    let text = || strings(&[Some("JFK")]);
    let refuse = async |keys: Vec<ArrayRef>, request: Vec<ArrayRef>| {
        let error = Joiner::new(&plan, PROJECT)
            .join(&*store, &instants(0..1), &keys, &request)
            .await
            .unwrap_err();
        assert!(matches!(error, OnlineError::Columns(_)), "{error}");
        error.to_string()
    };
    assert!(
        refuse(vec![text()], vec![minutes(1)])
            .await
            .contains("key:destination")
    );
    assert!(
        refuse(vec![text(), minutes(1)], vec![minutes(1)])
            .await
            .contains("Int32")
    );
    let message = refuse(vec![text(), text()], vec![minutes(2)]).await;
    assert!(message.contains("request:minutes_ahead"), "{message}");
    refuse(vec![text(), text()], vec![]).await;
    // An instant that is null.
    let null = TimestampMicrosecondArray::from(vec![None]).with_timezone(UTC);
    let error = Joiner::new(&plan, PROJECT)
        .join(&*store, &null, &[text(), text()], &[minutes(1)])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("event_timestamp"), "{error}");
}

async fn a_changed_view_does_not_see_rows_of_its_former_meaning(store: Store) {
    store_airports(&store).await;
    materialized(&store, &ViewKey::of(PROJECT, &airport())).await;
    let keys = || [strings(&[Some("JFK")]), strings(&[Some("JFK")])];
    let mut plan = flights();
    assert_eq!(found(&store, &plan, "origin:@found", &keys()).await, [0]);
    let changed = View {
        ttl: Some(1),
        ..(*airport()).clone()
    };
    for lookup in &mut plan.lookups {
        lookup.view = Arc::new(changed.clone());
    }
    assert_eq!(found(&store, &plan, "origin:@found", &keys()).await, [2]);
    // Another project, and another view of the same meaning, are others too.
    assert_ne!(
        ViewKey::of("other", &airport()),
        ViewKey::of(PROJECT, &airport())
    );
}
