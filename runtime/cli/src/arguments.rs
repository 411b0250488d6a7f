//! The command line: what can be typed, with its help.
//!
//! What comes out of here is valid: instants are parsed, `KEY=VALUE` is split.

mod token;

use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use unskew_core::time;
use unskew_offline::{Compression, EntityRange, EntitySource};

use crate::error::Usage;
use crate::guarding::{Access, Limits};
use crate::logging::Watching;
use crate::memory::MemoryLimit;

pub(crate) use token::{NewToken, Token, TokenCommand};

/// A feature store whose transformations are WebAssembly components: one component computes
/// training sets and answers requests.
#[derive(Debug, Parser)]
#[command(name = "unskew", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Do everything as if started in this folder
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,
    /// Print the result, or the error, as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a small, complete feature repository: definitions, a transformation, data
    Init(Init),
    /// Show what `apply` would change
    Plan,
    /// Build, verify and register what the feature repository defines
    Apply,
    /// Compute features for entity rows, each as of its own time
    TrainingSet(TrainingSet),
    /// Write the rows that count at END to the online store, of those available from START on
    Materialize(Materialize),
    /// Write to the online store what became available since the last time, up to END
    MaterializeIncremental(MaterializeIncremental),
    /// Push rows: append them to their source, and write them online at once
    Push(Push),
    /// Delete the values of an entity online
    Delete(Delete),
    /// Merge the small files of a source, such as pushes leave, into large ones
    Compact(Compact),
    /// Ask the online store for the features of one entity row
    GetOnline(GetOnline),
    /// Compute the same rows on the training and on the request path, and compare them by bits
    Parity(Parity),
    /// Answer requests over HTTP
    Serve(Box<Serve>),
    /// Make, show or remove the tokens that a server asks for
    Token(Token),
    /// List what is applied, and how far each view is materialized
    List(List),
    /// Show everything about one definition
    Describe(Describe),
    /// Build or inspect a transformation's component
    Transform(Transform),
    /// Remove the project's values from the online store
    Teardown(Teardown),
    /// Print the JSON Schema of unskew.yaml and features/*.yaml, for editors
    Schema,
    /// Print the version
    Version,
}

impl Command {
    /// Whether it works for long, and has to take away what it has begun when a signal ends it. A
    /// server ends by itself, after the requests in flight.
    pub(crate) const fn is_long(&self) -> bool {
        matches!(
            self,
            Self::Plan
                | Self::Apply
                | Self::TrainingSet(_)
                | Self::Materialize(_)
                | Self::MaterializeIncremental(_)
                | Self::Push(_)
                | Self::Delete(_)
                | Self::Compact(_)
                | Self::Parity(_)
                | Self::Transform(_)
        )
    }
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder to make; its last part names the project
    pub(crate) name: PathBuf,
}

/// Which features: a service, or some by name.
#[derive(Debug, Args)]
pub(crate) struct Features {
    #[command(flatten)]
    wanted: Wanted,
    /// Call each output VIEW__FEATURE
    #[arg(long, conflicts_with = "service")]
    full_feature_names: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Wanted {
    /// The feature service
    #[arg(short, long, value_name = "SERVICE")]
    service: Option<String>,
    /// A feature by name: VIEW, VIEW:FEATURE, TRANSFORMATION or TRANSFORMATION:OUTPUT; repeatable
    #[arg(short, long = "feature", value_name = "VIEW:FEATURE")]
    features: Vec<String>,
}

impl Features {
    /// The features as the store takes them.
    pub(crate) fn into_store(self) -> unskew_store::Features {
        match self.wanted.service {
            Some(service) => unskew_store::Features::Service(service),
            None => unskew_store::Features::Named {
                features: self.wanted.features,
                full_feature_names: self.full_feature_names,
            },
        }
    }
}

/// Arguments of `training-set`.
#[derive(Debug, Args)]
pub(crate) struct TrainingSet {
    #[command(flatten)]
    pub(crate) features: Features,
    #[command(flatten)]
    pub(crate) entities: EntityRows,
    /// Where the training set goes: FILE.parquet, FILE.csv, a folder DIR/ of Parquet files, or -
    /// for Arrow IPC on standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Replace what is there already
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Parquet: zstd, zstd(LEVEL), snappy, gzip, lz4, brotli or none; default: zstd
    #[arg(long, value_name = "CODEC")]
    pub(crate) compression: Option<Compression>,
    /// Parquet: how many rows a row group has; default: 262144, or fewer where rows are wide
    #[arg(long, value_name = "ROWS")]
    pub(crate) row_group_size: Option<NonZero<usize>>,
    /// Folder: how many rows a file has at most; default: all
    #[arg(long, value_name = "ROWS")]
    pub(crate) max_rows_per_file: Option<NonZero<usize>>,
    /// How much memory to use, about: 2GiB, 512MB, 60% of the machine's; default: 60%
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "60%",
        hide_default_value = true
    )]
    pub(crate) memory_limit: MemoryLimit,
    /// Print the plan that was executed, with its metrics, to standard error
    #[arg(long)]
    pub(crate) explain: bool,
}

