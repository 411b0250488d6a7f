//! Sources in an object store, against a server that speaks the protocol of S3.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::physical_plan::{ExecutionPlan, collect};
use parquet::arrow::ArrowWriter;
use unskew_core::time::{self, DAY};
use unskew_core::types::{Field, ScalarType};
use unskew_core::view::{Partition, View};
use unskew_offline::{Components, OfflineError, Settings, SourceProblem, StoreProblem};
use unskew_test_s3::S3Server;

use crate::repository::{
    Repository, batch, entities, history, ints, key, plan_of, strings, times, values, view,
};

const A: Option<&str> = Some("a");

/// A server, and a feature repository that knows it.
struct Remote {
    server: S3Server,
    repository: Repository,
}

impl Remote {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With other options than those of the server.
    fn with(options: &[(&str, &str)]) -> Self {
        let server = S3Server::start();
        let mut object_store: BTreeMap<String, String> = server.environment().into_iter().collect();
        for (option, value) in options {
            object_store.insert((*option).to_owned(), (*value).to_owned());
        }
        let repository = Repository::with_settings(Settings {
            object_store,
            ..Settings::default()
        });
        Self { server, repository }
    }

    fn put(&self, key: &str, batch: &RecordBatch) {
        self.server.put(key, &parquet(batch));
    }

    /// Puts a file for each key, with one column that is called like the key; into the feature
    /// repository, too.
    fn put_all(&self, keys: &[&str]) {
        for key in keys {
            let columns = batch(vec![(key, ints([Some(1)]))]);
            self.put(key, &columns);
            self.repository.write(key, &columns);
        }
    }

    /// The keys of the files, put by [`Self::put_all`], that a path names, in their order: in the
    /// store, which has to be as in the feature repository.
    async fn listed(&self, path: &str) -> Vec<String> {
        let mut listed = Vec::new();
        for place in [self.server.url(path), path.to_owned()] {
            let schema = self.repository.offline.source_schema("s", &place).await;
            let schema = schema.unwrap_or_else(|error| panic!("{error}"));
            let fields = schema.fields().iter();
            listed.push(fields.map(|field| field.name().clone()).collect::<Vec<_>>());
        }
        assert_eq!(listed[0], listed[1], "{path}");
        listed.swap_remove(0)
    }

    /// What is wrong with a URL.
    async fn error(&self, url: &str) -> OfflineError {
        let schema = self.repository.offline.source_schema("s", url).await;
        schema.expect_err("there should be an error")
    }

