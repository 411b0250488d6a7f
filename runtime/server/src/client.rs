//! The request path over HTTP: how `parity` asks a server.

use std::ops::Range;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use async_trait::async_trait;
use serde::Deserialize;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_store::{RequestError, RequestPath, RequestRows};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::answer;
use crate::error::{TOO_MANY_ROWS, TRANSFORMATION_FAILED};
use crate::object::shortened;
use crate::request;

/// How many rows a request has at most; more are asked for in several.
const ROWS: usize = 500;
/// How many bytes a request of several rows has at most; less than a server takes by default.
const BYTES: usize = 8 << 20;
/// How many bytes of an answer are read at most.
const ANSWER_BYTES: u64 = 1 << 30;
/// How long a request may take: longer than a server takes to give up.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A feature service of a server, asked over HTTP.
///
/// Values come and go exactly, and a server that serves another plan than the
/// one asked for is refused.
#[derive(Clone)]
pub struct HttpPath {
    agent: ureq::Agent,
    url: String,
    service: String,
    /// The whole `authorization`; `None`: the server asks for none.
    authorization: Option<String>,
}

impl HttpPath {
    /// The feature service `service` of the server at `url`, such as `http://127.0.0.1:6566`.
    ///
    /// Nothing is asked yet.
    pub fn new(url: impl Into<String>, service: impl Into<String>) -> Self {
        Self {
            agent: agent(RootCerts::WebPki),
            url: format!("{}/online", url.into().trim_end_matches('/')),
            service: service.into(),
            authorization: None,
        }
    }

    /// Trusts the authorities of this PEM file, and no other.
    ///
    /// # Errors
    /// It holds no certificate.
    pub fn with_authorities(mut self, pem: &[u8]) -> Result<Self, String> {
        let mut authorities = Vec::new();
        for item in parse_pem(pem) {
            match item {
                Ok(PemItem::Certificate(authority)) => authorities.push(authority),
                Ok(_) => {}
                Err(_) => return Err("it is no valid PEM".to_owned()),
            }
        }
        if authorities.is_empty() {
            return Err("it holds no certificate in PEM".to_owned());
        }
        self.agent = agent(RootCerts::new_with_certs(&authorities));
        Ok(self)
    }

    /// Shows the server this token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }
}

fn agent(authorities: RootCerts) -> ureq::Agent {
    ureq::Agent::config_builder()
        // The body of an error says more than its status.
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .tls_config(TlsConfig::builder().root_certs(authorities).build())
        .build()
        .new_agent()
}

#[async_trait]
impl RequestPath for HttpPath {
    async fn answer(
        &self,
        plan: &FeaturePlan,
        rows: &RequestRows,
    ) -> Result<RecordBatch, RequestError> {
        let (path, plan, rows) = (self.clone(), plan.clone(), rows.clone());
        tokio::task::spawn_blocking(move || path.answer_blocking(&plan, &rows))
            .await
            .unwrap_or_else(|error| Err(RequestError::Other(error.to_string())))
    }
}

impl HttpPath {
    fn answer_blocking(
        &self,
        plan: &FeaturePlan,
        rows: &RequestRows,
    ) -> Result<RecordBatch, RequestError> {
        let digest = plan.digest();
        let total = rows.as_of.len();
        // No rows are asked for too: the server says whether it has the plan. The last range to be
        // asked for comes first.
        let mut ranges: Vec<Range<usize>> = (0..total.max(1))
            .step_by(ROWS)
            .map(|start| start..(start + ROWS).min(total))
            .rev()
            .collect();
        let mut batches = Vec::with_capacity(ranges.len());
        while let Some(range) = ranges.pop() {
            match self.ask(plan, digest, &slice(rows, &range)) {
                Ok(batch) => batches.push(batch),
                Err(Refusal::TooLarge(_)) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
                Err(Refusal::TooLarge(message) | Refusal::Other(message)) => {
                    return Err(RequestError::Other(format!(
                        "{}{message}",
                        part(&range, total)
                    )));
                }
                Err(Refusal::Transformation(message)) => {
                    return Err(RequestError::Transformation {
                        message: format!("{}{message}", part(&range, total)),
                    });
                }
            }
        }
        concat_batches(&plan.output_schema(), &batches)
            .map_err(|error| RequestError::Other(error.to_string()))
    }

    fn ask(
        &self,
        plan: &FeaturePlan,
        digest: Digest,
        rows: &RequestRows,
    ) -> Result<RecordBatch, Refusal> {
        let body = request::write(&self.service, plan, digest, rows)
            .map_err(|error| Refusal::Other(error.to_string()))?;
        if body.len() > BYTES && rows.as_of.len() > 1 {
            return Err(Refusal::TooLarge(format!("{} bytes", body.len())));
        }
        let no_answer = |error: ureq::Error| {
            Refusal::Other(format!("no answer from {}: {error}", self.place()))
        };
        let mut request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.send(&body[..]).map_err(no_answer)?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES)
            .read_to_vec()
            .map_err(no_answer)?;
        if status != 200 {
            return Err(self.refusal(status, &body));
        }
        answer::read(&body, plan, digest, &rows.as_of).map_err(|message| {
            Refusal::Other(format!(
                "the answer of {} is wrong: {message}",
                self.place()
            ))
        })
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Refusal {
        let Ok(Refused { error }) = serde_json::from_slice(body) else {
            return Refusal::Other(format!(
                "{} answered with status {status} and not as an Unskew server does: {}",
                self.place(),
                shortened(&String::from_utf8_lossy(body))
            ));
        };
        match (status, error.code.as_str()) {
            (413, _) | (_, TOO_MANY_ROWS) => Refusal::TooLarge(error.message),
            (_, TRANSFORMATION_FAILED) => Refusal::Transformation(error.message),
            _ => Refusal::Other(format!(
                "{} answered with status {status}, {}: {}",
                self.place(),
                error.code,
                error.message
            )),
        }
    }

    /// The URL for a message: without a user's name and password.
    fn place(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else {
            return self.url.clone();
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        format!("{scheme}://{host}/{path}")
    }
}

/// Why a server gave no features.
enum Refusal {
    Transformation(String),
    TooLarge(String),
    Other(String),
}

#[derive(Deserialize)]
struct Refused {
    error: RefusedError,
}

#[derive(Deserialize)]
struct RefusedError {
    code: String,
    message: String,
}

fn slice(rows: &RequestRows, range: &Range<usize>) -> RequestRows {
    let slice = |columns: &[arrow::array::ArrayRef]| {
        columns
            .iter()
            .map(|column| column.slice(range.start, range.len()))
            .collect()
    };
    RequestRows {
        as_of: rows.as_of.slice(range.start, range.len()),
        keys: slice(&rows.keys),
        request: slice(&rows.request),
    }
}

/// Which rows a message is about, whose own rows are counted from the first of these.
fn part(range: &Range<usize>, total: usize) -> String {
    if range.len() == total {
        String::new()
    } else {
        format!("rows {} to {}: ", range.start, range.end - 1)
    }
}