/// Which entity rows: those of files, or the rows of a view in a range of time.
#[derive(Debug, Args)]
pub(crate) struct EntityRows {
    /// Entity rows: join keys, event_timestamp, request fields, any other columns. Parquet or CSV, a
    /// folder, glob or URL (s3://…) of Parquet files, or - for Arrow IPC on standard input
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "start",
        conflicts_with_all = ["start", "end", "of"],
    )]
    entities: Option<PathBuf>,
    /// Instead of entity rows: each row of a view from this instant on
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "end")]
    start: Option<i64>,
    /// Up to this instant, inclusive
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "start")]
    end: Option<i64>,
    /// The view whose rows they are, or its alias; default: the only one that the features need
    #[arg(long, value_name = "VIEW", requires = "start")]
    of: Option<String>,
}

impl EntityRows {
    /// Where the entity rows come from, paths made absolute; `None` if nothing says so.
    ///
    /// # Errors
    /// A path is none, or the range ends before it starts.
    pub(crate) fn into_source(self) -> anyhow::Result<EntitySource> {
        let Self {
            entities,
            start,
            end,
            of,
        } = self;
        if let (Some(start), Some(end)) = (start, end) {
            if end < start {
                let empty = unskew_store::StoreError::EmptySpan { start, end };
                return Err(Usage(empty.to_string()).into());
            }
            return Ok(EntitySource::Range(EntityRange { start, end, of }));
        }
        let path = entities.unwrap_or_default();
        if path.as_os_str() == STANDARD {
            return Ok(EntitySource::StandardInput);
        }
        Ok(EntitySource::Files(files(&path)?))
    }
}

/// What stands for standard input, or standard output, in place of a file.
pub(crate) const STANDARD: &str = "-";

/// `path` made absolute, unless it is a URL.
///
/// # Errors
/// It is empty.
pub(crate) fn files(path: &Path) -> anyhow::Result<PathBuf> {
    match path.to_str() {
        Some(url) if url.contains("://") => Ok(path.to_owned()),
        _ => absolute(path),
    }
}

/// `path`, given relative to the current folder: the repository may lie above that.
///
/// # Errors
/// It is empty.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
}

/// Arguments of `materialize`.
#[derive(Debug, Args)]
pub(crate) struct Materialize {
    /// The first instant, such as 2001-03-01T12:00:00Z or 2001-03-01
    #[arg(value_parser = time::parse)]
    pub(crate) start: i64,
    /// The last instant, or `now`; not after the clock
    #[arg(value_parser = End::parse)]
    pub(crate) end: End,
    #[command(flatten)]
    pub(crate) views: Views,
}

/// Arguments of `materialize-incremental`.
#[derive(Debug, Args)]
pub(crate) struct MaterializeIncremental {
    /// The last instant, such as 2001-03-01T12:00:00Z or 2001-03-01, or `now`; not after the clock
    #[arg(value_parser = End::parse)]
    pub(crate) end: End,
    #[command(flatten)]
    pub(crate) views: Views,
}

