//! The least that a server of features can do: it parses the request, sends one MGET of the keys
//! that the feature server reads for it, and answers a fixed JSON of the same length.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use clap::Args;
use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use tokio::net::TcpListener;

/// What to serve.
#[derive(Args)]
pub struct Bare {
    /// The Redis server
    #[arg(long)]
    redis: String,
    /// The key of an entity's row, with `{}` where the eight little-endian bytes of the entity
    /// stand in hexadecimal digits
    #[arg(long)]
    row_key: String,
    /// Further keys of each MGET
    #[arg(long)]
    more_key: Vec<String>,
    /// `SERVICE:ROWS:BYTES`: how long an answer is
    #[arg(long = "answer", value_parser = answer)]
    answers: Vec<Answer>,
}

#[derive(Clone)]
struct Answer {
    service: String,
    rows: usize,
    bytes: usize,
}

fn answer(text: &str) -> Result<Answer, String> {
    let parsed = || {
        let mut parts = text.splitn(3, ':');
        Some(Answer {
            service: parts.next()?.to_owned(),
            rows: parts.next()?.parse().ok()?,
            bytes: parts.next()?.parse().ok()?,
        })
    };
    parsed().ok_or_else(|| "write SERVICE:ROWS:BYTES".to_owned())
}

/// Everything that a request needs.
struct Shared {
    connection: MultiplexedConnection,
    before: String,
    after: String,
    more: Vec<String>,
    answers: HashMap<String, HashMap<usize, Bytes>>,
}

/// What of a request is of use; the rest is parsed too.
#[derive(Deserialize)]
struct Request<'a> {
    feature_service: &'a str,
    entities: Entities,
    #[serde(default)]
    request: Fields,
}

#[derive(Deserialize)]
struct Entities {
    customer_id: Vec<u64>,
}

#[derive(Default, Deserialize)]
struct Fields {
    #[serde(default)]
    amount: Vec<f64>,
}

/// Serves until it is killed.
///
/// # Errors
/// Redis cannot be reached, or there is no port.
pub fn run(arguments: Bare) -> anyhow::Result<()> {
    // As the server's runtime: a worker for each core.
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(arguments))
}

async fn serve(arguments: Bare) -> anyhow::Result<()> {
    let (before, after) = arguments
        .row_key
        .split_once("{}")
        .context("--row-key has no {}")?;
    let mut answers: HashMap<String, HashMap<usize, Bytes>> = HashMap::new();
    for answer in &arguments.answers {
        let by_rows = answers.entry(answer.service.clone()).or_default();
        by_rows.insert(answer.rows, fixed(answer.bytes)?);
    }
    let shared = Shared {
        connection: redis::Client::open(arguments.redis.as_str())?
            .get_multiplexed_async_connection()
            .await?,
        before: before.to_owned(),
        after: after.to_owned(),
        more: arguments.more_key,
        answers,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!(r#"{{"url":"http://{}"}}"#, listener.local_addr()?);
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let router = Router::new()
        .route("/online", post(online))
        .with_state(Arc::new(shared));
    Ok(axum::serve(listener, router).await?)
}

/// A JSON document of so many bytes.
fn fixed(bytes: usize) -> anyhow::Result<Bytes> {
    const AROUND: usize = r#"{"fixed":""}"#.len();
    let Some(filling) = bytes.checked_sub(AROUND) else {
        bail!("an answer has at least {AROUND} bytes");
    };
    Ok(format!(r#"{{"fixed":"{}"}}"#, "x".repeat(filling)).into())
}

async fn online(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    match answered(&shared, &body).await {
        Ok(answer) => (
            [(header::CONTENT_TYPE, "application/json")],
            Body::from(answer),
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn answered(shared: &Shared, body: &[u8]) -> anyhow::Result<Bytes> {
    let request: Request = serde_json::from_slice(body)?;
    let entities = request.entities.customer_id;
    if !request.request.amount.is_empty() && request.request.amount.len() != entities.len() {
        bail!("not an amount for each entity");
    }
    let mut command = redis::cmd("MGET");
    for key in &shared.more {
        command.arg(key);
    }
    for entity in &entities {
        let mut key = String::with_capacity(shared.before.len() + 16 + shared.after.len());
        key.push_str(&shared.before);
        // Writing to a String cannot fail.
        let _ = write!(key, "{:016x}", entity.swap_bytes());
        key.push_str(&shared.after);
        command.arg(key);
    }
    let mut connection = shared.connection.clone();
    let rows: Vec<Option<Bytes>> = command.query_async(&mut connection).await?;
    if rows.iter().any(Option::is_none) {
        bail!("a key without a value");
    }
    let answer = shared
        .answers
        .get(request.feature_service)
        .and_then(|by_rows| by_rows.get(&entities.len()));
    answer
        .cloned()
        .with_context(|| format!("no answer for {}", request.feature_service))
}
