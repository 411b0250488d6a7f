//! Rows that are appended to a source.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use datafusion::physical_plan::{ExecutionPlan, collect};
use unskew_core::time::{self, DAY};
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_core::view::{Partition, Source, View};
use unskew_offline::{AppendProblem, OfflineError, PushedRows, RowProblem, Settings};
use unskew_test_s3::S3Server;

use crate::repository::{Repository, batch, history, ints, read, strings, times, values, view};

const A: Option<&str> = Some("a");
const NOW: i64 = 1_000 * DAY;

/// Appends rows for one view, and gives the files.
async fn append(
    repository: &Repository,
    view: &View,
    rows: RecordBatch,
) -> Result<Vec<String>, OfflineError> {
    let views = vec![Arc::new(view.clone())];
    let appender = repository.offline.appender(&view.source, views).await?;
    let rows = appender.check(&PushedRows::Typed(rows), NOW)?;
    appender.append(&rows, NOW).await
}

/// The values of `v` that a scan of the source gives, ascending.
async fn scanned(repository: &Repository, source: &Source) -> Vec<Option<i64>> {
    let scan = repository.offline.scan(source, &["v"]).await.unwrap();
    let context = repository.offline.task_context();
    let batches = collect(scan as Arc<dyn ExecutionPlan>, context)
        .await
        .unwrap();
    let mut all: Vec<_> = batches
        .iter()
        .flat_map(|batch| values(batch, "v"))
        .collect();
    all.sort_unstable();
    all
}

