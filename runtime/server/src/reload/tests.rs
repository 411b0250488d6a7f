//! Reloads of a real registry, over an online store that fails when a test wants it to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use async_trait::async_trait;
use futures::FutureExt;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use unskew_core::types::UTC;
use unskew_online::{
    Held, OnlineError, OnlineStore, PutSummary, StoreHealth, StoredRow, ViewKey, ViewState, Wanted,
};

use super::*;
use crate::guard::Gate;
use crate::settings::Settings;

const DEFINITIONS: &str = "
entities:
  - {name: customer, join_keys: [{name: customer_id, type: int64}]}
sources:
  - {name: orders, path: orders.parquet, timestamp_field: event_timestamp}
feature_views:
  - name: orders
    entities: [customer]
    source: orders
    features: [{name: amount, type: float64}]
feature_services:
  - {name: model, features: [orders]}
";

/// A repository of which state 1 is materialized, and state 2, with another meaning of the view,
/// is not.
struct Repository {
    store: FeatureStore,
    /// The view of state 1.
    former: ViewKey,
    _folder: TempDir,
}

impl Repository {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let project = "project: test\nonline_store: {type: embedded, path: online}\n";
        std::fs::write(file("unskew.yaml"), project).unwrap();
        std::fs::create_dir(file("features")).unwrap();
        write(&file("orders.parquet"));
        let store = FeatureStore::open(folder.path()).unwrap();
        std::fs::write(file("features/test.yaml"), DEFINITIONS).unwrap();
        store.apply(&()).await.unwrap();
        let former = view(&store).await;
        let state = ViewState {
            watermark: Some(0),
            ..ViewState::default()
        };
        let online = store.online().unwrap();
        assert!(online.update_state(&former, None, &state).await.unwrap());
        let changed = DEFINITIONS.replace("_timestamp}", "_timestamp, columns: {amount: price}}");
        std::fs::write(file("features/test.yaml"), changed).unwrap();
        store.apply(&()).await.unwrap();
        Self {
            store,
            former,
            _folder: folder,
        }
    }

    /// Materializes the view of state 2.
    async fn materialize(&self) {
        let (online, view) = (self.store.online().unwrap(), view(&self.store).await);
        let state = ViewState {
            watermark: Some(0),
            ..ViewState::default()
        };
        assert!(online.update_state(&view, None, &state).await.unwrap());
    }

    fn failing(&self, answers: usize) -> Arc<Failing> {
        Arc::new(Failing {
            store: self.store.online().unwrap(),
            answers: AtomicUsize::new(answers),
        })
    }

    /// What is served over `store`.
    async fn load(&self, store: &Arc<Failing>) -> Served {
        let online = Arc::<Failing>::clone(store);
        Served::load_over(&self.store, online).await.unwrap()
    }

    fn serving(&self, served: Served) -> State {
        let settings = Settings::default();
        let gate = Arc::new(Gate::open(&settings, "test").unwrap());
        let reloader = Reloader::new(self.store.clone());
        State::new(gate, settings, served, Some(reloader))
    }
}