/// Up to when to materialize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Up to the clock: what a schedule writes, which knows no date.
    Now,
    /// Up to this instant.
    At(i64),
}

impl End {
    fn parse(text: &str) -> Result<Self, time::InvalidTimestamp> {
        match text {
            "now" => Ok(Self::Now),
            instant => time::parse(instant).map(Self::At),
        }
    }

    /// The instant, at the instant `now`.
    pub(crate) const fn at(self, now: i64) -> i64 {
        match self {
            Self::Now => now,
            Self::At(instant) => instant,
        }
    }
}

/// Which views to materialize.
#[derive(Debug, Args)]
pub(crate) struct Views {
    /// Only this view; repeatable
    #[arg(short, long = "view", value_name = "VIEW")]
    pub(crate) views: Vec<String>,
}

/// Arguments of `push`.
#[derive(Debug, Args)]
#[command(
    override_usage = "unskew push [OPTIONS] SOURCE FILE\n       unskew push [OPTIONS] --view VIEW FILE"
)]
pub(crate) struct Push {
    /// The source, and the rows: FILE.parquet, FILE.csv, or - for Arrow IPC on standard input. Their
    /// columns are those of the source
    #[arg(value_name = "SOURCE FILE", required = true, num_args = 1..=2)]
    operands: Vec<String>,
    /// Instead of a source: push rows for this view; with `--to online` for it alone
    #[arg(short, long, value_name = "VIEW")]
    view: Option<String>,
    /// Where they go
    #[arg(long, value_enum, default_value_t = PushTo::OnlineAndOffline)]
    pub(crate) to: PushTo,
}

/// Where pushed rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PushTo {
    /// Into the online store alone; no training set will know them
    Online,
    /// Into the source alone; the next materialization writes them online
    Offline,
    /// Into the source, then into the online store
    OnlineAndOffline,
}

impl Push {
    /// Whose rows they are, and their file.
    ///
    /// # Errors
    /// There is a source and a view, or neither.
    pub(crate) fn target(&self) -> Result<(unskew_store::PushTarget, &Path), Usage> {
        use unskew_store::PushTarget;
        match (&self.operands[..], &self.view) {
            ([source, file], None) => Ok((PushTarget::Source(source.clone()), Path::new(file))),
            ([file], Some(view)) => Ok((PushTarget::View(view.clone()), Path::new(file))),
            _ => Err(Usage(
                "push to a source or to a view: `unskew push SOURCE FILE` or `unskew push --view \
                 VIEW FILE`"
                    .to_owned(),
            )),
        }
    }
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The view
    #[arg(short, long, value_name = "VIEW")]
    pub(crate) view: String,
    /// A join key of the view; repeatable
    #[arg(short, long = "entity", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) entities: Vec<(String, String)>,
    /// Do not look for the files that hold the entity's history
    #[arg(long)]
    pub(crate) no_history: bool,
}

/// Arguments of `compact`.
#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The source: a folder
    pub(crate) source: String,
    /// About how large files become; one of half of it is left as it is
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub(crate) target_file_size: u64,
    /// How long what was replaced is kept for those who read it
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = time::Span::parse)]
    pub(crate) grace: time::Span,
}

/// Arguments of `get-online`.
#[derive(Debug, Args)]
pub(crate) struct GetOnline {
    #[command(flatten)]
    pub(crate) features: Features,
    /// A join key; repeatable. An empty value is null, except of a string
    #[arg(short, long = "entity", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) entities: Vec<(String, String)>,
    /// A request field; repeatable. An empty value is null, except of a string
    #[arg(short, long = "request", value_name = "FIELD=VALUE", value_parser = pair)]
    pub(crate) requests: Vec<(String, String)>,
    /// The instant for which to ask; default: now
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) as_of: Option<i64>,
}