fn problems(error: OfflineError) -> Vec<RowProblem> {
    match error {
        OfflineError::Append { problem, .. } => match *problem {
            AppendProblem::Rows { rows, .. } => rows,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_become_a_file_of_the_source() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    let view = view("d");
    let rows = history(&[(A, Some(2), Some(3), Some(20)), (None, Some(2), None, None)]);
    let files = append(&repository, &view, rows.clone()).await.unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(read(files[0].as_ref()), rows);
    let again = append(&repository, &view, rows).await.unwrap();
    assert_ne!(files, again);
    let all = [None, None, Some(10), Some(20), Some(20)];
    assert_eq!(scanned(&repository, &view.source).await, all);
    // Nothing else is left there.
    assert_eq!(fs::read_dir(repository.path("d")).unwrap().count(), 3);
}

/// The types are those of the files, whatever a view makes of them; values are taken that lose
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_written_in_the_types_of_the_files() {
    let repository = Repository::new();
    let of_files = batch(vec![
        ("id", strings([A])),
        ("at", times([Some(1)])),
        ("made", times([Some(1)])),
        ("v", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
        ("note", strings([Some("x")])),
    ]);
    repository.write("d/1.parquet", &of_files);
    let rows = batch(vec![
        ("v", Arc::new(Float64Array::from(vec![7.0])) as ArrayRef),
        ("at", strings([Some("1970-01-02T00:00:00Z")])),
        ("id", strings([A])),
    ]);
    let view = view("d");
    let files = append(&repository, &view, rows).await.unwrap();
    let written = read(files[0].as_ref());
    assert_eq!(written.schema(), of_files.schema());
    let expected = batch(vec![
        ("id", strings([A])),
        ("at", times([Some(DAY)])),
        // They become known as they are pushed.
        ("made", times([Some(NOW)])),
        ("v", Arc::new(Int32Array::from(vec![7])) as ArrayRef),
        ("note", strings([None])),
    ]);
    assert_eq!(written, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_that_cannot_be_taken_is_named_and_none_is_written() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    let mut view = view("d");
    // Narrower than the files.
    view.features = vec![Field::new("v", DataType::Scalar(ScalarType::Int32))];
    let rows = batch(vec![
        ("id", strings([A, A, A, A, A])),
        (
            "at",
            times([Some(1), None, Some(NOW + 1), Some(2), Some(NOW)]),
        ),
        (
            "made",
            times([Some(1), None, None, Some(NOW + 1), Some(NOW)]),
        ),
        (
            "v",
            Arc::new(Float64Array::from(vec![0.5, 1.0, 2.0, 3.5, 5e9])) as ArrayRef,
        ),
    ]);
    let found = problems(append(&repository, &view, rows).await.unwrap_err());
    let named: Vec<(usize, &str)> = found
        .iter()
        .map(|problem| (problem.row, problem.column.as_deref().unwrap()))
        .collect();
    assert_eq!(
        named,
        [
            (0, "v"),
            (1, "at"),
            (2, "at"),
            (3, "made"),
            (3, "v"),
            (4, "v")
        ]
    );
    assert!(found[0].message.contains("0.5"), "{found:?}");
    assert!(found[2].message.contains("lies after now"), "{found:?}");
    // The files hold it, and the view does not.
    let rows = history(&[
        (A, Some(1), None, Some(1)),
        (A, Some(1), None, Some(5_000_000_000)),
    ]);
    let found = problems(append(&repository, &view, rows).await.unwrap_err());
    assert_eq!((found.len(), found[0].row), (1, 1));
    assert_eq!(fs::read_dir(repository.path("d")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_problems_are_listed_and_no_more() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    let view = view("d");
    let count = 500;
    let rows = batch(vec![
        ("id", strings(vec![A; count])),
        ("at", times(vec![Some(1); count])),
        ("v", strings(vec![Some("text"); count])),
    ]);
    let error = append(&repository, &view, rows).await.unwrap_err();
    assert!(error.to_string().contains("or more others"), "{error}");
    assert_eq!(problems(error).len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_those_of_the_source_under_either_name() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    let mut view = view("d");
    view.source.columns = BTreeMap::from([("value".to_owned(), "v".to_owned())]);
    view.features = vec![Field::new("value", crate::repository::INT64)];
    let rows = |columns: &[&str]| {
        let columns = columns.iter().map(|&name| {
            let column = match name {
                "id" => strings([A]),
                "at" => times([Some(1)]),
                _ => ints([Some(1)]),
            };
            (name, column)
        });
        batch(columns.collect())
    };
    for columns in [["id", "at", "value"], ["id", "at", "v"]] {
        append(&repository, &view, rows(&columns)).await.unwrap();
    }
    assert_eq!(scanned(&repository, &view.source).await.len(), 3);
    for (columns, expected) in [
        (&["id", "at"][..], "no column `value`; its columns are `id`"),
        (&["id", "value"], "no column `at`"),
        (
            &["id", "at", "value", "x"],
            "has no column `x`; its columns are",
        ),
        (&["id", "at", "value", "v"], "`v` is given twice"),
    ] {
        let error = append(&repository, &view, rows(columns)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_folder_can_be_checked_and_not_appended_to() {
    let repository = Repository::new();
    let rows = history(&[(A, Some(1), Some(1), Some(10))]);
    repository.write("d/1.parquet", &rows);
    for path in ["d/1.parquet", "d/*.parquet"] {
        let view = view(path);
        let views = vec![Arc::new(view.clone())];
        let appender = repository
            .offline
            .appender(&view.source, views)
            .await
            .unwrap();
        let checked = appender
            .check(&PushedRows::Typed(rows.clone()), NOW)
            .unwrap();
        assert_eq!(checked.of_view(&view).unwrap().num_rows(), 1);
        let error = appender
            .append(&checked, NOW)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("write `d` as its path"), "{error}");
    }
    // A folder, in other words.
    append(&repository, &view("d/**"), rows.clone())
        .await
        .unwrap();
    assert_eq!(scanned(&repository, &view("d").source).await.len(), 2);
    // The first rows of all make it.
    append(&repository, &view("new/folder"), rows)
        .await
        .unwrap();
    assert_eq!(
        scanned(&repository, &view("new/folder").source).await.len(),
        1
    );
}

/// A view of a source whose folders go by country and day.
fn by_day() -> View {
    let mut view = view("d");
    view.source.partition = Some(Partition {
        column: "dt".to_owned(),
        slack: 0,
    });
    view.features
        .push(Field::new("land", DataType::Scalar(ScalarType::String)));
    view.features
        .push(Field::new("dt", DataType::Scalar(ScalarType::String)));
    view
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_into_the_folders_that_they_belong_to() {
    let repository = Repository::new();
    let day = |day: i64| time::format(day * DAY)[..10].to_owned();
    repository.write(
        &format!("d/land=CH/dt={}/1.parquet", day(1)),
        &history(&[(A, Some(DAY), Some(1), Some(1))]),
    );
    let view = by_day();
    let rows = |lands: &[Option<&str>]| {
        let length = lands.len() as i64;
        batch(vec![
            ("id", strings(vec![A; lands.len()])),
            (
                "at",
                times((0..length).map(|row| Some((row % 2 + 1) * DAY + 5))),
            ),
            ("land", strings(lands.iter().copied())),
            ("v", ints((0..length).map(|row| Some(row + 10)))),
        ])
    };
    let lands = [Some("CH"), Some("CH"), Some("a/b %"), None, Some("CH")];
    let files = append(&repository, &view, rows(&lands)).await.unwrap();
    let folders: Vec<String> = files
        .iter()
        .map(|file| {
            let below = file.split_once("/d/").unwrap().1;
            below.rsplit_once('/').unwrap().0.to_owned()
        })
        .collect();
    let expected = [
        format!("land=CH/dt={}", day(1)),
        format!("land=CH/dt={}", day(2)),
        format!("land=__HIVE_DEFAULT_PARTITION__/dt={}", day(2)),
        format!("land=a%2Fb %25/dt={}", day(1)),
    ];
    assert_eq!(folders, expected);
    assert_eq!(
        scanned(&repository, &view.source).await,
        [1, 10, 11, 12, 13, 14].map(Some)
    );
    // What a view is made of is what a scan gives.
    let views = vec![Arc::new(view.clone())];
    let appender = repository
        .offline
        .appender(&view.source, views)
        .await
        .unwrap();
    let checked = appender
        .check(&PushedRows::Typed(rows(&lands)), NOW)
        .unwrap();
    let of_view = checked.of_view(&view).unwrap();
    let text = |column: &str| of_view.column_by_name(column).unwrap().to_data();
    assert_eq!(
        StringArray::from(text("land")),
        StringArray::from(lands.to_vec())
    );
    let days = [1, 2, 1, 2, 1].map(day);
    assert_eq!(
        StringArray::from(text("dt")),
        StringArray::from_iter_values(&days)
    );
    for (columns, expected) in [
        (
            rows(&lands).project(&[0, 1, 3]).unwrap(),
            "no column `land`",
        ),
        (
            batch(vec![
                ("id", strings([A])),
                ("at", times([Some(1)])),
                ("land", strings([A])),
                ("v", ints([None])),
                ("dt", strings([A])),
            ]),
            "comes of each row's event timestamp; leave it out",
        ),
    ] {
        let error = append(&repository, &view, columns).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Texts are read as the types of the source.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_texts_are_read_in_the_types_of_the_source() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    let view = view("d");
    let views = vec![Arc::new(view.clone())];
    let appender = repository
        .offline
        .appender(&view.source, views)
        .await
        .unwrap();
    let texts = batch(vec![
        ("id", strings([Some("007"), A])),
        (
            "at",
            strings([Some("1970-01-01T00:00:00.000005Z"), Some("when")]),
        ),
        ("v", strings([Some("7"), Some("seven")])),
    ]);
    let good = PushedRows::Texts(texts.slice(0, 1));
    let files = appender
        .append(&appender.check(&good, NOW).unwrap(), NOW)
        .await
        .unwrap();
    let expected = history(&[(Some("007"), Some(5), Some(NOW), Some(7))]);
    assert_eq!(read(files[0].as_ref()), expected);
    let found = appender.check(&PushedRows::Texts(texts), NOW);
    let found = problems(found.err().unwrap());
    let rows: Vec<usize> = found.iter().map(|problem| problem.row).collect();
    assert_eq!(rows, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_nothing() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    let view = view("d");
    let views = vec![Arc::new(view.clone())];
    let appender = repository
        .offline
        .appender(&view.source, views)
        .await
        .unwrap();
    let rows = PushedRows::Typed(history(&[(A, Some(2), Some(2), Some(20))]));
    let rows = appender.check(&rows, NOW).unwrap();
    // A file where the folder was stands for whatever makes writing fail.
    fs::rename(repository.path("d"), repository.path("away")).unwrap();
    fs::write(repository.path("d"), "").unwrap();
    assert!(appender.append(&rows, NOW).await.is_err());
    fs::remove_file(repository.path("d")).unwrap();
    fs::rename(repository.path("away"), repository.path("d")).unwrap();
    assert_eq!(fs::read_dir(repository.path("d")).unwrap().count(), 1);
    appender.append(&rows, NOW).await.unwrap();
    assert_eq!(scanned(&repository, &view.source).await.len(), 2);
}

/// A file that was killed while it was written is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_its_name_is_no_data() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[(A, Some(1), Some(1), Some(10))]));
    repository.write_text("d/.pushed-x.parquet.abc.tmp", "PAR1");
    assert_eq!(scanned(&repository, &view("d").source).await, [Some(10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_appended_to_an_object_store() {
    let server = S3Server::start();
    let repository = Repository::with_settings(Settings {
        object_store: server.environment().into_iter().collect(),
        ..Settings::default()
    });
    let first = history(&[(A, Some(DAY), Some(1), Some(1))]);
    let mut bytes = Vec::new();
    let writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, first.schema(), None);
    let mut writer = writer.unwrap();
    writer.write(&first).unwrap();
    writer.close().unwrap();
    server.put("d/land=a b/dt=1970-01-02/1.parquet", &bytes);
    let mut view = by_day();
    view.source.path = server.url("d");
    let rows = batch(vec![
        ("id", strings([A, A])),
        ("at", times([Some(1), Some(DAY)])),
        ("land", strings([Some("Zürich / %"), Some("a b")])),
        ("v", ints([Some(2), Some(3)])),
    ]);
    let files = append(&repository, &view, rows).await.unwrap();
    assert_eq!(files.len(), 2);
    assert!(files[0].starts_with("s3://history/d/land="), "{files:?}");
    assert_eq!(
        scanned(&repository, &view.source).await,
        [Some(1), Some(2), Some(3)]
    );
    // Many at once: each has a name of its own.
    let one = || {
        let rows = batch(vec![
            ("id", strings([A])),
            ("at", times([Some(1)])),
            ("land", strings([Some("x")])),
            ("v", ints([Some(4)])),
        ]);
        append(&repository, &view, rows)
    };
    let all = futures_join(8, one).await;
    assert_eq!(all.len(), 8);
    assert_eq!(scanned(&repository, &view.source).await.len(), 11);
    let view = crate::repository::view(&server.url("d/land=a b/dt=1970-01-02/1.parquet"));
    let rows = history(&[(A, Some(1), Some(1), Some(10))]);
    let error = append(&repository, &view, rows).await.unwrap_err();
    assert!(error.to_string().contains("a single file"), "{error}");
}

/// The files of `count` runs at once, each different from all others.
async fn futures_join<F>(count: usize, run: impl Fn() -> F) -> std::collections::BTreeSet<String>
where
    F: Future<Output = Result<Vec<String>, OfflineError>>,
{
    let runs: Vec<_> = (0..count).map(|_| Box::pin(run())).collect();
    let mut files = std::collections::BTreeSet::new();
    for run in futures::future::join_all(runs).await {
        files.extend(run.unwrap());
    }
    files
}
