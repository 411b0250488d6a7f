//! The guard of a real server, over real sockets.

mod ending;
mod grpc;
mod limits;
mod swapped;
mod tls;
mod tokens;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::Evaluated;
use unskew_store::{BriefAnswer, RequestRows, StoreError};

use super::*;
use crate::serve::{ServeError, Signals, serve_state};
use crate::served::Answers;
use crate::state::State;
use crate::testing::{self, ByHand, PROJECT, SERVICE, Store};
use crate::watch::{PlanWatch, Watch};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// A limit of time that a test wants to see exceeded.
const SHORT: Duration = Duration::from_millis(100);

/// A server that runs until it is dropped.
struct Running {
    address: SocketAddr,
    state: State,
    reload: Arc<Notify>,
    shutdown: Option<oneshot::Sender<()>>,
    done: JoinHandle<Result<(), ServeError>>,
    _store: Store,
}

/// Answers that each wait to be released.
struct Held {
    real: ByHand,
    plan: FeaturePlan,
    begun: Semaphore,
    released: Semaphore,
    /// How often it was tried on the thread that has the request.
    tried: AtomicU64,
}

impl Held {
    fn new(real: ByHand, plan: FeaturePlan) -> Arc<Self> {
        Arc::new(Self {
            real,
            plan,
            begun: Semaphore::new(0),
            released: Semaphore::new(0),
            tried: AtomicU64::new(0),
        })
    }

    /// Waits until another request has begun.
    async fn begun(&self) {
        let begun = tokio::time::timeout(PATIENCE, self.begun.acquire());
        begun.await.unwrap().unwrap().forget();
    }

    /// Lets `count` requests go on.
    fn release(&self, count: usize) {
        self.released.add_permits(count);
    }
}

/// Lets all go on that are held when the test ends: a thread that waits would wait for ever.
struct Holding(Arc<Held>);

impl Deref for Holding {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.0
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.release(1_000);
    }
}

#[async_trait]
impl Answers for Arc<Held> {
    fn plan(&self) -> &FeaturePlan {
        &self.plan
    }

    fn digest(&self) -> Digest {
        self.real.digest()
    }

    fn watch(&self, watch: &Watch) -> Option<Arc<PlanWatch>> {
        self.real.watch(watch)
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        self.begun.add_permits(1);
        self.released.acquire().await.unwrap().forget();
        self.real.answer(rows).await
    }

    /// A moment is not enough for its components.
    async fn answer_briefly(&self, rows: &RequestRows) -> Result<BriefAnswer, StoreError> {
        if self.plan.steps.is_empty() {
            return self.answer(rows).await.map(BriefAnswer::Done);
        }
        self.tried.fetch_add(1, Ordering::Relaxed);
        if let Some(plan) = self.real.watched() {
            plan.pace.took_too_long();
        }
        self.answer_together(rows).await
    }

    /// Nor is more than a moment.
    async fn answer_together(&self, _rows: &RequestRows) -> Result<BriefAnswer, StoreError> {
        let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
        Ok(BriefAnswer::Unfinished(nothing))
    }
}

/// One row of nulls.
fn nothing() -> Vec<ArrayRef> {
    let types = testing::types().into_iter();
    let nulls = types.map(|(_, data_type)| new_null_array(&data_type.arrow(), 1));
    nulls.collect()
}

/// A server of `settings` that answers at once, ready to be asked for features.
async fn start(settings: Settings) -> Running {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    store.fill(&plan, &nothing()).await;
    let answers = Arc::new(ByHand::new(&plan, &store.online));
    start_with(settings, store, answers).await
}

/// A server of `settings` whose answers are held.
async fn start_held(settings: Settings) -> (Running, Holding) {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    let held = Held::new(ByHand::new(&plan, &store.online), plan);
    let running = start_with(settings, store, Arc::new(Arc::clone(&held))).await;
    (running, Holding(held))
}

async fn start_with(settings: Settings, store: Store, answers: Arc<dyn Answers>) -> Running {
    let state = testing::state(settings, answers, &store.online);
    run(state, store).await
}

async fn run(state: State, store: Store) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, down) = oneshot::channel::<()>();
    let ended = async {
        let _ = down.await;
    };
    let reload = Arc::new(Notify::new());
    let signals = Signals::new(ended).reload_on(Arc::clone(&reload));
    Running {
        address,
        state: state.clone(),
        reload,
        shutdown: Some(shutdown),
        done: tokio::spawn(serve_state(state, listener, signals)),
        _store: store,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What the server answers to one request, after which it closes the connection.
    async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> String {
        let mut stream = self.connect().await;
        let request = request(method, path, headers, body, "connection: close\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        to_end(&mut stream).await
    }

    /// What it answers to a good request for features, or one that is refused for its headers.
    async fn online(&self, headers: &[&str]) -> String {
        self.ask("POST", "/online", headers, &features()).await
    }

    /// A request for features, sent on a task of its own.
    fn spawn_online(&self, body: String) -> JoinHandle<String> {
        let address = self.address;
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = request("POST", "/online", &[], &body, "connection: close\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            to_end(&mut stream).await
        })
    }

    fn counts(&self) -> &Counts {
        self.state.gate().counts()
    }

    fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.done.abort();
    }
}

/// The text of a request.
fn request(method: &str, path: &str, headers: &[&str], body: &str, more: &str) -> String {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}{more}content-length: {length}\r\n\r\n{body}"
    )
}

/// All that comes until the server closes the connection.
async fn to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is reset is closed as well.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    let _ = read.await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// The head of one answer on a connection that is kept.
async fn head(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8());
        answer.push(byte.await.unwrap().unwrap());
    }
    String::from_utf8(answer).unwrap()
}

fn features() -> String {
    format!(r#"{{"feature_service": "{SERVICE}", "entities": {{"id": 0}}}}"#)
}

#[track_caller]
fn assert_status(answer: &str, status: u16) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
}

#[track_caller]
fn assert_refused(answer: &str, status: u16, code: &str) {
    assert_status(answer, status);
    assert!(
        answer.contains(&format!(r#"{{"error":{{"code":"{code}","#)),
        "{answer}"
    );
}

/// Waits until something holds.
async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// A file of tokens.
struct TokenFile {
    file: PathBuf,
    tokens: Tokens,
    _folder: TempDir,
}

impl TokenFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let new = Self {
            file: folder.path().join("tokens.json"),
            tokens: Tokens::default(),
            _folder: folder,
        };
        new.write();
        new
    }

    fn write(&self) {
        self.tokens.write(&self.file).unwrap();
    }

    /// Adds a token, and gives the header that shows it.
    fn add(
        &mut self,
        name: &str,
        rights: &[Right],
        change: impl FnOnce(&mut TokenEntry),
    ) -> String {
        let token = NewToken::generate().unwrap();
        let mut entry = TokenEntry {
            name: name.to_owned(),
            hash: token.hash(),
            rights: rights.iter().copied().collect::<BTreeSet<_>>(),
            project: None,
            expires: None,
        };
        change(&mut entry);
        self.tokens.add(entry).unwrap();
        self.write();
        format!("authorization: Bearer {}", token.text())
    }

    fn settings(&self) -> Settings {
        Settings {
            tokens: Some(self.file.clone()),
            poll: Duration::from_millis(10),
            ..Settings::default()
        }
    }
}