/// Arguments of `parity`.
#[derive(Debug, Args)]
pub(crate) struct Parity {
    /// The feature service
    #[arg(short, long, value_name = "SERVICE")]
    pub(crate) service: String,
    /// The instant for which to ask; default: the latest watermark of the service's views
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) as_of: Option<i64>,
    /// How many rows to make up
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..),
        conflicts_with = "entities",
    )]
    pub(crate) rows: u32,
    /// Entity rows to compare, Parquet or CSV; without it they are made up of known and unknown keys
    #[arg(long, value_name = "FILE")]
    pub(crate) entities: Option<PathBuf>,
    /// Ask this server (`unskew serve`) and compare what comes back, such as http://127.0.0.1:6566
    #[arg(long, value_name = "URL", value_parser = url)]
    pub(crate) url: Option<String>,
    /// The file with the token that the server asks for; default: the environment's UNSKEW_TOKEN
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authorities of the server's certificate, PEM; default: those that browsers trust
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(crate) tls_ca: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen on, or a name of this host
    #[arg(
        long,
        default_value = "127.0.0.1",
        value_name = "HOST",
        env = "UNSKEW_HOST"
    )]
    pub(crate) host: String,
    /// The port; 0: any free one
    // Not UNSKEW_PORT: Kubernetes sets that to something else where a service is called unskew.
    #[arg(short, long, default_value_t = 6566, env = "UNSKEW_LISTEN_PORT")]
    pub(crate) port: u16,
    /// The port of gRPC; 0: any free one; default: gRPC is not served
    #[arg(long, value_name = "PORT", env = "UNSKEW_GRPC_LISTEN_PORT")]
    pub(crate) grpc_port: Option<u16>,
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) watching: Watching,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this kind
    pub(crate) kind: Option<Kind>,
}

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The kind of definition
    pub(crate) kind: Kind,
    /// Its name
    pub(crate) name: String,
}

/// The kinds of definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// What features describe
    #[value(alias = "entity")]
    Entities,
    /// Where history lies
    #[value(alias = "source")]
    Sources,
    /// Typed features of an entity, and other names for them
    #[value(alias = "feature-view")]
    FeatureViews,
    /// Components, and where their inputs come from
    #[value(alias = "transformation")]
    Transformations,
    /// The lists of features that models use
    #[value(alias = "feature-service")]
    FeatureServices,
}

impl Kind {
    /// Every kind, in the order in which `list` shows them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Entities,
        Self::Sources,
        Self::FeatureViews,
        Self::Transformations,
        Self::FeatureServices,
    ];
}

/// Arguments of `transform`.
#[derive(Debug, Args)]
pub(crate) struct Transform {
    #[command(subcommand)]
    pub(crate) command: TransformCommand,
}

/// What to do with a transformation.
#[derive(Debug, Subcommand)]
pub(crate) enum TransformCommand {
    /// Build the component of a folder of source
    Build {
        /// The folder
        path: PathBuf,
    },
    /// Show what a component says about itself, and what it imports
    Inspect {
        /// The component
        file: PathBuf,
    },
}

/// Arguments of `teardown`.
#[derive(Debug, Args)]
pub(crate) struct Teardown {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Splits `KEY=VALUE` at its first `=`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as driver_id=1001".to_owned()),
    }
}

/// Takes the size of a file.
fn size(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(MemoryLimit::Bytes(bytes)) => Ok(bytes as u64),
        _ => Err(format!(
            "`{text}` is no size of a file; write it like 256MiB, at least 1MiB"
        )),
    }
}

