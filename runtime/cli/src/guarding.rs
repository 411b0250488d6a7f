//! How a server is guarded, as it is typed: who may ask, what there is room for, and for how long.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use unskew_server::{Settings, TlsFiles};

/// What guards a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may ask")]
pub(crate) struct Access {
    /// The file of the tokens that clients show (`unskew token new` makes one); read again when it
    /// changes, and on SIGHUP
    #[arg(long, value_name = "FILE", env = "UNSKEW_TOKENS")]
    tokens: Option<PathBuf>,
    /// Serve other machines without tokens, since something else keeps others out
    #[arg(long, env = "UNSKEW_INSECURE_NO_AUTH", value_parser = BoolishValueParser::new())]
    insecure_no_auth: bool,
    /// Give `/metrics` to anybody; otherwise it needs a token with the right to read
    #[arg(long, env = "UNSKEW_OPEN_METRICS", value_parser = BoolishValueParser::new())]
    open_metrics: bool,
    /// The certificate of the server and those between it and its authority, PEM: serves HTTPS; read
    /// again when it changes, and on SIGHUP
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        env = "UNSKEW_TLS_CERT"
    )]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, PEM
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        env = "UNSKEW_TLS_KEY"
    )]
    tls_key: Option<PathBuf>,
    /// The authorities of clients, PEM: who has no certificate of one of them gets no connection
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        env = "UNSKEW_TLS_CLIENT_CA"
    )]
    tls_client_ca: Option<PathBuf>,
    /// An origin whose pages may ask from a browser, such as `https://app.example`; repeatable
    #[arg(
        long = "cors-origin",
        value_name = "ORIGIN",
        value_delimiter = ',',
        env = "UNSKEW_CORS_ORIGINS"
    )]
    cors_origins: Vec<String>,
}

/// What there is room for, and how long it may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// The size of a body; more is answered with 413
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(DEFAULTS.body_bytes), env = "UNSKEW_MAX_BODY")]
    max_body: Bytes,
    /// The size of all bodies above 64 KiB that are being read or answered; more is answered with 503
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(DEFAULTS.bodies_bytes), env = "UNSKEW_MAX_BODIES")]
    max_bodies: Bytes,
    /// The rows of a request; more is answered with 400
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.rows, env = "UNSKEW_MAX_ROWS")]
    max_rows: usize,
    /// The headers of a request; more is answered with 431
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.headers, env = "UNSKEW_MAX_HEADERS")]
    max_headers: usize,
    /// The size of a request's line and headers; more is answered with 431
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(DEFAULTS.header_bytes), env = "UNSKEW_MAX_HEADER_SIZE")]
    max_header_size: Bytes,
    /// The connections that are open at once; others wait until one ends
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.connections, value_parser = at_least_one, env = "UNSKEW_MAX_CONNECTIONS")]
    max_connections: usize,
    /// The requests that are answered at once; others wait in the queue
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.concurrency, value_parser = at_least_one, env = "UNSKEW_CONCURRENCY")]
    concurrency: usize,
    /// The requests of one feature service with components that are answered at once, so that a slow
    /// component leaves others their share; others wait in the queue
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.component_share, value_parser = at_least_one, env = "UNSKEW_COMPONENT_SHARE")]
    component_share: usize,
    /// The requests that wait, at the server and at each feature service; more are answered with 503
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.queue, env = "UNSKEW_QUEUE")]
    queue: usize,
    /// How long a request waits in the queue before it is answered with 503
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.queue_timeout), env = "UNSKEW_QUEUE_TIMEOUT")]
    queue_timeout: Span,
    /// How long a body may take to arrive (408), and an answer to be there (504) and be read
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.timeout), value_parser = not_zero, env = "UNSKEW_REQUEST_TIMEOUT")]
    request_timeout: Span,
    /// How long one call of a component may take; the same rows fail on no other path, unless they
    /// take as long there
    #[arg(long, value_name = "SPAN", default_value_t = Span(unskew_engine::Settings::default().timeout), value_parser = not_zero, env = "UNSKEW_COMPONENT_TIMEOUT")]
    component_timeout: Span,
    /// How long the head of a request, or a TLS handshake, may take before the connection is closed
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.header_timeout), value_parser = not_zero, env = "UNSKEW_HEADER_TIMEOUT")]
    header_timeout: Span,
    /// How long a connection is kept without a request; longer than the balancer before it keeps one
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.idle_timeout), value_parser = not_zero, env = "UNSKEW_IDLE_TIMEOUT")]
    idle_timeout: Span,
    /// How long connections are accepted after SIGTERM, while `/ready` says 503: as long as a
    /// balancer takes to notice
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.drain), env = "UNSKEW_DRAIN")]
    drain: Span,
    /// How long requests that have begun may then take to end
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.grace), env = "UNSKEW_GRACE")]
    grace: Span,
    /// How often to look for a new state of the registry, new tokens and new certificates
    #[arg(long, value_name = "SPAN", default_value_t = Span(DEFAULTS.poll), value_parser = not_zero, env = "UNSKEW_POLL")]
    poll: Span,
    /// How long rows of a former definition of a view stay in the online store after this server has
    /// moved on, for other servers that have not; `forever`: they are not removed
    #[arg(long, value_name = "SPAN", default_value_t = Stay(DEFAULTS.former_rows), env = "UNSKEW_FORMER_ROWS")]
    former_rows: Stay,
}