fn write(file: &std::path::Path) {
    let instants = TimestampMicrosecondArray::from(vec![0]).with_timezone(UTC);
    let columns: [(&str, ArrayRef); 4] = [
        ("customer_id", Arc::new(Int64Array::from(vec![7]))),
        ("event_timestamp", Arc::new(instants)),
        ("amount", Arc::new(Float64Array::from(vec![3.5]))),
        ("price", Arc::new(Float64Array::from(vec![4.0]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(file).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The view of the current state.
async fn view(store: &FeatureStore) -> ViewKey {
    let state = store.state().await.unwrap();
    let view = &state.project.views["orders"].value.view;
    ViewKey::of(&state.project.name, view)
}

fn waits() -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([("model".to_owned(), vec!["orders".to_owned()])])
}

/// A store that answers so many questions more, and then none.
#[derive(Debug)]
struct Failing {
    store: Arc<dyn OnlineStore>,
    answers: AtomicUsize,
}

#[async_trait]
impl OnlineStore for Failing {
    fn address(&self) -> &str {
        self.store.address()
    }
    async fn get(&self, wanted: Vec<Wanted>) -> Result<Vec<Held>, OnlineError> {
        let one_less = |left: usize| left.checked_sub(1);
        let left = &self.answers;
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => self.store.get(wanted).await,
            Err(_) => Err(OnlineError::Unavailable {
                store: self.address().to_owned(),
                reason: "it is away".to_owned(),
            }),
        }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_between_two_questions_moves_no_service() {
    let repository = Repository::new().await;
    let store = repository.failing(usize::MAX);
    let served = repository.load(&store).await;
    assert_eq!(served.waiting(), waits());
    let newest = repository.store.applied().await.unwrap();
    for answers in 0..4 {
        store.answers.store(answers, Ordering::SeqCst);
        match served.next(Arc::clone(&newest)).await {
            Ok(next) => assert_eq!(next.waiting(), waits(), "{answers}"),
            Err(error) => assert!(matches!(error, StoreError::Online(_)), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_while_the_store_is_down_finds_the_former_plan_later() {
    let repository = Repository::new().await;
    let former = repository.store.applied_before(2).await.unwrap().unwrap();
    let online = repository.store.online().unwrap();
    let features = unskew_store::Features::Service("model".to_owned());
    let former = unskew_store::Responder::new(&former, &features, online).unwrap();
    // Down from the start, or before it says what former plans have.
    for answers in 0..2 {
        let store = repository.failing(answers);
        let state = repository.serving(repository.load(&store).await);
        let reloader = state.reloader().unwrap();
        let digest = || state.served().service("model").unwrap().digest();
        let reloaded = reloader.reload(&state).await.unwrap();
        assert_eq!((reloaded.changed, reloaded.waiting.len()), (false, 0));
        assert_ne!(digest(), former.digest());
        store.answers.store(usize::MAX, Ordering::SeqCst);
        let reloaded = reloader.reload(&state).await.unwrap();
        assert_eq!((reloaded.changed, reloaded.waiting), (true, waits()));
        assert_eq!(digest(), former.digest());
        assert!(!reloader.reload(&state).await.unwrap().changed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_do_not_wait_until_former_rows_are_removed() {
    let repository = Repository::new().await;
    let state = repository.serving(Served::load(&repository.store).await.unwrap());
    let reloader = state.reloader().unwrap();
    let removing = reloader.retired.lock().await;
    repository.materialize().await;
    let reload = tokio::time::timeout(Duration::from_secs(30), reloader.reload(&state));
    let reloaded = reload.await.unwrap().unwrap();
    assert_eq!((reloaded.changed, reloaded.waiting.len()), (true, 0));
    drop(removing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_cut_off_is_done_by_the_next() {
    let repository = Repository::new().await;
    let online = repository.store.online().unwrap();
    let served = Served::load(&repository.store).await.unwrap();
    let mut retired = Retired::default();
    let now = Some(Duration::ZERO);
    // A former state is served still.
    retired.remove(&repository.store, &served, now).await;
    assert!(online.state(&repository.former).await.unwrap().is_some());
    repository.materialize().await;
    let newest = repository.store.applied().await.unwrap();
    let served = served.next(newest).await.unwrap();
    let cut_off = retired.remove(&repository.store, &served, now);
    assert!(cut_off.now_or_never().is_none());
    retired.remove(&repository.store, &served, now).await;
    assert!(online.state(&repository.former).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn former_rows_stay_for_the_grace_period_and_for_ever_where_that_is_said() {
    let repository = Repository::new().await;
    let online = repository.store.online().unwrap();
    let row = StoredRow {
        entity_key: b"key".to_vec(),
        value: b"row".to_vec(),
        expires_at: None,
    };
    let put = online.put(&repository.former, vec![row]).await;
    assert_eq!(put.unwrap().written, 1);
    let left = async || {
        let rows = online.sample_keys(&repository.former, 9, 0).await.unwrap();
        let state = online.state(&repository.former).await.unwrap();
        (rows.len(), state.is_some_and(|s| s.watermark.is_some()))
    };
    repository.materialize().await;
    let served = Served::load(&repository.store).await.unwrap();
    assert!(served.waiting().is_empty());
    let mut retired = Retired::default();
    let mut remove = async |grace: Option<Duration>| {
        retired.remove(&repository.store, &served, grace).await;
        left().await
    };
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(3_600));
    // The period begins when the view is first seen to be former, and no look begins it anew.
    assert_eq!(remove(Some(long)).await, (1, true));
    tokio::time::sleep(short).await;
    for grace in [None, Some(long), None] {
        assert_eq!(remove(grace).await, (1, true), "{grace:?}");
    }
    assert_eq!(remove(Some(short)).await, (0, false));
}
