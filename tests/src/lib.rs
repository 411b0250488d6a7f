//! What the end-to-end tests stand on: feature repositories in temporary folders, both online
//! stores, a running server, components built from `tests/components`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed"
)]

pub mod fuzzed;

mod random;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unskew_offline::{EntitySource, Output, Target};
use unskew_store::{
    FeatureStore, Features, Materialize, MaterializeSpan, Materialized, TrainingSet,
};
use unskew_test_redis::RedisServer;

pub use random::{RandomTable, column, list_without_null_items, random_table};

/// Which online store a repository has.
#[derive(Clone, Copy, Debug)]
pub enum Online<'a> {
    /// LMDB in the repository.
    Embedded,
    /// A Redis server.
    Redis(&'a RedisServer),
    /// Whatever Redis servers are named by a URL.
    Url(&'a str),
}

/// Runs `test` with each online store.
pub async fn with_both_stores(test: impl AsyncFn(Online<'_>)) {
    test(Online::Embedded).await;
    let redis = RedisServer::start();
    test(Online::Redis(&redis)).await;
}

/// A feature repository in a temporary folder.
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// A repository of project `test` with these definitions.
    pub fn new(online: Online<'_>, definitions: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = match online {
            Online::Embedded => "{type: embedded, path: .unskew/online}".to_owned(),
            Online::Redis(server) => format!("{{type: redis, url: '{}'}}", server.url()),
            Online::Url(url) => format!("{{type: redis, url: '{url}'}}"),
        };
        let project = format!("project: test\nonline_store: {store}\n");
        std::fs::write(folder.path().join("unskew.yaml"), project).unwrap();
        std::fs::create_dir(folder.path().join("features")).unwrap();
        let repository = Self { folder };
        repository.define(definitions);
        repository
    }

    /// Replaces the definitions.
    pub fn define(&self, definitions: &str) {
        std::fs::write(self.path("features/test.yaml"), definitions).unwrap();
    }

    /// A path in the repository.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a Parquet file.
    pub fn write(&self, relative: &str, batch: &RecordBatch) -> PathBuf {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_parquet(&path, batch);
        path
    }

    /// The repository, opened.
    pub fn store(&self) -> FeatureStore {
        FeatureStore::open(self.folder.path()).unwrap()
    }
}

/// Writes a Parquet file.
pub fn write_parquet(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Reads a Parquet file.
pub fn read_parquet(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// The component of `tests/components/NAME`, built.
pub fn component(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    unskew_store::build_component(tests, &tests.join("components").join(name))
        .unwrap()
        .file
}

/// Builds a training set of a service and reads it.
pub async fn training_set(store: &FeatureStore, service: &str, entities: &Path) -> RecordBatch {
    let out = store.root().join("training.parquet");
    let request = TrainingSet {
        features: Features::Service(service.to_owned()),
        entities: EntitySource::Files(entities.to_owned()),
        out: Output {
            overwrite: true,
            ..Output::to(Target::Parquet(out.clone()))
        },
        memory_limit: None,
        progress: Arc::new(()),
    };
    store.training_set(request).await.unwrap();
    read_parquet(&out)
}

/// The clock, in microseconds since 1970.
pub fn now() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "Redis expires keys by the real clock"
    )]
    let clock = std::time::SystemTime::now();
    clock
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_micros()
        .try_into()
        .unwrap()
}

/// Materializes all online views up to `end`.
pub async fn materialize(store: &FeatureStore, end: i64) -> Vec<Materialized> {
    let request = Materialize {
        views: Vec::new(),
        span: MaterializeSpan::Incremental { end },
        now: now(),
    };
    store.materialize(request, Arc::new(())).await.unwrap()
}

/// A server on a free port; it ends with the value.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a repository whose definitions are applied.
    pub async fn start(store: &FeatureStore) -> Self {
        Self::start_with(store, unskew_server::Settings::default()).await
    }

    /// Serves a repository whose definitions are applied, with other settings than the default.
    pub async fn start_with(store: &FeatureStore, settings: unskew_server::Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let store = store.clone();
        let task = tokio::spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
            };
            let signals = unskew_server::Signals::new(shutdown);
            let project = &store.settings().project;
            let server = unskew_server::Server::new(project, settings, listener).unwrap();
            server.serve(store.clone(), signals).await.unwrap();
        });
        let server = Self {
            url,
            stop: Some(stop),
            task: Some(task),
        };
        // The listener queues what comes before the server is ready to answer.
        assert_eq!(server.get("/health").await.0, 200);
        server
    }

    /// Ends the server, after the requests in flight.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }

    /// GET: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.url);
        tokio::task::spawn_blocking(move || answer(agent().get(url).call()))
            .await
            .unwrap()
    }

    /// POST: status and body.
    pub async fn post(&self, path: &str, body: impl Into<String>) -> (u16, String) {
        let (client, path, body) = (self.client(), path.to_owned(), body.into());
        tokio::task::spawn_blocking(move || client.post(&path, &body))
            .await
            .unwrap()
    }

    /// DELETE: status and body.
    pub async fn delete(&self, path: &str, body: impl Into<String>) -> (u16, String) {
        let (url, body) = (format!("{}{path}", self.url), body.into());
        tokio::task::spawn_blocking(move || {
            answer(agent().delete(url).force_send_body().send(body))
        })
        .await
        .unwrap()
    }

    /// The value of a sample of the metrics.
    pub async fn metric(&self, sample: &str) -> f64 {
        let (_, metrics) = self.get("/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
        let value = line.unwrap_or_else(|| panic!("no {sample} in {metrics}"));
        value.trim().parse().unwrap()
    }

    /// A client with a connection of its own.
    pub fn client(&self) -> Client {
        Client {
            agent: agent(),
            url: self.url.clone(),
        }
    }
}

/// A client that keeps its connection, for a thread of its own: its calls block.
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    /// POST: status and body.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let request = self.agent.post(format!("{}{path}", self.url));
        answer(
            request
                .header("content-type", "application/json")
                .send(body),
        )
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = response.unwrap();
    (
        response.status().as_u16(),
        response.body_mut().read_to_string().unwrap(),
    )
}

/// The folder of the real flights, or `None`, said on standard error, where it is not there.
pub fn flights() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/flights");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: the real flights are not at {}", folder.display());
    None
}