/// What holds unless something else is typed.
static DEFAULTS: LazyLock<Settings> = LazyLock::new(Settings::default);

impl Access {
    /// Adds to the settings of a server who may ask.
    pub(crate) fn set(&self, settings: &mut Settings) {
        settings.tokens.clone_from(&self.tokens);
        settings.insecure_no_auth = self.insecure_no_auth;
        settings.open_metrics = self.open_metrics;
        settings.cors_origins.clone_from(&self.cors_origins);
        settings.tls =
            self.tls_cert
                .clone()
                .zip(self.tls_key.clone())
                .map(|(certificates, key)| TlsFiles {
                    certificates,
                    key,
                    client_authorities: self.tls_client_ca.clone(),
                });
    }

    /// What the URL of the server begins with.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() {
            "https"
        } else {
            "http"
        }
    }
}

impl Limits {
    /// Adds to the settings of a server what there is room for.
    pub(crate) fn set(&self, settings: &mut Settings) {
        settings.body_bytes = self.max_body.0;
        settings.bodies_bytes = self.max_bodies.0;
        settings.rows = self.max_rows;
        settings.headers = self.max_headers;
        settings.header_bytes = self.max_header_size.0;
        settings.connections = self.max_connections;
        settings.concurrency = self.concurrency;
        settings.component_share = self.component_share;
        settings.queue = self.queue;
        settings.queue_timeout = self.queue_timeout.0;
        settings.timeout = self.request_timeout.0;
        settings.header_timeout = self.header_timeout.0;
        settings.idle_timeout = self.idle_timeout.0;
        settings.drain = self.drain.0;
        settings.grace = self.grace.0;
        settings.poll = self.poll.0;
        settings.former_rows = self.former_rows.0;
    }

    /// The settings of the engine that runs components.
    pub(crate) fn engine(&self) -> unskew_engine::Settings {
        unskew_engine::Settings {
            timeout: self.component_timeout.0,
            ..unskew_engine::Settings::default()
        }
    }
}

/// A span of time as it is typed: 500ms, 30s, 15m, 1h, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Units as they are typed, and their milliseconds, the longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let end = text
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let millis = unit.and_then(|(_, millis)| digits.parse::<u64>().ok()?.checked_mul(*millis));
        let millis = millis.filter(|millis| *millis <= YEAR);
        let span = millis.map(|millis| Self(Duration::from_millis(millis)));
        span.ok_or_else(|| {
            format!("`{text}` is no span of time; write it like 500ms, 30s, 15m or 1h")
        })
    }
}

/// The milliseconds of a year: no limit is longer, so that none is beyond what clocks can count.
const YEAR: u64 = 365 * 24 * 3_600_000;

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match UNITS
            .iter()
            .find(|(_, unit)| millis != 0 && millis % unit == 0)
        {
            Some((name, unit)) => write!(f, "{}{name}", millis / unit),
            None => f.write_str("0"),
        }
    }
}

/// How long something stays, as it is typed: a [`Span`], or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stay(Option<Duration>);

const FOREVER: &str = "forever";

