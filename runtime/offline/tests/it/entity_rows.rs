//! Entity rows from Parquet, CSV and memory: what is taken and what is refused.

use std::fs;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float64Array, ListArray, RecordBatch, StringViewArray,
};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Int32Type, Int64Type, Schema};
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_offline::{EntityRows, OfflineError, Settings};

use crate::repository::{INT64, Repository, batch, ints, key, plan_of, strings, times, view};

/// A plan with the join key `id` and the request fields `n` (int64) and `tags` (list of int64).
fn a_plan() -> FeaturePlan {
    let mut plan = plan_of(&view("h.parquet"));
    plan.request_fields = vec![
        Field::new("n", INT64),
        Field::new("tags", DataType::List(ScalarType::Int64)),
    ];
    plan
}

fn refused(plan: &FeaturePlan, batch: &RecordBatch) -> String {
    EntityRows::from_batch(plan, batch).unwrap_err().to_string()
}

#[test]
fn missing_columns_are_listed_with_those_there_are() {
    let rows = batch(vec![("n", ints([Some(1)])), ("ID", strings([Some("a")]))]);
    let error = refused(&a_plan(), &rows);
    for part in ["`event_timestamp`, `id`, `tags`", "`n`, `ID`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_null_event_timestamp_is_an_error_that_names_the_row() {
    let plan = plan_of(&view("h.parquet"));
    let rows = batch(vec![
        ("id", strings((0..20_000).map(|_| Some("a")))),
        (
            "event_timestamp",
            times((0..20_000).map(|row| (row != 9_000).then_some(row))),
        ),
    ]);
    let error = refused(&plan, &rows);
    assert!(
        error.contains("row 9000") && error.contains("event_timestamp"),
        "{error}"
    );
}

#[test]
fn a_value_that_does_not_fit_is_named_with_column_and_row() {
    let mut plan = a_plan();
    plan.request_fields.pop();
    let numbers: ArrayRef = Arc::new(Float64Array::from_iter_values(
        (0..10_000).map(|row| if row == 9_999 { 1.5 } else { 2.0 }),
    ));
    let rows = batch(vec![
        ("id", strings((0..10_000).map(|_| Some("a")))),
        ("event_timestamp", times((0..10_000).map(Some))),
        ("n", numbers),
    ]);
    let error = refused(&plan, &rows);
    for part in ["`n`", "row 9999", "1.5", "int64"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_column_with_the_name_of_an_output_is_an_error() {
    let plan = plan_of(&view("h.parquet"));
    let rows = batch(vec![
        ("id", strings([Some("a")])),
        ("event_timestamp", times([Some(1)])),
        ("v__v", ints([Some(1)])),
    ]);
    let error = refused(&plan, &rows);
    assert!(
        error.contains("`v__v`") && error.contains("full_feature_names"),
        "{error}"
    );
}

#[test]
fn two_columns_of_one_name_are_an_error() {
    let plan = plan_of(&view("h.parquet"));
    let fields = ["id", "event_timestamp", "id"];
    let arrays = vec![strings([Some("a")]), times([Some(1)]), strings([Some("b")])];
    let fields = fields.iter().zip(&arrays);
    let fields: Vec<_> = fields
        .map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true))
        .collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let error = refused(&plan, &rows);
    assert!(error.contains("two columns are called `id`"), "{error}");
}

#[tokio::test]
async fn csv_fields_are_read_in_the_types_of_the_plan_and_others_as_they_look() {
    let repository = Repository::new();
    let text = "\u{feff}id,event_timestamp,n,tags,label,when,note,empty\r\n\
        007,2001-03-01T12:00:00Z,9007199254740993,\"[1, null]\",1.5,2001-03-01,\"a, \"\"b\"\"\",\r\n\
        ,2001-03-01 12:00:00.000001,,,2,2001-03-02,,\r\n";
    let path = repository.write_text("rows.CSV", text);
    let rows = repository
        .offline
        .read_entity_rows(&a_plan(), &path)
        .await
        .unwrap();
    assert_eq!(rows.num_rows(), 2);
    let types: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    assert_eq!(
        types,
        [
            ArrowType::Utf8,
            ScalarType::Timestamp.arrow(),
            ArrowType::Int64,
            DataType::List(ScalarType::Int64).arrow(),
            ArrowType::Float64,
            ArrowType::Date32,
            ArrowType::Utf8,
            ArrowType::Utf8,
        ]
    );
}

#[tokio::test]
async fn csv_fields_that_another_type_would_change_stay_text() {
    let repository = Repository::new();
    for (fields, expected) in [
        (
            vec!["1", "-2", "", "0", "9223372036854775807"],
            ArrowType::Int64,
        ),
        (vec!["00712"], ArrowType::Utf8),
        (vec!["712", "", "00"], ArrowType::Utf8),
        (vec!["-07"], ArrowType::Utf8),
        (vec!["-0"], ArrowType::Utf8),
        (vec!["+1"], ArrowType::Utf8),
        (vec![" 1"], ArrowType::Utf8),
        (vec!["9223372036854775808"], ArrowType::Utf8),
        (
            vec!["0.5", "-0.25", ".5", "1e9", "3", "0", "NaN"],
            ArrowType::Float64,
        ),
        (vec!["1.5", "00712"], ArrowType::Utf8),
        (vec!["00.5"], ArrowType::Utf8),
        (vec!["-01.5"], ArrowType::Utf8),
        (vec!["1.5", "9007199254740992"], ArrowType::Float64),
        (vec!["1.5", "9007199254740993"], ArrowType::Utf8),
        (vec!["true", "False"], ArrowType::Boolean),
        (vec!["2001-02-28"], ArrowType::Date32),
        // It looks like a date.
        (vec!["2001-02-29"], ArrowType::Utf8),
    ] {
        // What decides comes late, after the first batch that is read.
        let lines = std::iter::repeat_n(fields[0], 9_000).chain(fields.iter().copied());
        let rows: String = lines
            .map(|field| format!("a,2001-03-01,1,,{field}\n"))
            .collect();
        let text = format!("id,event_timestamp,n,tags,own\n{rows}");
        let path = repository.write_text("rows.csv", &text);
        let rows = repository
            .offline
            .read_entity_rows(&a_plan(), &path)
            .await
            .unwrap();
        assert_eq!(rows.num_rows(), 9_000 + fields.len());
        let own = rows.schema().field_with_name("own").unwrap();
        assert_eq!(own.data_type(), &expected, "{fields:?}");
    }
}

#[tokio::test]
async fn csv_errors_name_file_column_row_and_value() {
    let repository = Repository::new();
    let header = "id,event_timestamp,n,tags\n";
    for (row, parts) in [
        (
            "a,yesterday,1,\n",
            ["`event_timestamp`", "row 1", "`yesterday`"],
        ),
        (
            "a,2001-03-01,9223372036854775808,\n",
            ["`n`", "row 1", "9223372036854775808"],
        ),
        ("a,2001-03-01,1,[x]\n", ["`tags`", "row 1", "[x]"]),
        ("a,,1,\n", ["event_timestamp", "row 1", "null"]),
    ] {
        let text = format!("{header}a,2001-03-01,1,[2]\n{row}");
        let path = repository.write_text("rows.csv", &text);
        let read = repository.offline.read_entity_rows(&a_plan(), &path).await;
        let error = read.unwrap_err().to_string();
        for part in parts.into_iter().chain(["rows.csv"]) {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    for (text, part) in [
        ("id,event_timestamp,n,tags\na,2001-03-01,1\n", "rows.csv"),
        ("id,event_timestamp,n,n\n", "two columns are called `n`"),
        ("", "no column `event_timestamp`"),
    ] {
        let path = repository.write_text("rows.csv", text);
        let read = repository.offline.read_entity_rows(&a_plan(), &path).await;
        let error = read.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_file_is_read_by_the_ending_of_its_name() {
    let repository = Repository::new();
    let plan = plan_of(&view("h.parquet"));
    let path = repository.write_text("rows.json", "{}");
    let error = repository
        .offline
        .read_entity_rows(&plan, &path)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(".parquet nor in .csv"),
        "{error}"
    );

    let missing = repository.path("none.parquet");
    let error = repository
        .offline
        .read_entity_rows(&plan, &missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OfflineError::Io { .. }), "{error}");
    assert!(error.to_string().contains("none.parquet"), "{error}");

    let rows = batch(vec![
        ("id", strings([Some("a")])),
        ("event_timestamp", times([Some(1)])),
    ]);
    let path = repository.write("rows.parquet", &rows);
    assert_eq!(
        repository
            .offline
            .read_entity_rows(&plan, &path)
            .await
            .unwrap()
            .num_rows(),
        1
    );
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let error = repository
        .offline
        .read_entity_rows(&plan, &path)
        .await
        .unwrap_err();
    assert!(
        matches!(error, OfflineError::UnreadableFile { .. }),
        "{error}"
    );
}

fn rows(ids: &[&str], at: i64) -> RecordBatch {
    batch(vec![
        ("id", strings(ids.iter().map(|id| Some(*id)))),
        ("event_timestamp", times(ids.iter().map(|_| Some(at)))),
    ])
}

fn ids(rows: &EntityRows) -> Vec<String> {
    let inputs = rows.inputs().unwrap();
    let ids = inputs.column_by_name("id").unwrap();
    let ids = ids.as_string::<i32>().iter();
    ids.map(|id| id.unwrap_or("null").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_folder_or_a_glob_are_one_table_in_the_order_of_their_paths() {
    let repository = Repository::new();
    let plan = plan_of(&view("h.parquet"));
    repository.write("rows/b.parquet", &rows(&["3"], 3));
    repository.write("rows/a/2.parquet", &rows(&["2"], 2));
    repository.write("rows/a/1.parquet", &rows(&["1", "1"], 1));
    repository.write("rows/_left_out.parquet", &rows(&["9"], 9));
    for path in ["rows", "rows/", "rows/**/*.parquet", "*/**/?.parquet"] {
        let path = repository.path(path);
        let read = repository
            .offline
            .read_entity_rows(&plan, &path)
            .await
            .unwrap();
        assert_eq!(ids(&read), ["1", "1", "2", "3"], "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_one_table_may_differ_by_a_widening_and_by_own_columns() {
    let repository = Repository::new();
    let plan = plan_of(&view("h.parquet"));
    let first = batch(vec![
        ("id", strings([Some("1")])),
        ("event_timestamp", times([Some(1)])),
        ("label", Arc::new(arrow::array::Int32Array::from(vec![7]))),
    ]);
    let second = batch(vec![
        ("label", ints([Some(1 << 40)])),
        ("event_timestamp", times([Some(2)])),
        ("note", strings([Some("x")])),
        (
            "id",
            Arc::new(arrow::array::StringViewArray::from(vec!["2"])),
        ),
    ]);
    repository.write("rows/1.parquet", &first);
    repository.write("rows/2.parquet", &second);
    repository.write("rows/3.parquet", &rows(&["3"], 3));
    let path = repository.path("rows");
    let read = repository
        .offline
        .read_entity_rows(&plan, &path)
        .await
        .unwrap();
    assert_eq!(ids(&read), ["1", "2", "3"]);
    let fields = read.schema().fields().iter();
    let fields: Vec<_> = fields
        .map(|f| (f.name().as_str(), f.data_type().clone()))
        .collect();
    let expected = [
        ("id", ArrowType::Utf8),
        ("event_timestamp", ScalarType::Timestamp.arrow()),
        ("label", ArrowType::Int64),
        ("note", ArrowType::Utf8),
    ];
    assert_eq!(fields, expected);

    // A column that the plan needs has to be in each of them.
    repository.write(
        "rows/4.parquet",
        &batch(vec![("event_timestamp", times([Some(1)]))]),
    );
    let error = repository
        .offline
        .read_entity_rows(&plan, &path)
        .await
        .unwrap_err();
    for part in ["4.parquet", "no column `id`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_several_files_name_the_file_at_fault() {
    let repository = Repository::new();
    let plan = plan_of(&view("h.parquet"));
    let read = async |path: &str| {
        let path = repository.path(path);
        let read = repository.offline.read_entity_rows(&plan, &path).await;
        read.unwrap_err().to_string()
    };
    let many: Vec<&str> = std::iter::repeat_n("1", 10_000).collect();
    repository.write("rows/1.parquet", &rows(&many, 1));
    let mut null = rows(&many, 1).columns().to_vec();
    null[1] = times((0..10_000).map(|row| (row != 9_000).then_some(1)));
    let schema = rows(&many, 1).schema();
    let null = RecordBatch::try_new(schema, null).unwrap();
    repository.write("rows/2.parquet", &null);
    let error = read("rows").await;
    for part in ["2.parquet`", "row 9000:", "event_timestamp is null"] {
        assert!(error.contains(part), "{part}: {error}");
    }

    let other = batch(vec![
        ("id", ints([Some(1)])),
        ("event_timestamp", times([Some(1)])),
    ]);
    repository.write("rows/2.parquet", &other);
    let error = read("rows").await;
    for part in ["`id`", "1.parquet", "Utf8", "2.parquet", "Int64"] {
        assert!(error.contains(part), "{part}: {error}");
    }

    let whole = fs::read(repository.path("rows/1.parquet")).unwrap();
    fs::write(repository.path("rows/2.parquet"), &whole[..whole.len() / 2]).unwrap();
    let error = read("rows").await;
    assert!(
        error.contains("cannot read") && error.contains("2.parquet"),
        "{error}"
    );

    fs::create_dir(repository.path("empty")).unwrap();
    fs::write(repository.path("empty/notes.txt"), "").unwrap();
    for path in ["empty", "none/*.parquet"] {
        let error = read(path).await;
        for part in [path, "no Parquet file is there"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn a_column_of_another_type_is_named_with_both_types() {
    let plan = plan_of(&view("h.parquet"));
    for (id, at, parts) in [
        (
            ints([Some(1)]),
            times([Some(1)]),
            ["`id`", "Int64", "string"],
        ),
        (
            strings([Some("a")]),
            Arc::new(Float64Array::from(vec![1.5])),
            ["`event_timestamp`", "Float64", "timestamp"],
        ),
    ] {
        let rows = batch(vec![("id", id), ("event_timestamp", at)]);
        let error = refused(&plan, &rows);
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn an_instant_that_overflows_is_an_error_and_no_other_instant() {
    let plan = plan_of(&view("h.parquet"));
    let at: ArrayRef = Arc::new(arrow::array::TimestampSecondArray::from(vec![0, i64::MAX]));
    let rows = batch(vec![
        ("id", strings([Some("a"), Some("b")])),
        ("event_timestamp", at),
    ]);
    let error = refused(&plan, &rows);
    for part in ["`event_timestamp`", "row 1", "9223372036854775807"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_memory_limit_are_read_back_as_they_were() {
    let dictionary: DictionaryArray<Int32Type> =
        (0..50_000).map(|row| ["x", "y", "z"][row % 3]).collect();
    let ids: Vec<String> = (0..50_000).map(|row| format!("id {row}")).collect();
    let table = batch(vec![
        ("id", Arc::new(StringViewArray::from_iter_values(&ids))),
        ("event_timestamp", times((0..50_000).map(Some))),
        (
            "n",
            Arc::new(Float64Array::from_iter_values((0..50_000).map(f64::from))),
        ),
        (
            "tags",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                (0..50_000).map(|row| Some(vec![Some(row), None])),
            )),
        ),
        ("kind", Arc::new(dictionary)),
    ]);
    let mut inputs = Vec::new();
    for memory_limit in [None, Some(1 << 20), Some(0)] {
        let repository = Repository::with_settings(Settings {
            memory_limit,
            ..Settings::default()
        });
        let path = repository.write_grouped("rows.parquet", &table, 12_345);
        let rows = repository
            .offline
            .read_entity_rows(&a_plan(), &path)
            .await
            .unwrap();
        assert_eq!(rows.num_rows(), 50_000);
        inputs.push(rows.inputs().unwrap());
    }
    assert_eq!(inputs[0].column(0), table.column(1));
    assert_eq!(inputs[0], inputs[1]);
    assert_eq!(inputs[0], inputs[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_folders_give_columns_in_the_types_that_the_plan_needs() {
    let repository = Repository::new();
    let mut by_number = view("h.parquet");
    by_number.keys = vec![key("id", ScalarType::Int64)];
    let plan = plan_of(&by_number);
    let at = |at| batch(vec![("event_timestamp", times([Some(at)]))]);
    repository.write("rows/id=7/country=CH/1.parquet", &at(1));
    repository.write("rows/id=11/country=A%20B/1.parquet", &at(2));
    let path = repository.path("rows");
    let read = repository.offline.read_entity_rows(&plan, &path);
    let read = read.await.unwrap();
    let inputs = read.inputs().unwrap();
    // In the order of paths.
    assert_eq!(
        inputs.column_by_name("id").unwrap(),
        &ints([Some(11), Some(7)])
    );
    let country = read.schema().field_with_name("country").unwrap();
    assert_eq!(country.data_type(), &ArrowType::Utf8);

    repository.write("rows/id=x/country=CH/1.parquet", &at(3));
    let error = repository.offline.read_entity_rows(&plan, &path).await;
    let error = error.unwrap_err().to_string();
    for part in ["`id`", "`x`", "id=x"] {
        assert!(error.contains(part), "{error}");
    }
}
