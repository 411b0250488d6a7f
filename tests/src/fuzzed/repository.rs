//! A small feature repository that is served, and that requests cannot change for long.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use fastrand::Rng;
use unskew_core::time::{DAY, SECOND};
use unskew_core::types::{DataType, ScalarType, UTC};
use unskew_online::{OnlineStore, StoredRow, ViewKey, ViewState, Wanted};
use unskew_store::FeatureStore;

use crate::{Online, Repository, column, component, materialize};

/// A view with two join keys and every type; a view with a ttl; one that is not online. A service
/// of what is stored, and one with a component of every type.
const DEFINITIONS: &str = "
entities:
  - {name: thing, join_keys: [{name: word, type: string}, {name: id, type: int64}]}
  - {name: user, join_keys: [{name: user_id, type: int32}]}
sources:
  - {name: things, path: data/things, timestamp_field: at, created_timestamp_column: made}
  - {name: users, path: data/users, timestamp_field: event_timestamp}
feature_views:
  - name: things
    entities: [thing]
    source: things
    features:
FEATURES
  - name: users
    entities: [user]
    source: users
    ttl: 1d
    features: [{name: visits}, {name: rate}, {name: city}]
  - name: archive
    entities: [user]
    source: users
    online: false
    features: [{name: city}]
transformations:
  - name: every
    kind: on_demand
    component: every_type.wasm
    inputs:
      a_bool: {from: 'things:a_bool', default: true}
      a_int32: {from: 'request:small', default: 7}
      a_int64: {from: 'users:visits', default: 7}
      a_float32: {from: 'request:share', default: 0.5}
      a_float64: {from: 'request:amount', default: 0.1}
      a_string: {from: 'request:text', default: none}
      a_bytes: {from: 'request:blob', default: 'AAE='}
      a_timestamp: event_timestamp
      nullable_bool: 'things:a_bool'
      nullable_int32: 'request:small'
      nullable_int64: 'things:a_int64'
      nullable_float32: 'things:a_float32'
      nullable_float64: 'users:rate'
      nullable_string: 'users:city'
      nullable_bytes: 'things:a_bytes'
      nullable_timestamp: 'things:a_timestamp'
      bool_list: {value: [true, false]}
      int32_list: {value: []}
      int64_list: {value: []}
      float32_list: {value: []}
      float64_list: {from: 'request:numbers', default: []}
      string_list: {from: 'request:words', default: []}
      bytes_list: {value: []}
      timestamp_list: {value: []}
      bool_list_with_nulls: {from: 'things:bool_list', default: []}
      int32_list_with_nulls: {from: 'things:int32_list', default: []}
      int64_list_with_nulls: {from: 'things:int64_list', default: []}
      float32_list_with_nulls: {from: 'things:float32_list', default: []}
      float64_list_with_nulls: {from: 'request:numbers', default: []}
      string_list_with_nulls: {from: 'request:words', default: []}
      bytes_list_with_nulls: {from: 'things:bytes_list', default: []}
      timestamp_list_with_nulls: {from: 'request:instants', default: []}
      nullable_bool_list: 'things:bool_list'
      nullable_int32_list: 'things:int32_list'
      nullable_int64_list: 'things:int64_list'
      nullable_float32_list: 'things:float32_list'
      nullable_float64_list: 'things:float64_list'
      nullable_string_list: 'things:string_list'
      nullable_bytes_list: 'things:bytes_list'
      nullable_timestamp_list: 'request:instants'
feature_services:
  - {name: stored, features: [things, users]}
  - {name: computed, features: ['things:a_string', users, every], full_feature_names: true}
  - {name: past, features: [archive]}
";

/// 2001-03-01T12:00:00Z.
const NOON: i64 = 983_448_000 * SECOND;

/// The one file that each source has at the beginning.
const FIRST: &str = "first.parquet";

/// The sources that rows can be pushed to.
const SOURCES: [&str; 2] = ["things", "users"];

/// A repository that is applied and materialized.
pub(super) struct Served {
    repository: Repository,
    store: FeatureStore,
    online: Arc<dyn OnlineStore>,
    filled: Vec<Filled>,
}

/// What the online store holds of a view at the beginning.
struct Filled {
    view: ViewKey,
    rows: Vec<StoredRow>,
    state: ViewState,
}

