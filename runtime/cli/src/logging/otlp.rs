//! Spans to an OpenTelemetry collector, when the environment names one.
//!
//! The variables are those of the OpenTelemetry specification: `OTEL_EXPORTER_OTLP_ENDPOINT` (or
//! `…_TRACES_ENDPOINT`) turns the export on, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and `OTEL_BSP_*` are heard, and
//! `OTEL_SDK_DISABLED=true` turns it off.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::error::Usage;

/// The span of a request in the server.
const REQUESTS: &str = "unskew_server::request";

/// How long a collector may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What makes spans and sends them, in the background and in batches; `None` where no collector is
/// named.
///
/// # Errors
/// A collector is named, and spans cannot be sent to it as the environment asks for.
pub(super) fn provider() -> anyhow::Result<Option<SdkTracerProvider>> {
    let is_set = |name: &str| variable(name).is_some();
    let is_named =
        is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
    if !is_named || is_disabled {
        return Ok(None);
    }
    for name in [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ] {
        if let Some(protocol) = variable(name).filter(|protocol| protocol != "http/protobuf") {
            return Err(Usage(format!(
                "spans are sent by http/protobuf, and {name} is `{protocol}`; collectors take \
                 http/protobuf at port 4318"
            ))
            .into());
        }
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .build()
        .map_err(|error| Usage(format!("spans cannot be sent: {error}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource())
        .build();
    Ok(Some(provider))
}

/// Hands the spans of requests to `provider`, whatever level the log has.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let requests = Targets::new().with_target(REQUESTS, LevelFilter::DEBUG);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("unskew"))
        // Where a thread or a line of code stands says nothing about a request.
        .with_threads(false)
        .with_location(false)
        .with_tracked_inactivity(false)
        .with_filter(requests)
}

fn resource() -> Resource {
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES")
            .is_some_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder();
    if is_named {
        resource.build()
    } else {
        resource.with_service_name("unskew").build()
    }
}

/// An environment variable, where it says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Sends by a client that blocks, which the exporter's own thread may: the clients that it brings
/// need a runtime, which that thread has not, or a second HTTP library.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
}

impl Client {
    fn new() -> Self {
        let timeout = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"))
            .and_then(|millis| millis.parse().ok())
            .map_or(TIMEOUT, Duration::from_millis);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.new_agent(),
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}