    /// The values of view `v` for entity rows of key `a`.
    async fn values_at(
        &self,
        view: &View,
        instants: &[i64],
    ) -> Result<Vec<Option<i64>>, OfflineError> {
        let rows: Vec<_> = instants.iter().map(|&instant| (A, instant)).collect();
        let (plan, entities) = (plan_of(view), entities(&rows));
        let rows = self.repository.evaluated(&plan, &entities).await?;
        Ok(values(&rows.batch, "v__v"))
    }
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn one_row(event: i64, value: i64) -> RecordBatch {
    history(&[(A, Some(event), None, Some(value))])
}

/// What is wrong with a store; panics if it is something else.
fn store_problem(error: &OfflineError) -> &StoreProblem {
    match error {
        OfflineError::ObjectStore { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

/// What is wrong with a source; panics if it is something else.
fn source_problem(error: &OfflineError) -> &SourceProblem {
    match error {
        OfflineError::Source { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_a_folder_and_a_glob_as_on_the_file_system() {
    let remote = Remote::new();
    remote.put_all(&[
        "d/b.parquet",
        "d/a.PARQUET",
        "d/x/y/c.parquet",
        "d/.hidden.parquet",
        "d/_metadata.parquet",
        "d/_old/o.parquet",
        "d/_old/_older/p.parquet",
        "d/.x/z.parquet",
        "dd/not.parquet",
        "e",
    ]);
    remote.server.put("d/_SUCCESS", b"");
    remote.server.put("d/notes.txt", b"no Parquet");
    remote.repository.write_text("d/_SUCCESS", "");
    remote.repository.write_text("d/notes.txt", "no Parquet");
    // What consoles and engines make for a folder.
    remote.server.put("d/", b"");
    remote.server.put("d/x/", b"");
    remote.server.put("d/t.parquet/", b"");
    remote.put_all(&["d/t.parquet/part.parquet"]);
    let folder = [
        "d/a.PARQUET",
        "d/b.parquet",
        "d/t.parquet/part.parquet",
        "d/x/y/c.parquet",
    ];
    for (path, expected) in [
        ("d/b.parquet", &["d/b.parquet"][..]),
        ("e", &["e"]),
        ("d/.hidden.parquet", &["d/.hidden.parquet"]),
        ("d", &folder),
        ("d/", &folder),
        ("d/x", &["d/x/y/c.parquet"]),
        ("d/_old", &["d/_old/o.parquet"]),
        ("d/[!n]*", &folder),
        ("d/?.parquet", &["d/b.parquet", "d/t.parquet/part.parquet"]),
        ("d/[ab].*", &["d/a.PARQUET", "d/b.parquet"]),
        ("*/b.parquet", &["d/b.parquet"]),
        ("d*/not.parquet", &["dd/not.parquet"]),
        ("d/**/*.parquet", &folder[1..]),
        ("d/**", &folder),
        ("[d]/**/", &folder),
        ("d/x/**", &["d/x/y/c.parquet"]),
        ("d/_old/*.parquet", &["d/_old/o.parquet"]),
        ("d/_*/*", &["d/_old/_older/p.parquet", "d/_old/o.parquet"]),
        ("[e]", &["e"]),
    ] {
        assert_eq!(remote.listed(path).await, expected, "{path}");
    }
    let all = remote.listed("").await;
    assert_eq!(all.len(), 5, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_hold_any_character() {
    let remote = Remote::new();
    let names = [
        "a b",
        "50%41",
        "x#y",
        "[1]",
        "*",
        "?",
        "ü𝄞",
        "a+b&c=d;e",
        "q'\"`",
        "{~}|^\\",
    ];
    let keys = names.map(|name| format!("{name}/{name}.parquet"));
    remote.put_all(&keys.each_ref().map(String::as_str));
    for (name, key) in names.iter().zip(&keys) {
        // The folder `a+b&c=d;e` names a column, too.
        assert_eq!(remote.listed(key).await[0], *key, "{name}");
        assert_eq!(remote.listed(name).await[0], *key, "{name}");
    }
    assert_eq!(remote.listed("?0%*/*").await, ["50%41/50%41.parquet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_a_store_lists_at_once() {
    let remote = Remote::new();
    let file = parquet(&one_row(1, 1));
    for number in 0..1_100 {
        let folder = if number == 1_099 { "z" } else { "_skipped" };
        remote
            .server
            .put(&format!("d/{folder}/{number:04}.parquet"), &file);
    }
    let error = remote.error(&remote.server.url("d/_skipped/*.csv")).await;
    let problem = source_problem(&error);
    assert!(matches!(problem, SourceProblem::NoFiles { .. }), "{error}");
    let view = view(&remote.server.url("d"));
    assert_eq!(remote.values_at(&view, &[1]).await.unwrap(), [Some(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_set_from_an_object_store() {
    let remote = Remote::new();
    remote.put("d/1.parquet", &one_row(1, 10));
    remote.put("d/deep/2.parquet", &one_row(2, 20));
    remote.put("other.parquet", &one_row(3, 30));
    for (path, expected) in [
        ("d", [None, Some(10), Some(20), Some(20)]),
        ("d/1.parquet", [None, Some(10), Some(10), Some(10)]),
        ("d/*/*.parquet", [None, None, Some(20), Some(20)]),
        ("**/*.parquet", [None, Some(10), Some(20), Some(30)]),
    ] {
        let view = view(&remote.server.url(path));
        let found = remote.values_at(&view, &[0, 1, 2, 3]).await.unwrap();
        assert_eq!(found, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_name_columns_that_files_lack() {
    let remote = Remote::new();
    let rows = |value| {
        batch(vec![
            ("at", times([Some(1)])),
            ("made", times([None])),
            ("v", ints([Some(value)])),
        ])
    };
    remote.put("d/id=a/1.parquet", &rows(10));
    remote.put("d/id=b%2Fc/2.parquet", &rows(20));
    let mut view = view(&remote.server.url("d"));
    let plan = plan_of(&view);
    let keys = [A, Some("b/c"), Some("b%2Fc")].map(|key| (key, 1));
    let found = remote.repository.evaluated(&plan, &entities(&keys)).await;
    let found = values(&found.unwrap().batch, "v__v");
    assert_eq!(found, [Some(10), Some(20), None]);
    let url = view.source.path.clone();
    let schema = remote.repository.offline.source_schema("s", &url).await;
    assert!(schema.unwrap().field_with_name("id").is_ok());
    // As another type, where every folder's value is one.
    remote.put("n/id=7/1.parquet", &rows(70));
    view.source.path = remote.server.url("n");
    view.keys = vec![key("id", ScalarType::Int64)];
    let rows = batch(vec![
        ("id", ints([Some(7), Some(8)])),
        ("event_timestamp", times([Some(1), Some(1)])),
    ]);
    let found = remote.repository.evaluated(&plan_of(&view), &rows).await;
    assert_eq!(values(&found.unwrap().batch, "v__v"), [Some(70), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_by_time() {
    let remote = Remote::new();
    let day = |date: &str| time::parse(date).unwrap();
    let (first, second) = (day("2024-01-01"), day("2024-01-02"));
    remote.put("d/dt=2024-01-01/1.parquet", &one_row(first, 10));
    // A row that came an hour late to its folder.
    remote.put("d/dt=2024-01-02/2.parquet", &one_row(second - DAY / 24, 20));
    let nobody = history(&[(A, None, None, Some(30))]);
    remote.put("d/dt=__HIVE_DEFAULT_PARTITION__/3.parquet", &nobody);
    let mut view = view(&remote.server.url("d"));
    let partition = |slack| {
        let column = "dt".to_owned();
        Some(Partition { column, slack })
    };
    view.source.partition = partition(DAY);
    view.ttl = Some(DAY);
    let instants = [
        first - 1,
        first,
        second - DAY / 24,
        second,
        second + 2 * DAY,
    ];
    let expected = [None, Some(10), Some(20), Some(20), None];
    let found = remote.values_at(&view, &instants).await.unwrap();
    assert_eq!(found, expected);
    // What the folders say decides nothing of the result.
    view.source.partition = None;
    assert_eq!(remote.values_at(&view, &instants).await.unwrap(), expected);

    view.source.partition = partition(0);
    let error = remote.values_at(&view, &instants).await.unwrap_err();
    let problem = source_problem(&error);
    assert!(
        matches!(problem, SourceProblem::OutsidePartition { .. }),
        "{error}"
    );
    view.source.partition = partition(DAY);
    remote.put("d/stray.parquet", &one_row(first, 40));
    let error = remote.values_at(&view, &instants).await.unwrap_err();
    let problem = source_problem(&error);
    assert!(
        matches!(problem, SourceProblem::NotInPartition { .. }),
        "{error}"
    );
    let stray = remote.server.url("d/stray.parquet");
    assert!(error.to_string().contains(&stray), "{error}");

    view.source.path = remote.server.url("e");
    remote.put("e/dt=yesterday/1.parquet", &one_row(first, 50));
    let error = remote.values_at(&view, &instants).await.unwrap_err();
    let problem = source_problem(&error);
    assert!(
        matches!(problem, SourceProblem::InvalidPartition { .. }),
        "{error}"
    );
    let message = error.to_string();
    assert!(
        message.contains("`yesterday`") && message.contains("2024-01-01T05"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let remote = Remote::new();
    remote.put_all(&["d/a.parquet"]);
    for path in [
        "missing.parquet",
        "missing/",
        "a.parquet",
        "d/*.csv",
        "D",
        "d/a.parquet/",
    ] {
        let url = remote.server.url(path);
        let error = remote.error(&url).await;
        let problem = source_problem(&error);
        assert!(matches!(problem, SourceProblem::NoFiles { .. }), "{error}");
        assert!(error.to_string().contains(&format!("`{url}`")), "{error}");
    }
    for url in ["s3://no-such-bucket/d/a.parquet", "s3a://no-such-bucket/*"] {
        let error = remote.error(url).await;
        let problem = store_problem(&error);
        assert!(
            matches!(problem, StoreProblem::NoSuchBucket { .. }),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.contains(url) && message.contains("`no-such-bucket`"),
            "{message}"
        );
    }
    let error = remote.error(&remote.server.url("d/***")).await;
    assert!(error.to_string().contains("is no glob"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_refused() {
    let remote = Remote::new();
    remote.put_all(&["d/a.parquet"]);
    assert_eq!(remote.listed("d").await, ["d/a.parquet"]);
    remote.server.require_credentials();
    for path in ["d", "d/a.parquet", "d/*"] {
        let error = remote.error(&remote.server.url(path)).await;
        let problem = store_problem(&error);
        assert!(matches!(problem, StoreProblem::Denied { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("InvalidAccessKeyId"), "{message}");
        assert!(message.contains("AWS_SECRET_ACCESS_KEY"), "{message}");
        assert!(message.contains(&remote.server.url(path)), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_told() {
    let mut remote = Remote::new();
    remote.put_all(&["d/a.parquet"]);
    assert_eq!(remote.listed("d").await, ["d/a.parquet"]);
    remote.server.stop();
    let error = remote.error(&remote.server.url("d")).await;
    assert!(
        matches!(store_problem(&error), StoreProblem::Unreachable { .. }),
        "{error}"
    );
    let message = error.to_string();
    for part in [
        "onnection refused",
        "bucket `history`",
        remote.server.endpoint(),
        "AWS_ENDPOINT_URL",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(message.contains(&remote.server.url("d")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_tls_has_to_be_allowed() {
    let remote = Remote::with(&[("AWS_ALLOW_HTTP", "false")]);
    let error = remote.error(&remote.server.url("d")).await;
    assert!(
        matches!(store_problem(&error), StoreProblem::NoTls { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("AWS_ALLOW_HTTP=true"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_no_parquet_is_named() {
    let remote = Remote::new();
    remote.server.put("d/a.parquet", b"no Parquet at all");
    remote.server.put("d/b.parquet", b"");
    for path in ["d", "d/a.parquet", "d/b.parquet"] {
        let error = remote.error(&remote.server.url(path)).await;
        assert!(
            matches!(error, OfflineError::UnreadableFile { .. }),
            "{error}"
        );
        let file = if path == "d" { "d/a.parquet" } else { path };
        assert!(
            error.to_string().contains(&remote.server.url(file)),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_lacks_a_column_of_others() {
    let remote = Remote::new();
    remote.put("d/1.parquet", &one_row(1, 10));
    let newer = batch(vec![("at", times([Some(2)])), ("id", strings([A]))]);
    remote.put("d/2.parquet", &newer);
    let mut view = view(&remote.server.url("d"));
    let found = remote.values_at(&view, &[1, 2]).await.unwrap();
    assert_eq!(found, [Some(10), None]);
    let w = Field::new("w", crate::repository::INT64);
    view.features.push(w);
    let error = remote.values_at(&view, &[1]).await.unwrap_err();
    let problem = source_problem(&error);
    assert!(
        matches!(problem, SourceProblem::MissingColumn { .. }),
        "{error}"
    );
    let message = error.to_string();
    assert!(
        message.contains(&remote.server.url("d/1.parquet")),
        "{message}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let secret = ("aws_secret_access_key".to_owned(), "hunter2".to_owned());
    let settings = Settings {
        object_store: BTreeMap::from([secret]),
        ..Settings::default()
    };
    let offline = Arc::new(unskew_offline::Offline::new("/", settings.clone()));
    for shown in [format!("{settings:?}"), format!("{offline:?}")] {
        assert!(shown.contains("aws_secret_access_key"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

/// By its e_tag: each range is asked for on the condition that the object is still the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_replaced_before_it_is_read_is_named() {
    let remote = Remote::new();
    remote.put("d/1.parquet", &one_row(1, 10));
    let view = Arc::new(view(&remote.server.url("d")));
    let offline = &remote.repository.offline;
    let rows = offline
        .view_rows(&view, &Components::new(), Arc::new(()))
        .await
        .unwrap();
    remote.put("d/1.parquet", &one_row(1, 11));
    let rows: Arc<dyn ExecutionPlan> = Arc::new(rows);
    let read = collect(rows, offline.task_context()).await;
    let error = OfflineError::from(read.unwrap_err());
    assert!(
        matches!(error, OfflineError::ChangedFile { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("d/1.parquet"), "{error}");
}