impl Served {
    pub(super) async fn new() -> Self {
        let features = features();
        let listed = features
            .iter()
            .map(|(name, data_type)| format!("      - {{name: {name}, type: '{data_type}'}}"));
        let listed = listed.collect::<Vec<_>>().join("\n");
        let definitions = DEFINITIONS.replace("FEATURES", &listed);
        let repository = Repository::new(Online::Embedded, &definitions);
        std::fs::copy(component("every_type"), repository.path("every_type.wasm")).unwrap();
        for (source, batch) in SOURCES.into_iter().zip([things(features), users()]) {
            repository.write(&format!("data/{source}/{FIRST}"), &batch);
        }
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, NOON).await;
        let online = store.online().unwrap();
        let applied = store.applied().await.unwrap();
        let project = applied.project();
        let mut filled = Vec::new();
        for view in project.views.values() {
            let view = &view.value.view;
            if view.online {
                let view = ViewKey::of(&project.name, view);
                filled.push(Filled::of(&*online, view).await);
            }
        }
        Self {
            repository,
            store,
            online,
            filled,
        }
    }

    pub(super) fn store(&self) -> &FeatureStore {
        &self.store
    }

    /// Takes back what requests have written, so that what one finds does not depend on those
    /// before it.
    pub(super) async fn restore(&self) {
        for Filled { view, rows, state } in &self.filled {
            self.online.remove_view(view).await.unwrap();
            self.online.put(view, rows.clone()).await.unwrap();
            assert!(self.online.update_state(view, None, state).await.unwrap());
        }
        for file in self.files() {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// The files that were added to sources.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let of_source = |source: &str| {
            let folder = self.repository.path(format!("data/{source}"));
            let files = std::fs::read_dir(folder).unwrap();
            files.map(|file| file.unwrap().path())
        };
        let files = SOURCES.into_iter().flat_map(of_source);
        files.filter(|file| !file.ends_with(FIRST)).collect()
    }
}

impl Filled {
    async fn of(online: &dyn OnlineStore, view: ViewKey) -> Self {
        let entities = online.sample_keys(&view, 1_000, 0).await.unwrap();
        let wanted = Wanted {
            view: Arc::new(view.clone()),
            entities: entities.clone(),
        };
        let held = online.get(vec![wanted]).await.unwrap().remove(0);
        let rows = entities.into_iter().zip(held.rows);
        let rows = rows.map(|(entity_key, row)| StoredRow {
            entity_key,
            value: row.unwrap().to_vec(),
            expires_at: None,
        });
        Self {
            view,
            rows: rows.collect(),
            state: held.state.unwrap(),
        }
    }
}

/// Every type, as `every_type` names them.
fn features() -> Vec<(String, DataType)> {
    let both = |scalar: ScalarType| {
        [
            (format!("a_{scalar}"), DataType::Scalar(scalar)),
            (format!("{scalar}_list"), DataType::List(scalar)),
        ]
    };
    ScalarType::ALL.into_iter().flat_map(both).collect()
}

fn times(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
}

fn things(features: Vec<(String, DataType)>) -> RecordBatch {
    const WORDS: [&str; 4] = ["a", "b", "", "é"];
    // Always the same values.
    let mut rng = Rng::with_seed(20_010_301);
    let mut columns: Vec<(String, ArrayRef)> = vec![
        (
            "word".to_owned(),
            Arc::new(StringArray::from(WORDS.to_vec())),
        ),
        (
            "id".to_owned(),
            Arc::new(Int64Array::from(vec![1, 2, 3, -1])),
        ),
        ("at".to_owned(), times(vec![NOON - DAY; WORDS.len()])),
        (
            "made".to_owned(),
            times(vec![NOON - DAY + SECOND; WORDS.len()]),
        ),
    ];
    for (name, data_type) in features {
        columns.push((name, column(&mut rng, data_type, WORDS.len())));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

fn users() -> RecordBatch {
    let columns: [(&str, ArrayRef); 5] = [
        ("user_id", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        (
            "event_timestamp",
            times(vec![NOON - DAY / 2, NOON - DAY, NOON - 9 * DAY]),
        ),
        (
            "visits",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX)])),
        ),
        (
            "rate",
            Arc::new(Float64Array::from(vec![0.1, -0.0, f64::NAN])),
        ),
        (
            "city",
            Arc::new(StringArray::from(vec![Some("Zürich"), None, Some("")])),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}