impl FromStr for Stay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == FOREVER {
            return Ok(Self(None));
        }
        match text.parse::<Span>() {
            Ok(span) => Ok(Self(Some(span.0))),
            Err(error) => Err(format!("{error}, or `{FOREVER}`")),
        }
    }
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(span) => Span(span).fmt(f),
            None => f.write_str(FOREVER),
        }
    }
}

/// A size as it is typed: 64KiB, 10MiB, 1GB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) usize);

/// Units of sizes as they are typed, and their bytes, the largest first.
const SIZES: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let end = text
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit = if unit.is_empty() { "B" } else { unit };
        let unit = SIZES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let bytes = unit.and_then(|(_, bytes)| digits.parse::<usize>().ok()?.checked_mul(*bytes));
        let bytes = bytes.filter(|bytes| *bytes > 0);
        bytes
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no size; write it like 64KiB, 10MiB or 1GB"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, usize)| self.0.is_multiple_of(*unit);
        let (name, unit) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

fn not_zero(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0.is_zero() {
        return Err("it must be longer than 0".to_owned());
    }
    Ok(span)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be 1 at least".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("`{text}` is no number")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        limits: Limits,
    }

    fn typed(line: &str) -> Result<Settings, clap::Error> {
        let typed = Typed::try_parse_from(line.split(' '))?;
        let mut settings = Settings::default();
        typed.access.set(&mut settings);
        typed.limits.set(&mut settings);
        Ok(settings)
    }

    #[test]
    fn nothing_typed_leaves_the_defaults() {
        assert_eq!(typed("unskew").unwrap(), Settings::default());
        let engine = Typed::parse_from(["unskew"]).limits.engine();
        assert_eq!(engine.timeout, unskew_engine::Settings::default().timeout);
    }

    #[test]
    fn each_limit_is_the_one_that_is_typed() {
        let line = "unskew --max-body 1KiB --max-bodies 2MiB --max-rows 3 --max-headers 4 \
            --max-header-size 5KB --max-connections 6 --concurrency 7 --component-share 8 \
            --queue 9 --queue-timeout 10ms --request-timeout 11s --header-timeout 12s \
            --idle-timeout 13m --drain 14s --grace 15s --poll 16s --former-rows 17h --tokens t \
            --insecure-no-auth --open-metrics --tls-cert c --tls-key k --tls-client-ca a --cors-origin o,p \
            --cors-origin q";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let seconds = Duration::from_secs;
        let expected = Settings {
            body_bytes: 1 << 10,
            bodies_bytes: 2 << 20,
            rows: 3,
            headers: 4,
            header_bytes: 5_000,
            connections: 6,
            concurrency: 7,
            component_share: 8,
            queue: 9,
            queue_timeout: Duration::from_millis(10),
            timeout: seconds(11),
            header_timeout: seconds(12),
            idle_timeout: seconds(13 * 60),
            drain: seconds(14),
            grace: seconds(15),
            poll: seconds(16),
            former_rows: Some(seconds(17 * 3_600)),
            tokens: Some("t".into()),
            insecure_no_auth: true,
            open_metrics: true,
            tls: Some(TlsFiles {
                certificates: "c".into(),
                key: "k".into(),
                client_authorities: Some("a".into()),
            }),
            cors_origins: vec!["o".to_owned(), "p".to_owned(), "q".to_owned()],
            ..Settings::default()
        };
        assert_eq!(typed(&line).unwrap(), expected);
        let engine = Typed::parse_from(["unskew", "--component-timeout", "50ms"])
            .limits
            .engine();
        assert_eq!(engine.timeout, Duration::from_millis(50));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "--max-body 0",
            "--max-body 1XB",
            "--max-body -1",
            "--drain soon",
            "--drain 1",
            "--drain 99999999999h",
            "--poll 0",
            "--former-rows never",
            "--request-timeout 0s",
            "--concurrency 0",
            "--tls-cert c",
            "--tls-key k",
            "--tls-client-ca a",
        ] {
            assert!(typed(&format!("unskew {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn spans_and_sizes_read_back_from_their_text() {
        for text in ["0", "500ms", "1s", "90s", "2m", "1h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["0", "15m", "forever"] {
            assert_eq!(text.parse::<Stay>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
        for text in ["1B", "32KiB", "10MiB", "1GiB", "5KB"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        assert_eq!("1024".parse::<Bytes>().unwrap().to_string(), "1KiB");
    }
}