/// Takes the URL of a server.
fn url(text: &str) -> Result<String, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => (String::new(), text),
    };
    if rest.is_empty() || rest.starts_with('/') || text.contains(char::is_whitespace) {
        return Err(format!(
            "`{text}` is no URL; write it as http://127.0.0.1:6566"
        ));
    }
    match scheme.as_str() {
        "http" | "https" => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is no URL; write http://{rest}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Command, clap::error::ErrorKind> {
        Arguments::try_parse_from(line.split(' '))
            .map(|arguments| arguments.command)
            .map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn rows_are_pushed_to_a_source_or_to_a_view() {
        let target = |line: &str| match parsed(line) {
            Ok(Command::Push(push)) => push
                .target()
                .map(|(target, file)| (target, file.to_owned()))
                .map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        };
        let source = unskew_store::PushTarget::Source("trips".to_owned());
        let view = unskew_store::PushTarget::View("last_trip".to_owned());
        let file = PathBuf::from("rows.csv");
        assert_eq!(
            target("unskew push trips rows.csv"),
            Ok((source, file.clone()))
        );
        assert_eq!(
            target("unskew push --view last_trip rows.csv --to online"),
            Ok((view, file))
        );
        assert!(
            target("unskew push rows.csv")
                .unwrap_err()
                .contains("SOURCE FILE")
        );
        assert!(target("unskew push --view a trips rows.csv").is_err());
        assert!(parsed("unskew push trips rows.csv --to both").is_err());
    }

    #[test]
    fn files_are_compacted_to_a_size() {
        let Ok(Command::Compact(compact)) =
            parsed("unskew compact trips --target-file-size 1GiB --grace 0s")
        else {
            panic!("not parsed");
        };
        assert_eq!((compact.target_file_size, compact.grace.0), (1 << 30, 0));
        assert!(parsed("unskew compact trips --target-file-size 50%").is_err());
    }

    #[test]
    fn features_are_a_service_or_names() {
        let line = "unskew training-set --entities e.csv --out o.parquet";
        let missing = Err(clap::error::ErrorKind::MissingRequiredArgument);
        assert_eq!(parsed(line).map(|_| ()), missing.map(|_: Command| ()));
        let conflict = clap::error::ErrorKind::ArgumentConflict;
        for both in ["-s a -f b:c", "-s a --full-feature-names"] {
            assert_eq!(parsed(&format!("{line} {both}")).err(), Some(conflict));
        }
        let Ok(Command::TrainingSet(arguments)) =
            parsed(&format!("{line} -f a:b -f c --full-feature-names"))
        else {
            panic!("not parsed");
        };
        let unskew_store::Features::Named {
            features,
            full_feature_names,
        } = arguments.features.into_store()
        else {
            panic!("not by name");
        };
        assert_eq!(features, ["a:b", "c"]);
        assert!(full_feature_names);
    }

    #[test]
    fn json_may_stand_anywhere_and_chdir_before_the_command() {
        for line in ["unskew -C a --json list", "unskew -C a list sources --json"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(arguments.json && arguments.chdir == Some("a".into()));
        }
    }

    #[test]
    fn kinds_may_be_singular() {
        for kind in ["feature-view", "feature-views"] {
            let Ok(Command::Describe(describe)) = parsed(&format!("unskew describe {kind} x"))
            else {
                panic!("not parsed");
            };
            assert_eq!(describe.kind, Kind::FeatureViews);
        }
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }

    #[test]
    fn a_url_has_a_scheme() {
        for text in ["http://localhost:6566", "HTTPS://a.example/unskew/"] {
            assert_eq!(url(text), Ok(text.to_owned()));
        }
        for (text, wanted) in [
            ("localhost:6566", "http://localhost:6566"),
            ("ftp://a:1", "http://a:1"),
            ("", "http://127.0.0.1:6566"),
            ("http://", "http://127.0.0.1:6566"),
        ] {
            let message = url(text).unwrap_err();
            assert!(
                message.starts_with(&format!("`{text}` is no URL; write"))
                    && message.ends_with(&format!(" {wanted}")),
                "{message}"
            );
        }
    }

    #[test]
    fn instants_are_read_at_once() {
        let Ok(Command::Materialize(materialize)) =
            parsed("unskew materialize 1970-01-01 1970-01-02 -v a -v b")
        else {
            panic!("not parsed");
        };
        assert_eq!(
            (materialize.start, materialize.end),
            (0, End::At(time::DAY))
        );
        assert_eq!(materialize.views.views, ["a", "b"]);
        assert!(parsed("unskew materialize-incremental yesterday").is_err());
        let Ok(Command::MaterializeIncremental(materialize)) =
            parsed("unskew materialize-incremental now")
        else {
            panic!("not parsed");
        };
        assert_eq!(materialize.end.at(7), 7);
    }
}
