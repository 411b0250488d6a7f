//! Sources as they are in the world, and as they should not be: many files, every type that a
//! column is found in, files that change, values that have no place.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Date64Array, DictionaryArray,
    Float64Array, Int8Array, Int16Array, Int32Array, LargeStringArray, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType as ArrowType, Int8Type, Int32Type, UInt16Type};
use datafusion::physical_plan::{ExecutionPlan, collect};
use unskew_core::time::DAY;
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_core::view::View;
use unskew_offline::{Components, EntityRows, OfflineError, Progress, Settings, SourceProblem};

use crate::files::write_int96;
use crate::repository::{
    Repository, batch, entities, evaluator, history, ints, key, plan_of, strings, times, values,
    view,
};

const A: Option<&str> = Some("a");
const STRING: DataType = DataType::Scalar(ScalarType::String);
const MICROS_PER_SECOND: i64 = 1_000_000;

/// A history of [`view`] with these columns.
fn columns(at: ArrayRef, id: ArrayRef, v: ArrayRef) -> RecordBatch {
    let made = times((0..at.len()).map(|_| None));
    batch(vec![("at", at), ("id", id), ("made", made), ("v", v)])
}

fn a(rows: usize) -> ArrayRef {
    strings((0..rows).map(|_| A))
}

/// The error of asking for key `a` at instant 100, which names all of `parts`.
async fn refused(repository: &Repository, path: &str, parts: &[&str]) -> OfflineError {
    let plan = plan_of(&view(path));
    let error = repository.evaluated(&plan, &entities(&[(A, 100)])).await;
    let error = error.unwrap_err();
    for part in parts {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_small_files_are_one_history() {
    let repository = Repository::new();
    for file in 0..400_i64 {
        // Every other file is older than the column `w`.
        let mut fields = vec![
            ("id", strings([A, Some("b")])),
            ("at", times([Some(file), Some(-file)])),
            ("made", times([None, None])),
            ("v", ints([Some(file), Some(-file)])),
        ];
        if file % 2 == 1 {
            fields.push(("w", ints([Some(file * 10), None])));
        }
        let name = format!("d/{}/{file}.parquet", file % 7);
        repository.write(&name, &batch(fields));
    }
    let mut view = view("d");
    view.features
        .push(Field::new("w", crate::repository::INT64));
    let plan = plan_of(&view);
    let asked = entities(&[(A, 1_000), (A, 398), (A, 201), (Some("b"), -200), (A, -1)]);
    let metrics = repository.pruned(&plan, &asked).await;
    assert_eq!(metrics.get("rows_read"), 800);
    let found = repository.evaluated(&plan, &asked).await.unwrap().batch;
    let expected = [Some(399), Some(398), Some(201), Some(-200), None];
    assert_eq!(values(&found, "v__v"), expected);
    let expected = [Some(3_990), None, Some(2_010), None, None];
    assert_eq!(values(&found, "v__w"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_of_every_unit_with_and_without_zone_are_instants_and_prune_as_such() {
    let days = [1_i64, 2, 3, 4];
    let of = |per_day: i64| days.map(|day| day * per_day);
    let seconds = TimestampSecondArray::from(of(86_400).to_vec());
    let millis = TimestampMillisecondArray::from(of(86_400_000).to_vec());
    let micros = TimestampMicrosecondArray::from(of(DAY).to_vec());
    let nanos = TimestampNanosecondArray::from(of(DAY * 1_000).to_vec());
    // A zone says how an instant is shown, not which it is.
    let zone = "America/New_York";
    let types: Vec<(ArrayRef, bool)> = vec![
        (Arc::new(seconds.clone().with_timezone(zone)), true),
        (Arc::new(seconds), true),
        (Arc::new(millis.clone().with_timezone("+05:30")), true),
        (Arc::new(millis), true),
        (Arc::new(micros.clone().with_timezone(zone)), true),
        (Arc::new(micros), true),
        (Arc::new(nanos.clone().with_timezone("UTC")), true),
        (Arc::new(nanos), true),
        (Arc::new(Date32Array::from(vec![1, 2, 3, 4])), true),
        (Arc::new(Date64Array::from(of(86_400_000).to_vec())), true),
        // Text has another order than the instants that it stands for.
        (
            strings(["02", "03", "04", "05"].map(|day| match day {
                "02" => Some("1970-01-02T02:00:00+02:00"),
                "03" => Some("1970-01-03"),
                "04" => Some("1970-01-04 00:00:00"),
                _ => Some("1970-01-05T00:00:00.000000Z"),
            })),
            false,
        ),
    ];
    for (at, is_pruned) in types {
        let repository = Repository::new();
        let case = at.data_type().to_string();
        let rows = columns(at, a(4), ints([1, 2, 3, 4].map(Some)));
        repository.write_grouped("h.parquet", &rows, 1);
        let mut view = view("h.parquet");
        view.ttl = Some(DAY);
        let plan = plan_of(&view);
        let asked = entities(&[(A, 3 * DAY), (A, 3 * DAY - 1), (A, 4 * DAY - 1)]);
        let metrics = repository.pruned(&plan, &asked).await;
        let pruned = if is_pruned { 2 } else { 0 };
        assert_eq!(metrics.get("row_groups_pruned"), pruned, "{case}");
        let found = repository.evaluated(&plan, &asked).await.unwrap().batch;
        assert_eq!(
            values(&found, "v__v"),
            [Some(3), Some(2), Some(3)],
            "{case}"
        );
    }

    // INT96 has statistics that nobody can rely on.
    const EPOCH: u32 = 2_440_588;
    let repository = Repository::new();
    for day in 1..=4 {
        let name = format!("d/{day}.parquet");
        fs::create_dir_all(repository.path("d")).unwrap();
        write_int96(&repository, &name, &[(EPOCH + day, 0, i64::from(day))]);
    }
    let mut view = view("d");
    view.source.created_timestamp_column = None;
    view.ttl = Some(DAY);
    let asked = entities(&[(A, 3 * DAY), (A, 3 * DAY - 1), (A, 4 * DAY - 1)]);
    repository.pruned(&plan_of(&view), &asked).await;
    let found = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
    assert_eq!(values(&found.batch, "v__v"), [Some(3), Some(2), Some(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_of_every_form_are_keys_and_features() {
    let texts = ["a", "", "ü𝄞", "b"];
    let plain = StringArray::from(vec![Some("a"), Some(""), Some("ü𝄞"), None]);
    let small: DictionaryArray<Int8Type> = plain.iter().collect();
    let large: DictionaryArray<UInt16Type> = plain.iter().collect();
    let forms: Vec<ArrayRef> = vec![
        Arc::new(plain.clone()),
        Arc::new(plain.iter().collect::<LargeStringArray>()),
        Arc::new(plain.iter().collect::<StringViewArray>()),
        Arc::new(small),
        Arc::new(large),
    ];
    let repository = Repository::new();
    let mut view = view("all");
    view.features = vec![Field::new("v", STRING)];
    for (index, form) in forms.iter().enumerate() {
        // The feature is the key of the row before.
        let before = arrow::array::UInt32Array::from(vec![3, 0, 1, 2]);
        let before = arrow::compute::take(form, &before, None).unwrap();
        let at = times([Some(1), Some(1), Some(1), Some(1)]);
        let rows = columns(at, Arc::clone(form), before);
        let name = format!("{index}.parquet");
        repository.write_grouped(&name, &rows, 2);
        repository.write_grouped(&format!("all/{name}"), &rows, 2);
        view.source.path = name;
        let asked = entities(&texts.map(|text| (Some(text), 1)));
        repository.pruned(&plan_of(&view), &asked).await;
        let found = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
        let expected = StringArray::from(vec![None, Some("a"), Some(""), None]);
        assert_eq!(
            found.batch.column(0).as_string(),
            &expected,
            "{}",
            form.data_type()
        );
    }
    // In one folder they are one column.
    view.source.path = "all".to_owned();
    let asked = entities(&texts.map(|text| (Some(text), 1)));
    let found = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
    let expected = StringArray::from(vec![None, Some("a"), Some(""), None]);
    assert_eq!(found.batch.column(0).as_string(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn integer_keys_of_another_width_are_the_same_keys() {
    let forms: Vec<ArrayRef> = vec![
        Arc::new(Int8Array::from(vec![7, 100, 0])),
        Arc::new(Int16Array::from(vec![7, 100, 0])),
        Arc::new(Int32Array::from(vec![7, 100, 0])),
        ints([7, 100, 0].map(Some)),
        Arc::new(UInt8Array::from(vec![7, 100, 0])),
        Arc::new(UInt16Array::from(vec![7, 100, 0])),
        Arc::new(UInt32Array::from(vec![7, 100, 0])),
        Arc::new(UInt64Array::from(vec![7, 100, 0])),
        Arc::new(Float64Array::from(vec![7.0, 100.0, 0.0])),
        Arc::new(DictionaryArray::<Int32Type>::new(
            Int32Array::from(vec![1, 0, 2]),
            Arc::new(Int32Array::from(vec![100, 7, 0])),
        )),
    ];
    let mut view = view("h.parquet");
    for data_type in [ScalarType::Int32, ScalarType::Int64] {
        view.keys = vec![key("id", data_type)];
        for form in &forms {
            let case = format!("{} as {data_type:?}", form.data_type());
            let repository = Repository::new();
            let at = times([Some(1), Some(1), Some(1)]);
            let rows = columns(at, Arc::clone(form), ints([1, 2, 3].map(Some)));
            repository.write_grouped("h.parquet", &rows, 1);
            let asked = batch(vec![
                ("id", ints([Some(100), Some(7), Some(8), Some(0), Some(-1)])),
                ("event_timestamp", times((0..5).map(|_| Some(5)))),
            ]);
            repository.pruned(&plan_of(&view), &asked).await;
            let found = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
            let expected = [Some(2), Some(1), None, Some(3), None];
            assert_eq!(values(&found.batch, "v__v"), expected, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integer_key_that_has_no_place_in_the_views_type_is_an_error() {
    let big = i64::from(i32::MAX) + 1;
    let forms: Vec<(ScalarType, ArrayRef, String)> = vec![
        (
            ScalarType::Int32,
            ints([Some(7), Some(big)]),
            big.to_string(),
        ),
        (
            ScalarType::Int32,
            Arc::new(UInt32Array::from(vec![7, u32::MAX])),
            u32::MAX.to_string(),
        ),
        (
            ScalarType::Int64,
            Arc::new(UInt64Array::from(vec![7, u64::MAX])),
            u64::MAX.to_string(),
        ),
        (
            ScalarType::Int32,
            Arc::new(Float64Array::from(vec![7.0, 0.5])),
            "0.5".to_owned(),
        ),
    ];
    for (data_type, form, value) in forms {
        let case = form.data_type().to_string();
        let nobody = columns(
            times([Some(0); 3]),
            arrow::array::new_null_array(form.data_type(), 3),
            ints([None; 3]),
        );
        let rows = columns(times([Some(1); 2]), form, ints([1, 2].map(Some)));
        let rows = arrow::compute::concat_batches(&rows.schema(), [&nobody, &rows]).unwrap();
        let repository = Repository::new();
        // Rows are counted in the file, not in a row group.
        repository.write_grouped("d/only.parquet", &rows, 1);
        let mut view = view("d");
        view.keys = vec![key("id", data_type)];
        let asked = batch(vec![
            ("id", ints([Some(7)])),
            ("event_timestamp", times([Some(5)])),
        ]);
        for bounds in [&[] as &[_], &[Some(i64::MAX)]] {
            let result = repository
                .evaluated_until(&plan_of(&view), &asked, bounds)
                .await;
            let error = result.unwrap_err().to_string();
            for part in ["only.parquet", "`id`", "row 4", &value, &case] {
                assert!(error.contains(part), "{case}: {part}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_give_features_and_keys() {
    let repository = Repository::new();
    let rows = |value| {
        batch(vec![
            ("at", times([Some(value)])),
            ("made", times([None])),
            ("v", ints([Some(value)])),
        ])
    };
    repository.write("d/shard=-7/country=CH/1.parquet", &rows(1));
    repository.write(
        "d/shard=-7/country=__HIVE_DEFAULT_PARTITION__/2.parquet",
        &rows(2),
    );
    repository.write("d/shard=8/country=a%20b/3.parquet", &rows(3));
    let mut view = view("d");
    view.features.push(Field::new("country", STRING));
    view.features
        .push(Field::new("shard", DataType::Scalar(ScalarType::Int32)));
    for data_type in [ScalarType::Int32, ScalarType::Int64] {
        view.keys = vec![key("shard", data_type)];
        view.features[2].data_type = DataType::Scalar(data_type);
        let asked = batch(vec![
            ("shard", ints([Some(-7), Some(-7), Some(8), Some(7)])),
            (
                "event_timestamp",
                times([Some(1), Some(5), Some(5), Some(5)]),
            ),
        ]);
        repository.pruned(&plan_of(&view), &asked).await;
        let found = repository
            .evaluated(&plan_of(&view), &asked)
            .await
            .unwrap()
            .batch;
        assert_eq!(values(&found, "v__v"), [Some(1), Some(2), Some(3), None]);
        let countries = StringArray::from(vec![Some("CH"), None, Some("a b"), None]);
        assert_eq!(found.column(1).as_string(), &countries);
        let shards = arrow::compute::cast(found.column(2), &ArrowType::Int64).unwrap();
        assert_eq!(
            shards.as_ref(),
            ints([Some(-7), Some(-7), Some(8), None]).as_ref()
        );
    }
    repository.write("d/shard=2147483648/country=CH/4.parquet", &rows(4));
    view.keys = vec![key("shard", ScalarType::Int32)];
    view.features.truncate(1);
    let asked = batch(vec![
        ("shard", ints([Some(8)])),
        ("event_timestamp", times([Some(5)])),
    ]);
    let error = repository
        .evaluated(&plan_of(&view), &asked)
        .await
        .unwrap_err();
    for part in ["4.parquet", "`shard`", "2147483648", "int32"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_its_timestamp_column_is_an_error() {
    let repository = Repository::new();
    let rows = batch(vec![("id", strings([A])), ("v", ints([Some(1)]))]);
    repository.write("h.parquet", &rows);
    let error = refused(
        &repository,
        "h.parquet",
        &["`s`", "`at`", "h.parquet", "id, v"],
    )
    .await;
    let OfflineError::Source { problem, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(**problem, SourceProblem::MissingColumn { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_timestamp_never_count_whatever_statistics_say() {
    let repository = Repository::new();
    // Of the row groups one has none, one has some, and one has no timestamps at all.
    let at = [Some(1), Some(2), None, Some(3), None, None];
    let rows = columns(times(at), a(6), ints((0..6).map(Some)));
    repository.write_grouped("h.parquet", &rows, 2);
    let nobody = columns(
        Arc::new(arrow::array::NullArray::new(2)),
        a(2),
        ints([Some(7), Some(8)]),
    );
    let mut view = view("h.parquet");
    for ttl in [None, Some(1)] {
        view.ttl = ttl;
        let asked = entities(&[(A, 2), (A, 3), (A, 4)]);
        repository.pruned(&plan_of(&view), &asked).await;
        let found = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
        assert_eq!(values(&found.batch, "v__v"), [Some(1), Some(3), Some(3)]);
    }
    repository.write("n.parquet", &nobody);
    view.source.path = "n.parquet".to_owned();
    let found = repository
        .evaluated(&plan_of(&view), &entities(&[(A, 100)]))
        .await;
    assert_eq!(values(&found.unwrap().batch, "v__v"), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_another_type_than_the_view_says_is_named_with_file_and_both_types() {
    let one = |at: ArrayRef, v: ArrayRef| columns(at, a(1), v);
    let at = || times([Some(1)]);
    let v = || ints([Some(1)]);
    let cases: Vec<(&str, RecordBatch, [&str; 2])> = vec![
        ("at", one(ints([Some(1)]), v()), ["Int64", "timestamp"]),
        (
            "at",
            one(Arc::new(Float64Array::from(vec![1.5])), v()),
            ["Float64", "timestamp"],
        ),
        (
            "at",
            one(Arc::new(BooleanArray::from(vec![true])), v()),
            ["Boolean", "timestamp"],
        ),
        ("v", one(at(), strings([Some("ten")])), ["Utf8", "int64"]),
        ("v", one(at(), times([Some(1)])), ["Timestamp", "int64"]),
        (
            "v",
            one(at(), Arc::new(BooleanArray::from(vec![false]))),
            ["Boolean", "int64"],
        ),
        (
            "id",
            batch(vec![
                ("id", ints([Some(1)])),
                ("at", at()),
                ("made", at()),
                ("v", v()),
            ]),
            ["Int64", "string"],
        ),
    ];
    for (column, rows, parts) in cases {
        let repository = Repository::new();
        repository.write("d/only.parquet", &rows);
        let column = format!("`{column}`");
        let mut all = vec!["only.parquet", column.as_str()];
        all.extend(parts);
        refused(&repository, "d", &all).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_and_a_path_that_does_not_exist_are_errors() {
    let repository = Repository::new();
    fs::create_dir_all(repository.path("empty/deeper")).unwrap();
    fs::create_dir_all(repository.path("other")).unwrap();
    repository.write_text("other/h.csv", "id,at,v\n");
    for path in ["empty", "other", "none", "none/*.parquet", "empty/**"] {
        let error = refused(&repository, path, &["`s`", path]).await;
        let OfflineError::Source { problem, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(**problem, SourceProblem::NoFiles { .. }),
            "{path}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_disagree_about_keys_or_timestamps_are_an_error_that_names_both() {
    let fine = columns(times([Some(1)]), a(1), ints([Some(1)]));
    for (column, other) in [
        (
            "at",
            columns(strings([Some("1970-01-01")]), a(1), ints([Some(1)])),
        ),
        ("at", columns(ints([Some(1)]), a(1), ints([Some(1)]))),
        (
            "id",
            columns(times([Some(1)]), ints([Some(1)]), ints([Some(1)])),
        ),
    ] {
        let repository = Repository::new();
        repository.write("d/1.parquet", &fine);
        repository.write("d/2.parquet", &other);
        let column = format!("`{column}`");
        let error = refused(&repository, "d", &[&column, "1.parquet", "2.parquet"]).await;
        let OfflineError::Source { problem, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(**problem, SourceProblem::IncompatibleTypes { .. }),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_overflows_is_an_error_and_no_other_instant() {
    // One microsecond, or the least there is, beyond 9999 and before year 1.
    const AFTER: i64 = 253_402_300_800;
    const BEFORE: i64 = -62_135_596_801;
    let mut cases: Vec<ArrayRef> = Vec::new();
    for value in [i64::MAX, i64::MIN + 1, AFTER, BEFORE] {
        cases.push(Arc::new(TimestampSecondArray::from(vec![0, value])));
        let millis = value.saturating_mul(1_000);
        cases.push(Arc::new(TimestampMillisecondArray::from(vec![0, millis])));
        let micros = value.saturating_mul(MICROS_PER_SECOND);
        cases.push(Arc::new(TimestampMicrosecondArray::from(vec![0, micros])));
    }
    cases.push(Arc::new(Date32Array::from(vec![0, i32::MAX])));
    cases.push(Arc::new(Date64Array::from(vec![0, i64::MAX])));
    for at in cases {
        let repository = Repository::new();
        let case = format!("{at:?}");
        repository.write("d/1.parquet", &columns(at, a(2), ints([1, 2].map(Some))));
        let error = refused(&repository, "d", &["1.parquet", "`at`", "row 1"]).await;
        assert!(error.to_string().contains("9999"), "{case}: {error}");
    }
    // All that nanoseconds can hold are instants.
    let repository = Repository::new();
    let at = TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX]);
    repository.write_grouped(
        "h.parquet",
        &columns(Arc::new(at), a(2), ints([1, 2].map(Some))),
        1,
    );
    let asked = entities(&[
        (A, i64::MIN.div_euclid(1_000) - 1),
        (A, i64::MIN.div_euclid(1_000)),
        (A, i64::MAX / 1_000 - 1),
        (A, i64::MAX / 1_000),
    ]);
    let plan = plan_of(&view("h.parquet"));
    repository.pruned(&plan, &asked).await;
    let found = repository.evaluated(&plan, &asked).await.unwrap();
    assert_eq!(
        values(&found.batch, "v__v"),
        [None, Some(1), Some(1), Some(2)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_is_named_where_ever_it_ends() {
    let repository = Repository::new();
    let rows: Vec<_> = (0..5_000)
        .map(|row| (A, Some(row), None, Some(row)))
        .collect();
    let path = repository.write("d/1.parquet", &history(&rows));
    repository.write("d/2.parquet", &history(&rows[..10]));
    let whole = fs::read(&path).unwrap();
    for length in [
        0,
        1,
        7,
        8,
        whole.len() / 2,
        whole.len() - 9,
        whole.len() - 8,
        whole.len() - 1,
    ] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&repository, "d", &["1.parquet"]).await;
        assert!(
            matches!(error, OfflineError::UnreadableFile { .. }),
            "{length}: {error}"
        );
    }
}

/// The rows of a view, as a materialization reads them.
async fn view_rows(repository: &Repository, view: &Arc<View>) -> Arc<dyn ExecutionPlan> {
    let (offline, components) = (&repository.offline, Components::new());
    let rows = offline.view_rows(view, &components, Arc::new(())).await;
    Arc::new(rows.unwrap())
}

/// What is done to a file.
type Change = fn(&PathBuf);

/// Changes a file, once, when the work comes to a stage; or when rows of that stage are done.
struct Meddler {
    stage: &'static str,
    after_rows: bool,
    change: Mutex<Option<(Change, PathBuf)>>,
    is_there: AtomicBool,
}

impl Meddler {
    fn meddle(&self) {
        if let Some((change, path)) = self.change.lock().unwrap().take() {
            change(&path);
        }
    }
}

impl Progress for Meddler {
    fn begin(&self, stage: &str, _: u64) {
        let is_there = stage.starts_with(self.stage);
        self.is_there.store(is_there, Ordering::SeqCst);
        if is_there && !self.after_rows {
            self.meddle();
        }
    }

    fn advance(&self, _: u64) {
        if self.after_rows && self.is_there.load(Ordering::SeqCst) {
            self.meddle();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_after_the_plan_was_made_is_an_error() {
    let changes: [(&str, Change); 3] = [
        ("other time", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
                .unwrap();
        }),
        ("other size, same time", |path| {
            let time = fs::metadata(path).unwrap().modified().unwrap();
            let mut bytes = fs::read(path).unwrap();
            bytes.push(0);
            fs::write(path, bytes).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(time).unwrap();
        }),
        ("truncated", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(100).unwrap();
        }),
    ];
    let stages = [
        ("reading the history", false, None),
        ("reading the features", false, None),
        // When all has been read already.
        ("reading the features", true, None),
        ("reading the history", false, Some(1)),
    ];
    let plan = plan_of(&view("d"));
    for (change, apply) in changes {
        for (stage, after_rows, memory_limit) in stages {
            let repository = Repository::with_settings(Settings {
                memory_limit,
                ..Settings::default()
            });
            let rows: Vec<_> = (0..5_000)
                .map(|row| (A, Some(row), None, Some(row)))
                .collect();
            let path = repository.write("d/1.parquet", &history(&rows));
            let entities = EntityRows::from_batch(&plan, &entities(&[(A, 6_000)])).unwrap();
            let progress = Meddler {
                stage,
                after_rows,
                change: Mutex::new(Some((apply, path))),
                is_there: AtomicBool::new(false),
            };
            let (evaluator, components) = (evaluator(&plan), Components::new());
            let progress = Arc::new(progress);
            let result = repository
                .offline
                .evaluated_rows(&evaluator, &components, &entities, &[], progress)
                .await;
            let error = result.unwrap_err();
            let case = format!("{change}, {stage} {after_rows} {memory_limit:?}: {error:?}");
            assert!(matches!(error, OfflineError::ChangedFile { .. }), "{case}");
            assert!(error.to_string().contains("1.parquet"), "{case}");
        }
        // What is read at once as well.
        let repository = Repository::new();
        let path = repository.write("d/1.parquet", &history(&[(A, Some(1), None, Some(1))]));
        let view = Arc::new(view("d"));
        let rows = view_rows(&repository, &view).await;
        apply(&path);
        let result = collect(rows, repository.offline.task_context()).await;
        let error = OfflineError::from(result.unwrap_err());
        assert!(
            matches!(error, OfflineError::ChangedFile { .. }),
            "{change}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_when_it_is_read_is_named() {
    let repository = Repository::new();
    let path = repository.write("d/1.parquet", &history(&[(A, Some(1), None, Some(1))]));
    let view = Arc::new(view("d"));
    let rows = view_rows(&repository, &view).await;
    fs::remove_file(path).unwrap();
    let result = collect(rows, repository.offline.task_context()).await;
    let error = OfflineError::from(result.unwrap_err()).to_string();
    assert!(error.contains("1.parquet"), "{error}");
}
