//! What a server writes about itself: its log on standard error, and spans to a collector.
//!
//! Results go to standard output, and a log never does.

mod otlp;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use clap::{Args, ValueEnum};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};
use unskew_server::{FeatureLogSettings, Sample, Settings};

/// Arguments of `serve` for those who watch the server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Watching")]
pub(crate) struct Watching {
    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "UNSKEW_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: off, error, warn, info, debug or trace; or by part of the program, such as
    /// info,unskew_online=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = targets, env = "UNSKEW_LOG")]
    log_level: Targets,
    /// The level at which each request is a line of the log; off: none is
    #[arg(long, value_name = "LEVEL", default_value = "debug", value_parser = level, env = "UNSKEW_REQUEST_LOG_LEVEL")]
    request_log_level: LevelFilter,
    /// Log what is served into this folder, as Parquet files
    #[arg(long, value_name = "DIR", env = "UNSKEW_LOG_FEATURES")]
    log_features: Option<PathBuf>,
    /// The share of requests whose features are logged, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = sample, requires = "log_features", env = "UNSKEW_LOG_FEATURES_SAMPLE")]
    log_features_sample: Sample,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl Watching {
    /// Adds to the settings of a server what is watched of it.
    pub(crate) fn set(&self, settings: &mut Settings) {
        settings.request_level = self.request_log_level.into_level();
        settings.feature_log = self.log_features.as_ref().map(|dir| FeatureLogSettings {
            sample: self.log_features_sample,
            ..FeatureLogSettings::all(dir)
        });
    }
}

/// The log of a process. What it holds back is written out by [`Logging::end`].
pub(crate) struct Logging {
    spans: Option<SdkTracerProvider>,
}

impl Logging {
    /// Logs from now on, for the whole process.
    ///
    /// # Errors
    /// The environment asks for an export of spans that there is not, or the process logs already.
    pub(crate) fn start(watching: &Watching) -> anyhow::Result<Self> {
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match watching.log_format {
            LogFormat::Text => lines.with_filter(watching.log_level.clone()).boxed(),
            LogFormat::Json => {
                log_panics();
                let lines = lines.json().flatten_event(true).with_ansi(false);
                lines.with_filter(watching.log_level.clone()).boxed()
            }
        };
        let spans = otlp::provider()?;
        let registry = tracing_subscriber::registry().with(lines);
        let started = match &spans {
            Some(spans) => registry.with(otlp::layer(spans)).try_init(),
            None => registry.try_init(),
        };
        started.context("the log could not be started")?;
        Ok(Self { spans })
    }

    /// Sends the spans that are not sent yet.
    pub(crate) async fn end(self) {
        let Some(spans) = self.spans else { return };
        // Sending blocks its thread.
        let ended = tokio::task::spawn_blocking(move || spans.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// A panic is a line of the log like any other, where a program reads it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("(no text)");
        let location = panic.location().map(ToString::to_string);
        tracing::error!(message, location, "panicked");
    }));
}

fn targets(text: &str) -> Result<Targets, String> {
    const VALID: &str =
        "write off, error, warn, info, debug or trace, or by part, info,unskew_online=debug";
    // A word that is no level would be a part of the program, logged in full.
    let is_valid = text.split(',').all(|part| match part.rsplit_once('=') {
        Some((target, of_target)) => !target.is_empty() && level(of_target).is_ok(),
        None => level(part).is_ok(),
    });
    let targets = Targets::from_str(text).ok().filter(|_| is_valid);
    targets.ok_or_else(|| VALID.to_owned())
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let is_number = text.parse::<u8>().is_ok();
    LevelFilter::from_str(text)
        .ok()
        .filter(|_| !is_number && !text.is_empty())
        .ok_or_else(|| "write off, error, warn, info, debug or trace".to_owned())
}

fn sample(text: &str) -> Result<Sample, String> {
    text.parse()
        .ok()
        .and_then(Sample::new)
        .ok_or_else(|| "write a number from 0 to 1, such as 0.01 for a hundredth".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tracing::Level;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        watching: Watching,
    }

    fn settings(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let command = Command::try_parse_from(std::iter::once(&"serve").chain(arguments))?;
        let mut settings = Settings::default();
        command.watching.set(&mut settings);
        Ok(settings)
    }

    #[test]
    fn what_is_given_is_what_the_server_does() {
        let usual = settings(&[]).unwrap();
        assert_eq!(usual, Settings::default());
        let given = settings(&[
            "--request-log-level=info",
            "--log-features=served",
            "--log-features-sample=0.01",
        ])
        .unwrap();
        assert_eq!(given.request_level, Some(Level::INFO));
        let log = given.feature_log.unwrap();
        assert_eq!(log.dir, PathBuf::from("served"));
        assert_eq!(Some(log.sample), Sample::new(0.01));
        let off = settings(&["--request-log-level=off"]).unwrap();
        assert_eq!(off.request_level, None);
    }

    #[test]
    fn what_is_no_level_and_no_share_is_refused() {
        for wrong in [
            "--log-level=loud",
            "--log-level=info,=",
            "--log-level=",
            "--log-level=unskew_online",
            "--log-level=info,unskew_online=loud",
            "--request-log-level=3",
            "--request-log-level=",
            "--log-format=xml",
        ] {
            assert!(settings(&[wrong]).is_err(), "{wrong}");
        }
        for share in ["-0.1", "1.1", "NaN", "half", ""] {
            let share = format!("--log-features-sample={share}");
            assert!(settings(&["--log-features=x", &share]).is_err(), "{share}");
        }
        assert!(settings(&["--log-features-sample=0.5"]).is_err());
    }
}
